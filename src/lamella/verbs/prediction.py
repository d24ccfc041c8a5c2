"""The job of `predict`: one slide gets its rasters, outlines and picture, in this process or on a worker."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from lamella.dense.engine import LABELS, DenseSettings, predict_slide
from lamella.dense.ensemble import Ensemble
from lamella.dense.exports import ExportSettings
from lamella.dense.progress import PREDICTION_FILE
from lamella.dense.runtime import Runtime
from lamella.engine.world import DeviceName, PrecisionName, choose_device, choose_precision
from lamella.errors import CheckpointError
from lamella.models.dense_contract import DenseModel
from lamella.models.segmenter_hub import load_segmenter
from lamella.models.weak_hub import is_weak, load_weak
from lamella.slides.index import IndexedSlide
from lamella.slides.slide import Slide, open_slide
from lamella.slides.tissue_map import TissueMap
from lamella.verbs.evaluation.segment_models import segmenters_in
from lamella.view.prediction import draw_prediction

OVERLAY_FILE = "overlay.png"


# Of a training's parts: folds, seeds, or both.
_PART = re.compile(r"fold\d+|seed\d+|fold\d+_seed\d+")


def load_dense(spec: str) -> DenseModel:
    """A model folder or hub id, of a segmenter or a weakly taught model; or a run's folder, whose parts are averaged.

    Raises:
        CheckpointError: There is no such model, or its files are damaged.
        LamellaError: The folds or seeds cannot be averaged.
    """
    if weak := weak_models_in(Path(spec)):
        if len(weak) > 1:
            return Ensemble([load_weak(folder) for folder in weak], f"{Path(spec).name} ({len(weak)} models)")
        return load_weak(weak[0])
    folders = segmenters_in(Path(spec))
    if len(folders) > 1:
        return Ensemble([load_segmenter(folder) for folder in folders], f"{Path(spec).name} ({len(folders)} folds)")
    return load_segmenter(folders[0] if folders else spec)


def weak_models_in(path: Path) -> tuple[Path, ...]:
    """Folders of the weakly taught models of a path: itself, `model` in it, or those of a training's folds and seeds.

    Folds in order of their numbers, then seeds.
    """
    if is_weak(path):
        return (path,)
    if is_weak(path / "model"):
        return (path / "model",)
    parts = [each.parent for each in path.glob("*/model") if _PART.fullmatch(each.parent.name)]
    parts.sort(key=lambda part: [int(digits) for digits in re.findall(r"\d+", part.name)])
    return tuple(part / "model" for part in parts if is_weak(part / "model"))


@dataclass(frozen=True)
class ToPredict:
    """One slide.

    Attributes:
        mpp: Stated (x, y) micrometres per pixel at level 0.
        indexed: The slide in its index, which knows its tissue; None of a slide given as a file.
    """

    slide_id: str
    wsi_path: Path
    mpp: tuple[float, float] | None
    indexed: IndexedSlide | None = None

    def tissue(self) -> TissueMap | None:
        return None if self.indexed is None else self.indexed.tissue()


@dataclass(frozen=True)
class PredictSlide:
    """What to do with each slide. It travels to workers without the weights, which each process loads once.

    Attributes:
        spec: What `load_dense` takes.
        fingerprint: The model that it must give, on every machine.
        folder: Where the slides' folders go, as every worker sees it.
        model: The loaded model, in the process that loaded it.
    """

    spec: str
    fingerprint: str
    folder: Path
    settings: DenseSettings
    exports: ExportSettings
    colours: Mapping[str, tuple[int, int, int]]
    overlay: bool
    dct_scaling: bool
    batch_size: int
    threads: int
    device: DeviceName
    precision: PrecisionName
    model: DenseModel | None = None

    def __call__(self, item: ToPredict) -> dict[str, Any]:
        """Predict one slide, unless that was done before, and draw it; what prediction.json holds.

        Raises:
            CheckpointError: The model is another one on this machine.
            LamellaError: As `predict_slide`.
        """
        model, runtime = self._ready()
        folder = self.folder / item.slide_id
        with open_slide(item.wsi_path, mpp=item.mpp, dct_scaling=self.dct_scaling) as slide:
            facts = predict_slide(
                model,
                slide,
                folder,
                self.settings,
                tissue=item.tissue(),
                runtime=runtime,
                exports=self.exports,
                colours=self.colours,
            )
            if self.overlay and model.contract.kind == "classes":
                self._draw(slide, item.slide_id, facts)
        return facts

    def _draw(self, slide: Slide, slide_id: str, facts: Mapping[str, Any]) -> None:
        """Draw the slide beside its prediction, unless that was done since it was finished."""
        folder = self.folder / slide_id
        picture = folder / OVERLAY_FILE
        if picture.exists() and picture.stat().st_mtime_ns >= (folder / PREDICTION_FILE).stat().st_mtime_ns:
            return
        draw_prediction(
            slide,
            folder / LABELS,
            picture,
            title=f"{slide_id}: {facts['model']}",
            background=facts["background"],
            areas_mm2=facts["areas_mm2"],
        )

    def _ready(self) -> tuple[DenseModel, Runtime]:
        device = choose_device(self.device)[0]
        model = self.model or loaded_dense(self.spec, self.fingerprint)
        model.to(device)
        bf16 = choose_precision(device, self.precision)[0] == "bf16"
        return model, Runtime(device, self.batch_size, self.threads, bf16)

    def __reduce__(self) -> tuple[Any, ...]:
        sent = replace(self, model=None)
        return PredictSlide, tuple(getattr(sent, field.name) for field in fields(sent))


@lru_cache(maxsize=1)
def loaded_dense(spec: str, fingerprint: str) -> DenseModel:
    """The model, loaded once in each process.

    Raises:
        CheckpointError: It is another one on this machine.
    """
    model = load_dense(spec)
    if model.fingerprint != fingerprint:
        raise CheckpointError(
            f"model {spec}", "a worker loads other weights than this machine", "Give every machine the same files."
        )
    return model
