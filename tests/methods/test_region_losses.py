"""Focal and Dice against closed forms and MONAI, and what must have no say."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from monai.losses import DiceLoss, FocalLoss

from lamella.errors import ConfigError
from lamella.formats.label_values import NOT_LABELLED
from lamella.methods.region_losses import (
    V3_WEIGHTS,
    RegionLossSettings,
    class_weights,
    dice_loss,
    focal_loss,
    labelled_log_probabilities,
    region_loss,
)

C = 4


def drawn(seed: int, ignored: float = 0.3) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (2, C, 5, 6) with gradients, and targets with holes."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, C, 5, 6, generator=generator, requires_grad=True)
    target = torch.randint(0, C, (2, 5, 6), generator=generator).to(torch.uint8)
    target[torch.rand(2, 5, 6, generator=generator) < ignored] = NOT_LABELLED
    return logits, target


def gradient(logits: torch.Tensor, target: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    loss, _ = region_loss(logits, target, weights, RegionLossSettings())
    return torch.autograd.grad(loss, logits)[0]


def test_without_focus_and_weights_it_is_cross_entropy() -> None:
    logits, target = drawn(0)
    expected = torch.nn.functional.cross_entropy(logits, target.long(), ignore_index=NOT_LABELLED)
    found = focal_loss(*labelled_log_probabilities(logits, target), torch.ones(C), gamma=0)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_weighted_cross_entropy_is_torchs() -> None:
    logits, target = drawn(1)
    weights = torch.tensor([1.0, 2.0, 0.5, 7.0])
    expected = torch.nn.functional.cross_entropy(logits, target.long(), weights, ignore_index=NOT_LABELLED)
    found = focal_loss(*labelled_log_probabilities(logits, target), weights, gamma=0)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_focus_is_monais() -> None:
    logits, target = drawn(2, ignored=0)
    one_hot = torch.nn.functional.one_hot(target.long(), C).movedim(-1, 1).float()
    # MONAI sums over the classes' terms, of which the true one alone is not 0, and takes the mean over classes, too.
    expected = C * FocalLoss(use_softmax=True, gamma=2.0)(logits, one_hot)
    found = focal_loss(*labelled_log_probabilities(logits, target), torch.ones(C), gamma=2.0)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_dice_over_the_batch_is_monais() -> None:
    logits, target = drawn(3, ignored=0)
    expected = DiceLoss(softmax=True, to_onehot_y=True, batch=True, smooth_nr=1.0, smooth_dr=1.0)(
        logits, target[:, None].long()
    )
    found, _ = dice_loss(*labelled_log_probabilities(logits, target), torch.ones(C))
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_what_is_not_labelled_changes_nothing(seed: int) -> None:
    """Mistake of the source: ignored area as background."""
    logits, target = drawn(seed)
    weights = torch.tensor([1.0, 2.0, 0.5, 7.0])
    ignored = (target == NOT_LABELLED)[:, None]
    other = torch.where(ignored, 50 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(1)), logits)
    for chosen in (RegionLossSettings(dice=0), RegionLossSettings(focal=0)):
        own, changed = (region_loss(each, target, weights, chosen)[0] for each in (logits, other))
        assert own == changed
    assert not gradient(logits, target, weights)[ignored.expand_as(logits)].any()


def test_weights_change_the_gradient() -> None:
    """Mistake of the source: class weights that were never applied."""
    logits, target = drawn(4)
    plain = gradient(logits, target, torch.ones(C))
    for number in range(C):
        weights = torch.ones(C)
        weights[number] = 5.0
        assert not torch.allclose(gradient(logits, target, weights), plain)
    for chosen in (RegionLossSettings(dice=0), RegionLossSettings(focal=0)):  # in each of the two
        losses = [region_loss(logits, target, w, chosen)[0] for w in (torch.ones(C), torch.tensor([1.0, 1, 1, 9]))]
        assert losses[0] != losses[1]


def test_a_class_without_pixels_has_no_dice_and_focal_alone_punishes_it() -> None:
    logits = torch.zeros(1, C, 4, 4)
    logits[:, 3] = 2.0
    target = torch.zeros(1, 4, 4, dtype=torch.uint8)
    loss, dice = dice_loss(*labelled_log_probabilities(logits, target), torch.ones(C))
    assert dice.isnan().tolist() == [False, True, True, True]
    assert loss.item() == pytest.approx(1 - dice[0].item())
    calm = logits.clone()
    calm[:, 3] = 0.0
    weights = torch.ones(C)
    assert focal_loss(*labelled_log_probabilities(logits, target), weights, 2.0) > focal_loss(
        *labelled_log_probabilities(calm, target), weights, 2.0
    )


def test_nothing_labelled_is_no_loss_and_no_gradient() -> None:
    logits, _ = drawn(5)
    target = torch.full((2, 5, 6), NOT_LABELLED, dtype=torch.uint8)
    loss, _ = region_loss(logits, target, torch.ones(C), RegionLossSettings())
    assert loss == 0
    assert not torch.autograd.grad(loss, logits)[0].any()


def test_a_perfect_map_has_nearly_no_loss_and_a_finite_gradient() -> None:
    _, target = drawn(6, ignored=0)
    logits = (100.0 * torch.nn.functional.one_hot(target.long(), C).movedim(-1, 1)).requires_grad_()
    for gamma in (0.0, 0.5, 2.0):
        loss, _ = region_loss(logits, target, torch.ones(C), RegionLossSettings(gamma=gamma))
        assert loss < 1e-5
        assert torch.autograd.grad(loss, logits)[0].isfinite().all()


def test_inverse_frequency_is_bounded() -> None:
    shares = {"a": 0.5, "b": 0.25, "c": 0.249, "d": 0.001, "e": 0.0}
    weights = class_weights(RegionLossSettings(class_weights="inverse", weight_limit=10), shares)
    assert weights.tolist() == pytest.approx([1, 2, 0.5 / 0.249, 10, 1])


def test_presets_and_named_weights() -> None:
    five = dict.fromkeys(("tumour", "stroma", "lymphocytes", "necrosis", "vessel"), 0.2)
    assert class_weights(RegionLossSettings(class_weights="v3"), five).tolist() == pytest.approx(V3_WEIGHTS)
    assert class_weights(RegionLossSettings(), five).tolist() == [1] * 5
    named = class_weights(RegionLossSettings(class_weights={"vessel": 4.0}), five)
    assert named.tolist() == [1, 1, 1, 1, 4]
    with pytest.raises(ConfigError, match="v3 has 5 weights, and there are 2 classes"):
        class_weights(RegionLossSettings(class_weights="v3"), {"a": 0.5, "b": 0.5})
    with pytest.raises(ConfigError, match="vein is no class"):
        class_weights(RegionLossSettings(class_weights={"vein": 4.0}), five)
    with pytest.raises(ValueError, match="above 0 and finite"):
        RegionLossSettings(class_weights={"vessel": 0.0})
