from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve

from lamella.models.expression.hist2st import Hist2ST, neighbour_mean
from lamella.models.expression.mini_unet import MiniUNet
from lamella.models.expression.settings import Hist2STSettings, MiniUNetSettings


@pytest.mark.parametrize("side", [1, 2, 3, 5, 7, 8, 13])
@torch.no_grad()
def test_every_side_comes_out_as_it_went_in(side: int) -> None:
    x = torch.randn(2, 8, side, side, generator=torch.Generator().manual_seed(0))
    for decoder in (MiniUNet(MiniUNetSettings(depth=3), 8, side), Hist2ST(Hist2STSettings(heads=2), 8, 2.0)):
        found = decoder(x)
        assert found.shape == x.shape
        assert bool(found.isfinite().all())


def test_small_tiles_are_not_halved_away() -> None:
    assert [MiniUNet(MiniUNetSettings(depth=4), 8, side).multiple for side in (1, 2, 4, 8, 16, 64, 128)] == [
        1, 1, 2, 4, 8, 16, 16,
    ]  # fmt: skip


@torch.no_grad()
def test_a_trained_unet_takes_tiles_of_other_sides() -> None:
    torch.manual_seed(0)
    decoder = MiniUNet(MiniUNetSettings(depth=2), 8, 32)
    x = torch.randn(1, 8, 48, 48)
    # Bins farther from the edge than it reaches do not know how large the tile is.
    whole, cut = decoder(x)[..., 20:24, 20:24], decoder(x[..., :44, :44])[..., 20:24, 20:24]
    torch.testing.assert_close(whole, cut, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("depth", "reach"), [(1, 4), (2, 10)])
@torch.no_grad()
def test_a_bin_hears_of_its_surroundings_only(depth: int, reach: int) -> None:
    torch.manual_seed(0)
    decoder = MiniUNet(MiniUNetSettings(depth=depth), 8, 32)
    x = torch.randn(1, 8, 32, 32)
    found = 0
    for at in range(14, 18):  # all places of a bin in the coarsest one
        other = x.clone()
        other[0, 3, at, at] += 1
        changed = ((decoder(other) - decoder(x)).abs().amax((0, 1)) > 0).nonzero()
        found = max(found, int((changed - at).abs().max()))
    assert found == reach


def test_neighbours_are_the_eight_around_that_exist() -> None:
    x = np.random.default_rng(0).normal(size=(6, 5))
    kernel = np.ones((3, 3))
    kernel[1, 1] = 0
    expected = convolve(x, kernel, mode="constant") / convolve(np.ones_like(x), kernel, mode="constant")
    found = neighbour_mean(torch.tensor(x)[None, None])[0, 0]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)
    assert neighbour_mean(torch.ones(1, 1, 1, 1)).item() == 0


@torch.no_grad()
def test_messages_go_one_bin_a_round_and_attention_everywhere() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 8, 16, 16)
    other = x.clone()
    other[:, 3, 8, 8] += 1  # one channel: the same on all would be taken out by the normalisation

    def reached(**settings: int) -> torch.Tensor:
        decoder = Hist2ST(Hist2STSettings(**{"mixers": 0, "blocks": 0, "graphs": 0, "heads": 2, **settings}), 8, 2.0)
        return (decoder(x) - decoder(other)).abs().amax((0, 1)) > 1e-7

    assert reached().nonzero().tolist() == [[8, 8]]
    assert reached(graphs=2).nonzero().amin(0).tolist() == [6, 6]
    assert reached(mixers=1).nonzero().amax(0).tolist() == [10, 10]
    assert bool(reached(blocks=1).all())
