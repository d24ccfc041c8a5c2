"""Stage 5 of `lamella weak` beside the dense engine: how much of the engine's speed is left.

    python benchmarks/weak_predict.py [--side 4800] [--rounds 3] [--model mit|efficientnet]

rasters: the engine's two rasters and nothing else. predict: what `lamella predict` makes of them too: label TIFF,
outlines, picture. stage 5: mask, confidence maps, outlines, picture, table of tiles; with the source's post-processing
(closing, edges, small pieces) and without. Each round does all, every other round in the opposite order.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from lamella.dense.engine import predict_slide
from lamella.dense.exports import ExportSettings
from lamella.dense.runtime import Runtime
from lamella.models.prototype_segmenter import PrototypeSegmenter
from lamella.models.prototypes import random_prototypes
from lamella.models.weak_building import make_weak_model
from lamella.models.weak_settings import WeakModelSettings
from lamella.slides.manifest import find_slides
from lamella.slides.slide import open_slide
from lamella.verbs.prediction import PredictSlide, ToPredict
from lamella.verbs.weak_stages.prediction_job import SegmentSlide, ToSegment
from lamella.verbs.weak_stages.prediction_settings import PredictionSettings
from lamella.view.class_colours import class_colours
from predicting import MPP, write_repeating_slide

CLASSES, TILE_PX = ("tumor", "stroma", "lymphocytes", "necrosis"), 224
PLAIN = {"morphological_op": "none", "min_component_size": 0, "edge_refinement": False}
STAGE_5: dict[str, dict[str, Any]] = {"stage 5 without post-processing": {"refine": PLAIN}, "stage 5": {}}
BESIDE = ("rasters", "predict")


def network(kind: str) -> PrototypeSegmenter:
    backbone = {"name": "segformer"} if kind == "mit" else {"name": "efficientnet"}
    settings = WeakModelSettings.model_validate({"backbone": backbone, "from_scratch": kind == "mit"})
    prototypes = random_prototypes((*CLASSES, "background"), (3,) * (len(CLASSES) + 1), 512, seed=0)
    return make_weak_model(
        settings, prototypes, classes=CLASSES, background="background", mpp=MPP, tile_px=TILE_PX, name=kind
    )


def rasters(model: PrototypeSegmenter, slide: Path, folder: Path, settings: PredictionSettings) -> float:
    with open_slide(slide) as opened:
        began = time.perf_counter()
        predict_slide(
            model,
            opened,
            folder,
            settings.dense(everywhere=True, within=False),
            runtime=Runtime(batch_size=settings.batch_size, threads=settings.threads),
            exports=ExportSettings(label_tiff=False, geojson=False),
        )
        return time.perf_counter() - began


def predict(model: PrototypeSegmenter, slide: Path, folder: Path, settings: PredictionSettings) -> float:
    work = PredictSlide(
        spec="",
        fingerprint=model.fingerprint,
        folder=folder,
        settings=settings.dense(everywhere=True, within=False),
        exports=ExportSettings(),
        colours=class_colours(model.contract.channels),
        overlay=True,
        dct_scaling=False,
        batch_size=settings.batch_size,
        threads=settings.threads,
        device="cpu",
        precision="fp32",
        model=model,
    )
    began = time.perf_counter()
    work(ToPredict("slide", slide, None))
    return time.perf_counter() - began


def stage_5(model: PrototypeSegmenter, slide: Path, folder: Path, settings: PredictionSettings) -> tuple[float, int]:
    work = SegmentSlide("", model.fingerprint, folder, CLASSES, "slide", settings, everywhere=True, model=model)
    (listed,) = find_slides([slide])
    began = time.perf_counter()
    facts = work(ToSegment(listed, None))
    return time.perf_counter() - began, int(facts["num_patches"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=4800)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", choices=["mit", "efficientnet"], default="mit")
    given = parser.parse_args()
    torch.manual_seed(0)
    model = network(given.model)
    seconds: dict[str, list[float]] = {name: [] for name in (*BESIDE, *STAGE_5)}
    tiles = 0
    for turn in range(given.rounds + 1):
        with tempfile.TemporaryDirectory() as place:
            slide = Path(place) / "slide.tif"
            write_repeating_slide(slide, given.side, given.side)
            for name in list(seconds) if turn % 2 else list(reversed(seconds)):
                settings = PredictionSettings.model_validate({"device": "cpu", **STAGE_5.get(name, {})})
                folder = Path(place) / name
                if name in STAGE_5:
                    took, tiles = stage_5(model, slide, folder, settings)
                else:
                    took = (rasters if name == "rasters" else predict)(model, slide, folder, settings)
                if turn:  # the first is for warming up
                    seconds[name].append(took)
    print(
        f"{given.model}, {given.side} x {given.side} px from a JPEG TIFF, {tiles} tiles of {TILE_PX} px, "
        f"{len(CLASSES) + 1} channels, n {given.rounds}"
    )
    for name, took in seconds.items():
        print(f"{name}: {tiles / statistics.median(took):.2f} tiles/s" + "".join(beside(took, seconds)))


def beside(took: list[float], seconds: dict[str, list[float]]) -> Iterator[str]:
    """What of the others' speed it has."""
    for name in BESIDE:
        if took is not seconds[name]:
            ratios = [other / one for one, other in zip(took, seconds[name], strict=True)]
            yield f"; {statistics.median(ratios):.3f} of {name} ({min(ratios):.3f} to {max(ratios):.3f})"


if __name__ == "__main__":
    main()
