"""Features of parts of an image."""

from __future__ import annotations

import pytest
import torch

from lamella.errors import LamellaError
from lamella.models.encoders import ColourStatistics, InputContract, ViTEncoder, fresh_vit
from lamella.models.masked_features import check_masking, masked_features, resized
from lamella.models.named import load_named
from lamella.models.registry import find_entry
from lamella.models.vit import ViTSettings


def tiny() -> ViTEncoder:
    vit = ViTSettings(patch_px=8, dim=16, depth=2, heads=2)
    contract = InputContract(mpp=0.5, size_px=32, mean=(0.7, 0.5, 0.6), std=(0.2,) * 3, patch_px=8, dim=16)
    return ViTEncoder(fresh_vit(vit, 0), contract, "tiny")


def images(count: int = 2, side: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, side, side), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@pytest.mark.parametrize("mpp", [None, 0.25])
def test_a_whole_image_has_the_encoders_own_feature(mpp: float | None) -> None:
    encoder = tiny()
    torch.testing.assert_close(
        masked_features(encoder, images(), torch.ones(2, 32, 32), mpp), encoder.pooled(images(), mpp)
    )


def test_a_registered_network_too() -> None:
    entry = find_entry("efficientnet-lite0")
    assert entry is not None
    encoder = load_named(entry)
    torch.testing.assert_close(
        masked_features(encoder, images(1, 64), torch.ones(1, 64, 64)), encoder.pooled(images(1, 64))
    )


def test_what_is_left_out_is_not_seen() -> None:
    encoder, weights = tiny(), torch.zeros(2, 32, 32)
    weights[:, :16] = 1
    changed = images()
    changed[:, :, 16:] = 7
    torch.testing.assert_close(masked_features(encoder, images(), weights), masked_features(encoder, changed, weights))


def test_the_mask_has_a_gradient_and_the_encoder_none() -> None:
    encoder, weights = tiny(), torch.full((2, 32, 32), 0.5, requires_grad=True)
    masked_features(encoder, images(), weights).pow(2).sum().backward()
    assert weights.grad is not None
    assert weights.grad.isfinite().all()
    assert weights.grad.abs().sum() > 0
    assert all(each.grad is None for each in encoder.parameters())


def test_statistics_of_colours_have_no_gradient() -> None:
    with pytest.raises(LamellaError, match="pooled"):
        check_masking(ColourStatistics())
    with pytest.raises(LamellaError, match="pooled"):
        masked_features(ColourStatistics(), images(), torch.ones(2, 32, 32))


def test_resizing_keeps_flat_images_and_weights() -> None:
    flat = torch.full((1, 3, 64, 64), 130, dtype=torch.uint8)
    shown, weights = resized(flat, torch.full((1, 64, 64), 0.25), 32)
    assert (shown == 130).all()
    assert shown.shape == (1, 3, 32, 32)
    torch.testing.assert_close(weights, torch.full((1, 32, 32), 0.25))
    same, _ = resized(flat, weights, 64)
    assert same is flat
