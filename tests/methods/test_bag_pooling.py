"""Whose label reaches which tile."""

from __future__ import annotations

import pytest
import torch

from lamella.methods.bag_pooling import carriers, numbered
from lamella.models.bag_pool import BagPool, BagPoolSettings, Pooling


def pool_of(kind: Pooling, top: float = 0.25, classes: int = 2) -> BagPool:
    torch.manual_seed(0)
    return BagPool(BagPoolSettings(kind=kind, top_fraction=top), 3, classes)


def test_bags_are_numbered_whatever_they_are_called() -> None:
    number, bags, first = numbered(torch.tensor([70, 70, 12, 12, 99]))
    assert number.tolist() == [1, 1, 0, 0, 2]
    assert (bags, first.tolist()) == (3, [2, 0, 4])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("topk", [5.0, 3.0]), ("mean", [2.0, 0.0]), ("none", [2.0, 0.0]), ("max", [6.0, 4.0])],
)
def test_pooling_against_closed_forms(kind: Pooling, expected: list[float]) -> None:
    logits = torch.tensor([[6.0, 1.0], [4.0, -2.0], [-1.0, 4.0], [-1.0, -3.0], [2.0, 2.0], [2.0, -2.0]])
    bag = torch.tensor([0, 0, 0, 0, 0, 0])
    found = pool_of(kind, top=1 / 3).of_bags(logits, None, bag, 1)
    torch.testing.assert_close(found, torch.tensor([expected]))


def test_attention_is_a_weighted_mean_of_the_logits() -> None:
    pool, logits, features = pool_of("attention"), torch.randn(5, 2), torch.randn(5, 3)
    weights = pool.weights(features)
    torch.testing.assert_close(weights.sum(0), torch.ones(2))
    torch.testing.assert_close(pool(logits, features), (weights * logits).sum(0))


def test_the_label_of_a_bag_reaches_only_its_top_tiles() -> None:
    """A slide's label is not that of each of its tiles."""
    logits = torch.randn(16, 2, requires_grad=True)
    bag = torch.arange(16) // 8
    pool = pool_of("topk", top=0.25)
    pool.of_bags(logits, None, bag, 2).sum().backward()
    assert logits.grad is not None
    reached = logits.grad != 0
    assert reached[:8].sum(0).tolist() == reached[8:].sum(0).tolist() == [2, 2]
    assert torch.equal(reached, carriers(pool, logits, None, bag, 2))
    for rows in (slice(0, 8), slice(8, 16)):
        top = logits[rows].topk(2, dim=0).values.amin(0)
        assert torch.equal(reached[rows], logits[rows] >= top)


@pytest.mark.parametrize("kind", ["mean", "none"])
def test_every_tile_answers_for_a_mean(kind: Pooling) -> None:
    assert carriers(pool_of(kind), torch.randn(7, 2), None, torch.tensor([0, 0, 0, 1, 1, 1, 1]), 2).all()


def test_attention_looks_at_tiles_that_count_more_than_the_average() -> None:
    pool, logits, features = pool_of("attention"), torch.randn(6, 2), torch.randn(6, 3)
    bag = torch.tensor([0, 0, 0, 1, 1, 1])
    found = carriers(pool, logits, features, bag, 2)
    weights = torch.cat([pool.weights(features[:3]), pool.weights(features[3:])])
    assert torch.equal(found, weights >= 1 / 3)
    assert found.any(0).all()
