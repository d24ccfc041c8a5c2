"""`lamella anchors`: list the places on the slides to learn from."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from lamella.config import Request, Resolved, Settings
from lamella.engine.jobs import JobSettings
from lamella.engine.rundir import claim
from lamella.errors import LamellaError
from lamella.slides.anchors.anchor_csv import ImportedAnchors, export_csv
from lamella.slides.anchors.catalogue import Catalogue, index_hash, read_shard
from lamella.slides.anchors.cataloguing import (
    REPORT_FILE,
    SlideAnchors,
    Source,
    build_catalogue,
    grid_candidates,
    grid_size,
)
from lamella.slides.anchors.sampling import CrossSampling
from lamella.slides.anchors.targets import target_grid
from lamella.slides.index import IndexedSlide, SlideIndex
from lamella.verbs.slide_jobs import Selection, SlideRunner, refuse_unseen, say_failed, say_shard
from lamella.view.overlay import draw_anchor_overlay

_SHOWN = 5  # reasons printed; failed.csv has them all


class Config(Settings):
    """Settings of `lamella anchors`."""

    sampling: CrossSampling = CrossSampling()
    """The profile: contexts and targets."""
    qc: bool = True
    """Draw the anchors of each slide on its thumbnail, in the folder qc."""
    jobs: JobSettings = JobSettings()
    """Where the slides are done."""


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
    selection = Selection.of(request)
    slides = list(index.slides) if imported is None else [index[slide_id] for slide_id in imported.slide_ids]
    todo = selection.take([slide.slide_id for slide in slides], request.out)
    if part := selection.describe(len(todo), len(slides)):
        print(part)
    if request.dry_run:
        print(resolved.text())
        return 0
    out, runner = request.folder(), SlideRunner(resolved.config.jobs, "anchors")
    listed = SlideIndex(index.folder, tuple(slides), index.tree)
    done = _build(out, resolved, listed, imported, runner, todo, selection)
    return _tell(done, out, request.options.get("csv"), selection, runner)


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
    out: Path,
    resolved: Resolved[Config],
    index: SlideIndex,
    imported: ImportedAnchors | None,
    runner: SlideRunner,
    todo: Sequence[str],
    selection: Selection,
) -> list[SlideAnchors]:
    inputs = {"index": index_hash(index.folder)}
    if imported is not None:
        with open(imported.path, "rb") as file:
            inputs["csv"] = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    tree, shared = resolved.tree(), selection.shard is not None
    claimed = claim(out, tree, resolved.origins, verb="anchors", ignore=("jobs",), inputs=inputs, shared=shared)
    sampling, folder = resolved.config.sampling, claimed.folder.absolute()  # workers may stand elsewhere
    done = build_catalogue(
        index,
        sampling,
        folder,
        _source_of(imported),
        runner,
        partial(_draw, sampling=sampling, out=folder) if resolved.config.qc else None,
        todo,
        selection.mark,
    )
    refuse_unseen([folder / part.shard_file for part in done if part.anchors], resolved.config.jobs)
    return done


def _source_of(imported: ImportedAnchors | None) -> Callable[[str], Source]:
    if imported is None:
        return lambda slide_id: grid_candidates
    return lambda slide_id: imported.only(slide_id).candidates


def _draw(slide: IndexedSlide, shard: Path, *, sampling: CrossSampling, out: Path) -> None:
    columns = read_shard(shard)
    centers = np.stack([columns["center_x_px0"], columns["center_y_px0"]], axis=1)
    draw_anchor_overlay(slide, centers, sampling, _picture(out, slide.slide_id))


def _picture(out: Path, slide_id: str) -> Path:
    return out / "qc" / f"{slide_id}.png"


def _tell(done: Sequence[SlideAnchors], out: Path, csv: Path | None, selection: Selection, runner: SlideRunner) -> int:
    for part in [part for part in done if part.reason][:_SHOWN]:
        print(f"{part.status}: {part.slide_id}: {part.reason}")
    counts = Counter(part.status for part in done)
    total = sum(part.anchors for part in done)
    print(
        f"wrote {out}: {total} anchors, slides with anchors: {sum(part.anchors > 0 for part in done)}; "
        f"{counts['ok']} ok, {counts['skipped']} skipped, {counts['failed']} failed"
        + ("" if selection.shard else f" (details: {out / REPORT_FILE})")
    )
    log = runner.write_traces(out, selection.mark)
    if counts["failed"]:
        say_failed(out, selection.mark, log)
    if selection.shard:
        say_shard(selection)
        return 1 if counts["failed"] else 0
    if not total:
        print("no anchor remains")
        return 1
    if csv is not None:
        export_csv(Catalogue.load(out), csv)
        print(f"wrote {csv}")
    print(f"next: lamella preview {out} -o previews")
    return 1 if counts["failed"] else 0
