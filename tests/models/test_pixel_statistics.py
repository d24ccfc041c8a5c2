from __future__ import annotations

import torch

from lamella.models.contract import Encoder, InputContract
from lamella.models.pixel_statistics import PixelStatistics


def test_a_thumbnail_quantiles_mean_and_deviation() -> None:
    ramp = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(1, 3, 1, 1)
    features = PixelStatistics().pooled(ramp)[0]
    thumbnail, quantiles, mean, deviation = features.split([256, 21, 1, 1])
    torch.testing.assert_close(thumbnail, torch.arange(256) / 255)
    torch.testing.assert_close(quantiles, torch.linspace(0, 255, 21).round() / 255)
    torch.testing.assert_close(mean, torch.tensor([0.5]))
    torch.testing.assert_close(deviation, (torch.arange(256) / 255).std()[None])


def test_it_is_an_encoder_of_any_size_and_takes_over_a_contract() -> None:
    like = InputContract(None, 32, (0.5,) * 3, (0.2,) * 3, patch_px=8, dim=7)
    encoder = PixelStatistics(like)
    assert isinstance(encoder, Encoder)
    assert (encoder.contract.size_px, encoder.contract.mpp) == (32, None)
    images = torch.randint(0, 256, (40, 3, 28, 50), dtype=torch.uint8)
    found = encoder.pooled(images)
    assert found.shape == (40, encoder.contract.dim)
    torch.testing.assert_close(found[33:34], encoder.pooled(images[33:34]))
    assert encoder.fingerprint != PixelStatistics().fingerprint
