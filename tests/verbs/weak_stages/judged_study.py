"""A tiny study with masks, and models that know the classes by their colours: what stage 4 judges in tests."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lamella.config import Request
from lamella.data.bags import Bag, WeakStudy
from lamella.geometry import Frame
from lamella.models.dense_contract import DenseContract
from lamella.models.pretraining_record import PretrainingRecord
from lamella.verbs.weak_stages import evaluation_models
from lamella.verbs.weak_stages.settings import WeakConfig
from lamella.verbs.weak_stages.stage import Stage

MPP, TILE = 0.5, 32
CLASSES, BACKGROUND = ("tumour", "stroma"), "glass"
COLOURS = np.array([[200, 40, 90], [60, 160, 70], [250, 250, 250]], np.uint8)
"""Of tumour, stroma, glass."""


def channels_of(size: int, present: tuple[int, ...], seed: int) -> np.ndarray:
    """(size, size) uint8 truth: a frame of glass around stripes of the classes that are present."""
    truth = np.full((size, size), len(CLASSES), np.uint8)
    inner = truth[4:-4, 4:-4]
    edges = np.linspace(0, inner.shape[1], 2 * max(1, len(present)) + 1).astype(int)
    turned = np.roll(np.tile(present, 2), seed) if present else []
    for number, left, right in zip(turned, edges[:-1], edges[1:], strict=False):
        inner[:, left:right] = number
    return truth


@dataclass
class FakeWeak:
    """Knows each pixel's class by its colour; calls what is in `wrong` another class; sees labels as it sees pixels.

    As a dense model of 32 px tiles.
    """

    name: str = "fake"
    wrong: dict[int, int] = field(default_factory=dict)
    sure: float = 0.8
    facts: dict[str, Any] = field(default_factory=lambda: {"criterion": "loss", "labels": "slide"})
    background: str | None = BACKGROUND
    silent: tuple[int, ...] = ()

    @property
    def contract(self) -> DenseContract:
        channels = CLASSES if self.background is None else (*CLASSES, self.background)
        return DenseContract(channels, MPP, TILE, 1, 1, background=self.background)

    @property
    def fingerprint(self) -> str:
        return json.dumps([self.name, self.wrong, self.sure])

    def maps(self, images: Tensor) -> Tensor:
        called = self.called(images)
        count = len(self.contract.channels)
        maps = torch.full((len(images), count, *images.shape[-2:]), (1 - self.sure) / (count - 1))
        return maps.scatter_(1, called[:, None], self.sure)

    def called(self, images: Tensor) -> Tensor:
        colours = torch.from_numpy(COLOURS.astype(np.float32))[: len(self.contract.channels)]
        distance = (images.float()[:, None] - colours[None, :, :, None, None]).abs().sum(2)
        called = distance.argmin(1)
        for own, other in self.wrong.items():
            called = torch.where(called == own, other, called)
        return called

    def tile_logits(self, images: Tensor) -> Tensor:
        """Whether any pixel is called so; never for `silent` classes."""
        called = self.called(images).flatten(1)
        there = [(called == number).any(1) & (number not in self.silent) for number in range(len(CLASSES))]
        return torch.stack(there, 1).float() * 8 - 4

    def tile_answers(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.tile_logits(images), torch.zeros(len(images), 1)

    def bag_logits(self, tile_logits_NM: Tensor, features_ND: Tensor | None = None) -> Tensor:
        return tile_logits_NM.amax(0)

    def to(self, device: Any) -> FakeWeak:
        return self


class FakeSupervised:
    """A dense model that predicts no labels of images."""

    def __init__(self, name: str) -> None:
        self._weak = FakeWeak(name)
        self.name, self.contract, self.fingerprint = name, self._weak.contract, f"supervised {name}"

    def maps(self, images: Tensor) -> Tensor:
        return self._weak.maps(images)

    def to(self, device: Any) -> FakeSupervised:
        return self


def write_bag(
    folder: Path,
    name: str,
    present: tuple[int, ...],
    *,
    part: str | None = "test",
    group: str | None = None,
    size: int = 64,
    seed: int = 0,
    labels: tuple[int, ...] | None = (),
    masked: bool = True,
    corners: np.ndarray | None = None,
) -> Bag:
    """A slide as PNG with its mask (values: channel + 1) and tiles edge to edge; its label is what it holds."""
    truth = channels_of(size, present, seed)
    noise = np.random.default_rng(seed).integers(-5, 6, (size, size, 3))
    pixels = (COLOURS[truth].astype(int) + noise).clip(0, 255).astype(np.uint8)
    for kind, values in (("slides", pixels), ("masks", truth + 1)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(folder / kind / f"{name}.png")
    grid = [(x, y) for y in range(0, size, TILE) for x in range(0, size, TILE)]
    own = tuple(int(number in present) for number in range(len(CLASSES)))
    return Bag(
        name,
        folder / "slides" / f"{name}.png",
        Frame(size, size, MPP, MPP),
        np.array(grid, np.float64) if corners is None else corners,
        own if labels == () else labels,
        None,
        group or name,
        part,  # type: ignore[arg-type]
        folder / "masks" / f"{name}.png" if masked else None,
    )


def study_of(bags: list[Bag], **changes: Any) -> WeakStudy:
    values = {name: (number + 1,) for number, name in enumerate((*CLASSES, BACKGROUND))}
    given = {"background": BACKGROUND, "mask_values": values, **changes}
    return WeakStudy(CLASSES, bags=tuple(bags), mpp=MPP, tile_px=TILE, **given)


def small_study(folder: Path, tests: int = 4) -> WeakStudy:
    """Two training slides and some of test, each of its own patient."""
    train = [write_bag(folder, f"train{n}", (n,), part="train", seed=n, masked=False) for n in range(2)]
    held = [((0,), (1,), (0, 1), ())[n % 4] for n in range(tests)]
    return study_of(train + [write_bag(folder, f"test{n}", some, seed=10 + n) for n, some in enumerate(held)])


def train_fake(
    out: Path,
    model: Any,
    bags: list[Bag] | tuple[Bag, ...] = (),
    *,
    run: str = "",
    weights: tuple[str, ...] = ("model",),
) -> None:
    """A training's folder as stage 3 leaves it; its record names these slides."""
    for name in weights:
        place = out / "training" / run / name
        place.mkdir(parents=True)
        MODELS[place] = model
        dataset = evaluation_models.WEAK_DATASET
        PretrainingRecord.of(
            [dataset], (f"{dataset}/{bag.group}" for bag in bags), (f"{dataset}/{bag.slide_id}" for bag in bags), []
        ).write(place)


MODELS: dict[Path, Any] = {}


def use_fakes(monkeypatch: Any) -> None:
    """Folders of `train_fake` and whatever else was put into MODELS are models; no other is."""
    monkeypatch.setattr(evaluation_models, "is_weak", lambda path: isinstance(MODELS.get(Path(path)), FakeWeak))
    monkeypatch.setattr(
        evaluation_models, "is_segmenter", lambda path: isinstance(MODELS.get(Path(path)), FakeSupervised)
    )
    monkeypatch.setattr(evaluation_models, "weak_facts", lambda path: MODELS[Path(path)].facts)
    for name in ("load_weak", "load_segmenter"):
        monkeypatch.setattr(evaluation_models, name, lambda path: MODELS[Path(path)])


def stage_of(study: WeakStudy, out: Path, *overrides: str) -> Stage:
    """The stage as `lamella weak evaluate` makes it."""
    out.mkdir(parents=True, exist_ok=True)
    config = out.parent / f"{out.name}.yaml"
    config.write_text(
        f"class_order: [{', '.join(study.classes)}]\n"
        f"background: {study.background or 'null'}\n"
        "data: {slides: [slides], labels_are: slide}\n"
        "evaluate: {device: cpu, samples: 3}\n"
    )
    request = Request("weak", (Path("evaluate"), config), out, None, config, overrides)
    return Stage(request, request.resolve(WeakConfig), study, out)
