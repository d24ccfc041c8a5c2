"""`lamella index`: list slides, their pixel size and their tissue."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lamella.config import Request, Settings
from lamella.engine.jobs import JobSettings
from lamella.engine.rundir import claim
from lamella.errors import LamellaError
from lamella.slides.indexing import SlideFate, build_index
from lamella.slides.manifest import find_slides
from lamella.slides.tissue import TissueSettings
from lamella.verbs.slide_jobs import Selection, SlideRunner, refuse_unseen, say_failed, say_shard
from lamella.view.contact_sheet import draw_contact_sheet, sheet_entries

_SHOWN = 5  # reasons printed; failed.csv has them all


class Config(Settings):
    """Settings of `lamella index`."""

    tissue: TissueSettings = TissueSettings()
    """Tissue detection and given masks."""
    jobs: JobSettings = JobSettings()
    """Where the slides are done."""


def run(request: Request) -> int:
    """Index the slides; 1 if some of them cannot be used, 2 if none can."""
    resolved = request.resolve(Config)
    if not request.paths:
        raise LamellaError("lamella index", "no slides were given", "Give a manifest CSV, folders or slide files.")
    mpp = request.options.get("mpp")
    rows = find_slides(request.paths, mpp)
    selection = Selection.of(request)
    todo = selection.take([row.slide_id for row in rows], request.out)
    with_mask = sum(row.mask_path is not None for row in rows)
    print(f"{_count(rows)}: {with_mask} with a mask, {len(rows) - with_mask} whose tissue is to be computed")
    if part := selection.describe(len(todo), len(rows)):
        print(part)
    if request.dry_run:
        print(resolved.text())
        return 0
    out = request.folder()
    inputs = {"slides": [Path(os.path.relpath(path, out)).as_posix() for path in request.paths], "mpp": mpp}
    tree = resolved.tree()
    jobs = resolved.config.jobs
    shared = selection.shard is not None
    claimed = claim(out, tree, resolved.origins, verb="index", ignore=("jobs",), inputs=inputs, shared=shared)
    runner = SlideRunner(jobs, "index")
    matters = {key: value for key, value in tree.items() if key != "jobs"}  # kept in the index
    folder = claimed.folder.absolute()  # workers may stand elsewhere
    fates = build_index(rows, folder, resolved.config.tissue, matters, runner, todo, selection.mark)
    refuse_unseen([fate.slide.mask_path for fate in fates if fate.slide is not None], jobs)
    if not selection.shard:
        pages = draw_contact_sheet(sheet_entries(fates), folder / "contact_sheet.png")
        print(f"look at {out / pages[0].name}" + (f" to {pages[-1].name}" if len(pages) > 1 else ""))
    return _tell(fates, out, selection, runner)


def _tell(fates: Sequence[SlideFate], out: Path, selection: Selection, runner: SlideRunner) -> int:
    for fate in fates:
        if fate.note:
            print(f"note: {fate.note}")
    bad = [fate for fate in fates if fate.status != "ok"]
    for fate in bad[:_SHOWN]:
        print(f"{fate.status}: {fate.row.slide_id}: {fate.error}")
    if len(bad) > _SHOWN:
        print(f"... and {len(bad) - _SHOWN} more")
    counts = Counter(fate.status for fate in fates)
    area_mm2 = sum(fate.slide.tissue_area_mm2 for fate in fates if fate.slide is not None)
    print(
        f"wrote {out}: {counts['ok']} ok, {counts['failed']} failed, {counts['rejected']} rejected; "
        f"{area_mm2:.1f} mm2 of tissue"
    )
    log = runner.write_traces(out, selection.mark)
    if bad:
        say_failed(out, selection.mark, log)
    if selection.shard:
        say_shard(selection)
    elif not counts["ok"]:
        print("no usable slide remains")
        return 2
    else:
        print(f"next: lamella anchors {out} -o anchors")
    return 1 if bad else 0


def _count(rows: Sequence[object]) -> str:
    return "1 slide" if len(rows) == 1 else f"{len(rows)} slides"
