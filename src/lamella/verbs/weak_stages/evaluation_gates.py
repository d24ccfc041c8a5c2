"""What a slide is said to hold, by the model or by the truth, and maps without the rest.

Shapes: H, W pixels of the judged raster, C channels, M classes (without the background), N tiles of a slide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lamella.data.bag_tiles import read_tiles
from lamella.data.bags import Bag, WeakStudy
from lamella.dense.bands import first_largest
from lamella.dense.runtime import Runtime
from lamella.errors import LamellaError
from lamella.formats.label_values import NOT_LABELLED
from lamella.models import class_evidence
from lamella.models.weak_contract import WeakModel
from lamella.verbs.weak_stages.evaluation_judged import Judged, reaching, true_of_tiles

NO_LABEL, PREDICTED, TRUE = "none", "predicted", "true"
"""What a row is told of the whole image."""


def label_probabilities(models: Sequence[WeakModel], judged: Judged, runtime: Runtime) -> tuple[np.ndarray, np.ndarray]:
    """How probably the slide (M,), and each of its tiles (N, M), holds each class of the study: the mean of the models.

    Raises:
        LamellaError: The slide has no tiles, or one cannot be read.
    """
    study, bag = judged.study, judged.bag
    if not len(bag):
        raise LamellaError(
            bag.slide_id, "it has no tile that labels could be predicted of", "Set evaluate.labels=false."
        )
    bags, tiles = [], []
    for model in models:
        logits_NM, features_ND = _answers(model, study, bag, runtime)
        own = [name for name in model.contract.channels if name != model.contract.background]
        order = [own.index(name) for name in study.classes]
        with torch.no_grad():
            bag_M = model.bag_logits(logits_NM, features_ND)
        bags.append(bag_M.float().sigmoid().cpu().numpy()[order])
        tiles.append(logits_NM.float().sigmoid().cpu().numpy()[:, order])
    return np.mean(bags, axis=0), np.mean(tiles, axis=0)


@torch.no_grad()
def _answers(model: WeakModel, study: WeakStudy, bag: Bag, runtime: Runtime) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of all of a slide's tiles, and the features that pooling by attention reads."""
    answers = []
    for start in range(0, len(bag), runtime.batch_size):
        rows = np.arange(start, min(start + runtime.batch_size, len(bag)))
        pixels = read_tiles(study, bag, rows, threads=runtime.threads, mpp=model.contract.mpp)
        answers.append(model.tile_answers(torch.from_numpy(pixels).permute(0, 3, 1, 2).to(runtime.device)))
    logits, features = zip(*answers, strict=True)
    return torch.cat(logits), torch.cat(features)


@dataclass(frozen=True)
class Gate:
    """Which classes a slide is said to hold, everywhere or tile by tile.

    Attributes:
        present_NM: bool; (1, M) of the whole slide, or (N, M) of its tiles.
        tiles_px: (N, 4) places of the tiles; None where the gate is of the whole slide.
    """

    present_NM: np.ndarray
    tiles_px: np.ndarray | None = None

    def of_rows(self, y0: int, y1: int, width: int) -> np.ndarray:
        """(M, h, W) bool, or (M, 1, 1). What lies in no tile is not gated; in several, by what any of them holds."""
        if self.tiles_px is None:
            return self.present_NM[0][:, None, None]
        present = np.zeros((self.present_NM.shape[1], y1 - y0, width), bool)
        covered = np.zeros((y1 - y0, width), bool)
        near = reaching(self.tiles_px, y0, y1)
        for (left, top, right, bottom), here_M in zip(self.tiles_px[near].tolist(), self.present_NM[near], strict=True):
            part = (slice(max(0, top - y0), max(0, bottom - y0)), slice(left, right))
            present[(slice(None), *part)] |= here_M[:, None, None]
            covered[part] = True
        return present | ~covered


def gated(maps_CHW: np.ndarray, present_MHW: np.ndarray) -> np.ndarray:
    """`class_evidence.gated` of one band, place by place."""
    maps, present = (torch.from_numpy(np.ascontiguousarray(each))[None] for each in (maps_CHW, present_MHW))
    found: np.ndarray = class_evidence.gated(maps, present)[0].numpy()
    return found


def labels_of(maps_CHW: np.ndarray) -> np.ndarray:
    """(H, W) uint8 channels, NOT_LABELLED where nobody looked. Every channel competes, the background with the rest."""
    labels = first_largest(torch.from_numpy(np.ascontiguousarray(maps_CHW))).numpy()
    labels[~maps_CHW.any(0)] = NOT_LABELLED
    return labels


def gates_of(
    judged: Judged, models: Sequence[WeakModel], true_M: np.ndarray, runtime: Runtime, *, per_tile: bool
) -> tuple[np.ndarray, dict[str, Gate | None]]:
    """(M,) the slide's predicted probabilities, and what each kind of row is told.

    Args:
        judged: The slide.
        models: That judge it together.
        true_M: What it holds.
        runtime: Device, batches, threads.
        per_tile: Gate each tile by its own labels, not the whole slide by its.
    """
    probability_M, tiles_NM = label_probabilities(models, judged, runtime)
    threshold = judged.settings.label_threshold
    if not per_tile:
        said = {PREDICTED: Gate(probability_M[None] > threshold), TRUE: Gate(true_M[None])}
    else:
        places = judged.tiles_px()
        said = {PREDICTED: Gate(tiles_NM > threshold, places), TRUE: Gate(true_of_tiles(judged), places)}
    return probability_M, {NO_LABEL: None, **said}


def alike(gates: dict[str, Gate | None]) -> dict[str, str]:
    """Name of a gate -> the first one that does the same: a gate that takes nothing out is none, and is not run."""
    first: dict[bytes | None, str] = {}
    found = {}
    for name, gate in gates.items():
        does = None if gate is None or gate.present_NM.all() else gate.present_NM.tobytes()
        found[name] = first.setdefault(does, name)
    return found
