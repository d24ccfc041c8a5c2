"""Maps of genes: values are where their places are, and a flat prediction looks flat."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lamella.view.expression_pictures import GeneMap, Painter, Tissue, coloured, draw_gene_maps, fixed_range


def lattice(side: int, size_um: float, corner_um: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    y, x = np.indices((side, side)).reshape(2, -1)
    return np.stack([(x + 0.5) * size_um + corner_um[0], (y + 0.5) * size_um + corner_um[1]], axis=1)


def test_small_bins_are_averaged_over_each_pixel() -> None:
    values = np.arange(36.0).reshape(6, 6)
    painter = Painter(lattice(6, 2), 2, (0, 0), 6.0, (2, 2), square=True)
    np.testing.assert_allclose(painter.paint(values.ravel()), values.reshape(2, 3, 2, 3).mean((1, 3)))


@pytest.mark.parametrize("corner_um", [(0.0, 0.0), (100.0, 40.0)])
def test_large_bins_fill_their_pixels(corner_um: tuple[float, float]) -> None:
    """Mistake of the source: swapped rows and columns."""
    values = np.arange(9.0).reshape(3, 3)
    painter = Painter(lattice(3, 8, corner_um), 8, corner_um, 2.0, (12, 12), square=True)
    np.testing.assert_array_equal(painter.paint(values.ravel()), values.repeat(4, 0).repeat(4, 1))


def test_nothing_is_painted_between_spots() -> None:
    painter = Painter(np.array([[50.0, 50.0]]), 60, (0, 0), 1.0, (100, 100))
    drawn = painter.paint(np.array([3.0]))
    y, x = np.indices((100, 100)) + 0.5
    np.testing.assert_array_equal(np.isfinite(drawn), np.hypot(y - 50, x - 50) <= 30)


def test_places_off_the_picture_are_left_out() -> None:
    painter = Painter(np.array([[1.0, 1.0], [-5.0, 1.0], [1.0, 99.0]]), 1, (0, 0), 4.0, (2, 2))
    drawn = painter.paint(np.array([7.0, 1.0, 1.0]))
    assert drawn[0, 0] == 7
    assert np.isnan(drawn).sum() == 3


def test_the_range_is_of_the_truth_alone() -> None:
    truth = np.arange(1001.0)
    assert fixed_range(truth) == (10, 990)
    rare = np.zeros(1000)
    rare[0] = 4
    assert fixed_range(rare) == (0, 4)
    assert fixed_range(np.full(5, 2.0)) == (2, 3)


def test_one_value_has_one_colour_whatever_is_drawn_beside_it() -> None:
    one = np.asarray(coloured(np.array([[0.0, 5.0], [2.0, np.nan]]), 0, 10, "viridis"))
    other = np.asarray(coloured(np.array([[9.0, 9.0], [2.0, 9.0]]), 0, 10, "viridis"))
    np.testing.assert_array_equal(one[1, 0], other[1, 0])
    assert not np.array_equal(one[1, 1], other[1, 1])


def test_a_page_has_a_row_for_each_gene(tmp_path: Path) -> None:
    places = lattice(10, 8)
    truth = np.random.default_rng(0).poisson(2.0, 100).astype(np.float32)
    maps = [GeneMap("KRT8", truth, truth * 0 + 2, "Pearson -"), GeneMap("ACTB", truth, truth, "Pearson 1.00")]
    tissue = Tissue(np.full((40, 40, 3), 200, np.uint8), (0, 0), 2.0)
    draw_gene_maps(maps[:1], places, 8, tissue, tmp_path / "one.png", heading="base", square=True)
    draw_gene_maps(maps, places, 8, tissue, tmp_path / "two.png", heading="base", square=True)
    with Image.open(tmp_path / "one.png") as one, Image.open(tmp_path / "two.png") as two:
        assert one.width == two.width
        assert two.height > 1.5 * one.height
