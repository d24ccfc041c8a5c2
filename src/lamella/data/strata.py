"""Which slides take part in training, and how often: held-out groups stay out, strata weigh the same."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from lamella.data.order import StratifiedOrder
from lamella.errors import LamellaError
from lamella.slides.anchors.catalogue import Catalogue
from lamella.slides.index import IndexedSlide


def training_order(
    catalogue: Catalogue, seed: int, *, exclude_split: str | None = None, balance_by: str | None = None
) -> StratifiedOrder:
    """The order in which a catalogue's anchors are drawn.

    Args:
        catalogue: The anchors.
        seed: Seed of the permutations.
        exclude_split: Slides whose `split` is this are left out, and so is every slide of their patients.
        balance_by: Metadata column; each of its values is drawn equally often.

    Raises:
        LamellaError: No anchor is left, or a slide has no value in `balance_by`.
    """
    kept = training_slides(catalogue.index, exclude_split)
    strata: dict[str, list[range]] = {}
    for slide_id, first_row, rows in catalogue.shards:
        if slide_id in kept and rows:
            stratum = "" if balance_by is None else _stratum(kept[slide_id], balance_by)
            strata.setdefault(stratum, []).append(range(first_row, first_row + rows))
    if not strata:
        raise LamellaError(
            "anchor catalogue",
            f"none of its {len(catalogue)} anchors is left for training",
            "Build anchors for more slides, or change data.exclude_split.",
        )
    return StratifiedOrder([strata[name] for name in sorted(strata)], seed)


def training_slides(slides: Iterable[IndexedSlide], exclude_split: str | None) -> dict[str, IndexedSlide]:
    """Slide id -> slide of those that share neither the excluded split nor a patient with it."""
    slides = list(slides)
    if exclude_split is None:
        return {slide.slide_id: slide for slide in slides}
    held_out = [slide for slide in slides if slide.metadata.get("split") == exclude_split]
    slide_ids = {slide.slide_id for slide in held_out}
    patients = {slide.metadata["patient"] for slide in held_out if slide.metadata.get("patient")}
    return {
        slide.slide_id: slide
        for slide in slides
        if slide.slide_id not in slide_ids and slide.metadata.get("patient") not in patients
    }


def _stratum(slide: IndexedSlide, column: str) -> str:
    value = slide.metadata.get(column)
    if value:
        return value
    near = difflib.get_close_matches(column, slide.metadata, n=1)
    columns = ", ".join(slide.metadata) or "none"
    raise LamellaError(
        slide.slide_id,
        f"it has no `{column}`, by which the draw is to be balanced (data.balance_by)",
        f"Did you mean {near[0]}?" if near else f"Fill that manifest column for every slide; its columns: {columns}.",
    )
