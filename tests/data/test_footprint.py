"""The promise of the method: no pixel of a target is in a context token that the model keeps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lamella.data.footprint import footprint, pad_ragged, touched_tokens

# A target's box seen pixel by pixel: overlaps below this are coordinates' rounding, not pixels.
ROUNDING_PX = 1.1e-7


@pytest.mark.parametrize(("x_px", "y_px", "tokens"), [(128, 64, 64), (128, 65.5, 72), (119.25, 7, 81)])
def test_a_128_px_target_touches_64_72_or_81_tokens(x_px: float, y_px: float, tokens: int) -> None:
    sets = footprint(np.array([[x_px, y_px, x_px + 128, y_px + 128]]), 16, 32, 32)
    assert sets.touched[0].size == tokens
    assert np.array_equal(sets.asked[0], sets.touched[0])  # T = R
    assert sets.keep.size == 32 * 32 - tokens


@settings(deadline=None)
@given(st.floats(-1, 1), st.floats(-1, 1), st.integers(0, 24), st.integers(0, 24))
def test_rounding_of_an_aligned_box_does_not_cost_a_token(dx: float, dy: float, column: int, row: int) -> None:
    corner = np.array([column * 16 + dx * 1e-10, row * 16 + dy * 1e-10])
    assert touched_tokens(np.concatenate([corner, corner + 128])[None], 16, 32, 32).sum() == 64


def test_a_box_that_truly_enters_a_patch_by_little_takes_it() -> None:
    assert touched_tokens(np.array([[16.0, 16.0, 32.0 + 1e-6, 32.0]]), 16, 8, 8).sum() == 2


def test_tokens_are_row_major() -> None:
    sets = footprint(np.array([[16.0, 32.0, 48.0, 48.0]]), 16, 4, 8)
    assert sets.touched[0].tolist() == [2 * 8 + 1, 2 * 8 + 2]


@st.composite
def geometries(draw: st.DrawFn) -> tuple[np.ndarray, int, int, int]:
    """Boxes over a context: tiny and huge patches, edges, sub-pixel offsets, boxes larger than the context."""
    patch_px = draw(st.sampled_from([1, 2, 3, 14, 16, 64, 4096]))
    rows, columns = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    offset = st.sampled_from([0.0, 1e-12, -1e-12, 1e-9, -1e-9, 1e-6, -1e-6, 0.5, 0.999999, 1 / 3])
    boxes = []
    for _ in range(draw(st.integers(1, 16))):
        spans = []
        for tokens in (columns, rows):
            length_px = tokens * patch_px
            start = draw(st.integers(-length_px, length_px - 1)) + draw(offset)
            stop = max(start, 0.0) + draw(st.floats(1e-3, 2.0 * length_px)) + draw(offset)
            spans.append((start, stop))
        (x0, x1), (y0, y1) = spans
        boxes.append((x0, y0, x1, y1))
    return np.array(boxes), patch_px, rows, columns


def _pixels_met(start: float, stop: float, length_px: int) -> np.ndarray:
    """Pixels of one axis that [start, stop) covers by more than rounding, found pixel by pixel.

    Only the first and last pixels and their neighbours are looked at where there are many: all between are covered.
    """
    first, last = int(np.floor(start)), int(np.ceil(stop))
    near = {*range(first - 2, first + 3), *range(last - 3, last + 2), *range(max(0, first), min(length_px, last), 61)}
    pixels = np.array(sorted(pixel for pixel in near if 0 <= pixel < length_px), np.int64)
    return pixels[np.minimum(stop, pixels + 1) - np.maximum(start, pixels) > ROUNDING_PX]


@settings(max_examples=300, deadline=None)
@given(geometries(), st.sampled_from([None, 1, 5]), st.integers(0, 2**32))
@example((np.array([[-50.0, -50.0, 500.0, 500.0]]), 16, 4, 4), None, 0)
def test_no_pixel_of_a_target_is_in_a_kept_token(
    geometry: tuple[np.ndarray, int, int, int], most: int | None, seed: int
) -> None:
    boxes_px, patch_px, rows, columns = geometry
    rng = np.random.default_rng(seed)
    sets = footprint(boxes_px, patch_px, rows, columns, rng=rng, max_context_tokens=most, max_target_tokens=most)
    kept = set(sets.keep.tolist())
    for (x0, y0, x1, y1), touched, asked in zip(boxes_px, sets.touched, sets.asked, strict=True):
        token_rows = {int(pixel) // patch_px for pixel in _pixels_met(y0, y1, rows * patch_px)}
        token_columns = {int(pixel) // patch_px for pixel in _pixels_met(x0, x1, columns * patch_px)}
        covered = {row * columns + column for row in token_rows for column in token_columns}
        assert covered <= set(touched.tolist())
        assert not covered & kept
        assert set(asked.tolist()) <= set(touched.tolist())
        assert not set(touched.tolist()) & kept


@settings(max_examples=100, deadline=None)
@given(geometries())
def test_without_a_maximum_every_token_outside_all_targets_is_kept(
    geometry: tuple[np.ndarray, int, int, int],
) -> None:
    boxes_px, patch_px, rows, columns = geometry
    sets = footprint(boxes_px, patch_px, rows, columns)
    union = set().union(*(touched.tolist() for touched in sets.touched))
    assert union | set(sets.keep.tolist()) == set(range(rows * columns))
    assert sets.free_fraction == pytest.approx(1 - len(union) / (rows * columns))
    # R is no larger than it must be: each of its tokens has a pixel-sized or smaller piece of the box in it.
    for (x0, y0, x1, y1), touched in zip(boxes_px, sets.touched, strict=True):
        row, column = np.divmod(touched, columns)
        assert ((row + 1) * patch_px > y0).all()
        assert (row * patch_px < y1).all()
        assert ((column + 1) * patch_px > x0).all()
        assert (column * patch_px < x1).all()


def test_targets_that_cover_everything_leave_no_context() -> None:
    sets = footprint(np.array([[0.0, 0.0, 64.0, 64.0]]), 16, 4, 4)
    assert sets.keep.size == 0
    assert sets.free_fraction == 0


def test_a_speck_keeps_the_token_it_lies_in() -> None:
    assert footprint(np.array([[20.0, 20.0, 20.0 + 1e-9, 20.0 + 1e-9]]), 16, 4, 4).touched[0].tolist() == [5]


def test_a_random_subset_does_not_prefer_the_top_rows() -> None:
    """The source always dropped the bottom rows."""
    box = np.array([[0.0, 0.0, 16.0, 16.0]])
    counts = np.zeros(16)
    for seed in range(400):
        sets = footprint(box, 16, 4, 4, rng=np.random.default_rng(seed), max_context_tokens=5)
        assert sets.keep.size == 5
        counts[sets.keep] += 1
    assert counts[0] == 0
    # 400 draws of 5 out of 15: mean 133, standard deviation 9.4.
    assert (np.abs(counts[1:] - 400 / 3) < 5 * 9.4).all()


def test_a_maximum_needs_a_generator() -> None:
    with pytest.raises(ValueError, match="random generator"):
        footprint(np.array([[0.0, 0.0, 16.0, 16.0]]), 16, 4, 4, max_context_tokens=5)


@pytest.mark.parametrize("box", [(0, 0, np.nan, 8), (0, 0, np.inf, 8), (8, 0, 8, 8), (9, 0, 8, 8)])
def test_a_box_without_area_or_place_is_refused(box: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="boxes must be finite"):
        touched_tokens(np.array([box]), 16, 4, 4)


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 1000), max_size=20), min_size=1, max_size=8))
def test_padding_keeps_every_index_of_every_set(sets: list[list[int]]) -> None:
    padded, pad = pad_ragged([np.array(indices, np.int64) for indices in sets])
    assert padded.shape == pad.shape == (len(sets), max(1, *map(len, sets), 0))
    for row, mask, indices in zip(padded, pad, sets, strict=True):
        assert row[~mask].tolist() == indices
        assert (row[mask] == 0).all()
