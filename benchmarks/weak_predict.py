"""Stage 5 of `lamella weak` beside the dense engine alone: how much of the engine's speed is left with all its files.

    python -m benchmarks.weak_predict [--side 3200] [--rounds 3] [--model mit|efficientnet]

The engine alone makes the two rasters. Stage 5 makes the same, refines them (closing, small pieces, as by default), and
writes mask, confidence maps, outlines, picture, tiles and metadata. Each round does both, in turn the other first.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.predicting import MPP, write_repeating_slide
from lamella.dense.engine import DenseSettings, predict_slide
from lamella.dense.exports import ExportSettings
from lamella.dense.runtime import Runtime
from lamella.models.prototype_segmenter import PrototypeSegmenter
from lamella.models.prototypes import random_prototypes
from lamella.models.weak_building import WeakModelSettings, make_weak_model
from lamella.slides.manifest import find_slides
from lamella.slides.slide import open_slide
from lamella.verbs.weak_stages.prediction_job import SegmentSlide, ToSegment
from lamella.verbs.weak_stages.prediction_settings import PredictionSettings

CLASSES, TILE_PX = ("tumor", "stroma", "lymphocytes", "necrosis"), 224
NO_FILES = ExportSettings(label_tiff=False, geojson=False)
WAYS = {
    "stage 5": {},
    "stage 5 without refinement": {"refine": {"morphological_op": "none", "min_component_size": 0}},
}


def network(kind: str) -> PrototypeSegmenter:
    backbone = {"name": "segformer"} if kind == "mit" else {"name": "efficientnet"}
    settings = WeakModelSettings.model_validate({"backbone": backbone, "from_scratch": kind == "mit"})
    prototypes = random_prototypes((*CLASSES, "background"), (3,) * (len(CLASSES) + 1), 512, seed=0)
    return make_weak_model(
        settings, prototypes, classes=CLASSES, background="background", mpp=MPP, tile_px=TILE_PX, name=kind
    )


def engine_alone(model: PrototypeSegmenter, slide: Path, folder: Path, settings: PredictionSettings) -> float:
    dense: DenseSettings = settings.dense(everywhere=True, within=False)
    with open_slide(slide) as opened:
        began = time.perf_counter()
        predict_slide(
            model,
            opened,
            folder,
            dense,
            runtime=Runtime(batch_size=settings.batch_size, threads=settings.threads),
            exports=NO_FILES,
        )
        return time.perf_counter() - began


def stage_5(model: PrototypeSegmenter, slide: Path, folder: Path, settings: PredictionSettings) -> tuple[float, int]:
    work = SegmentSlide("", model.fingerprint, folder, CLASSES, "slide", settings, everywhere=True, model=model)
    (listed,) = find_slides([slide])
    began = time.perf_counter()
    facts = work(ToSegment(listed, None))
    return time.perf_counter() - began, int(facts["num_patches"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=3200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", choices=["mit", "efficientnet"], default="mit")
    given = parser.parse_args()
    torch.manual_seed(0)
    model = network(given.model)
    seconds: dict[str, list[float]] = {name: [] for name in ("the engine alone", *WAYS)}
    tiles = 0
    for turn in range(given.rounds + 1):
        with tempfile.TemporaryDirectory() as place:
            slide = Path(place) / "slide.tif"
            write_repeating_slide(slide, given.side, given.side)
            names = list(seconds) if turn % 2 else list(reversed(seconds))
            for name in names:
                settings = PredictionSettings.model_validate({"device": "cpu", **WAYS.get(name, {})})
                if name in WAYS:
                    took, tiles = stage_5(model, slide, Path(place) / name, settings)
                else:
                    took = engine_alone(model, slide, Path(place) / name, settings)
                if turn:  # the first is for warming up
                    seconds[name].append(took)
    alone = seconds["the engine alone"]
    print(
        f"{given.model}, {given.side} x {given.side} px from a JPEG TIFF, {tiles} tiles of {TILE_PX} px, "
        f"{len(CLASSES) + 1} channels: the dense engine alone {tiles / statistics.median(alone):.2f} tiles/s"
    )
    for name in WAYS:
        ratios = [one / other for one, other in zip(alone, seconds[name], strict=True)]
        print(
            f"{name}: {tiles / statistics.median(seconds[name]):.2f} tiles/s, {statistics.median(ratios):.3f} of the "
            f"engine's speed ({min(ratios):.3f} to {max(ratios):.3f}), n {given.rounds}"
        )


if __name__ == "__main__":
    main()
