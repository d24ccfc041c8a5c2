from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.formats.lattice import agreed_mpp, fit_lattice
from lamella.formats.spatial_counts import ExpressionError
from lamella.geometry import BinGrid


def lattice(turn_deg: float, mirrored: bool, step_px: float, origin: tuple[float, float] = (900.0, 50.0)) -> BinGrid:
    turn = math.radians(turn_deg)
    col = (math.cos(turn) * step_px, math.sin(turn) * step_px)
    sign = -1 if mirrored else 1
    row = (-math.sin(turn) * step_px * sign, math.cos(turn) * step_px * sign)
    return BinGrid(origin, row, col, 2.0)


def places(grid: BinGrid, rc: np.ndarray) -> np.ndarray:
    return np.stack(grid.place_px0(rc[:, 0], rc[:, 1]), 1)


@settings(max_examples=60, deadline=None)
@given(
    turn=st.floats(-180, 180),
    mirrored=st.booleans(),
    step=st.floats(2, 30),
    seed=st.integers(0, 99),
    jitter=st.floats(0, 0.2),
)
def test_any_turned_and_mirrored_chip_is_found(
    turn: float, mirrored: bool, step: float, seed: int, jitter: float
) -> None:
    """Against numpy's least squares, on places that are off by up to a fifth of a bin."""
    rng = np.random.default_rng(seed)
    grid = lattice(turn, mirrored, step)
    rc = rng.choice(40 * 30, 60, replace=False)
    rc = np.stack([rc // 30, rc % 30], 1)
    px0 = places(grid, rc) + rng.uniform(-jitter, jitter, (60, 2)) * step
    found = fit_lattice("chip", rc, px0, 2.0)
    expected = np.linalg.lstsq(np.column_stack([np.ones(60), rc]), px0, rcond=None)[0]
    assert np.allclose([found.origin_px0, found.row_step_px0, found.col_step_px0], expected, atol=1e-6)
    assert found.mirrored == mirrored


def test_pieces_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = lattice(1.0, True, 7.3)
    rc = np.argwhere(np.ones((9, 11)))
    whole = fit_lattice("chip", rc, places(grid, rc), 2.0)
    monkeypatch.setattr("lamella.formats.lattice._AT_ONCE", 7)
    pieces = fit_lattice("chip", rc, places(grid, rc), 2.0)
    assert np.allclose(whole.place_px0(3, 4), pieces.place_px0(3, 4), atol=1e-9)


def test_places_on_no_lattice_are_refused() -> None:
    """Bad input: a mirrored grid without its transform: columns counted from the other side in half of the places."""
    grid = lattice(0.0, False, 8.0)
    rc = np.argwhere(np.ones((8, 8)))
    px0 = places(grid, rc)
    px0[::2, 0] = px0[::2, 0].max() - px0[::2, 0]
    with pytest.raises(ExpressionError, match="no lattice of rows and columns"):
        fit_lattice("chip", rc, px0, 2.0)


def test_one_place_half_a_bin_off_is_kept_and_beyond_refused() -> None:
    grid = lattice(1.0, True, 8.0)
    rc = np.argwhere(np.ones((40, 40)))
    for off_px, fits in ((3.5, True), (5.0, False)):
        px0 = places(grid, rc)
        px0[5, 1] += off_px
        if fits:
            fit_lattice("chip", rc, px0, 2.0)
        else:
            with pytest.raises(ExpressionError, match="no lattice"):
                fit_lattice("chip", rc, px0, 2.0)


def test_one_line_does_not_say_how_a_chip_lies() -> None:
    rc = np.stack([np.arange(5), np.arange(5)], 1)
    with pytest.raises(ExpressionError, match="one line of the chip"):
        fit_lattice("chip", rc, rc * 8.0, 2.0)


@pytest.mark.parametrize("stretch", [(1.0, 1.2), (1.2, 1.0)])
def test_bins_that_are_no_squares_are_refused(stretch: tuple[float, float]) -> None:
    rc = np.argwhere(np.ones((5, 5)))
    with pytest.raises(ExpressionError, match="no squares"):
        fit_lattice("chip", rc, rc[:, ::-1] * 8.0 * np.array(stretch), 2.0)


def test_micrometres_per_pixel_must_agree_with_the_bins() -> None:
    grid = lattice(1.0, True, 8.0)  # 2 um in 8 px: 0.25
    assert agreed_mpp("s", grid, None, 0.25) == 0.25
    assert agreed_mpp("s", grid, 0.252, 0.25) == 0.252
    assert agreed_mpp("s", grid, (0.25, 0.26), None) == pytest.approx(math.sqrt(0.25 * 0.26))
    with pytest.raises(ExpressionError, match=r"the image or manifest says 0\.5 um per pixel.*image has 0\.25 um"):
        agreed_mpp("s", grid, 0.5, 0.25)
    with pytest.raises(ExpressionError, match=r"scalefactors_json\.json says 0\.3"):
        agreed_mpp("s", grid, None, 0.3)
    with pytest.raises(ExpressionError, match="nothing says how many micrometres"):  # bad input: image without mpp
        agreed_mpp("s", grid, None, None)
