"""Small pieces of a label map take the class around them; band by band, and exact at seams.

Pieces are 4-connected. A piece of fewer pixels than stated takes the class that it shares the longest border with, the
first channel among equals; all small pieces that touch a large one change together, then those that touch them, until
no more can. A small piece that touches nothing but what nobody looked at stays. The background is a class like others
here: holes are filled as specks are removed.

A map is gone through twice: once to find the pieces and which of them belong together across bands, once to paint
them. What is held beside one band is 20 bytes for each piece and, for each small one, 200 for its borders: a slide of
20,000 x 20,000 px has some ten thousand pieces after smoothing; a slide of pure noise would have a hundred million.

Shapes: h x W pixels of a band, P pieces, E borders between two pieces.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lamella.dense.pieces import Runs
from lamella.formats.label_values import NOT_LABELLED

_ROWS = 256  # of a band worked on at once: runs and borders of more would be held together


def without_small(labels_YX: np.ndarray, least_px: int) -> np.ndarray:
    """The label map of an image in memory.

    Args:
        labels_YX: uint8, channels or NOT_LABELLED.
        least_px: Pieces of fewer pixels change.
    """
    pieces = Pieces(least_px)
    pieces.add(labels_YX)
    painter = pieces.painter()
    return painter.painted(labels_YX)


class Pieces:
    """Takes a map's bands from top to bottom; finds the small pieces and what becomes of them.

    Args:
        least_px: Pieces of fewer pixels change.
    """

    def __init__(self, least_px: int) -> None:
        self._least_px = least_px
        self._numbering = _Numbering()
        self._pixels, self._values = np.zeros(0, np.int64), np.zeros(0, np.uint8)  # by number, with room for more
        self._same = [np.empty((0, 2), np.int64)]
        self._borders = [np.empty((0, 2), np.int32)]  # four bytes: a map of noise has more of them than half its pixels
        self._lengths = [np.empty(0, np.int32)]

    def add(self, labels: np.ndarray) -> None:
        """The next band, uint8 (h, W)."""
        for part in _parts(labels):
            self._add(part)

    def painter(self) -> Painter:
        """After the last band: what makes the new map of the old one's bands."""
        return Painter(self._new_values())

    def _add(self, labels: np.ndarray) -> None:
        band = self._numbering.number(labels)
        runs, of_run = band.runs, band.of_run
        lacking = self._numbering.count - len(self._pixels)
        if lacking > 0:
            room = max(lacking, len(self._pixels))
            self._pixels, self._values = np.pad(self._pixels, (0, room)), np.pad(self._values, (0, room))
        own = runs.starts >= runs.stride  # the row above was counted with its band
        np.add.at(self._pixels, of_run[own], (runs.ends - runs.starts)[own])
        self._values[of_run] = runs.labels
        self._same.append(band.same)
        borders, lengths = _borders(band.labels, runs, of_run)
        # Between two large pieces nothing will ever be asked.
        small = (self._pixels[borders] < self._least_px).any(1)
        self._borders.append(borders[small].astype(np.int32))
        self._lengths.append(lengths[small].astype(np.int32))

    def _new_values(self) -> np.ndarray:
        """(numbers,) uint8: the value that each number of a piece is painted with."""
        count = self._numbering.count
        one, other = np.concatenate(self._same).T
        joined = coo_array((np.ones(len(one), np.int8), (one, other)), shape=(count, count))
        piece_count, piece = connected_components(joined, directed=False)  # int32
        pixels = np.zeros(piece_count, np.int64)
        np.add.at(pixels, piece, self._pixels[:count])
        values = np.empty(piece_count, np.uint8)
        values[piece] = self._values[:count]
        borders, lengths = np.concatenate(self._borders), np.concatenate(self._lengths)
        self._borders, self._lengths = [], []  # as much again is needed to settle them
        _settle(values, pixels < self._least_px, piece[borders], lengths)
        return values[piece]


class Painter:
    """Takes the same bands once more, cut as before, and hands them out without small pieces."""

    def __init__(self, values: np.ndarray) -> None:
        self._values, self._numbering = values, _Numbering()

    def painted(self, labels: np.ndarray) -> np.ndarray:
        """The next band, uint8 (h, W)."""
        parts = [self._painted(part) for part in _parts(labels)]
        return np.concatenate(parts) if len(parts) != 1 else parts[0]

    def _painted(self, labels: np.ndarray) -> np.ndarray:
        band = self._numbering.number(labels)
        new = self._values[band.of_run]
        changed = np.flatnonzero((new != band.runs.labels) & (band.runs.starts >= band.runs.stride))
        flat = band.labels.reshape(-1).copy()
        starts, lengths = band.runs.starts[changed], (band.runs.ends - band.runs.starts)[changed]
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        flat[np.repeat(starts, lengths) + within] = np.repeat(new[changed], lengths)
        return flat.reshape(band.labels.shape)[1:, 1:-1]


@dataclass(frozen=True)
class _Band:
    """Rows with the row above them, and a number for each run's piece.

    Attributes:
        labels: (h + 1, W + 2), the last row above first, nothing looked at on either side.
        runs: Of these.
        of_run: (R,) numbers that stay through the whole map; a piece may have several.
        same: (K, 2) numbers that turned out to be of one piece.
    """

    labels: np.ndarray
    runs: Runs
    of_run: np.ndarray
    same: np.ndarray


class _Numbering:
    """Numbers pieces from the top down; the same bands get the same numbers again.

    Attributes:
        count: Numbers given so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._above: np.ndarray | None = None
        self._of_above = np.empty(0, np.int64)

    def number(self, labels: np.ndarray) -> _Band:
        rows = np.full((len(labels) + 1, labels.shape[1] + 2), NOT_LABELLED, np.uint8)
        if self._above is not None:
            rows[0] = self._above
        rows[1:, 1:-1] = labels
        runs = Runs.of(rows)
        piece, count = runs.pieces(self._of_above)
        number = np.full(count, -1, np.int64)
        above = piece[: len(self._of_above)]
        number[above] = self._of_above
        new = np.flatnonzero(number < 0)
        number[new] = self.count + np.arange(len(new))
        self.count += len(new)
        same = np.stack([self._of_above, number[above]], axis=1)
        of_run = number[piece]
        self._above, self._of_above = rows[-1].copy(), of_run[runs.starts >= runs.last_row]
        return _Band(rows, runs, of_run, same[same[:, 0] != same[:, 1]])


def _borders(labels: np.ndarray, runs: Runs, of_run: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(E, 2) numbers of pieces side by side, and (E,) at how many pairs of pixels."""
    flat, found = labels.reshape(-1), []
    for step, first in ((1, runs.stride), (runs.stride, 0)):  # pairs within the row above were counted with its band
        one, other = flat[first:-step], flat[first + step :]
        differ = (one != other) & (one != NOT_LABELLED) & (other != NOT_LABELLED)
        at = np.flatnonzero(differ) + first
        found.append(np.stack([of_run[runs.at(at)], of_run[runs.at(at + step)]], axis=1))
    pairs = np.sort(np.concatenate(found), axis=1)
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    pairs = pairs[order]
    starts = np.flatnonzero(np.append(True, (pairs[1:] != pairs[:-1]).any(1))[: len(pairs)])
    return pairs[starts], np.diff(np.append(starts, len(pairs)))


def _settle(values: np.ndarray, small: np.ndarray, borders: np.ndarray, lengths: np.ndarray) -> None:
    """Give small pieces the class around them, in place, in rounds from the large pieces inwards.

    Args:
        values: (P,) uint8, the class of each piece.
        small: (P,) which of them change.
        borders: (E, 2) pieces; a pair may come more than once.
        lengths: (E,)
    """
    first, second = small[borders[:, 0]], small[borders[:, 1]]
    piece = np.concatenate([borders[first, 0], borders[second, 1]])
    beside = np.concatenate([borders[first, 1], borders[second, 0]])
    lengths = np.concatenate([lengths[first], lengths[second]])
    waiting = small.copy()
    while True:
        still = waiting[piece]
        piece, beside, lengths = piece[still], beside[still], lengths[still]
        ready = ~waiting[beside]
        if not ready.any():
            return
        choices, which = np.unique(piece[ready].astype(np.int64) * 256 + values[beside[ready]], return_inverse=True)
        total = np.bincount(which, lengths[ready])
        owner, value = choices // 256, choices % 256
        order = np.lexsort((value, -total, owner))
        owner, value = owner[order], value[order]
        best = np.append(True, owner[1:] != owner[:-1])
        values[owner[best]] = value[best]
        waiting[owner[best]] = False


def _parts(labels: np.ndarray) -> Iterator[np.ndarray]:
    for y in range(0, len(labels), _ROWS):
        yield labels[y : y + _ROWS]
