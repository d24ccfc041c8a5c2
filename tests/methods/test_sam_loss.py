from __future__ import annotations

import math

import pytest
import torch

from lamella.errors import ConfigError
from lamella.methods.sam_loss import SamLossSettings, class_weights, dice_loss, focal_loss, sam_loss, true_iou

KNOWN = torch.ones(1, 2, 2, dtype=torch.bool)


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_the_weights_are_sam2s_and_the_sources_are_a_choice() -> None:
    settings = SamLossSettings()
    assert (settings.focal, settings.dice, settings.iou, settings.object_score) == (20, 1, 1, 1)


def test_focal_loss_follows_its_closed_form() -> None:
    """-alpha (1 - p)^2 log p of a pixel of the object, -(1 - alpha) p^2 log(1 - p) of another; the mean of both."""
    p, q = 0.8, 0.3
    logits = torch.tensor([[logit(p), logit(q)]])
    truth = torch.tensor([[True, False]])
    expected = (-0.25 * (1 - p) ** 2 * math.log(p) - 0.75 * q**2 * math.log(1 - q)) / 2
    assert float(focal_loss(logits, truth, torch.ones_like(truth))) == pytest.approx(expected, rel=1e-5)


def test_dice_loss_follows_its_closed_form() -> None:
    p, q = 0.8, 0.3
    logits, truth = torch.tensor([[logit(p), logit(q)]]), torch.tensor([[True, False]])
    assert float(dice_loss(logits, truth, torch.ones_like(truth))) == pytest.approx(1 - (2 * p + 1) / (p + q + 1 + 1))
    empty = torch.zeros_like(truth)
    assert float(dice_loss(torch.full((1, 2), -50.0), empty, torch.ones_like(truth))) == pytest.approx(0, abs=1e-6)


def test_masks_are_cut_at_probability_one_half() -> None:
    """Mistake of the source: logits cut at 0.5, which is a probability of 0.62."""
    logits = torch.tensor([[0.3, 0.7], [-0.1, -3.0]])  # 0.3 is of the object, too
    truth = torch.tensor([[True, True], [False, False]])
    assert float(true_iou(logits, truth, KNOWN[0])) == 1


def test_what_is_not_known_changes_neither_loss_nor_gradient() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 4, 4)
    known = torch.ones(1, 4, 4, dtype=torch.bool)
    known[:, 2:] = False
    truth = torch.rand(1, 4, 4) < 0.5
    flipped = torch.where(known, truth, ~truth)
    found = [
        sam_loss(logits, torch.rand(1, 3).mul_(0), None, each, known, SamLossSettings())[0] for each in (truth, flipped)
    ]
    assert torch.equal(*found)
    grown = logits.clone().requires_grad_()
    sam_loss(grown, torch.zeros(1, 3), None, truth, known, SamLossSettings())[0].sum().backward()
    assert grown.grad is not None
    assert grown.grad[..., 2:, :].abs().max() == 0
    assert grown.grad[..., :2, :].abs().max() > 0


def test_only_the_best_mask_learns_its_shape_and_all_learn_their_iou() -> None:
    truth = torch.tensor([[[True, False], [True, False]]])
    right = torch.where(truth, 5.0, -5.0)
    logits = torch.stack([-right, right, torch.zeros_like(right)], dim=1).requires_grad_()
    believed = torch.full((1, 3), 0.5, requires_grad=True)
    sam_loss(logits, believed, None, truth, KNOWN, SamLossSettings())[0].sum().backward()
    assert logits.grad is not None
    assert believed.grad is not None
    moved = logits.grad.abs().amax((2, 3))[0]
    assert moved[1] > 0
    assert moved[0] == moved[2] == 0
    assert (believed.grad != 0).all()


def test_the_iou_is_learned_by_its_distance_and_the_object_by_cross_entropy() -> None:
    truth = torch.tensor([[[True, False], [True, False]]])
    logits = torch.where(truth, 5.0, -5.0)[:, None]
    only = SamLossSettings(focal=0, dice=0, iou=2, object_score=0)
    loss, _ = sam_loss(logits, torch.tensor([[0.7]]), None, truth, KNOWN, only)
    assert float(loss) == pytest.approx(2 * 0.3)
    score = SamLossSettings(focal=0, dice=0, iou=0, object_score=3)
    loss, parts = sam_loss(logits, torch.tensor([[0.7]]), torch.tensor([0.4]), truth, KNOWN, score)
    assert float(loss) == pytest.approx(3 * math.log(1 + math.exp(-0.4)))
    assert "loss_object" in parts
    loss, _ = sam_loss(logits, torch.tensor([[0.7]]), torch.tensor([0.4]), ~truth & truth, KNOWN, score)
    assert float(loss) == pytest.approx(3 * math.log(1 + math.exp(0.4)))  # nothing is there


def test_inverse_frequency_gives_the_sources_weights() -> None:
    """Of its shares of BCSS: 1, 1.2, 3.9, 3.5, 15.9."""
    shares = {"tumor": 27.13, "stroma": 23.49, "lymphocyte": 7.05, "necrosis": 7.76, "blood_vessel": 1.71}
    shares = {"background": 50.0, **shares}
    found = class_weights(SamLossSettings(class_balance="inverse"), shares, "background")
    assert [round(found[name], 1) for name in list(shares)[1:]] == [1.0, 1.2, 3.8, 3.5, 15.9]
    bounded = class_weights(SamLossSettings(class_balance="inverse", max_class_weight=5), shares, "background")
    assert bounded["blood_vessel"] == 5


def test_weights_of_classes_by_name_win_and_unknown_ones_are_refused() -> None:
    shares = {"a": 0.5, "b": 0.25}
    settings = SamLossSettings(class_balance="inverse", class_weights={"b": 7})
    assert class_weights(settings, shares, None) == {"a": 1.0, "b": 7}
    with pytest.raises(ConfigError, match="c is no class; there are a, b"):
        class_weights(SamLossSettings(class_weights={"c": 1}), shares, None)
