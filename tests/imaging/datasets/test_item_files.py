"""Channels of one case: one grid, one unit, or an error that names the file."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamella.errors import ImageError
from lamella.imaging.datasets.item_files import grid_difference, stacked
from lamella.imaging.measured import Volume


def volume(value=0.0, shape=(1, 3, 4, 5), spacing_mm=(3.0, 2.0, 1.0), source="a"):
    z, y, x = spacing_mm
    return Volume(
        np.full(shape, value, np.float32), "stored", spacing_mm, np.diag([x, y, z, 1.0]), channels=(), source=source
    )


@given(
    share=st.floats(0, 1).filter(lambda share: abs(share - 0.1) > 1e-6),
    axis=st.integers(0, 2),
    spacing_mm=st.tuples(*[st.floats(0.3, 7)] * 3),
)
def test_grids_are_one_up_to_a_tenth_of_the_smallest_side_of_a_voxel(share, axis, spacing_mm):
    one = volume(spacing_mm=spacing_mm)
    affine = one.affine.copy()
    affine[axis, 3] += share * min(spacing_mm)
    assert bool(grid_difference(replace(one, affine=affine), one)) == (share > 0.1)


def test_a_rotation_about_the_first_corner_is_seen_at_the_others():
    one = volume(shape=(1, 30, 40, 50))
    turn = np.array([[0.99995, -0.01, 0, 0], [0.01, 0.99995, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    assert "its corners lie up to" in grid_difference(replace(one, affine=turn @ one.affine), one)


def test_channels_are_stacked_in_their_order():
    both = stacked([volume(1), volume(2, source="b")])
    assert both.values_CZYX[:, 0, 0, 0].tolist() == [1, 2]
    assert (both.source, both.fourth) == ("a, b", "channel")


@pytest.mark.parametrize(
    ("other", "cause"),
    [
        (volume(shape=(2, 3, 4, 5), source="b"), "b: it holds 2 volumes, where one channel is wanted"),
        (volume(shape=(1, 3, 4, 6), source="b"), "3 x 4 x 6 voxels .z, y, x. against 3 x 4 x 5"),
        (volume(spacing_mm=(3, 2, 1.1), source="b"), "its corners lie up to 0.4 mm away"),
        (replace(volume(source="b"), unit="HU"), "its values are in HU, those of a in stored"),
    ],
    ids=["two volumes", "another size", "another spacing", "another unit"],
)
def test_what_cannot_be_stacked(other, cause):
    with pytest.raises(ImageError, match=cause):
        stacked([volume(), other])
