"""I-JEPA's masks, and the defects of the released code that must not return."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.data.masks.blocks import block_sizes, least_kept, within
from lamella.data.masks.draws import Draws
from lamella.data.masks.kinds import draw_masks
from lamella.data.masks.mask import Grid
from lamella.data.masks.multiblock import MultiBlockMaskSettings

DEFAULT = MultiBlockMaskSettings()


def boxes(target_SKG: np.ndarray, grid: Grid) -> np.ndarray:
    """(S, K, 4) first and last row, first and last column of each target."""
    cells = target_SKG.reshape(*target_SKG.shape[:2], *grid)
    sides = []
    for axis in (3, 2):
        line = cells.any(axis)
        sides += [line.argmax(-1), line.shape[-1] - 1 - line[..., ::-1].argmax(-1)]
    return np.stack(sides, -1)


def test_targets_are_full_rectangles_of_the_asked_area_and_proportion() -> None:
    masks = draw_masks(DEFAULT, (14, 14), 0, range(500))
    top, bottom, left, right = np.moveaxis(boxes(masks.targets_SKG, (14, 14)), -1, 0)
    height, width = bottom - top + 1, right - left + 1
    area = masks.targets_SKG.sum(-1)
    assert np.array_equal(height * width, area)
    assert area.min() >= 0.15 * 196
    assert area.max() <= 0.2 * 196
    assert area.mean() == pytest.approx(0.175 * 196, rel=0.03)
    assert (height / width).min() < 0.85
    assert (height / width).max() > 1.4


def test_area_and_proportion_are_drawn_apart_and_anew_for_each_target() -> None:
    height, width = block_sizes(Draws(0, range(4000)), 4, (0.15, 0.2), (0.75, 1.5), 200, 200)
    area, aspect = height * width / 200**2, height / width
    assert abs(np.corrcoef(area.ravel(), aspect.ravel())[0, 1]) < 0.03
    assert abs(np.corrcoef(area[:, 0], area[:, 1])[0, 1]) < 0.06
    for drawn, low, high in ((area, 0.15, 0.2), (aspect, 0.75, 1.5)):
        assert (drawn.min(), drawn.max()) == pytest.approx((low, high), abs=0.03)
        assert drawn.mean() == pytest.approx((low + high) / 2, rel=0.02)


@settings(deadline=None)
@given(st.integers(2, 20), st.integers(2, 20), st.floats(0.05, 0.5), st.floats(0, 0.1), st.integers(0, 2**62))
def test_an_area_leaves_its_range_only_where_no_width_keeps_it(
    rows: int, columns: int, least: float, more: float, seed: int
) -> None:
    height, width = block_sizes(Draws(seed, range(8)), 4, (least, least + more), (0.75, 1.5), rows, columns)
    low, high = least * rows * columns, (least + more) * rows * columns
    for h, w in zip(height.ravel().tolist(), width.ravel().tolist(), strict=True):
        assert 1 <= h <= rows
        assert 1 <= w <= columns
        if not low <= h * w <= high and h * w != rows * columns - min(rows, columns):
            possible = [width for width in range(1, columns + 1) if low <= h * width <= high]
            assert not possible, (h, w)


def test_every_place_of_a_block_is_equally_likely_also_the_last() -> None:
    sizes = np.full((12000, 1), 3)
    first = within(Draws(2, range(12000)), sizes, 8)[:, 0]
    counts = np.bincount(first, minlength=6)
    assert len(counts) == 6  # 0 to 5: a block of 3 on 8 tokens
    assert counts == pytest.approx(2000, rel=0.1)


@pytest.mark.parametrize("grid", [(6, 6), (8, 8), (14, 14)])
def test_the_context_lies_anywhere(grid: Grid) -> None:
    """The released code puts it at the corner of small grids. With no target in its way it would show where it is."""
    masks = draw_masks(DEFAULT, grid, 0, range(2000))
    shown = masks.context_SG.reshape(-1, *grid)
    for axis in (1, 2):
        lines = shown.any(axis)
        first, last = lines[:, 0].mean(), lines[:, -1].mean()
        assert 0.3 < first < 1
        assert first == pytest.approx(last, abs=0.05)


@pytest.mark.parametrize("size", [1, 8, 64, 512])
def test_the_context_does_not_shrink_with_the_batch(size: int) -> None:
    """The released code cuts all contexts to the batch's smallest: 42 % of the tokens alone, 26 % in large batches."""
    arrays = [draw_masks(DEFAULT, (14, 14), 0, range(start, start + size)).arrays() for start in range(0, 512, size)]
    kept = sum(int((~batch["context_pad"]).sum()) for batch in arrays)
    assert kept / 512 / 196 == pytest.approx(0.462, abs=0.005)


def test_sizes_differ_within_a_batch() -> None:
    area = draw_masks(DEFAULT, (14, 14), 0, range(64)).targets_SKG.sum(-1)
    assert len(np.unique(area[:, 0])) >= 3
    assert (area.min(1) < area.max(1)).mean() > 0.8


@settings(deadline=None, max_examples=200)
@given(
    st.integers(2, 20),
    st.integers(2, 20),
    st.integers(1, 6),
    st.floats(0.01, 0.6),
    st.floats(0.2, 5),
    st.integers(0, 10),
    st.integers(0, 2**62),
)
def test_it_ends_on_any_grid(
    rows: int, columns: int, targets: int, scale: float, aspect: float, min_keep: int, seed: int
) -> None:
    settings = MultiBlockMaskSettings(
        targets=targets, scale=(scale, scale), aspect=(aspect, aspect), min_keep=max(1, min_keep)
    )
    masks = draw_masks(settings, (rows, columns), seed, range(8))
    assert (masks.context_SG.sum(1) >= least_kept(settings.min_keep, rows * columns)).all()
    assert (masks.targets_SKG.sum(-1) >= 1).all()


def test_crowded_targets_are_put_on_top_of_each_other_in_the_end() -> None:
    """Six blocks of 0.6 never leave 25 % of the grid by chance; on top of each other they do."""
    crowded = MultiBlockMaskSettings(targets=6, scale=(0.6, 0.6), min_keep=40)
    masks = draw_masks(crowded, (14, 14), 0, range(4))
    assert (masks.context_SG.sum(1) >= 40).all()
    assert (masks.context_SG == ~masks.targets_SKG.any(1)).all()
    # A sample that had to be drawn anew is still the same in every batch.
    alone = draw_masks(crowded, (14, 14), 0, [2])
    assert np.array_equal(alone.targets_SKG[0], masks.targets_SKG[2])


def test_min_keep_is_kept() -> None:
    demanding = MultiBlockMaskSettings(min_keep=90)
    sizes = draw_masks(demanding, (20, 20), 0, range(200)).context_SG.sum(1)
    assert sizes.min() >= 90
    assert least_kept(10, 196) == 10
    assert least_kept(10, 36) == 9
    assert least_kept(10, 4) == least_kept(10, 2) == 1
