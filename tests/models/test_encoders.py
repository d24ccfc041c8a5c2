from __future__ import annotations

import dataclasses

import pytest
import torch

from lamella.errors import LamellaError
from lamella.models.encoders import (
    ColourStatistics,
    Encoder,
    InputContract,
    ViTEncoder,
    fresh_vit,
    random_twin,
)
from lamella.models.vit import ViTSettings

SETTINGS = ViTSettings(patch_px=4, dim=16, depth=2, heads=2)
CONTRACT = InputContract(mpp=0.5, size_px=16, mean=(0.7, 0.6, 0.7), std=(0.2, 0.2, 0.2), patch_px=4, dim=16)


@pytest.fixture
def encoder() -> ViTEncoder:
    return ViTEncoder(fresh_vit(SETTINGS, seed=1), CONTRACT, "tested")


def images(count: int = 3, height: int = 16, width: int = 16, seed: int = 0) -> torch.Tensor:
    made = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=made)


def test_both_encoders_keep_the_protocol(encoder: ViTEncoder) -> None:
    for made in (encoder, ColourStatistics(CONTRACT)):
        assert isinstance(made, Encoder)
        assert made.pooled(images()).shape == (3, made.contract.dim)
        assert made.tokens(images()).shape[::2] == (3, made.contract.dim)
        assert len(made.fingerprint) == 16
        assert made.to("cpu") is made


def test_pooled_is_the_mean_patch_token_and_no_graph_is_kept(encoder: ViTEncoder) -> None:
    tokens = encoder.tokens(images(height=8, width=12))
    assert tokens.shape == (3, 6, 16)
    assert torch.allclose(encoder.pooled(images(height=8, width=12)), tokens.mean(1))
    assert not tokens.requires_grad


def test_images_in_a_batch_do_not_meet(encoder: ViTEncoder) -> None:
    together = encoder.pooled(images())
    for number in range(3):
        assert torch.allclose(together[number], encoder.pooled(images()[number : number + 1])[0], atol=1e-5)


@pytest.mark.parametrize("wrong", [images().float(), images()[0], images()[:, :1]])
def test_images_of_another_kind_are_refused(encoder: ViTEncoder, wrong: torch.Tensor) -> None:
    for made in (encoder, ColourStatistics()):
        with pytest.raises(ValueError, match="images must be uint8"):
            made.pooled(wrong)


def test_the_spacing_of_the_contract_reaches_the_positions(encoder: ViTEncoder) -> None:
    coarser = ViTEncoder(encoder.vit, dataclasses.replace(CONTRACT, mpp=1.0), "coarser")
    assert not torch.allclose(coarser.pooled(images()), encoder.pooled(images()), atol=1e-3)
    assert torch.equal(coarser.pooled(images()), encoder.pooled(images(), mpp=1.0))  # what the images say wins
    with pytest.raises(ValueError, match="patch_px and dim"):
        ViTEncoder(encoder.vit, dataclasses.replace(CONTRACT, dim=32), "wrong")


def test_the_fingerprint_follows_weights_and_contract(encoder: ViTEncoder) -> None:
    same = ViTEncoder(fresh_vit(SETTINGS, seed=1), CONTRACT, "another name")
    assert same.fingerprint == encoder.fingerprint
    assert ViTEncoder(encoder.vit, dataclasses.replace(CONTRACT, mpp=1.0), "x").fingerprint != encoder.fingerprint
    with torch.no_grad():
        same.vit.norm.bias[0] += 1e-3
    assert same.fingerprint != encoder.fingerprint


def test_a_random_twin_is_alike_but_for_its_weights(encoder: ViTEncoder) -> None:
    before = torch.random.get_rng_state()
    twin = random_twin(encoder, seed=4)
    assert torch.equal(before, torch.random.get_rng_state())
    assert twin.contract == encoder.contract
    assert twin.vit.settings == encoder.vit.settings
    assert twin.fingerprint == random_twin(encoder, seed=4).fingerprint
    assert len({twin.fingerprint, random_twin(encoder, seed=5).fingerprint, encoder.fingerprint}) == 3
    with pytest.raises(LamellaError, match="no weights"):
        random_twin(ColourStatistics())
