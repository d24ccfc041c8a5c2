"""From the logits of tiles to those of their slide."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lamella.models.bag_pool import BagPool, BagPoolSettings

KINDS = ("attention", "topk", "mean", "max", "none")


def pool(kind: str, **settings: object) -> BagPool:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return BagPool(BagPoolSettings(kind=kind, **settings), dim=5, classes=2)  # type: ignore[arg-type]


def bag(tiles: int = 7, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tiles, 2, generator=generator), torch.randn(tiles, 5, generator=generator)


def test_closed_forms() -> None:
    logits = torch.tensor([[1.0, -1.0], [3.0, 0.0], [5.0, 4.0]])
    assert pool("mean")(logits).tolist() == [3.0, 1.0]
    assert pool("none")(logits).tolist() == [3.0, 1.0]
    assert pool("max")(logits).tolist() == [5.0, 4.0]
    assert pool("topk", top_fraction=0.5)(logits).tolist() == [4.0, 2.0]
    assert pool("topk", top_fraction=0.01)(logits).tolist() == [5.0, 4.0]  # one at least


@given(kind=st.sampled_from(KINDS), tiles=st.integers(1, 12), seed=st.integers(0, 100))
def test_a_bag_lies_between_its_tiles_and_their_order_does_not_matter(kind: str, tiles: int, seed: int) -> None:
    logits, features = bag(tiles, seed)
    found = pool(kind)(logits, features)
    assert (found <= logits.amax(0) + 1e-5).all()
    assert (found >= logits.amin(0) - 1e-5).all()
    order = torch.randperm(tiles, generator=torch.Generator().manual_seed(seed))
    assert torch.allclose(found, pool(kind)(logits[order], features[order]), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_bags_of_a_batch_are_pooled_each_by_itself(kind: str) -> None:
    logits, features = bag(9)
    number = torch.tensor([1, 0, 1, 1, 2, 0, 2, 1, 0])
    together = pool(kind).of_bags(logits, features, number, 3)
    for each in range(3):
        alone = pool(kind)(logits[number == each], features[number == each])
        assert torch.allclose(together[each], alone, atol=1e-6)


def test_attention_is_gated_and_of_each_class_its_own() -> None:
    model = pool("attention")
    logits, features = bag()
    weights = model.weights(features)
    assert torch.allclose(weights.sum(0), torch.ones(2))
    hidden = torch.tanh(features @ model.content.weight.T + model.content.bias)
    hidden = hidden / (1 + torch.exp(-(features @ model.gate.weight.T + model.gate.bias)))
    expected = (hidden @ model.attend.weight.T).exp()
    assert torch.allclose(weights, expected / expected.sum(0), atol=1e-6)
    assert torch.allclose(model(logits, features), (weights * logits).sum(0), atol=1e-6)
    with pytest.raises(ValueError, match="needs the features"):
        model(logits)


def test_an_empty_bag_is_refused() -> None:
    with pytest.raises(ValueError, match="without tiles"):
        pool("mean")(torch.zeros(0, 2))
