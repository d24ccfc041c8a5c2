from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from lamella.models.predictor import Predictor, PredictorSettings

B, N, K, Q, D = 2, 7, 3, 5, 24
SETTINGS = PredictorSettings(width=16, depth=3, heads=2)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    torch.manual_seed(0)
    made = Predictor(SETTINGS, D, wave_min=32.0, wave_max=2048.0)
    # Fresh weights are so small that attention is nearly uniform; larger ones make a wrong mask visible.
    with torch.no_grad():
        for block in made.blocks:
            block.qkv.weight.mul_(15)
            block.attention_out.weight.mul_(15)
    return made.eval().requires_grad_(False)


@pytest.fixture
def asked() -> dict[str, torch.Tensor]:
    made = torch.Generator().manual_seed(1)
    return {
        "context_BND": torch.randn(B, N, D, generator=made),
        "context_places_BNC": 100 * torch.randn(B, N, 2, generator=made),
        "query_places_BKQC": 100 * torch.randn(B, K, Q, 2, generator=made),
        "query_um_B": torch.tensor([8.0, 16.0]),
    }


def test_one_pass_equals_one_pass_per_target(predictor: Predictor, asked: dict[str, torch.Tensor]) -> None:
    together = predictor(**asked)
    assert together.shape == (B, K, Q, D)
    for target in range(K):
        alone = predictor(**{**asked, "query_places_BKQC": asked["query_places_BKQC"][:, target : target + 1]})
        assert torch.allclose(together[:, target], alone[:, 0], atol=1e-5)


def test_it_is_a_plain_transformer_under_the_stated_mask(predictor: Predictor, asked: dict[str, torch.Tensor]) -> None:
    """Independent: all tokens in one sequence, attention under an explicit (N + K Q)^2 mask."""
    context = predictor.narrow(asked["context_BND"]) + predictor.position(asked["context_places_BNC"])
    scale = predictor.scale(predictor.scale_waves(torch.log2(asked["query_um_B"])[:, None]))
    queries = predictor.mask_token + predictor.position(asked["query_places_BKQC"]) + scale[:, None, None]
    tokens = torch.cat([context, queries.flatten(1, 2)], dim=1)
    owner = torch.cat([torch.zeros(N), torch.arange(1, K + 1).repeat_interleave(Q)])
    seen = (owner[None] == 0) | (owner[:, None] == owner[None])
    for block in predictor.blocks:
        tokens = block(tokens, seen)
    plain = predictor.widen(predictor.norm(tokens[:, N:])).unflatten(1, (K, Q))
    assert torch.allclose(predictor(**asked), plain, atol=1e-5)


@pytest.mark.parametrize("padded", [("context",), ("query",), ("context", "query")])
def test_padding_changes_nothing(predictor: Predictor, asked: dict[str, torch.Tensor], padded: tuple[str, ...]) -> None:
    more = dict(asked)
    if "context" in padded:
        more["context_BND"] = torch.cat([asked["context_BND"], torch.full((B, 2, D), 9.0)], 1)
        more["context_places_BNC"] = torch.cat([asked["context_places_BNC"], torch.zeros(B, 2, 2)], 1)
        more["context_pad_BN"] = (torch.arange(N + 2) >= N).expand(B, -1)
    if "query" in padded:
        more["query_places_BKQC"] = torch.cat([asked["query_places_BKQC"], torch.zeros(B, K, 3, 2)], 2)
        more["query_pad_BKQ"] = (torch.arange(Q + 3) >= Q).expand(B, K, -1)
    found = predictor(**more)
    assert torch.isfinite(found).all()
    assert torch.allclose(found[:, :, :Q], predictor(**asked), atol=1e-5)


def test_a_query_knows_its_place_and_its_scale(predictor: Predictor, asked: dict[str, torch.Tensor]) -> None:
    expected = predictor(**asked)
    coarser = predictor(**{**asked, "query_um_B": 2 * asked["query_um_B"]})
    elsewhere = predictor(**{**asked, "query_places_BKQC": asked["query_places_BKQC"] + 30.0})
    assert (coarser - expected).abs().amax((1, 2, 3)).min() > 1e-3
    assert (elsewhere - expected).abs().amax((1, 2, 3)).min() > 1e-3


def test_every_weight_learns() -> None:
    torch.manual_seed(0)
    predictor = Predictor(SETTINGS, D, 32.0, 2048.0)
    predictor(
        torch.randn(B, N, D), torch.randn(B, N, 2), torch.randn(B, K, Q, 2), torch.ones(B)
    ).square().sum().backward()
    silent = [
        name for name, weight in predictor.named_parameters() if weight.grad is None or weight.grad.abs().max() == 0
    ]
    assert silent == []


def test_a_width_that_its_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"width .20. must be a multiple of 4 and of the 3 heads"):
        PredictorSettings(width=20, heads=3)
