"""Bounded evidence, a background that competes, and nothing that a tile decides by its own extremes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lamella.models.class_evidence import background_score, fused_evidence, gated, normalised


def logits(*shape: int, seed: int = 0) -> torch.Tensor:
    return 4 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(seed=st.integers(0, 1000), channels=st.integers(1, 5))
def test_shares_add_up_to_one_and_keep_the_order(seed: int, channels: int) -> None:
    evidence = logits(2, channels, 3, 4, seed=seed).sigmoid()
    shares = normalised(evidence)
    assert torch.allclose(shares.sum(1), torch.ones(2, 3, 4), atol=1e-6)
    assert (shares >= 0).all()
    assert torch.equal(shares.argmax(1), evidence.argmax(1))


def test_where_nothing_is_like_anything_all_channels_are_equal() -> None:
    assert normalised(torch.zeros(1, 4, 1, 1)).flatten().tolist() == pytest.approx([0.25] * 4)


def test_levels_are_fused_by_their_weights_and_those_of_zero_are_not_needed() -> None:
    fine, coarse = torch.full((1, 2, 4, 4), 1.0), torch.full((1, 2, 2, 2), -1.0)
    fused = fused_evidence([None, fine, coarse], (0, 0.3, 0.1))
    expected = 0.75 * torch.tensor(1.0).sigmoid() + 0.25 * torch.tensor(-1.0).sigmoid()
    assert fused.shape == (1, 2, 4, 4)
    assert torch.allclose(fused, expected.expand(1, 2, 4, 4))
    with pytest.raises(ValueError, match="was not computed"):
        fused_evidence([None, fine], (0.5, 0.5))
    with pytest.raises(ValueError, match="no level counts"):
        fused_evidence([fine], (0,))


@given(seed=st.integers(0, 1000), outlier=st.sampled_from([-50.0, 50.0]))
def test_a_place_does_not_depend_on_the_extremes_of_its_tile(seed: int, outlier: float) -> None:
    """Mistake of upstream: each tile's maps were divided by their own range, so seams ran between tiles."""
    before = logits(1, 3, 4, 4, seed=seed)
    after = before.clone()
    after[0, :, 0, 0] = outlier
    one, other = (normalised(fused_evidence([each], (1.0,))) for each in (before, after))
    assert torch.equal(one[..., 1:, :], other[..., 1:, :])
    assert torch.equal(one[..., 0, 1:], other[..., 0, 1:])


@pytest.mark.parametrize(("alpha", "expected"), [(1.0, 0.3), (10.0, 0.3**10)])
def test_the_power_score_is_upstreams(alpha: float, expected: float) -> None:
    evidence = torch.tensor([0.2, 0.7])[None, :, None, None]
    images = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    assert background_score(evidence, images, "power", alpha, 0.86).item() == pytest.approx(expected, rel=1e-5)


def test_glass_is_white_in_all_three_colours() -> None:
    images = torch.full((1, 3, 4, 8), 245, dtype=torch.uint8)
    images[:, 1, :, 4:] = 120  # pink
    score = background_score(torch.zeros(1, 1, 2, 4), images, "white", 1.0, 0.86)
    assert score.shape == (1, 1, 2, 4)
    assert (score[..., :2] > 0.95).all()
    assert (score[..., 2:] < 0.01).all()


def test_a_gate_closes_absent_classes_and_leaves_the_background() -> None:
    maps = torch.tensor([0.5, 0.3, 0.2])[None, :, None, None].expand(1, 3, 2, 2)
    found = gated(maps, torch.tensor([[False, True]]))
    assert found[0, :, 0, 0].tolist() == pytest.approx([0.0, 0.6, 0.4])
    nothing = gated(maps, torch.tensor([[False, False]]))
    assert nothing[0, :, 0, 0].tolist() == pytest.approx([0.0, 0.0, 1.0])


def test_where_a_gate_leaves_nothing_the_background_is_left_or_the_maps_as_they_were() -> None:
    with_background = torch.tensor([1.0, 0.0])[None, :, None, None]
    assert gated(with_background, torch.tensor([[0]])).flatten().tolist() == [0.0, 1.0]
    without = torch.tensor([0.75, 0.25])[None, :, None, None]
    assert gated(without, torch.tensor([[0, 0]])).flatten().tolist() == [0.75, 0.25]
    assert torch.equal(without, torch.tensor([0.75, 0.25])[None, :, None, None])
