"""A weak model whose answers follow from colours, and a stage over it that needs no training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from tests.conftest import textured, write_pyramid
from tests.models.tiny_weak import CLASSES as TINY_CLASSES

from lamella.config import Request
from lamella.data.bags import Bag, WeakStudy
from lamella.geometry import Frame
from lamella.models.dense_contract import DenseContract
from lamella.verbs.weak_stages.settings import WeakConfig
from lamella.verbs.weak_stages.stage import Stage

CLASSES = TINY_CLASSES
TILE_PX, MPP = 32, 1.0
SIDES = (150, 210)


class ColourWeak:
    """Red is tumour, blue is stroma, green is background; a tile holds a class by its mean colour."""

    name = "colour"

    def __init__(self, tile_px: int = TILE_PX, mpp: float | None = MPP, *, present: Sequence[float] = (9, 9)) -> None:
        self.contract = DenseContract((*CLASSES, "background"), mpp, tile_px)
        self.facts = {"labels": "slide", "weights": "best", "best_step": 3, "steps": 5, "fold": None, "seed": 0}
        self.fingerprint = "c0ffee00c0ffee00"
        self.batches: list[int] = []
        self._present = torch.tensor(list(present), dtype=torch.float32)

    def maps(self, images: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(images))
        return (images[:, [0, 2, 1]].float() / 25).softmax(1)

    def tile_logits(self, images: torch.Tensor) -> torch.Tensor:
        return self.tile_answers(images)[0]

    def tile_answers(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self._present.expand(len(images), -1), images.float().mean((2, 3))

    def bag_logits(self, tile_logits_NM: torch.Tensor, features_ND: torch.Tensor | None = None) -> torch.Tensor:
        return tile_logits_NM.mean(0)

    def to(self, device: object) -> ColourWeak:
        return self


def write_slides(folder: Path, count: int = 2) -> Path:
    folder.mkdir()
    for number in range(count):
        write_pyramid(folder / f"s{number}.tif", textured(*SIDES, number), mpp=MPP, levels=2)
    return folder


def tiny_stage(
    folder: Path, slides: Path, *more: Path, overrides: Sequence[str] = (), labels_are: str = "slide", **options: Any
) -> Stage:
    """A stage over a folder of slides, all of them of the test part."""
    tree = {
        "class_order": list(CLASSES),
        "data": {"slides": [str(slides)], "labels_are": labels_are, "tile_px": TILE_PX, "mpp": MPP},
        "predict": {"device": "cpu"},
    }
    folder.mkdir(exist_ok=True)
    (folder / "study.yaml").write_text(yaml.safe_dump(tree))
    request = Request(
        "weak", (), folder / "out", run=folder / "study.yaml", overrides=tuple(overrides), options=options
    )
    frame = Frame(SIDES[1], SIDES[0], MPP, MPP)
    bags = tuple(
        Bag(path.stem, path, frame, np.zeros((1, 2)), None, None, path.stem, "test")
        for path in sorted(slides.glob("*.tif"))
    )
    study = WeakStudy(CLASSES, "background", bags, MPP, TILE_PX, {}, labels_are=labels_are)
    return Stage(request, request.resolve(WeakConfig), study, folder / "out", more)
