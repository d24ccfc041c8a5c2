from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.dense.blending import window
from lamella.dense.mosaic import Mosaic
from lamella.dense.tiling import Tiling


class Canvas:
    """Takes blocks and minds that each pixel comes once, below what is finished."""

    def __init__(self, channels: int, tiling: Tiling) -> None:
        self.values = torch.zeros(channels, tiling.height, tiling.width)
        self.times = np.zeros((tiling.height, tiling.width), int)
        self.seen = np.zeros((tiling.height, tiling.width), bool)
        self.finished = 0

    def take(self, y, x, block_CYX, seen_YX):
        assert y >= self.finished
        _, rows, columns = block_CYX.shape
        part = self.values[:, y : y + rows, x : x + columns]
        rows, columns = part.shape[1:]  # of a tile that reaches over the raster
        part[...] = block_CYX[:, :rows, :columns]
        self.times[y : y + rows, x : x + columns] += 1
        self.seen[y : y + rows, x : x + columns] = True if seen_YX is None else seen_YX[:rows, :columns].numpy()

    def rows_finished(self, y):
        assert y >= self.finished
        self.finished = y


def full_canvas(tiling: Tiling, maps: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, np.ndarray]:
    """The plain way: all of the raster in memory."""
    height, width = tiling.height + tiling.side, tiling.width + tiling.side
    total, weight = torch.zeros(maps.shape[1], height, width), torch.zeros(height, width)
    for tile, one in zip(tiling.tiles(), maps, strict=True):
        place = (slice(tile.y, tile.y + tiling.side), slice(tile.x, tile.x + tiling.side))
        total[:, *place].addcmul_(one, weights)
        weight[place] += weights
    weight = weight[: tiling.height, : tiling.width]
    total = total[:, : tiling.height, : tiling.width]
    return torch.where(weight > 0, total / weight, 0), (weight > 0).numpy()


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(1, 24),
    st.sampled_from([0, 0.25, 0.3, 0.5, 0.62, 0.75, 0.9]),
    st.sampled_from(["gaussian", "hann", "constant"]),
    st.floats(0, 1),
    st.integers(0, 1000),
)
def test_the_strip_gives_what_the_whole_canvas_gives_to_the_last_bit(height, width, side, overlap, name, share, seed):
    rng = np.random.default_rng(seed)
    tiling = Tiling.over(height, width, side, overlap)
    tiling = Tiling(height, width, side, tiling.y0, tiling.x0, rng.random(tiling.kept.shape) <= share)
    maps = torch.from_numpy(rng.normal(size=(len(tiling), 2, side, side)).astype(np.float32))
    weights, taker = window(name, side), Canvas(2, tiling)
    mosaic = Mosaic(tiling, 2, weights, taker)
    for tile, one in zip(tiling.tiles(), maps, strict=True):
        mosaic.add(tile, one)
    mosaic.finish()
    wanted, covered = full_canvas(tiling, maps, weights)
    assert taker.finished == height
    assert taker.times.max() <= 1
    assert (taker.times[covered] == 1).all()
    assert (taker.seen == covered).all()
    assert torch.equal(taker.values, wanted)


@settings(max_examples=40, deadline=None)
@given(st.integers(20, 90), st.sampled_from([0, 0.25, 0.5, 0.8]), st.floats(0.2, 1), st.integers(0, 1000))
def test_begun_later_the_rows_that_only_later_tiles_touch_are_the_same(height, overlap, share, seed):
    rng = np.random.default_rng(seed)
    tiling = Tiling.over(height, 50, 12, overlap)
    tiling = Tiling(height, 50, 12, tiling.y0, tiling.x0, rng.random(tiling.kept.shape) <= share)
    maps = torch.from_numpy(rng.normal(size=(len(tiling), 1, 12, 12)).astype(np.float32))
    wanted, _ = full_canvas(tiling, maps, window("gaussian", 12))
    y = int(rng.integers(0, height))
    first = tiling.first_row_reaching(y)
    taker = Canvas(1, tiling)
    mosaic = Mosaic(tiling, 1, window("gaussian", 12), taker, first_row=first)
    start = tiling.first_tile_of(first)
    for tile, one in zip(tiling.tiles(start), maps[start:], strict=True):
        assert tile.row >= first
        mosaic.add(tile, one)
    mosaic.finish()
    assert torch.equal(taker.values[:, y:], wanted[:, y:])
