from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.dense.tiny_models import ColourModel, array_slide, noise

from lamella.dense.engine import DenseSettings
from lamella.dense.ensemble import Ensemble
from lamella.dense.gating import Gated, slide_probabilities, voices_of
from lamella.dense.runtime import Runtime
from lamella.errors import LamellaError
from lamella.models.dense_contract import DenseContract
from lamella.slides.tissue_map import TissueMap

CLASSES = ("tumor", "stroma", "background")


class Weak(ColourModel):
    """Its logits of a tile are its mean red and green over 100, above or below 0; a bag's are their maximum."""

    def __init__(self, tile_px: int = 32, fingerprint: str = "a" * 16) -> None:
        super().__init__(tile_px)
        self.contract, self.fingerprint, self.facts = DenseContract(CLASSES, 0.5, tile_px), fingerprint, {}

    def tile_answers(self, images):
        return (images[:, :2].float().mean((2, 3)) - 100) / 10, images.float().mean((2, 3))

    def tile_logits(self, images):
        return self.tile_answers(images)[0]

    def bag_logits(self, tile_logits_NM, features_ND=None):
        assert features_ND is not None
        assert len(features_ND) == len(tile_logits_NM), "attention needs them"
        return tile_logits_NM.amax(0)


def flat(*colours: tuple[int, int, int], side: int = 32) -> np.ndarray:
    """(side, side * n, 3): squares side by side."""
    return np.concatenate([np.full((side, side, 3), colour, np.uint8) for colour in colours], axis=1)


def test_absent_classes_of_the_slide_are_0_and_the_rest_adds_up_to_1():
    images = torch.from_numpy(noise(32, 32)).permute(2, 0, 1)[None]
    maps = Gated(Weak(), [Weak()], np.array([False, True])).maps(images)
    own = Weak().maps(images)
    assert (maps[:, 0] == 0).all()
    assert maps[:, 1:].numpy() == pytest.approx((own[:, 1:] / own[:, 1:].sum(1, keepdim=True)).numpy(), abs=1e-6)


def test_where_no_class_is_left_it_is_background():
    maps = Gated(Weak(), [Weak()], np.array([False, False])).maps(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    assert (maps.argmax(1) == 2).all()


def test_tiles_are_gated_by_themselves_where_labels_are_of_patches():
    images = torch.from_numpy(np.stack([flat((200, 10, 10)), flat((10, 200, 10))])).permute(0, 3, 1, 2)
    maps = Gated(Weak(), [Weak()], None).maps(images)
    assert (maps[0, 1] == 0).all()
    assert (maps[1, 0] == 0).all()
    assert (maps[0, 0] > 0).all()


def test_a_slide_is_asked_tile_by_tile_edge_to_edge():
    slide = array_slide(flat((0, 0, 0), (120, 90, 0), (0, 95, 0)))
    told = slide_probabilities([Weak()], slide, DenseSettings(everywhere=True), None, Runtime(batch_size=2))
    wanted = 1 / (1 + np.exp(-np.array([2.0, -0.5])))
    assert told == pytest.approx(wanted, abs=1e-6)


def test_members_of_an_ensemble_are_asked_and_averaged():
    class Sure(Weak):
        def bag_logits(self, tile_logits_NM, features_ND=None):
            return torch.full((2,), 50.0)

    both = Ensemble([Weak(), Sure(fingerprint="b" * 16)], "two")
    slide = array_slide(flat((0, 0, 0)))
    told = slide_probabilities(voices_of(both), slide, DenseSettings(everywhere=True), None, Runtime())
    assert told == pytest.approx([0.5, 0.5], abs=1e-4)


def test_only_the_tissue_is_asked_and_without_any_the_slide_holds_nothing():
    slide = array_slide(flat((0, 0, 0), (0, 0, 0), (200, 0, 0)))
    first = TissueMap(np.array([[True, False, False]]), slide.frame.resized(3, 1))
    told = slide_probabilities([Weak()], slide, DenseSettings(), first, Runtime())
    assert told[0] < 0.01
    none = TissueMap(np.array([[False]]), slide.frame.resized(1, 1))
    assert slide_probabilities([Weak()], slide, DenseSettings(), none, Runtime()).tolist() == [0, 0]


def test_a_model_that_says_nothing_of_images_cannot_gate():
    with pytest.raises(LamellaError, match=r"predict\.gate=none"):
        voices_of(ColourModel())


def test_gated_by_slide_and_by_tile_are_other_predictions():
    model, present = Weak(), np.array([True, True])
    prints = {model.fingerprint, Gated(model, [model], present).fingerprint, Gated(model, [model], None).fingerprint}
    assert len(prints) == 3
