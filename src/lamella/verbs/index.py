"""`lamella index`: list slides, their pixel size and their tissue."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lamella.config import Request, Settings
from lamella.engine.rundir import claim
from lamella.errors import LamellaError
from lamella.slides.indexing import FAILED_FILE, SlideFate, build_index
from lamella.slides.manifest import find_slides
from lamella.slides.tissue import TissueSettings
from lamella.verbs.progress import progress

_SHOWN = 5  # reasons printed; failed.csv has them all


class Config(Settings):
    """Settings of `lamella index`."""

    tissue: TissueSettings = TissueSettings()
    """Tissue detection and given masks."""


def run(request: Request) -> int:
    """Index the slides; 1 if some of them cannot be used, 2 if none can."""
    resolved = request.resolve(Config)
    if not request.paths:
        raise LamellaError("lamella index", "no slides were given", "Give a manifest CSV, folders or slide files.")
    mpp = request.options.get("mpp")
    rows = find_slides(request.paths, mpp)
    with_mask = sum(row.mask_path is not None for row in rows)
    print(f"{_count(rows)}: {with_mask} with a mask, {len(rows) - with_mask} whose tissue is to be computed")
    if request.dry_run:
        print(resolved.text())
        return 0
    out = request.folder()
    inputs = {"slides": [Path(os.path.relpath(path, out)).as_posix() for path in request.paths], "mpp": mpp}
    tree = resolved.tree()
    claim(out, tree, resolved.origins, verb="index", inputs=inputs)
    fates = build_index(rows, out, resolved.config.tissue, tree, lambda rows: progress(rows, "index"))
    return _tell(fates, out)


def _tell(fates: Sequence[SlideFate], out: Path) -> int:
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
    if bad:
        print(f"reasons: {out / FAILED_FILE}; mend them and run the same command: finished slides are kept")
    if not counts["ok"]:
        print("no usable slide remains")
        return 2
    print(f"next: lamella anchors {out} -o anchors")
    return 1 if bad else 0


def _count(rows: Sequence[object]) -> str:
    return "1 slide" if len(rows) == 1 else f"{len(rows)} slides"
