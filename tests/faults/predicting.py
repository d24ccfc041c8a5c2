"""`lamella predict` killed in mid-slide, and on a disk that fills up in mid-slide; compared with an undisturbed run.

    python -m tests.faults.predicting FOLDER kill [--kills 5]
    unshare -rm python -m tests.faults.predicting FOLDER disk [--steps 3]

Prints one JSON object; ends with 1 if a fault is not answered.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from tests.conftest import textured, write_pyramid
from tests.faults.disks import WIDE, fill, mount, read_only
from tests.faults.kill_and_resume import torture
from tests.models.tiny_segmenters import tiny_segmenter

import lamella.dense.engine
import lamella.verbs.predict
from lamella.models.segmenter_hub import save_segmenter


class StoppedClock:
    """prediction.json tells how long it took, which is the one thing that differs."""

    @staticmethod
    def monotonic() -> float:
        return 0.0


def prepare(folder: Path) -> None:
    """A slide of three bands, one that cannot be read, and a model."""
    (folder / "slides").mkdir(parents=True)
    write_pyramid(folder / "slides" / "s.tif", textured(1300, 600), mpp=1.0, levels=2)
    (folder / "slides" / "torn.tif").write_bytes(b"II*\0torn")
    save_segmenter(tiny_segmenter(), folder / "model", "# card", record=None)
    lamella.dense.engine.time = StoppedClock  # type: ignore[assignment]


def command(folder: Path) -> list[str]:
    """Small pieces are left out of the outlines: a random network makes thousands."""
    slides, model = str(folder / "slides"), str(folder / "model")
    settings = ("tile_px=128", "exports.min_area_um2=2000", "exports.probability_tiff=true", "overlay=false")
    return ["predict", model, slides, "-o", str(folder / "predict"), *settings]


def main(verb: str, prepare: Callable[[Path], None], command: Callable[[Path], list[str]]) -> int:
    """Torture a verb as the command line asks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("fault", choices=["kill", "disk"])
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.fault == "kill":
        prepare(given.folder)
        tally = torture(verb, command(given.folder), given.folder, given.kills, random.Random(given.seed))
        print(json.dumps(asdict(tally)), flush=True)
        return int(bool(tally.differences))
    disk = given.folder / "disk"
    disk.mkdir(parents=True)
    mount(f"size={WIDE}", disk)
    prepare(disk)
    wrong = fill(verb, command(disk), disk, given.steps) + read_only(verb, command(disk), disk)
    print(json.dumps({"wrong": wrong}), flush=True)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main("predict", prepare, command))
