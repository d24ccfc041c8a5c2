"""Places and sizes: closed forms and properties."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamella.errors import MaskMismatchError
from lamella.geometry import BinGrid, Box, Frame, choose_level, mask_frame, snap_px

mpps = st.floats(0.05, 20)
sizes = st.integers(1, 200_000)
frames = st.builds(Frame, sizes, sizes, mpps, mpps)


@pytest.mark.parametrize(
    ("fov_um", "mpp", "patch_px", "size_px"),
    [
        (512, 1.0, 16, 512),  # the source profile's context
        (128, 0.5, 16, 256),  # and target
        (520, 1.0, 16, 512),  # 32.5 patches: a tie goes downward
        (521, 1.0, 16, 528),
        (3, 1.0, 16, 16),  # at least one patch
        (100, 0.3, 14, 336),  # 23.8 patches
    ],
)
def test_view_sizes_snap_to_the_patch(fov_um, mpp, patch_px, size_px):
    assert snap_px(fov_um, mpp, patch_px) == size_px


@given(fov_um=st.floats(1, 5000), mpp=st.floats(0.1, 10), patch_px=st.integers(1, 32))
def test_snapped_size_is_the_nearest_multiple(fov_um, mpp, patch_px):
    size_px = snap_px(fov_um, mpp, patch_px)
    assert size_px % patch_px == 0
    assert size_px >= patch_px
    wanted = fov_um / mpp
    if wanted >= patch_px / 2:
        assert abs(size_px - wanted) <= patch_px / 2 * (1 + 1e-6) + 1e-6


@given(frame=frames, x=st.floats(-1e6, 1e6), y=st.floats(-1e6, 1e6), side=st.floats(0.1, 1e5))
def test_boxes_survive_the_round_trip_through_micrometres(frame, x, y, side):
    box_px0 = Box.around(x, y, side)
    back = frame.box_px(frame.box_um(box_px0))
    assert (back.x0, back.y0, back.x1, back.y1) == pytest.approx((box_px0.x0, box_px0.y0, box_px0.x1, box_px0.y1))


@given(frame=frames, width=st.integers(1, 5000), height=st.integers(1, 5000))
def test_every_raster_of_a_slide_covers_the_same_extent(frame, width, height):
    level = frame.resized(width, height)
    assert level.size_um == pytest.approx(frame.size_um)
    corner = frame.point_in(level, frame.width_px, frame.height_px)
    assert corner == pytest.approx((width, height))


@given(
    box=st.builds(Box.around, st.floats(-9, 9), st.floats(-9, 9), st.floats(0, 9), st.floats(0, 9)),
    dx=st.floats(-20, 20),
)
def test_intersection_is_symmetric_and_inside_both(box, dx):
    other = box.shifted(dx, 1.0)
    shared, mirrored = box.intersection(other), other.intersection(box)
    assert shared == mirrored
    if shared.area > 0:
        assert box.contains(shared)
        assert other.contains(shared)


@pytest.mark.parametrize(
    ("level_mpps", "mpp", "level", "method"),
    [
        ([0.25, 0.5, 1.0], 0.5, 1, "native"),
        ([0.25, 0.4988, 1.0], 0.5, 1, "native"),  # CAMELYON16's fractional downsample of 1.9951
        ([0.25, 1.0], 0.5, 0, "from_finer"),
        ([0.25, 0.4, 2.0], 1.0, 1, "from_finer"),  # the coarsest of the finer levels
        ([1.0, 2.0], 0.5, 0, "from_coarser"),
        ([0.5015, 1.003, 2.006], 1.0, 1, "native"),
    ],
)
def test_level_choice(level_mpps, mpp, level, method):
    choice = choose_level(level_mpps, mpp, tolerance=0.05)
    assert (choice.level, choice.method) == (level, method)


@given(level_mpps=st.lists(mpps, min_size=1, max_size=8), mpp=mpps)
def test_level_choice_never_upsamples_when_a_finer_level_exists(level_mpps, mpp):
    choice = choose_level(level_mpps, mpp)
    if choice.method == "from_coarser":
        assert min(level_mpps) > mpp
    if choice.method == "from_finer":
        assert level_mpps[choice.level] < mpp


def test_mask_of_another_aspect_is_refused():
    slide = Frame(10_000, 5_000, 0.5, 0.5)
    with pytest.raises(MaskMismatchError, match="another aspect"):
        mask_frame(slide, 100, 100)


def test_mask_spacing_that_contradicts_its_shape_is_refused():
    slide = Frame(10_000, 5_000, 0.5, 0.5)
    assert mask_frame(slide, 1000, 500, mpp=(5.0, 5.0)).mpp == pytest.approx(5.0)
    with pytest.raises(MaskMismatchError, match="states 4 um"):
        mask_frame(slide, 1000, 500, mpp=(4.0, 4.0))


@given(width=st.integers(2000, 100_000), height=st.integers(2000, 100_000), downsample=st.floats(4, 64))
def test_a_mask_rounded_to_whole_pixels_is_accepted(width, height, downsample):
    slide = Frame(width, height, 0.25, 0.25)
    mask = mask_frame(slide, max(1, round(width / downsample)), max(1, round(height / downsample)))
    assert mask.size_um == pytest.approx(slide.size_um)


grids = st.builds(
    lambda x, y, turn, mirrored, pitch, um: BinGrid(
        (x, y),
        (-pitch * math.sin(turn), pitch * math.cos(turn)),
        (pitch * math.cos(turn) * (-1 if mirrored else 1), pitch * math.sin(turn) * (-1 if mirrored else 1)),
        um,
    ),
    st.floats(-1e4, 1e4),
    st.floats(-1e4, 1e4),
    st.floats(-0.1, 0.1),
    st.booleans(),
    st.floats(1, 50),
    st.sampled_from([2.0, 8.0]),
)


@given(grids, st.floats(-5000, 5000), st.floats(-5000, 5000))
def test_bins_are_found_where_they_were_placed(grid, row, col):
    assert grid.bin_at(*grid.place_px0(row, col)) == pytest.approx((row, col), abs=1e-4)


@given(grids, st.integers(1, 8), st.integers(0, 100), st.integers(0, 100))
def test_a_block_lies_at_the_mean_of_its_bins(grid, factor, row, col):
    bins = [
        grid.place_px0(factor * row + i, factor * col + j) for i, j in itertools.product(range(factor), range(factor))
    ]
    mean = tuple(sum(axis) / len(bins) for axis in zip(*bins, strict=True))
    assert grid.coarser(factor).place_px0(row, col) == pytest.approx(mean, abs=1e-5)
    assert grid.coarser(factor).bin_um == grid.bin_um * factor


def test_an_upright_grid_begins_in_the_corner_and_is_not_mirrored():
    grid = BinGrid.upright(2.0, 0.5, 0.25)
    assert grid.place_px0(0, 0) == (2.0, 4.0)
    assert grid.place_px0(1, 2) == (2.0 + 2 * 4.0, 4.0 + 8.0)
    assert not grid.mirrored
    assert grid.turn_deg == 0


def test_a_grid_seen_from_behind_is_mirrored_and_tells_its_turn():
    turn = math.radians(1.2)
    right = (7.3 * math.cos(turn), 7.3 * math.sin(turn))
    down = (-7.3 * math.sin(turn), 7.3 * math.cos(turn))
    assert not BinGrid((0, 0), down, right, 2.0).mirrored
    behind = BinGrid((9000, 0), down, (-right[0], -right[1]), 2.0)
    assert behind.mirrored
    assert behind.turn_deg == pytest.approx(1.2)
