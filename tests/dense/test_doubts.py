from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lamella.dense.doubts import tile_doubts
from lamella.formats.ome_zarr import ProbabilityStore, StoredRaster, open_raster
from lamella.geometry import Frame

SIDE = 32


def raster_of(folder: Path, shares_CYX: np.ndarray, mpp: float = 0.5, chunk_px: int = 64) -> StoredRaster:
    channels, height, width = shares_CYX.shape
    names = [f"class {number}" for number in range(channels)]
    store = ProbabilityStore(folder / "p.zarr", names, height, width, mpp, chunk_px)
    store.write(0, np.floor(shares_CYX * 255 + 0.5).astype(np.uint8))
    store.finish()
    return open_raster(folder / "p.zarr")


def flat(*tiles: tuple[float, ...], rows: int = 1) -> np.ndarray:
    """(C, SIDE * rows, SIDE * n): a tile of each list of probabilities."""
    grid_CK = np.array(tiles).T[:, None].repeat(rows, 1)
    return grid_CK.repeat(SIDE, 1).repeat(SIDE, 2)


def test_margin_and_entropy_are_those_of_the_probabilities(tmp_path):
    tiles = [(1.0, 0.0, 0.0), (0.4, 0.4, 0.2), (1 / 3, 1 / 3, 1 / 3), (0.2, 0.6, 0.2)]
    doubts = tile_doubts(raster_of(tmp_path, flat(*tiles)), Frame(4 * SIDE, SIDE, 0.5, 0.5), SIDE)
    wanted = [-sum(p * np.log(p) for p in tile if p) / np.log(3) for tile in tiles]
    assert doubts.margin == pytest.approx([1, 0, 0, 0.4], abs=0.005)  # of 255
    assert doubts.entropy == pytest.approx(wanted, abs=0.005)
    assert doubts.likeliest.tolist()[0] == 0
    assert doubts.likeliest.tolist()[3] == 1
    assert doubts.fov_um == SIDE * 0.5


@pytest.mark.parametrize("finer", [1, 2])
def test_tiles_are_told_in_level_0_pixels(tmp_path, finer):
    frame = Frame(2 * SIDE * finer, 3 * SIDE * finer, 0.5 / finer, 0.5 / finer)
    doubts = tile_doubts(raster_of(tmp_path, flat((1.0, 0.0), (0.5, 0.5), rows=3)), frame, SIDE)
    places = [(x * SIDE * finer, y * SIDE * finer) for y in range(3) for x in range(2)]
    assert doubts.corners_px0.tolist() == [list(place) for place in places]


def test_tiles_that_were_mostly_not_looked_at_are_left_out(tmp_path):
    shares = flat((0.5, 0.5), (0.5, 0.5), (0.5, 0.5))
    shares[:, :, :20] = 0  # more than half of the first
    shares[:, :, SIDE : SIDE + 12] = 0  # less than half of the second: only what was looked at is judged
    doubts = tile_doubts(raster_of(tmp_path, shares), Frame(3 * SIDE, SIDE, 0.5, 0.5), SIDE)
    assert doubts.corners_px0[:, 0].tolist() == [SIDE, 2 * SIDE]
    assert doubts.margin == pytest.approx([0, 0], abs=0.005)
    empty = tile_doubts(raster_of(tmp_path / "none", np.zeros((2, 40, 40))), Frame(40, 40, 0.5, 0.5), SIDE)
    assert len(empty) == 0
    assert empty.corners_px0.shape == (0, 2)


def test_a_coarser_level_is_read_and_says_the_same_of_smooth_maps(tmp_path):
    """256 px tiles are read at level 2; of probabilities that change slowly it makes no difference."""
    x = np.linspace(0.5, 1, 512)[None].repeat(512, 0)
    shares = np.stack([x, 1 - x])
    raster = raster_of(tmp_path, shares, chunk_px=64)
    assert len(raster.levels) > 2
    doubts = tile_doubts(raster, Frame(512, 512, 0.5, 0.5), 256)
    stored = np.floor(shares * 255 + 0.5) / 255
    wanted = [(stored[0] - stored[1])[:, part].mean() for part in (slice(0, 256), slice(256, 512))]
    assert doubts.margin.reshape(2, 2) == pytest.approx(np.array([wanted, wanted]), abs=0.005)


def test_one_class_alone_is_never_in_doubt(tmp_path):
    doubts = tile_doubts(raster_of(tmp_path, flat((1.0,))), Frame(SIDE, SIDE, 0.5, 0.5), SIDE)
    assert (doubts.margin.tolist(), doubts.entropy.tolist()) == ([1.0], [0.0])
