"""`lamella weak predict` killed in mid-slide, or on a disk that fills up there; compared with an undisturbed run.

    python -m tests.faults.weak_predicting FOLDER kill [--kills 5]
    unshare -rm python -m tests.faults.weak_predicting FOLDER disk [--steps 3]

Prints one JSON object; ends with 1 if a fault is not answered.
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml
from tests.conftest import textured, write_pyramid
from tests.faults.predicting import StoppedClock, main
from tests.models.tiny_weak import CLASSES, tiny_weak

import lamella.dense.engine
import lamella.verbs.weak
import lamella.verbs.weak_stages.prediction_job
from lamella.formats.tables import write_csv
from lamella.models.weak_hub import save_weak


def prepare(folder: Path) -> None:
    """A study, a new slide of three bands, one that cannot be read, and a model."""
    for name in ("new", "own"):
        (folder / name).mkdir(parents=True)
    write_pyramid(folder / "new" / "s.tif", textured(1300, 600), mpp=0.5, levels=2)
    (folder / "new" / "torn.tif").write_bytes(b"II*\0torn")
    write_pyramid(folder / "own" / "t.tif", textured(300, 420), mpp=0.5, levels=1)
    row = {"slide_id": "t", "wsi_path": "own/t.tif", "split": "train", **dict.fromkeys(CLASSES, "1")}
    write_csv(folder / "manifest.csv", [row], list(row))
    save_weak(tiny_weak(), folder / "model", "# card", record=None)
    # Small pieces go: a random network makes thousands of them, and a TIFF of 0.8 megapixels counts as large.
    predict = {
        "model": str(folder / "model"),
        "overlap_ratio": 0.25,
        "small_mpx": 0.1,
        "device": "cpu",
        "refine": {"min_component_size": 500, "edge_refinement": True},
    }
    data = {"slides": [str(folder / "manifest.csv")], "labels_are": "slide", "tile_px": 64, "mpp": 0.5}
    study = {"class_order": list(CLASSES), "data": data, "predict": predict}
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    stop_the_clock()


def stop_the_clock() -> None:
    """Files that tell the time and how long it took would differ."""
    lamella.dense.engine.time = StoppedClock  # type: ignore[assignment]
    lamella.verbs.weak_stages.prediction_job.time = StoppedClock  # type: ignore[assignment]
    lamella.verbs.weak_stages.prediction_job.now = lambda: "2026-01-12T14:30:00Z"


def command(folder: Path) -> list[str]:
    return ["weak", "predict", str(folder / "study.yaml"), str(folder / "new"), "-o", str(folder / "weak")]


if __name__ == "__main__":
    sys.exit(main("weak", prepare, command))
