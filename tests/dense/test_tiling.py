from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.dense.tiling import Tiling
from lamella.geometry import Frame
from lamella.slides.tissue_map import TissueMap


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 400),
    st.integers(1, 400),
    st.integers(1, 64),
    st.sampled_from([0, 0.25, 0.5, 0.75]),
    st.integers(1, 30),
    st.integers(1, 30),
    st.integers(0, 1000),
)
def test_every_pixel_of_tissue_is_under_every_tile_of_the_grid_that_lies_over_it(
    height, width, side, overlap, mask_height, mask_width, seed
):
    rng = np.random.default_rng(seed)
    frame = Frame(width, height, 0.5, 0.5)
    mask = rng.random((mask_height, mask_width)) < 0.1
    tissue = TissueMap(mask, frame.resized(mask_width, mask_height))
    whole = Tiling.over(height, width, side, overlap)
    kept = whole.on_tissue(tissue, frame)
    assert len(kept) == kept.kept.sum() == len(list(kept.tiles()))
    # Pixel by pixel: does the square of this raster's pixel touch a tissue pixel's square?
    rows, columns = (
        _touched(mask.any(1 - axis), length, cells)
        for axis, length, cells in ((0, height, mask_height), (1, width, mask_width))
    )
    touched = np.zeros((height, width), bool)
    for i, j in np.argwhere(mask):
        touched[np.ix_(_touched_by(i, height, mask_height), _touched_by(j, width, mask_width))] = True
    assert not touched[~rows].any()
    assert not touched[:, ~columns].any()
    for row, y in enumerate(whole.y0):
        for column, x in enumerate(whole.x0):
            assert kept.kept[row, column] == touched[y : y + side, x : x + side].any()


def _touched_by(cell: int, length: int, cells: int) -> np.ndarray:
    """Which of `length` pixels share area with one of `cells` equal parts of them; in whole numbers."""
    start, stop = cell * length, (cell + 1) * length  # in 1 / cells of a pixel
    pixel = np.arange(length)
    return np.flatnonzero((pixel * cells < stop) & ((pixel + 1) * cells > start))


def _touched(any_tissue: np.ndarray, length: int, cells: int) -> np.ndarray:
    touched = np.zeros(length, bool)
    for cell in np.flatnonzero(any_tissue):
        touched[_touched_by(int(cell), length, cells)] = True
    return touched


@given(st.integers(1, 500), st.integers(1, 60), st.sampled_from([0, 0.25, 0.5, 0.9]), st.integers(0, 600))
def test_the_first_row_that_reaches_a_place(height, side, overlap, y):
    tiling = Tiling.over(height, 10, side, overlap)
    first = tiling.first_row_reaching(y)
    reaching = [row for row, y0 in enumerate(tiling.y0) if y0 + side > y]
    assert first == (reaching[0] if reaching else len(tiling.y0))
    assert tiling.finished_at(len(tiling.y0) - 1) == height
