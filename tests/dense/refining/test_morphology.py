from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from lamella.dense.refining.morphology import closed, opened

SEEDS = st.integers(0, 10_000)


def blobs(seed: int, channels: int, shape: tuple[int, int] = (40, 50), unseen: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(channels, *shape)), (0, 1.2, 1.2))
    labels = noise.argmax(0).astype(np.uint8)
    labels[ndimage.gaussian_filter(rng.random(shape), 2) < unseen] = 255
    return labels


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.sampled_from([1, 3, 5, 7]))
def test_one_class_over_background_is_closed_as_scipy_does_it(seed, kernel):
    labels = blobs(seed, 2)
    around = np.pad(labels == 0, kernel)
    wanted = ndimage.binary_closing(around, np.ones((kernel, kernel)))[kernel:-kernel, kernel:-kernel]
    assert ((closed(labels, 2, 1, kernel) == 0) == wanted).all()


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.sampled_from([1, 3, 5, 7]))
def test_one_class_over_background_is_opened_as_scipy_does_it(seed, kernel):
    labels = blobs(seed, 2)
    around = np.pad(labels == 0, 2 * kernel, constant_values=True)  # beyond the edge there may be more of it
    wanted = ndimage.binary_opening(around, np.ones((kernel, kernel)))[
        2 * kernel : -2 * kernel, 2 * kernel : -2 * kernel
    ]
    assert ((opened(labels, 2, 1, kernel) == 0) == wanted).all()


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.sampled_from([3, 5]), st.sampled_from([None, 3, 0]), st.floats(0, 0.5))
def test_only_what_may_change_changes(seed, kernel, background, unseen):
    labels = blobs(seed, 4, unseen=unseen)
    filled, cut = closed(labels, 4, background, kernel), opened(labels, 4, background, kernel)
    assert ((filled == 255) == (labels == 255)).all()
    assert ((cut == 255) == (labels == 255)).all()
    if background is None:
        assert (filled[labels != 255] <= labels[labels != 255]).all()
    else:
        assert (labels[filled != labels] == background).all()
        assert (cut[labels == background] == background).all()


def test_closing_does_not_swap_stripes():
    """Each class alone closes over the other: taking from each other, they would change places."""
    stripes = np.tile(np.array([0, 1], np.uint8), (12, 6))
    assert (closed(stripes, 3, 2, 3) == stripes).all()
    assert (closed(stripes, 2, None, 3)[:, :-1] == 0).all()  # the first class takes; the last column is open


def test_a_speck_within_a_class_becomes_that_class_and_not_background():
    labels = np.full((20, 20), 1, np.uint8)
    labels[8:10, 8:10] = 0
    labels[15, 3] = 2
    assert (opened(labels, 3, 2, 3)[:14] == 1).all()
    assert opened(labels, 3, 2, 3)[15, 3] == 2, "the background is not opened"
    assert (opened(labels, 3, None, 3) == 1).all()


def test_where_nothing_is_kept_there_is_background_or_what_was():
    checks = (np.indices((9, 9)).sum(0) % 2).astype(np.uint8)
    assert (opened(checks, 3, 2, 3)[2:-2, 2:-2] == 2).all()
    assert (opened(checks, 2, None, 3)[3:-3, 3:-3] == checks[3:-3, 3:-3]).all()


@pytest.mark.parametrize("change", [closed, opened])
def test_a_kernel_of_one_pixel_changes_nothing_and_the_input_stays(change):
    labels = blobs(5, 3, unseen=0.45)
    before = labels.copy()
    assert (change(labels, 3, 2, 1) == before).all()
    change(labels, 3, 2, 5)
    assert (labels == before).all()
