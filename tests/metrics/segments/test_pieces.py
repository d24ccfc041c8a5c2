from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from skimage.measure import label

from lamella.metrics.segments.pieces import pieces_of

LABELS = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 3))


@given(LABELS, st.data())
def test_pieces_are_those_of_scikit_image(labels, data):
    marked = data.draw(arrays(bool, labels.shape))
    pieces = pieces_of(labels, (0,))
    reference, count = label(labels, background=0, connectivity=2, return_num=True)
    theirs = sorted(
        (int(labels[reference == number][0]), int((reference == number).sum()), int(marked[reference == number].sum()))
        for number in range(1, count + 1)
    )
    found = zip(pieces.labels_P.tolist(), pieces.area_P.tolist(), pieces.count_where(marked).tolist(), strict=True)
    assert sorted(found) == theirs


def test_the_last_pixel_of_a_row_is_no_neighbour_of_the_first_of_the_next():
    labels = np.array([[0, 0, 1], [1, 0, 0]], np.uint8)
    assert len(pieces_of(labels, (0,)).area_P) == 2


def test_nothing_has_no_pieces():
    pieces = pieces_of(np.zeros((3, 4), np.uint8), (0,))
    assert len(pieces.area_P) == 0
    assert len(pieces.count_where(np.ones((3, 4), bool))) == 0
