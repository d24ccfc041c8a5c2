"""Validation: the same tiles every time, all of a slide, and numbers that absent classes cannot spoil."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.data.tiny_bags import CLASSES, TILE
from tests.verbs.weak_stages.trained_study import made, tiny_network
from torch import Tensor

from lamella.data.bag_batches import BagBatches, BagBatchSettings
from lamella.data.bags import WeakStudy
from lamella.engine.early_stopping import EarlyStopping
from lamella.methods.weak import WeakMethod
from lamella.methods.weak_losses import WeakLossSettings
from lamella.models.bag_pool import BagPoolSettings
from lamella.models.prototypes import random_prototypes
from lamella.models.weak_building import make_weak_model
from lamella.models.weak_settings import WeakModelSettings
from lamella.verbs.weak_stages.training_settings import ValidationSettings
from lamella.verbs.weak_stages.training_validation import WeakValidation


@pytest.fixture
def method() -> WeakMethod:
    with tiny_network():
        model = make_weak_model(
            WeakModelSettings(backbone={"name": "segformer"}, from_scratch=True),  # type: ignore[arg-type]
            random_prototypes((*CLASSES, "background"), (1, 1, 1), 12, 0),
            classes=CLASSES,
            background="background",
            mpp=0.5,
            tile_px=TILE,
            pooling=BagPoolSettings(),
        )
    return WeakMethod(model, WeakLossSettings(scale_weights=(0, 0, 0, 1))).train()


def validation(method: WeakMethod, study: WeakStudy, tiles: int | None = None, **changes: Any) -> WeakValidation:
    held = BagBatches(study, study.bags, BagBatchSettings(), 0)
    return WeakValidation.of(method, held, changes.get("criterion", "loss"), tiles, torch.device("cpu"))


def test_every_tile_of_a_slide_is_asked(method: WeakMethod, tmp_path: Path) -> None:
    """Mistake of the source: only the first coordinate of each slide was validated."""
    study = made(tmp_path)
    found = validation(method, study)(0)
    losses = []
    with torch.no_grad():
        for number, bag in enumerate(study.bags):
            images = validation(method, study).batches.tiles(number, range(4))
            last = method.model.eval().forward_scales(images).class_maps[-1]
            assert last is not None
            tiles = last.mean((2, 3))
            known, answers = 2, tiles[:, :2].topk(2, dim=0).values.mean(0)  # half of four tiles
            if not any(bag.labels):  # type: ignore[arg-type]
                known, answers = 3, torch.cat([answers, tiles[:, 2:].mean(0)])
            label = torch.tensor([*bag.labels, 1][:known]).float()  # type: ignore[misc]
            losses.append((F.binary_cross_entropy_with_logits(answers, label, reduction="sum"), known))
    expected = sum(float(loss) for loss, _ in losses) / sum(known for _, known in losses)
    assert found["val_loss"] == pytest.approx(expected, rel=1e-5)
    assert 0 <= found["val_label_accuracy"] <= 1


def test_the_method_is_left_as_it_was(method: WeakMethod, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in method.state_dict().items()}
    modes = [module.training for module in method.modules()]
    validation(method, made(tmp_path), criterion="masks")(0)
    assert [module.training for module in method.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())


def test_a_sample_of_tiles_is_drawn_once(method: WeakMethod, tmp_path: Path) -> None:
    study = made(tmp_path)
    sampled = validation(method, study, tiles=2)
    rows = [sampled.rows(number).tolist() for number in range(len(study.bags))]
    assert rows == [validation(method, study, tiles=2).rows(number).tolist() for number in range(len(study.bags))]
    assert all(len(set(each)) == 2 for each in rows)
    assert len({tuple(each) for each in rows}) > 1
    assert sampled(0) == sampled(5)


class Painted:
    """A method that gives every pixel one class, and counts what it was shown."""

    def __init__(self, method: WeakMethod, channel: int) -> None:
        self.method, self.channel = method, channel

    def probabilities(self, images: Tensor) -> Tensor:
        maps = torch.zeros(len(images), 3, *images.shape[-2:])
        maps[:, self.channel] = 1
        return maps

    def __getattr__(self, name: str) -> Any:
        return getattr(self.method, name)


def test_the_iou_of_masks_and_a_class_that_is_absent(method: WeakMethod, tmp_path: Path) -> None:
    """Mistake of the source: the NaN of an absent class made, or barred, the best value."""
    study = made(tmp_path)  # in the truth: red in a strip of a tile and a half of four, background; no blue
    values = validation(Painted(method, 0), study, criterion="masks")(0)  # type: ignore[arg-type]
    red = 1.5 / 4
    assert values["val_iou_red"] == pytest.approx(red)
    assert math.isnan(values["val_iou_blue"])
    assert values["val_miou"] == pytest.approx(red)  # of the classes that are there; the background is none
    assert values["val_iou_background"] == 0
    best = EarlyStopping(ValidationSettings(criterion="masks").early_stopping())
    assert best.update({**values, "val_miou": float("nan")}, 0)
    assert best.update(values, 1)
    assert not best.update({**values, "val_miou": float("nan")}, 2)
    assert (best.best_step, best.best) == (1, values["val_miou"])


def test_slides_without_truth_have_no_say_in_the_iou(method: WeakMethod, tmp_path: Path) -> None:
    study = made(tmp_path)
    one = replace(study, bags=(study.bags[0], *(replace(bag, mask_path=None) for bag in study.bags[1:])))
    painted: Any = Painted(method, 0)
    assert validation(painted, one, criterion="masks")(0)["val_miou"] == pytest.approx(1.5 / 4)


def test_labels_of_patches_are_asked_tile_by_tile(method: WeakMethod, tmp_path: Path) -> None:
    study = made(tmp_path)
    labels = np.array([[1, 0], [0, 1], [0, 0], [1, 1]], np.uint8)
    bags = tuple(replace(bag, tile_labels=labels) for bag in study.bags[:2])
    patches = replace(study, bags=bags, labels_are="patch")
    found = validation(method, patches)(0)
    with torch.no_grad():
        total, known = 0.0, 0
        for number in range(2):
            images = validation(method, patches).batches.tiles(number, range(4))
            last = method.model.eval().forward_scales(images).class_maps[-1]
            assert last is not None
            logits = last.mean((2, 3))
            each = F.binary_cross_entropy_with_logits(logits[:, :2], torch.from_numpy(labels).float(), reduction="sum")
            total += float(each + F.softplus(-logits[2, 2]))
            known += 9
    assert found["val_loss"] == pytest.approx(total / known, rel=1e-5)
