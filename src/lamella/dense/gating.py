"""Classes that an image does not hold, by the model's own image-level answer, are taken out of its maps.

Shapes: B tiles, N tiles of a slide, C channels, M classes (without the background), H, W pixels of a tile.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lamella.dense.blending import BlendSettings
from lamella.dense.engine import DenseSettings, plan_slide
from lamella.dense.ensemble import Ensemble
from lamella.dense.reading import SlideTiles
from lamella.dense.runtime import Runtime
from lamella.errors import LamellaError
from lamella.models.class_evidence import gated
from lamella.models.dense_contract import DenseModel
from lamella.models.weak_contract import WeakModel
from lamella.slides.slide import Slide
from lamella.slides.tissue_map import TissueMap

PRESENT = 0.5
"""Probability from which an image is said to hold a class."""


class Gated:
    """A dense model whose maps are 0 for classes that the slide, or else the tile, does not hold; background stays.

    What is left adds up to 1 again, and where nothing is left it is background; see `class_evidence.gated`.

    Args:
        model: Whose maps are gated; an ensemble is averaged before.
        voices: Who says what an image holds: the model, or the members of the ensemble, averaged.
        present: (M,) bool of the whole slide; None: each tile by itself.
    """

    def __init__(self, model: DenseModel, voices: Sequence[WeakModel], present: np.ndarray | None) -> None:
        self._model, self._voices, self._present = model, tuple(voices), present
        self.name, self.contract = model.name, model.contract

    @property
    def fingerprint(self) -> str:
        """16 hex digits. What a slide holds follows from the model and the slide."""
        kind = "tile" if self._present is None else "slide"
        return hashlib.sha256(f"gated by {kind} {self._model.fingerprint}".encode()).hexdigest()[:16]

    def maps(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) to float32 (B, C, H, W)."""
        maps = self._model.maps(images)
        if self._present is None:
            said = torch.stack([voice.tile_logits(images).float().sigmoid() for voice in self._voices])
            present_BM = said.mean(0) > PRESENT
        else:
            present_BM = torch.from_numpy(self._present).to(maps.device).expand(len(maps), -1)
        return gated(maps, present_BM)

    def to(self, device: Any) -> Gated:
        self._model.to(device)
        for voice in self._voices:
            voice.to(device)
        return self


def voices_of(model: DenseModel) -> tuple[WeakModel, ...]:
    """The weak models of a model: itself, or the members of an ensemble.

    Raises:
        LamellaError: One of them gives no labels of images.
    """
    members = model.members if isinstance(model, Ensemble) else (model,)
    for member in members:
        if not isinstance(member, WeakModel):
            raise LamellaError(
                member.name, "it gives no labels of images, and maps are to be gated by them", "Set predict.gate=none."
            )
    return tuple(member for member in members if isinstance(member, WeakModel))


def slide_probabilities(
    voices: Sequence[WeakModel],
    slide: Slide,
    settings: DenseSettings,
    tissue: TissueMap | None,
    runtime: Runtime,
) -> np.ndarray:
    """(M,) float64: how probably a slide holds each class, the mean over the voices; 0 where there is no tissue.

    Args:
        voices: On the runtime's device.
        slide: Open.
        settings: Of them `everywhere` and `tissue`; tiles have the models' own size and lie edge to edge, as bags are
            in training.
        tissue: Where to look, if it is known.
        runtime: Device, batches, threads, precision.

    Raises:
        SlideError: A tile cannot be decoded.
    """
    bag = DenseSettings(
        blend=BlendSettings(overlap=0), everywhere=settings.everywhere, tissue=settings.tissue, mpp=settings.mpp
    )
    plan = plan_slide(voices[0], slide, bag, tissue, may_be_empty=True)
    answers: list[list[tuple[Tensor, Tensor]]] = [[] for _ in voices]
    with torch.no_grad():
        for images in SlideTiles(slide, plan.tiling, plan.frame, plan.stride, runtime).batches():
            images = images.to(runtime.device)
            with runtime.autocast():
                for kept, voice in zip(answers, voices, strict=True):
                    kept.append(voice.tile_answers(images))
        if not len(plan.tiling):
            return np.zeros(_classes(voices[0]))
        bags = []
        for kept, voice in zip(answers, voices, strict=True):
            logits_NM, features_ND = (torch.cat(parts).float() for parts in zip(*kept, strict=True))
            bags.append(voice.bag_logits(logits_NM, features_ND).float())
    mean: np.ndarray = torch.stack(bags).sigmoid().mean(0).cpu().numpy().astype(np.float64)
    return mean


def _classes(model: DenseModel) -> int:
    """M."""
    return sum(name != model.contract.background for name in model.contract.channels)
