"""Validation takes whole images, the pixels of all of them together, and leaves the method as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.data.made_labels import made_labels
from tests.models.tiny_segmenters import tiny_segmenter

from lamella.data.labelled_tiles import LabelledTiles, LabelledTileSettings
from lamella.methods.region_losses import RegionLossSettings
from lamella.methods.segment import Segment
from lamella.models.dense_contract import DenseContract
from lamella.verbs.adapting.segment_validation import MONITOR, Validation

CONTRACT = DenseContract(("other", "tumor", "stroma"), 0.5, tile_px=16, background="other")


class ReadsRed:
    """Stub: knows the class from the red that `made_labels` paints, and calls all stroma tumor where told so."""

    name, fingerprint, contract = "red", "0123456789abcdef", CONTRACT

    def __init__(self, blind: bool) -> None:
        self.blind = blind

    def maps(self, images: torch.Tensor) -> torch.Tensor:
        classes = (images[:, 0].float() / 50).round().long().clamp(max=2)
        if self.blind:
            classes = classes.clamp(max=1)
        return torch.nn.functional.one_hot(classes, 3).movedim(-1, 1).float()

    def to(self, device: object) -> ReadsRed:
        return self


def validation(blind: bool) -> Validation:
    first, second = np.zeros((20, 24), np.uint8), np.zeros((8, 40), np.uint8)
    first[:5], first[5:10], first[15:] = 1, 2, 255
    second[:2] = 1
    collection = made_labels({"a": first, "b": second})
    tiles = LabelledTiles([collection], None, LabelledTileSettings(tile_px=16), 0)
    segmenter = tiny_segmenter()
    method = Segment(segmenter, RegionLossSettings(), torch.ones(3)).train()
    return Validation(method, ReadsRed(blind), tiles, 16, torch.device("cpu"))


def test_a_perfect_model_has_dice_1_ignored_pixels_aside() -> None:
    values = validation(blind=False)(1)
    assert values == {MONITOR: 1.0, "val_dice_other": 1.0, "val_dice_tumor": 1.0, "val_dice_stroma": 1.0}


def test_dice_is_of_all_pixels_together_and_a_missed_class_counts_as_0() -> None:
    values = validation(blind=True)(1)
    tumor, stroma = 24 * 5 + 40 * 2, 24 * 5
    assert values["val_dice_tumor"] == pytest.approx(2 * tumor / (2 * tumor + stroma))
    assert values["val_dice_stroma"] == 0
    # Mistake of the source: "any tissue" said 0.82 where the classes said 0.42. The background is not averaged in.
    assert values[MONITOR] == pytest.approx(values["val_dice_tumor"] / 2)


def test_the_method_is_left_as_it_was() -> None:
    check = validation(blind=False)
    check.method.backbone.eval()
    before = {name: module.training for name, module in check.method.named_modules()}
    check(1)
    assert {name: module.training for name, module in check.method.named_modules()} == before
    assert len(set(before.values())) == 2
