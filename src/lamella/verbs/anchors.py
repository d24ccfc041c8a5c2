"""`lamella anchors`: list the places on the slides to learn from."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from lamella.config import Request, Resolved, Settings
from lamella.engine.rundir import claim
from lamella.errors import LamellaError
from lamella.slides.anchors.anchor_csv import ImportedAnchors, export_csv
from lamella.slides.anchors.catalogue import Catalogue, index_hash, read_shard
from lamella.slides.anchors.cataloguing import (
    FAILED_FILE,
    REPORT_FILE,
    SlideAnchors,
    build_catalogue,
    grid_candidates,
    grid_size,
)
from lamella.slides.anchors.sampling import CrossSampling
from lamella.slides.anchors.targets import target_grid
from lamella.slides.index import IndexedSlide, SlideIndex
from lamella.verbs.progress import progress
from lamella.view.overlay import draw_anchor_overlay

_SHOWN = 5  # reasons printed; failed.csv has them all


class Config(Settings):
    """Settings of `lamella anchors`."""

    sampling: CrossSampling = CrossSampling()
    """The profile: contexts and targets."""
    qc: bool = True
    """Draw the anchors of each slide on its thumbnail, in the folder qc."""


def run(request: Request) -> int:
    """Make or import the catalogue; 1 if some slides have no anchors."""
    resolved = request.resolve(Config)
    sampling = resolved.config.sampling
    index, imported = _input(request, sampling)
    target_grid(sampling)  # refuses a profile whose targets cannot fit, before anything is written
    if imported is None:
        positions = sum(grid_size(slide.frame, sampling) for slide in index)
        print(f"slides: {len(index)}, positions: {positions}, profile: {sampling.profile_id}")
    else:
        print(f"anchors: {len(imported)}, slides: {len(imported.slide_ids)}, from {imported.path}")
    if request.dry_run:
        print(resolved.text())
        return 0
    out = request.folder()
    done = _build(out, resolved, index, imported)
    return _tell(done, out, request.options.get("csv"))


def _input(request: Request, sampling: CrossSampling) -> tuple[SlideIndex, ImportedAnchors | None]:
    """The index, and the anchors of a CSV file if one is imported."""
    given = request.options.get("index")
    if len(request.paths) != 1:
        raise LamellaError(
            "lamella anchors", f"it takes one path, not {len(request.paths)}", "Give an index folder, or an anchor CSV."
        )
    path = request.paths[0]
    if path.suffix.lower() != ".csv":
        return SlideIndex.load(path), None
    if given is None:
        raise LamellaError(path, "an imported catalogue needs the index of its slides", "Add `--index INDEX_FOLDER`.")
    index = SlideIndex.load(given)
    return index, ImportedAnchors(path, index, sampling)


def _build(
    out: Path, resolved: Resolved[Config], index: SlideIndex, imported: ImportedAnchors | None
) -> list[SlideAnchors]:
    inputs = {"index": index_hash(index.folder)}
    slides = index
    if imported is not None:
        with open(imported.path, "rb") as file:
            inputs["csv"] = hashlib.file_digest(file, "sha256").hexdigest()[:16]
        slides = SlideIndex(index.folder, tuple(index[slide_id] for slide_id in imported.slide_ids), index.tree)
    claim(out, resolved.tree(), resolved.origins, verb="anchors", inputs=inputs)
    sampling = resolved.config.sampling

    def draw(slide: IndexedSlide, shard: Path) -> None:
        columns = read_shard(shard)
        centers = np.stack([columns["center_x_px0"], columns["center_y_px0"]], axis=1)
        draw_anchor_overlay(slide, centers, sampling, _picture(out, slide.slide_id))

    def follow(slides: Sequence[IndexedSlide]) -> Iterator[IndexedSlide]:
        yield from progress(slides, "anchors")

    return build_catalogue(
        slides,
        sampling,
        out,
        grid_candidates if imported is None else imported.candidates,
        follow,
        draw if resolved.config.qc else None,
    )


def _picture(out: Path, slide_id: str) -> Path:
    return out / "qc" / f"{slide_id}.png"


def _tell(done: Sequence[SlideAnchors], out: Path, csv: Path | None) -> int:
    for part in [part for part in done if part.reason][:_SHOWN]:
        print(f"{part.status}: {part.slide_id}: {part.reason}")
    counts = Counter(part.status for part in done)
    total = sum(part.anchors for part in done)
    print(
        f"wrote {out}: {total} anchors, slides with anchors: {sum(part.anchors > 0 for part in done)}; "
        f"{counts['ok']} ok, {counts['skipped']} skipped, {counts['failed']} failed (details: {out / REPORT_FILE})"
    )
    if counts["failed"]:
        print(f"reasons: {out / FAILED_FILE}")
    if not total:
        print("no anchor remains")
        return 1
    if csv is not None:
        export_csv(Catalogue.load(out), csv)
        print(f"wrote {csv}")
    print(f"next: lamella preview {out} -o previews")
    return 1 if counts["failed"] else 0
