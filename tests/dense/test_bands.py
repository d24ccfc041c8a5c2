from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.dense.bands import Bands, ClassEncoding, ValueEncoding, first_largest
from lamella.dense.blending import window
from lamella.dense.mosaic import Mosaic
from lamella.dense.tiling import Tiling
from lamella.errors import LamellaError, StorageError


class Store:
    """Keeps what is written and minds the order."""

    def __init__(self, shape, dtype, first=0):
        self.raster, self.next = np.full(shape, 77, dtype), first

    def write(self, y0, band):
        assert y0 == self.next
        self.next = y0 + band.shape[-2]
        self.raster[..., y0 : self.next, :] = band


def canvases(tiling: Tiling, maps: torch.Tensor, band_px: int, first: int = 0) -> tuple[Store, Store]:
    labels = Store((tiling.height, tiling.width), np.uint8, first * band_px)
    shares = Store((maps.shape[1], tiling.height, tiling.width), np.uint8, first * band_px)
    row = tiling.first_row_reaching(first * band_px)
    with Bands([labels, shares], ClassEncoding("m", maps.shape[1]), tiling, band_px, first=first) as bands:
        mosaic = Mosaic(tiling, maps.shape[1], window("gaussian", tiling.side), bands, first_row=row)
        start = tiling.first_tile_of(row)
        for tile, one in zip(tiling.tiles(start), maps[start:], strict=True):
            mosaic.add(tile, one)
        mosaic.finish()
        bands.finish()
    assert labels.next == shares.next == tiling.height
    return labels, shares


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.integers(1, 40),
    st.sampled_from([0, 0.25, 0.5, 0.75]),
    st.sampled_from([4, 16, 30]),
    st.floats(0, 1),
    st.integers(0, 1000),
)
def test_bands_of_any_height_hold_the_same_as_one_and_so_do_those_after_a_stop(
    height, width, side, overlap, band_px, share, seed
):
    rng = np.random.default_rng(seed)
    tiling = Tiling.over(height, width, side, overlap)
    tiling = Tiling(height, width, side, tiling.y0, tiling.x0, rng.random(tiling.kept.shape) <= share)
    maps = torch.from_numpy(rng.normal(size=(len(tiling), 3, side, side)).astype(np.float32)).softmax(1)
    whole = canvases(tiling, maps, band_px=1000)
    covered = np.zeros((height, width), bool)
    for tile in tiling.tiles():
        covered[tile.y : tile.y + side, tile.x : tile.x + side] = True
    assert ((whole[0].raster == 255) == ~covered).all()
    assert (whole[1].raster[:, ~covered] == 0).all()
    sums = whole[1].raster[:, covered].astype(int).sum(0)
    assert (np.abs(sums - 255) <= 1).all(), "each of three shares is rounded by half at the most"
    first = int(rng.integers(0, -(-height // band_px)))
    for begin in (0, first):
        for one, other in zip(canvases(tiling, maps, band_px, begin), whole, strict=True):
            y = begin * band_px
            assert (one.raster[..., y:, :] == other.raster[..., y:, :]).all()
            assert (one.raster[..., :y, :] == 77).all(), "what stands is not written again"


def test_the_first_of_equal_classes_is_taken():
    """A mistake of the source: ties of averaged masks fell as it happened."""
    block = torch.tensor([[0.2, 0.4, 0.25], [0.5, 0.4, 0.25], [0.5, 0.2, 0.5]])[:, None]
    assert first_largest(block).tolist() == [[1, 0, 2]]
    assert first_largest(torch.full((4, 2, 2), 0.25)).tolist() == [[0, 0], [0, 0]]


@given(st.integers(1, 250), st.integers(0, 1000))
def test_the_largest_channel_is_numpys_argmax(channels, seed):
    block = np.random.default_rng(seed).integers(0, 4, (channels, 3, 5)).astype(np.float32)
    assert (first_largest(torch.from_numpy(block)).numpy() == block.argmax(0)).all()


def test_probabilities_are_rounded_to_255ths():
    values = torch.linspace(0, 1, 1001)
    block = torch.stack([values, 1 - values])[:, None]
    _, shares = ClassEncoding("m", 2).encode(block.clone(), None)
    assert (shares.to(torch.uint8).numpy() == np.floor(255 * block.double().numpy() + 0.5)).mean() > 0.99, (
        "but for halves, which float32 may miss"
    )
    assert np.abs(shares.to(torch.uint8).numpy() / 255 - block.numpy()).max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("wrong", [-0.5, 1.5, float("nan"), float("inf")])
def test_logits_and_nans_are_no_probabilities(wrong):
    """A mistake of the source: logits were taken for probabilities and cut at 0.5."""
    block = torch.full((2, 4, 4), 0.5)
    block[1, 2, 3] = wrong
    with pytest.raises(LamellaError, match=r"m: its maps reach from .* which are no probabilities"):
        ClassEncoding("m", 2).encode(block, None)


def test_values_may_be_any_number_but_must_be_one():
    encoding = ValueEncoding("m", 1)
    block, seen = torch.tensor([[[-3.0, 700.0]]]), torch.tensor([[True, False]])
    (values,) = encoding.encode(block, seen)
    assert values[0, 0, 0] == -3
    assert values.isnan().tolist() == [[[False, True]]]
    for wrong in (float("nan"), float("-inf"), 70_000):
        with pytest.raises(LamellaError, match="half precision holds 65504"):
            encoding.encode(torch.tensor([[[wrong, 1.0]]]), None)


def test_values_in_single_precision_keep_small_rates() -> None:
    encoding = ValueEncoding("m", 1, torch.float32)
    block = torch.tensor([[[3e-9, 1e5], [0.1, -2.0]]])
    (stored,) = encoding.encode(block.clone(), torch.tensor([[True, True], [True, False]]))
    (memory,) = encoding.memory(2, 2)
    memory.copy_(stored)
    assert memory.dtype == torch.float32
    assert memory[0, 0].tolist() == block[0, 0].tolist()
    assert bool(memory[0, 1, 1].isnan())
    with pytest.raises(LamellaError, match=r"reach from 1 to inf, and float32 holds 3\.40282e\+38 at most"):
        encoding.encode(torch.tensor([[[1.0, torch.inf]]]), None)


def test_more_classes_than_a_label_map_can_number_are_refused():
    with pytest.raises(LamellaError, match="255 classes"):
        ClassEncoding("m", 255)
    ClassEncoding("m", 254)


def test_a_refused_write_reaches_the_caller_and_ends_the_thread():
    class Full(Store):
        def write(self, y0, band):
            raise StorageError("labels.zarr", "the disk is full", "Make room.")

    tiling = Tiling.over(40, 8, 8, 0)

    def run() -> None:
        with Bands([Full((40, 8), "u1")], ValueEncoding("m", 1), tiling, 4) as bands:
            mosaic = Mosaic(tiling, 1, window("constant", 8), bands)
            for tile in tiling.tiles():
                mosaic.add(tile, torch.zeros(1, 8, 8))
            mosaic.finish()
            bands.finish()

    with pytest.raises(StorageError):
        run()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("bands")]
