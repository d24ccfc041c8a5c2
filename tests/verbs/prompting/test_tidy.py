"""Specks go and pinholes close, and nothing else changes."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from lamella.verbs.prompting.tidy import tidied

MASKS = arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def test_specks_and_pinholes():
    mask = np.zeros((30, 30), bool)
    mask[5:25, 5:25] = True
    mask[8, 8] = False  # a pinhole
    mask[12:18, 12:18] = False  # a lumen
    mask[0, 29] = True  # a speck
    mask[5:8, 24] = False  # a notch is no hole
    result = tidied(mask, 0.01)
    expected = mask.copy()
    expected[8, 8], expected[0, 29] = True, False
    assert np.array_equal(result, expected)
    assert np.array_equal(tidied(mask, 0), mask)


@settings(deadline=None)
@given(MASKS, st.floats(0.001, 0.999))
def test_what_is_left_is_large_enough(mask, share):
    result, least = tidied(mask, share), share * mask.sum()
    assert result.any() == mask.any()
    pieces, count = ndimage.label(result & mask)
    sizes = np.bincount(pieces.reshape(-1), minlength=count + 1)[1:]
    assert (sizes >= min(least, sizes.max(initial=0))).all()
    added = result & ~mask
    for number in range(1, (labels := ndimage.label(added))[1] + 1):
        assert (labels[0] == number).sum() < least


@settings(deadline=None)
@given(MASKS)
def test_a_share_of_nothing_changes_nothing(mask):
    assert np.array_equal(tidied(mask, 1e-9), mask)
