"""From a manifest to a study of expression. All that is wrong with the manifest and the images is told at once.

What is in the expression files is told by `lamella expression check`, which reads them all; here one is read at most,
to learn whether the study is of bins or of spots.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from lamella.data.bin_pooling import pooled
from lamella.data.expression import ExpressionSlide, ExpressionStudy, Kind
from lamella.data.expression_digest import path_digest
from lamella.data.expression_settings import ExpressionDataSettings
from lamella.data.lopo import patient_problems
from lamella.errors import LamellaError, ResolutionError
from lamella.formats.digests import ends_digest
from lamella.formats.expression_source import read_expression
from lamella.formats.spatial_counts import ExpressionError, SpatialCounts
from lamella.formats.visium_hd import is_visium_hd
from lamella.geometry import Frame
from lamella.imaging.datasets.problems import named, refuse
from lamella.slides.manifest import ManifestRow, find_slides
from lamella.slides.slide import open_slide

__all__ = ["load_expression", "open_expression"]

_REMEDY = "Correct the manifest or the files; nothing is left out or put in its place in silence."
_SAME_UM = 1e-3  # two sizes of a bin that differ by less than this are the same, written with other digits
# Of spots: fewer bins would let the disk's edge decide what is seen. Even, so that networks can halve it.
_LEAST_TILE_OF_SPOT = 4


def open_expression(settings: ExpressionDataSettings, seed: int = 0) -> ExpressionStudy:
    """Assemble the study.

    Args:
        settings: Where the manifest lies, and what is predicted.
        seed: Opening draws nothing; every study is opened with one.

    Raises:
        DatasetProblems: All problems of manifest, images, patients and paths.
        LamellaError: The manifest cannot be read, or the first slide's expression cannot.
    """
    rows = find_slides([settings.slides])
    problems: list[str] = []
    slides = tuple(slide for row in sorted(rows, key=lambda row: row.slide_id) for slide in _slide(row, problems))
    folds = {row.slide_id: row.metadata["fold"] for row in rows if "fold" in row.metadata}
    problems += patient_problems({slide.slide_id: slide.patient for slide in slides}, folds)
    problems += _copied(slides)
    refuse(settings.slides, problems, _REMEDY)
    slides = tuple(_with_load(slide, settings.bin_um) for slide in slides)
    kind, size_um = _kind_and_size(slides[0], settings.kind)
    return ExpressionStudy(slides, kind, settings.bin_um, tile_of(kind, settings, size_um), _notes(slides))


def load_expression(path: Path, mpp: tuple[float, float], bin_um: float, name: str) -> SpatialCounts:
    """Read a slide's expression, bins pooled to `bin_um` where the source has none of this size.

    Raises:
        ExpressionError: It cannot be read, or its bins cannot be pooled to this size.
        LamellaError: See the readers.
    """
    counts = read_expression(path, mpp=mpp, bin_um=bin_um, name=name)
    if counts.shape == "spot" or abs(counts.size_um - bin_um) <= _SAME_UM:
        return counts
    factor = round(bin_um / counts.size_um)
    if factor < 1 or abs(factor * counts.size_um - bin_um) > _SAME_UM:
        raise ExpressionError(
            path,
            f"its bins are of {counts.size_um:g} um, and bins of {bin_um:g} um are no whole number of them",
            f"Set data.bin_um to a multiple of {counts.size_um:g}.",
        )
    return pooled(counts, factor)


def tile_of(kind: Kind, settings: ExpressionDataSettings, spot_um: float | None = None) -> int:
    """Bins along the side of a sample: as set, or of spots the least even number that covers a disk."""
    if kind == "bin" or spot_um is None:
        return settings.tile_bins
    bins = max(_LEAST_TILE_OF_SPOT, math.ceil(spot_um / settings.bin_um - _SAME_UM))
    return bins + bins % 2


# ---- one slide ------------------------------------------------------------------------------------------------------


def _slide(row: ManifestRow, problems: list[str]) -> Iterator[ExpressionSlide]:
    """The slide of a row without a way to load it yet; none, and the reasons, where something is wrong."""
    expression, patient = row.metadata.get("expression_path", ""), row.metadata.get("patient", "")
    frame = _frame(row, problems)
    if not expression:
        problems.append(f"{row.slide_id}: no expression_path is given")
    elif not Path(expression).exists():
        problems.append(f"{row.slide_id}: there is no {expression} (expression_path)")
        expression = ""
    if not patient:
        problems.append(f"{row.slide_id}: no patient is given, and splits are by patient")
    if frame is not None and expression and patient:
        own = Path(expression), row.mask_path, row.mask_mpp
        yield ExpressionSlide(row.slide_id, row.wsi_path, frame, patient, _not_yet, *own)


def _frame(row: ManifestRow, problems: list[str]) -> Frame | None:
    """Level 0 of the image; None where it cannot be opened, and the reason is a problem."""
    try:
        with open_slide(row.wsi_path, mpp=row.mpp) as slide:
            return slide.frame
    except ResolutionError as error:
        problems.append(
            f"{row.slide_id}: {error.thing}: {error.cause}; state it in the manifest's column mpp (of Visium HD it is "
            "microns_per_pixel in scalefactors_json.json)"
        )
    except LamellaError as error:
        problems.append(f"{row.slide_id}: {error}")
    return None


def _not_yet() -> SpatialCounts:
    raise RuntimeError("this slide was not given a way to load its expression")


def _with_load(slide: ExpressionSlide, bin_um: float) -> ExpressionSlide:
    assert slide.expression_path is not None
    # A plain function and its arguments: worker processes are sent it.
    load = partial(load_expression, slide.expression_path, slide.mpp_stated, bin_um, slide.slide_id)
    return replace(slide, load=load)


# ---- the whole ------------------------------------------------------------------------------------------------------


def _copied(slides: Sequence[ExpressionSlide]) -> list[str]:
    """Images or expression that stand under two slides: a copy could be in training and in test."""
    problems = []
    for what, digest_of in (("image", _image_digest), ("expression", _expression_digest)):
        by_content = defaultdict(list)
        for slide in slides:
            by_content[digest_of(slide)].append(slide)
        problems += [
            f"{named([slide.slide_id for slide in same])} have the same {what} (patients "
            f"{named(sorted({slide.patient for slide in same}))})"
            for same in by_content.values()
            if len(same) > 1
        ]
    return problems


def _image_digest(slide: ExpressionSlide) -> str:
    return ends_digest(slide.wsi_path)


def _expression_digest(slide: ExpressionSlide) -> str:
    assert slide.expression_path is not None
    return path_digest(slide.expression_path)


def _kind_and_size(first: ExpressionSlide, stated: Kind | None) -> tuple[Kind, float | None]:
    """The kind of a study, and the diameter of its spots. Bins are not read for it: that may take a minute.

    Raises:
        ExpressionError: The first slide holds something else than is stated.
    """
    assert first.expression_path is not None
    if stated == "bin" or (stated is None and is_visium_hd(first.expression_path)):
        return "bin", None
    counts = first.counts
    if stated is not None and counts.shape != stated:
        raise ExpressionError(
            counts.source, f"it holds {counts.shape}s, and data.kind says {stated}", "Set data.kind=null."
        )
    return counts.shape, counts.size_um


def _notes(slides: Sequence[ExpressionSlide]) -> tuple[str, ...]:
    patients = sorted({slide.patient for slide in slides})
    if len(patients) <= 3:
        return (
            f"{len(patients)} patients: what is measured describes these patients and allows no claim of significance",
        )
    return ()
