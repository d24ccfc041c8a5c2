from __future__ import annotations

import numpy as np
import torch
from skimage.color import rgb2hsv

from lamella.models.colour_statistics import COLOUR_STATS, ColourStatistics
from lamella.models.contract import InputContract
from lamella.models.hub import load_encoder

CONTRACT = InputContract(mpp=0.25, size_px=16, mean=(0.7, 0.6, 0.7), std=(0.2, 0.2, 0.2), patch_px=4, dim=16)


def images(count: int = 3, height: int = 16, width: int = 16) -> torch.Tensor:
    made = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=made)


def test_colour_statistics_ignore_where_pixels_lie() -> None:
    encoder, pixels = ColourStatistics(), images()
    shuffled = pixels.flatten(2)[:, :, torch.randperm(256)].reshape(pixels.shape)
    assert torch.allclose(encoder.pooled(pixels), encoder.pooled(shuffled), atol=1e-5)
    # One image more than a chunk of 32: chunks make no difference.
    many = images(33)
    assert torch.allclose(encoder.pooled(many)[32], encoder.pooled(many[32:])[0], atol=1e-6)


def test_colour_statistics_are_those_of_numpy_and_scikit_image() -> None:
    pixels = images(1, 12, 20)
    found = ColourStatistics().pooled(pixels)[0].double().numpy()
    assert found.shape == (3 * 7 + 3 * 16 + 16 + 8 + 8 + 3 + 6,)
    channels = pixels[0].flatten(1).double().numpy() / 255
    hsv = rgb2hsv(channels.T)
    density = -np.log10((pixels[0].flatten(1).double().numpy() + 1) / 256)
    quantiles = np.quantile(channels, [0.05, 0.25, 0.5, 0.75, 0.95], axis=1, method="inverted_cdf")
    expected = [
        np.column_stack([channels.mean(1), channels.std(1), quantiles.T]).ravel(),
        np.concatenate([np.histogram(row, 16, (0, 2.4083))[0] / 240 for row in density]),
        np.histogram(hsv[:, 0], 16, (0, 1), weights=hsv[:, 1] * hsv[:, 2])[0] / 240,
        np.histogram(hsv[:, 1], 8, (0, 1))[0] / 240,
        np.histogram(pixels[0].amax(0), 8, (0, 256))[0] / 240,
        density.mean(1),
        np.cov(density, bias=True)[np.triu_indices(3)],
    ]
    assert np.abs(found - np.concatenate(expected)).max() < 1e-4


def test_colour_stats_is_loaded_by_name() -> None:
    assert load_encoder(COLOUR_STATS).contract.mpp == 0.5
    assert ColourStatistics(CONTRACT).contract.size_px == 16
