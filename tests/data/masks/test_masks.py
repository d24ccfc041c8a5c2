"""What holds for every kind of mask, on every grid from 2 x 2 up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from lamella.data.masks.exact import Block3dMaskSettings, BlockMaskSettings, Random3dMaskSettings, RandomMaskSettings
from lamella.data.masks.kinds import Mask3dSettings, MaskSettings, draw_masks
from lamella.data.masks.mask import Grid, Mask, Masks, padded, stacked
from lamella.data.masks.multiblock import MultiBlockMaskSettings
from lamella.data.masks.temporal import TemporalMaskSettings
from lamella.data.masks.tube import LONG_RANGE, SHORT_RANGE
from lamella.errors import LamellaError

FLAT: dict[str, Any] = {"random": RandomMaskSettings(), "block": BlockMaskSettings(), "multi": MultiBlockMaskSettings()}
DEEP: dict[str, Any] = {
    "random3d": Random3dMaskSettings(),
    "block3d": Block3dMaskSettings(),
    "short": SHORT_RANGE,
    "long": LONG_RANGE,
    "temporal": TemporalMaskSettings(),
}
KINDS = FLAT | DEEP
flat_grids = st.tuples(st.integers(2, 17), st.integers(2, 17))
deep_grids = st.tuples(st.integers(2, 9), st.integers(2, 9), st.integers(2, 9))
seeds = st.integers(0, 2**63)


def grid_for(name: str) -> Grid:
    return (14, 14) if name in FLAT else (6, 7, 8)


def check_sound(mask: Mask) -> None:
    tokens = int(np.prod(mask.grid))
    assert mask.context.size >= 1
    assert mask.targets
    for target in mask.targets:
        assert target.size >= 1
        assert (np.diff(target) > 0).all()
        assert (target[0], target[-1]) >= (0, 0)
        assert target[-1] < tokens
        assert not np.isin(target, mask.context).any()
    assert (np.diff(mask.context) > 0).all()
    assert (mask.context >= 0).all()
    assert (mask.context < tokens).all()


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(sorted(FLAT)), flat_grids, seeds, st.integers(0, 2**40))
def test_flat_masks_are_sound_on_any_grid(name: str, grid: Grid, seed: int, position: int) -> None:
    masks = draw_masks(FLAT[name], grid, seed, range(position, position + 5))
    for sample in range(5):
        check_sound(masks[sample])


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(sorted(DEEP)), deep_grids, seeds, st.integers(0, 2**40))
def test_deep_masks_are_sound_on_any_grid(name: str, grid: Grid, seed: int, position: int) -> None:
    masks = draw_masks(DEEP[name], grid, seed, range(position, position + 3))
    for sample in range(3):
        check_sound(masks[sample])


@pytest.mark.parametrize("name", KINDS)
def test_a_mask_depends_on_seed_and_position_alone(name: str) -> None:
    kind, grid = KINDS[name], grid_for(name)
    batch = draw_masks(kind, grid, 5, range(100, 140))
    for sample in (0, 17, 39):
        alone = draw_masks(kind, grid, 5, [100 + sample])
        assert np.array_equal(alone.context_SG[0], batch.context_SG[sample])
        assert np.array_equal(alone.targets_SKG[0], batch.targets_SKG[sample])


@pytest.mark.parametrize("name", KINDS)
def test_samples_seeds_and_numbers_get_masks_of_their_own(name: str) -> None:
    kind, grid = KINDS[name], (14, 14) if name in FLAT else (6, 14, 14)
    batch = draw_masks(kind, grid, 5, range(64)).context_SG
    # Two blocks of 0.7 have few places: some samples share a mask by chance.
    assert len(np.unique(batch, axis=0)) >= (32 if name == "long" else 60)
    assert not np.array_equal(draw_masks(kind, grid, 6, range(64)).context_SG, batch)
    assert not np.array_equal(draw_masks(kind, grid, 5, range(64), number=1).context_SG, batch)
    assert np.array_equal(draw_masks(kind, grid, 5, range(64)).context_SG, batch)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("small", [False, True])
def test_every_token_is_hidden_in_some_samples_and_shown_in_others(name: str, small: bool) -> None:
    """Also the last row and column: a draw that leaves them out would never hide them."""
    grid = ((6, 7) if small else (14, 14)) if name in FLAT else ((2, 4, 4) if small else (4, 9, 10))
    masks = draw_masks(KINDS[name], grid, 1, range(3000))
    hidden_G, shown_G = masks.targets_SKG.any(1).mean(0), masks.context_SG.mean(0)
    assert hidden_G.min() > 0.02
    if name != "long":  # two blocks of 0.7 always meet in the middle
        assert shown_G.min() > 0.005
    for axis in range(len(grid)):  # first and last line alike: nothing is off by one
        other = tuple(set(range(len(grid))) - {axis})
        for share_G in (hidden_G, shown_G):
            lines = share_G.reshape(grid).mean(other)
            assert lines == pytest.approx(lines[::-1], abs=0.06)


@settings(deadline=None)
@given(st.floats(0.02, 0.98), flat_grids, deep_grids, seeds)
def test_the_ratio_is_met_to_the_token(ratio: float, flat: Grid, deep: Grid, seed: int) -> None:
    for kind in (RandomMaskSettings, BlockMaskSettings, Random3dMaskSettings, Block3dMaskSettings):
        grid = flat if kind in (RandomMaskSettings, BlockMaskSettings) else deep
        masks = draw_masks(kind(ratio=ratio), grid, seed, range(4))
        tokens = int(np.prod(grid))
        wanted = min(max(1, round(ratio * tokens)), tokens - 1)
        assert masks.targets_SKG.shape == (4, 1, tokens)
        assert masks.targets_SKG.sum(-1).ravel().tolist() == [wanted] * 4
        assert masks.context_SG.sum(1).tolist() == [tokens - wanted] * 4


@pytest.mark.parametrize("name", ["random", "block", "random3d", "block3d"])
def test_exact_masks_hide_every_token_equally_often(name: str) -> None:
    hidden = draw_masks(KINDS[name], grid_for(name), 3, range(4000)).targets_SKG[:, 0].mean(0)
    # Four deviations of a share of 0.75 over 4,000 samples are 0.027.
    assert np.abs(hidden - 0.75).max() < (0.03 if "random" in name else 0.06)


@pytest.mark.parametrize(("kind", "grid"), [(BlockMaskSettings(), (14, 14)), (Block3dMaskSettings(), (8, 8, 8))])
def test_blocks_hang_together(kind: Any, grid: Grid) -> None:
    """A hidden token's neighbours are hidden far more often than where tokens are scattered."""
    hidden = draw_masks(kind, grid, 0, range(300)).targets_SKG[:, 0].reshape(300, *grid)
    alike = [np.mean(np.diff(hidden.astype(int), axis=axis) == 0) for axis in range(1, len(grid) + 1)]
    assert min(alike) > 0.8  # scattered: 0.75^2 + 0.25^2 = 0.625


def test_padding_marks_what_is_not_there() -> None:
    chosen = np.array([[0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 0, 1]], bool)
    numbers, pad = padded(chosen)
    assert numbers.tolist() == [[1, 3, 0], [0, 0, 0], [0, 1, 3]]
    assert pad.tolist() == [[False, False, True], [True] * 3, [False] * 3]
    assert numbers.dtype == np.int64


@settings(deadline=None)
@given(seeds, flat_grids)
def test_arrays_hold_the_very_sets(seed: int, grid: Grid) -> None:
    masks = draw_masks(MultiBlockMaskSettings(), grid, seed, range(6))
    arrays = masks.arrays()
    assert arrays["targets"].shape[:2] == (6, 4)
    for sample in range(6):
        mask = masks[sample]
        kept = arrays["context"][sample][~arrays["context_pad"][sample]]
        assert np.array_equal(kept, mask.context)
        for target in range(4):
            asked = arrays["targets"][sample, target][~arrays["targets_pad"][sample, target]]
            assert np.array_equal(asked, mask.targets[target])
    assert not arrays["context_pad"].all(0).any()  # no longer than the longest set


def test_sets_of_several_masks_lie_side_by_side() -> None:
    sets = [draw_masks(kind, (2, 6, 6), 0, range(3), number=n) for n, kind in enumerate((SHORT_RANGE, LONG_RANGE))]
    arrays = stacked(sets)
    assert arrays["context"].shape[:2] == arrays["targets"].shape[:2] == (3, 2)
    for sample in range(3):
        for number, masks in enumerate(sets):
            pad = arrays["targets_pad"][sample, number]
            assert np.array_equal(arrays["targets"][sample, number][~pad], masks[sample].targets[0])


def test_names_choose_the_kind_and_unknown_keys_are_refused() -> None:
    flat, deep = TypeAdapter(MaskSettings), TypeAdapter(Mask3dSettings)
    assert isinstance(flat.validate_python({"name": "block", "ratio": 0.5}), BlockMaskSettings)
    assert isinstance(deep.validate_python({"name": "random3d"}), Random3dMaskSettings)
    for bad in ({"name": "tube"}, {"name": "random", "block_scale": (0.1, 0.2)}, {"name": "random", "ratio": 1}):
        with pytest.raises(ValidationError):
            flat.validate_python(bad)
    with pytest.raises(ValidationError, match="must not exceed"):
        MultiBlockMaskSettings(scale=(0.3, 0.2))


def test_grids_that_cannot_be_masked_are_refused() -> None:
    with pytest.raises(ValueError, match="nothing to show"):
        draw_masks(RandomMaskSettings(), (1, 1), 0, [0])
    with pytest.raises(ValueError, match="2 axes"):
        draw_masks(BlockMaskSettings(), (4, 4, 4), 0, [0])
    with pytest.raises(ValueError, match="one frame"):
        draw_masks(TemporalMaskSettings(), (1, 4, 4), 0, [0])
    with pytest.raises(LamellaError, match=r"fewer than 49 to see\. Lower the scale"):
        draw_masks(MultiBlockMaskSettings(scale=(0.9, 0.9), min_keep=100), (14, 14), 0, range(8))
    with pytest.raises(LamellaError, match=r"Raise block_scale"):
        draw_masks(BlockMaskSettings(block_scale=(1e-6, 1e-6)), (64, 64), 0, [0])


def test_masks_of_no_samples_are_empty() -> None:
    masks: Masks = draw_masks(MultiBlockMaskSettings(), (6, 6), 0, [])
    assert len(masks) == 0
    assert masks.arrays()["targets"].shape == (0, 4, 1)
