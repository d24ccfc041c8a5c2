"""Losses of weak supervision against closed forms and independent implementations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lamella.methods.weak_losses import (
    ContrastSettings,
    bounded,
    has_weight,
    info_nce,
    known_bce,
    masked_means,
    multi_scale_bce,
    regions,
    sparsity,
    total_variation,
)


def written_out(
    queries: np.ndarray, prototypes: np.ndarray, positive: np.ndarray, negative: np.ndarray, t: float
) -> float:
    """-log(exp(p / t) / (exp(p / t) + sum exp(n / t))) of each sample and its nearest positive, then their mean."""
    losses = []
    for query, own, others in zip(queries, positive, negative, strict=True):
        cosine = prototypes @ query / np.linalg.norm(prototypes, axis=1) / np.linalg.norm(query)
        if own.any():
            p = math.exp(cosine[own].max() / t)
            losses.append(-math.log(p / (p + np.exp(cosine[others] / t).sum())))
    return float(np.mean(losses)) if losses else 0.0


def drawn(seed: int, samples: int = 6, prototypes: int = 5, width: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    class_of_K = torch.tensor([0, 0, 1, 1, 2])[:prototypes]
    class_N = torch.randint(0, 3, (samples,), generator=rng)
    own = class_of_K == class_N[:, None]
    return torch.randn(samples, width, generator=rng), torch.randn(prototypes, width, generator=rng), own, ~own


@given(seed=st.integers(0, 10_000), t=st.sampled_from([0.07, 0.5, 1.0]))
def test_info_nce_is_the_mean_of_each_samples_own_loss(seed: int, t: float) -> None:
    queries, prototypes, own, others = drawn(seed)
    expected = written_out(queries.numpy(), prototypes.numpy(), own.numpy(), others.numpy(), t)
    assert info_nce(queries, prototypes, own, others, t).item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_info_nce_equals_cross_entropy_where_each_sample_has_one_positive() -> None:
    queries, prototypes = torch.randn(5, 3), torch.randn(4, 3)
    target = torch.tensor([0, 1, 2, 3, 1])
    own = torch.nn.functional.one_hot(target, 4).bool()
    cosine = torch.nn.functional.cosine_similarity(queries[:, None], prototypes[None], dim=2)
    expected = torch.nn.functional.cross_entropy(cosine / 0.07, target)
    torch.testing.assert_close(info_nce(queries, prototypes, own, ~own, 0.07), expected)


def test_info_nce_is_not_summed_before_the_logarithm() -> None:
    """A mistake of the source: one good sample must not hide a bad one."""
    prototypes = torch.eye(2)
    queries, own = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[True, False], [True, False]])
    good, bad = math.log(1 + math.exp(-1)), math.log(1 + math.exp(1))
    summed_first = -math.log((math.e + 1) / ((math.e + 1) + (1 + math.e)))
    loss = info_nce(queries, prototypes, own, ~own, 1.0).item()
    assert loss == pytest.approx((good + bad) / 2)
    assert abs(loss - summed_first) > 0.1


def test_each_positive_is_the_mean_over_a_samples_positives() -> None:
    queries, prototypes, own, others = drawn(3)
    single = []
    for query, mine, rest in zip(queries, own, others, strict=True):
        alone = [
            info_nce(
                query[None], prototypes, torch.nn.functional.one_hot(k, len(prototypes)).bool()[None], rest[None], 0.5
            )
            for k in torch.nonzero(mine)[:, 0]
        ]
        single.append(torch.stack(alone).mean())
    found = info_nce(queries, prototypes, own, others, 0.5, positive="each")
    torch.testing.assert_close(found, torch.stack(single).mean())


@pytest.mark.parametrize("positive", ["nearest", "each"])
@pytest.mark.parametrize("samples", [0, 3])
def test_no_positives_give_no_loss_and_finite_gradients(positive: str, samples: int) -> None:
    """A mistake of the source: it crashed."""
    queries = torch.randn(samples, 4, requires_grad=True)
    prototypes = torch.randn(2, 4, requires_grad=True)
    none = torch.zeros(samples, 2, dtype=torch.bool)
    loss = info_nce(queries, prototypes, none, ~none, 0.07, positive=positive)  # type: ignore[arg-type]
    loss.backward()
    assert loss.item() == 0
    for each in (queries, prototypes):
        assert each.grad is not None
        assert (each.grad == 0).all()


def test_one_prototype_of_each_class_works() -> None:
    """k = 1 crashed in the source."""
    queries, prototypes = torch.tensor([[2.0, 0.0]], requires_grad=True), torch.eye(2)
    own = torch.tensor([[True, False]])
    loss = info_nce(queries, prototypes, own, ~own, 1.0)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1)))
    loss.backward()
    assert queries.grad is not None
    assert queries.grad.isfinite().all()


def test_a_single_class_without_others_has_nothing_to_be_told_from() -> None:
    queries = torch.randn(3, 4, requires_grad=True)
    own = torch.ones(3, 2, dtype=torch.bool)
    loss = info_nce(queries, torch.randn(2, 4), own, ~own, 0.07)
    loss.backward()
    assert loss.item() == 0
    assert queries.grad is not None
    assert queries.grad.isfinite().all()


def test_a_region_of_nothing_has_finite_gradients() -> None:
    queries = torch.zeros(2, 4, requires_grad=True)
    own = torch.tensor([[True, False], [False, False]])
    info_nce(queries, torch.eye(2, 4), own, ~own, 0.07).backward()
    assert queries.grad is not None
    assert queries.grad.isfinite().all()


def test_losses_are_in_32_bits_under_autocast() -> None:
    queries, prototypes, own, others = drawn(1)
    features, tile, weights = torch.randn(2, 3, 4, 4), torch.tensor([0, 1]), torch.rand(2, 4, 4)
    exact = info_nce(queries, prototypes, own, others, 0.07), masked_means(features, tile, weights)
    with torch.autocast("cpu", torch.bfloat16):
        found = info_nce(queries, prototypes, own, others, 0.07), masked_means(features, tile, weights)
    assert all(each.dtype == torch.float32 for each in found)
    torch.testing.assert_close(found, exact)


# ---- classification -------------------------------------------------------------------------------------------------


def test_known_bce_counts_known_labels_alone() -> None:
    logits, label = torch.tensor([[0.3, -1.0], [2.0, 5.0]]), torch.tensor([[1, 0], [0, 1]])
    known = torch.tensor([[1, 0], [1, 1]])
    expected = (
        -math.log(1 / (1 + math.exp(-0.3))) - math.log(1 - 1 / (1 + math.exp(-2.0))) - math.log(1 / (1 + math.exp(-5)))
    ) / 3
    assert known_bce(logits, label, known).item() == pytest.approx(expected, rel=1e-5)


def test_an_unknown_label_teaches_nothing() -> None:
    logits = torch.randn(3, 2, requires_grad=True)
    known_bce(logits, torch.ones(3, 2), torch.zeros(3, 2)).backward()
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_scales_are_weighed_0_tenth_1_1_and_a_weight_of_0_is_not_computed() -> None:
    label, known = torch.tensor([[1, 0]]), torch.ones(1, 2)
    logits = [None, *(torch.randn(1, 2) for _ in range(3))]
    total, losses = multi_scale_bce(logits, label, known, (0.0, 0.1, 1.0, 1.0))
    own = [torch.nn.functional.binary_cross_entropy_with_logits(each, label.float()) for each in logits[1:]]
    assert total.item() == pytest.approx(float(0.1 * own[0] + own[1] + own[2]), rel=1e-6)
    torch.testing.assert_close(losses, own)


def test_a_scale_with_a_weight_must_be_there() -> None:
    with pytest.raises(ValueError, match="no logits"):
        multi_scale_bce([None], torch.ones(1, 1), torch.ones(1, 1), (1.0,))
    with pytest.raises(ValueError, match="2 weights for 1"):
        multi_scale_bce([torch.ones(1, 1)], torch.ones(1, 1), torch.ones(1, 1), (1.0, 1.0))


# ---- maps -----------------------------------------------------------------------------------------------------------


def test_total_variation_of_a_ramp_and_of_a_checkerboard() -> None:
    ramp = torch.arange(4.0).expand(1, 1, 3, 4) * 0.5  # half a step to the right, none down
    assert total_variation(ramp).item() == pytest.approx(0.5)
    board = (torch.arange(4)[:, None] + torch.arange(4)) % 2
    assert total_variation(board.float()[None, None]).item() == pytest.approx(2.0)
    assert total_variation(torch.full((2, 3, 5, 5), 0.7)).item() == 0


@pytest.mark.parametrize(("shape", "expected"), [((1, 1, 1, 3), 1.0), ((1, 1, 1, 1), 0.0)])
def test_total_variation_of_one_line_or_one_cell(shape: tuple[int, ...], expected: float) -> None:
    values = torch.arange(math.prod(shape), dtype=torch.float32).reshape(shape).requires_grad_()
    found = total_variation(values)
    found.backward()
    assert found.item() == expected


def test_sparsity_is_the_mean_size() -> None:
    assert sparsity(torch.tensor([[[[0.5, -1.5]]]])).item() == pytest.approx(1.0)


def test_bounded_maps() -> None:
    maps = torch.tensor([[[-2.0, 2.0]], [[3.0, 3.0]]])
    torch.testing.assert_close(bounded(maps, "minmax"), torch.tensor([[[0.0, 1.0]], [[0.0, 0.0]]]))
    torch.testing.assert_close(bounded(maps, "sigmoid"), maps.sigmoid())


@given(seed=st.integers(0, 10_000), bound=st.sampled_from(["minmax", "sigmoid"]), threshold=st.floats(0, 1))
def test_regions_part_every_map(seed: int, bound: str, threshold: float) -> None:
    maps = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(seed))
    settings = ContrastSettings(bound=bound, threshold=threshold)  # type: ignore[arg-type]
    marked, left = regions(maps, settings)
    assert ((marked >= 0) & (marked <= 1) & (left >= 0) & (left <= 1)).all()
    assert not ((marked > 0) & (left > 0)).any()
    assert (marked.flatten(1).amax(1) > 0).all()  # the largest place is always marked


def test_a_flat_map_marks_nothing_and_its_gradient_is_finite() -> None:
    maps = torch.full((1, 3, 3), 0.4, requires_grad=True)
    marked, left = regions(maps, ContrastSettings())
    assert not has_weight(marked).any()
    assert has_weight(left).all()
    (marked.sum() + left.sum()).backward()
    assert maps.grad is not None
    assert maps.grad.isfinite().all()


def test_masked_means_are_weighted_means() -> None:
    features, tile = torch.randn(3, 2, 4, 5), torch.tensor([0, 0, 2])
    weights = torch.rand(3, 4, 5)
    expected = torch.stack(
        [(features[b] * w).sum((1, 2)) / w.sum() for b, w in zip(tile.tolist(), weights, strict=True)]
    )
    torch.testing.assert_close(masked_means(features, tile, weights), expected)
    assert masked_means(features, tile[:0], weights[:0]).shape == (0, 2)
    assert (masked_means(features, tile, torch.zeros(3, 4, 5)) == 0).all()
