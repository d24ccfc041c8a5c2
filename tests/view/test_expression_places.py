"""Places of expression on their slide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.data.tiny_expression import GRID, counts_of, full_rc, slide_of, spots_of

from lamella.formats.spatial_counts import SpatialCounts
from lamella.slides.tissue_map import TissueMap
from lamella.view.expression_places import draw_places

YELLOW, VIOLET = (253, 231, 36), (68, 1, 84)  # the ends of viridis


def drawn(folder: Path, counts: SpatialCounts) -> np.ndarray:
    """(H, W, 3): the right picture, as large as the slide."""
    slide = slide_of(folder, counts)
    tissue = TissueMap(np.ones((160, 160), bool), slide.frame)
    draw_places(slide, counts, tissue, "s0", "facts", folder / "out.png")
    with Image.open(folder / "out.png") as picture:
        pixels = np.asarray(picture)
    # The pictures stand 24 from the left, 92 from the top, with a gap of 16 between them, each 160 wide.
    return pixels[92 : 92 + 160, 24 + 160 + 16 : 24 + 2 * 160 + 16]


def hot(number: int, of: int) -> np.ndarray:
    """A few places are high and the others have none, so that both ends of the scale are reached."""
    table = np.zeros((of, 1), int)
    table[number :: of // 3] = 50
    return table


@pytest.mark.parametrize("place", [0, 17, 40])
def test_bins_are_coloured_where_they_lie(tmp_path: Path, place: int) -> None:
    """Also on a mirrored and turned chip: row 0, column 0 is on the right."""
    rc = full_rc(10, 10)
    table = hot(place, 100)
    shown = drawn(tmp_path, counts_of(table, rc))
    for number in range(100):
        x, y = GRID.place_px0(*rc[number].astype(float))
        expected = YELLOW if table[number, 0] else VIOLET
        assert shown[int(y), int(x)].tolist() == pytest.approx(expected, abs=1), number


def test_spots_are_coloured_where_they_lie(tmp_path: Path) -> None:
    places = np.array([[20.0, 30.0], [100.0, 40.0], [30.0, 120.0], [130.0, 130.0]])
    shown = drawn(tmp_path, spots_of(np.array([[0], [50], [0], [50]]), places, 10.0))
    colours = [tuple(shown[int(y), int(x)].tolist()) for x, y in places]
    assert colours[0] == colours[2] != colours[1] == colours[3]
    assert np.abs(np.array(colours[0]) - VIOLET).max() < 12  # of four values the percentiles lie a little inside
    assert np.abs(np.array(colours[1]) - YELLOW).max() < 12
