"""Attention as the model itself has it, and its rollout by hand."""

from __future__ import annotations

import pytest
import torch
from tests.models.tiny_models import TINY, made, saved

from lamella.errors import LamellaError
from lamella.models.encoders import ColourStatistics, InputContract, ViTEncoder, fresh_vit
from lamella.models.pretrained import PretrainedEncoder
from lamella.models.transformers_encoder import load_transformers
from lamella.models.vit import ViTSettings
from lamella.view.attention import attended, attentions, rollout, token_grid

CONTRACT = InputContract(None, 24, (0.5,) * 3, (0.25,) * 3, patch_px=8, dim=32)


@pytest.fixture(scope="module")
def own() -> ViTEncoder:
    encoder = ViTEncoder(fresh_vit(ViTSettings(patch_px=8, dim=32, depth=3, heads=2), seed=0), CONTRACT, "own")
    for block in encoder.vit.blocks:
        block.qkv.weight.mul_(8)  # fresh attention is almost even; this one is not
    return encoder


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 16, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_rollout_of_two_layers_by_hand() -> None:
    first = torch.tensor([[[[1.0, 0.0], [0.6, 0.4]], [[1.0, 0.0], [0.4, 0.6]]]])  # two heads; mean [[1, 0], [.5, .5]]
    second = torch.tensor([[[[0.2, 0.8], [0.6, 0.4]]]])
    # Rows of (A + I) / 2: first [[1, 0], [.25, .75]], second [[.6, .4], [.3, .7]]; second times first:
    expected = torch.tensor([[[0.7, 0.3], [0.475, 0.525]]])
    torch.testing.assert_close(rollout([first, second]), expected)
    with pytest.raises(ValueError, match="without layers"):
        rollout([])


def test_shares_sum_to_one_for_the_feature_and_for_a_token(own, images) -> None:
    for token in (None, 0, 5):
        found = attended(own, images, token)
        assert found.rollout_BN.shape == (2, 6)
        assert found.heads_BHN.shape == (2, 2, 6)
        torch.testing.assert_close(found.rollout_BN.sum(-1), torch.ones(2))
        torch.testing.assert_close(found.heads_BHN.sum(-1), torch.ones(2, 2))
        assert not found.elsewhere_B.any()
    assert token_grid(own, images) == (2, 3)
    with pytest.raises(ValueError, match="token 6 of 6"):
        attended(own, images, 6)


def test_the_feature_s_attention_is_the_mean_of_its_tokens_rows(own, images) -> None:
    rows = [attended(own, images, token) for token in range(6)]
    whole = attended(own, images)
    torch.testing.assert_close(whole.rollout_BN, torch.stack([row.rollout_BN for row in rows]).mean(0))
    torch.testing.assert_close(whole.heads_BHN, torch.stack([row.heads_BHN for row in rows]).mean(0))


def test_attention_taken_from_the_model_makes_its_features(own, images) -> None:
    """Each block's output follows from the attention that is shown: what is drawn is what the model used."""
    x_BND = own.vit._embedded(*own.patches_and_places(images))
    for block, attention_BHNN in zip(own.vit.blocks, attentions(own, images), strict=True):
        values_BHNE = block.queries_keys_values(x_BND)[2]
        x_BND = block.finish(x_BND, attention_BHNN @ values_BHNE)
        assert attention_BHNN.max() > 2 / 6  # not even, so a wrong matrix would show
    torch.testing.assert_close(own.vit.norm(x_BND), own.tokens(images), rtol=1e-4, atol=1e-5)


def _loaded(name: str, folder) -> PretrainedEncoder:
    saved(TINY[name], folder)
    return PretrainedEncoder(TINY[name].entry, load_transformers(TINY[name].entry, folder))


@pytest.mark.parametrize("name", ["dinov2", "registers", "swiglu, cls and mean", "clip with its text tower"])
def test_transformers_encoders_give_the_row_of_their_feature(name, tmp_path, images) -> None:
    encoder = _loaded(name, tmp_path)
    layers = list(attentions(encoder, images))
    prefix = encoder.contract.prefix_tokens
    assert [layer.shape for layer in layers] == [(2, 2, 6 + prefix, 6 + prefix)] * 2
    before = encoder.pooled(images)
    found = attended(encoder, images)
    torch.testing.assert_close(found.rollout_BN.sum(-1) + found.elsewhere_B, torch.ones(2))
    assert (found.elsewhere_B > 0).all()
    flow_BSS = rollout(layers)
    row_BS = flow_BSS[:, 0]
    if name == "swiglu, cls and mean":
        row_BS = row_BS / 2 + flow_BSS[:, 1:].mean(1) / 2
    torch.testing.assert_close(found.rollout_BN, row_BS[:, prefix:])
    torch.testing.assert_close(encoder.pooled(images), before)  # and the network is as it was
    assert encoder.trunk.network.config._attn_implementation == "sdpa"


def test_attention_of_a_transformers_layer_is_softmax_of_its_own_queries_and_keys(tmp_path, images) -> None:
    encoder = _loaded("dinov2", tmp_path)
    network = made(TINY["dinov2"])
    x_BCYX = (images.float() - encoder.mean_C11) / encoder.std_C11
    hidden_BSD = network.embeddings(x_BCYX)
    layer = network.encoder.layer[0]
    linears = dict(layer.attention.named_modules())
    normed = layer.norm1(hidden_BSD)
    queries, keys = (
        next(linear for name, linear in linears.items() if name in names)(normed).reshape(2, 7, 2, 16).transpose(1, 2)
        for names in (("q_proj", "attention.query"), ("k_proj", "attention.key"))  # as transformers 5 and 4 call them
    )
    expected = (queries @ keys.transpose(-1, -2) / 4).softmax(-1)
    torch.testing.assert_close(next(iter(attentions(encoder, images))), expected)


def test_networks_without_attention_say_so(tmp_path, images) -> None:
    with pytest.raises(LamellaError, match="no transformer"):
        attended(_loaded("resnet with a classifier", tmp_path), images)
    with pytest.raises(LamellaError, match="colour-stats: it is no transformer"):
        attended(ColourStatistics(CONTRACT), images)
