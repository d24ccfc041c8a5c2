from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from tests.dense.refining.test_morphology import blobs

from lamella.dense.refining import components
from lamella.dense.refining.components import Pieces, without_small


def by_hand(labels: np.ndarray, least_px: int) -> np.ndarray:
    """The rule of the module, written with dictionaries."""
    piece, count = np.zeros(labels.shape, int), 0
    for value in set(labels.ravel().tolist()) - {255}:
        found, more = ndimage.label(labels == value)
        piece[found > 0] = found[found > 0] + count
        count += more
    pixels = Counter(piece.ravel().tolist())
    value_of = {int(p): int(v) for p, v in zip(piece.ravel(), labels.ravel(), strict=True) if p}
    borders: dict[int, Counter[int]] = {p: Counter() for p in value_of}
    for one, other in ((piece[:, 1:], piece[:, :-1]), (piece[1:], piece[:-1])):
        for a, b in zip(one.ravel().tolist(), other.ravel().tolist(), strict=True):
            if a and b and a != b:
                borders[a][b] += 1
                borders[b][a] += 1
    waiting = {p for p in value_of if pixels[p] < least_px}
    while True:
        chosen = {}
        for p in waiting:
            votes: Counter[int] = Counter()
            for q, length in borders[p].items():
                if q not in waiting:
                    votes[value_of[q]] += length
            if votes:
                chosen[p] = min(votes, key=lambda value: (-votes[value], value))
        if not chosen:
            break
        value_of.update(chosen)
        waiting -= set(chosen)
    painted = labels.copy()
    for p, value in value_of.items():
        painted[piece == p] = value
    return painted


def in_bands(labels: np.ndarray, least_px: int, cuts: list[int]) -> np.ndarray:
    bands = np.split(labels, sorted({cut for cut in cuts if 0 < cut < len(labels)}))
    pieces = Pieces(least_px)
    for band in bands:
        pieces.add(band)
    painter = pieces.painter()
    return np.concatenate([painter.painted(band) for band in bands])


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(2, 5),
    st.integers(1, 60),
    st.floats(0, 0.5),
    st.lists(st.integers(0, 40), max_size=6),
)
def test_bands_cut_anywhere_hold_the_same_as_the_rule_by_hand(seed, channels, least, unseen, cuts):
    labels = blobs(seed, channels, unseen=unseen)
    wanted = by_hand(labels, least)
    assert (without_small(labels, least) == wanted).all()
    assert (in_bands(labels, least, cuts) == wanted).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 30), st.integers(1, 7))
def test_so_does_noise_worked_on_in_parts_of_a_few_rows(seed, least, rows):
    labels = np.random.default_rng(seed).integers(0, 3, (25, 20)).astype(np.uint8)
    labels[labels == 2] = 255
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(components, "_ROWS", rows)
        assert (in_bands(labels, least, [9, 10]) == by_hand(labels, least)).all()


def test_specks_and_holes_go_and_what_is_large_enough_stays():
    labels = np.zeros((30, 30), np.uint8)
    labels[5:15, 5:15] = 1  # 100 pixels
    labels[8:10, 8:10] = 0  # a hole in it
    labels[20:23, 20:23] = 2
    wanted = labels.copy()
    wanted[8:10, 8:10], wanted[20:23, 20:23] = 1, 0
    assert (without_small(labels, 10) == wanted).all()
    assert (without_small(labels, 9)[20:23, 20:23] == 2).all(), "as many pixels as stated are enough"


def test_a_ring_that_only_closes_in_the_last_band_is_one_piece():
    """Two arms come down through three seams: each alone is small."""
    labels = np.zeros((40, 11), np.uint8)
    labels[2:38, 2], labels[2:38, 8], labels[37, 2:9] = 1, 1, 1
    assert (in_bands(labels, 70, [10, 20, 30]) == labels).all()
    assert (in_bands(labels, 78, [10, 20, 30]) == by_hand(labels, 78)).all()
    assert (in_bands(labels, 78, [10, 20, 30]) == 0).all()


def test_the_longest_border_wins_and_of_equal_ones_the_first_class():
    labels = np.zeros((12, 12), np.uint8)
    labels[:, 6:] = 1
    labels[4:6, 4:7] = 2  # of its border, 6 pairs with class 0 and 4 with class 1
    assert (without_small(labels, 7)[4:6, 4:7] == 0).all()
    even = np.repeat(np.array([[3, 3, 3, 2, 1, 1, 1]], np.uint8), 5, 0)
    assert (without_small(even, 6)[:, 3] == 1).all()


def test_where_all_is_small_or_stands_alone_all_stays():
    checks = (np.indices((9, 9)).sum(0) % 2).astype(np.uint8)
    assert (without_small(checks, 5) == checks).all()
    alone = np.full((20, 20), 255, np.uint8)
    alone[3:5, 3:5] = 1
    alone[10:19, 10:19] = 0
    assert (without_small(alone, 9) == alone).all()
    nothing = np.full((5, 4), 255, np.uint8)
    assert (without_small(nothing, 9) == nothing).all()
