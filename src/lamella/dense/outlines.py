"""Outlines of the pieces of each class in a label map that streams by, band after band, from top to bottom.

Filling the outlines of a class (`slides.polygons.fill_polygon`: a pixel belongs to a polygon that holds its centre)
gives the class's pixels again, exactly. A piece is 4-connected; its outline is handed out with its holes as soon as its
last row is past. Held in memory are the outlines of pieces that are still open, and nothing of the pixels but one row.
How the map is cut into bands changes neither the outlines nor their order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from lamella.dense.corners import Corners, find_corners
from lamella.dense.cycles import cycles
from lamella.dense.pieces import Runs
from lamella.dense.smoothing import LOSSLESS_PX, smoothed
from lamella.formats.label_values import NOT_LABELLED

Rings = tuple[np.ndarray, ...]
# Looked at together: so many pixels, but no more changes of label along the rows. Work arrays hold a few hundred bytes
# for each change, and a map of noise changes at every pixel.
_PIXELS_AT_ONCE, _CHANGES_AT_ONCE = 2**23, 2**18
_PARTS = 64  # of an open chain before they are joined: many small arrays cost more than their corners


@dataclass(frozen=True)
class Outline:
    """The outline of one piece.

    Attributes:
        value: Its class.
        name: The class's name.
        rings_px: Outer ring, then holes: (M, 2) float64 x, y in pixels of the label map, open.
        area_px: Its pixels.
        mean: Of the values over its pixels; None without values.
    """

    value: int
    name: str
    rings_px: Rings
    area_px: int
    mean: float | None


@dataclass
class _Chain:
    """A part of an outline that is open at the seam: it comes up out of the next row, and goes down into it."""

    head_x: int
    tail_x: int
    parts: list[np.ndarray]
    """(K, 2) int32 corners."""


@dataclass
class _Ring:
    piece: int
    corners: np.ndarray
    """(M, 2) int32 x, y."""
    is_hole: bool


@dataclass
class _Open:
    """Pieces that reach the last row.

    Attributes:
        of_runs: (R0,) the piece of each run in the last row.
        pixels: (P,) int64.
        sums: (P,) int64 of values.
        holes: Finished holes by piece.
    """

    of_runs: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    pixels: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    sums: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    holes: dict[int, list[np.ndarray]] = field(default_factory=dict)


class OutlineTracer:
    """Takes bands from top to bottom, hands out finished outlines.

    Args:
        classes: Names by value.
        background: The class without outlines; None where every class has some.
        simplify_px: None leaves out corners as far as filling stays exact; 0 follows the pixels' edges; more leaves out
            corners that lie within this of the line between those kept, and filling is exact no longer.
        min_area_px: Pieces of fewer pixels are left out.
    """

    def __init__(
        self,
        classes: Sequence[str],
        background: str | None,
        *,
        simplify_px: float | None = None,
        min_area_px: int = 0,
    ) -> None:
        if len(classes) > NOT_LABELLED:
            raise ValueError(f"{len(classes)} classes; a label map has room for {NOT_LABELLED}")
        self._classes, self._min_area_px = tuple(classes), min_area_px
        self._simplify_px = LOSSLESS_PX if simplify_px is None else simplify_px
        self._values = np.full(256, NOT_LABELLED, np.uint8)  # no outline: background, and what was not looked at
        self._values[: len(classes)] = np.arange(len(classes))
        if background is not None:
            self._values[self._classes.index(background)] = NOT_LABELLED
        self._above: np.ndarray | None = None
        self._rows = 0
        self._chains: list[_Chain] = []
        self._open = _Open()
        self._with_values = False

    def add(self, y0: int, labels: np.ndarray, values: np.ndarray | None = None) -> Iterator[Outline]:
        """Trace the next band.

        Args:
            y0: Its first row: the number of rows given so far.
            labels: (h, W) uint8 values of classes, or NOT_LABELLED.
            values: (h, W) uint8 numbers to average over each piece; with every band or with none.

        Raises:
            ValueError: The band does not follow on the one before, or holds a value that is no class.
        """
        if y0 != self._rows:
            raise ValueError(f"a band from row {y0} on, where row {self._rows} is next")
        if self._above is None:
            self._above = np.full(labels.shape[1] + 2, NOT_LABELLED, np.uint8)
        if labels.shape[1] + 2 != len(self._above):
            raise ValueError(f"a band of {labels.shape[1]} columns in a map of {len(self._above) - 2}")
        if int((labels + np.uint8(1)).max(initial=0)) > len(self._classes):  # 255 becomes 0
            raise ValueError(f"the label map holds a value that is none of its {len(self._classes)} classes")
        waiting = [(0, len(labels))]
        while waiting:
            first, last = waiting.pop()
            part = labels[first:last]
            if last - first > 1 and _is_too_much(part):
                middle = (first + last) // 2
                waiting += [(middle, last), (first, middle)]
            elif last > first:
                yield from self._traced(self._values[part], None if values is None else values[first:last])

    def finish(self) -> Iterator[Outline]:
        """The pieces that reach the last row."""
        if self._above is not None:
            width = len(self._above) - 2
            nothing = np.full((1, width), NOT_LABELLED, np.uint8)
            yield from self._traced(nothing, np.zeros((1, width), np.uint8) if self._with_values else None)

    def _traced(self, rows: np.ndarray, values: np.ndarray | None) -> Iterator[Outline]:
        assert self._above is not None
        labels = np.full((len(rows) + 1, rows.shape[1] + 2), NOT_LABELLED, np.uint8)
        labels[0] = self._above
        labels[1:, 1:-1] = rows
        corners, runs = find_corners(labels), Runs.of(labels)
        pieces, count = runs.pieces(self._open.of_runs)
        rings = list(self._rings(labels, corners, runs, pieces))
        pixels, sums = self._tally(runs, pieces, count, values)
        holes = self._carry_on(runs, pieces, pixels, sums, rings)
        self._above = labels[-1].copy()
        self._rows += len(rows)
        self._with_values = values is not None
        value_of = np.empty(count, np.uint8)
        value_of[pieces] = runs.labels
        outer = [ring for ring in rings if not ring.is_hole and pixels[ring.piece] >= self._min_area_px]
        # By the last row, then by the first corner: an order that knows nothing of bands.
        outer.sort(key=lambda ring: (int(ring.corners[:, 1].max()), *ring.corners[0, ::-1].tolist()))
        polygons = [[ring.corners, *_in_order(holes.get(ring.piece, []))] for ring in outer]
        for ring, rings_px in zip(outer, smoothed(polygons, self._simplify_px), strict=True):
            value, area = int(value_of[ring.piece]), int(pixels[ring.piece])
            mean = None if values is None else float(sums[ring.piece]) / area
            yield Outline(value, self._classes[value], rings_px, area, mean)

    def _tally(
        self, runs: Runs, pieces: np.ndarray, count: int, values: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pixels of each piece so far, and the sum of their values."""
        new = runs.starts >= runs.stride  # the row above was counted with its band
        starts, ends = runs.starts[new] - runs.stride, runs.ends[new] - runs.stride
        pixels = np.bincount(pieces[new], ends - starts, count).astype(np.int64)
        sums = np.zeros(count, np.int64)
        if values is not None and len(starts):
            width = runs.stride - 2
            row = starts // runs.stride
            starts, ends = (where - 1 - 2 * row for where in (starts, ends))  # without the columns at the sides
            flat = np.ascontiguousarray(values).reshape(-1)
            between = np.stack([starts, ends], axis=1).reshape(-1)
            assert between[-1] <= len(values) * width
            if between[-1] == flat.size:
                between = between[:-1]
            sums += np.bincount(pieces[new], np.add.reduceat(flat, between, dtype=np.int64)[::2], count).astype(
                np.int64
            )
        before = self._piece_of_open(pieces)
        np.add.at(pixels, before, self._open.pixels)
        np.add.at(sums, before, self._open.sums)
        return pixels, sums

    def _carry_on(
        self, runs: Runs, pieces: np.ndarray, pixels: np.ndarray, sums: np.ndarray, rings: list[_Ring]
    ) -> dict[int, list[np.ndarray]]:
        """Keep what belongs to pieces that reach the last row; return the holes of those that do not."""
        holes: dict[int, list[np.ndarray]] = {}
        before = self._piece_of_open(pieces)
        for earlier, found in self._open.holes.items():
            piece = int(before[earlier])
            if piece in holes:
                holes[piece] += found
            else:
                holes[piece] = found  # the list itself: a large piece may have a million holes
        for ring in rings:
            if ring.is_hole:  # a part of a band's array would hold all of it
                holes.setdefault(ring.piece, []).append(ring.corners.copy())
        last = runs.starts >= runs.last_row
        still, of_runs = np.unique(pieces[last], return_inverse=True)
        kept = {number: holes.pop(piece) for number, piece in enumerate(still.tolist()) if piece in holes}
        self._open = _Open(of_runs.reshape(-1), pixels[still], sums[still], kept)
        return holes

    def _piece_of_open(self, pieces: np.ndarray) -> np.ndarray:
        """For each piece that was open above the band, which one it is now."""
        now = np.empty(len(self._open.pixels), np.int64)
        now[self._open.of_runs] = pieces[: len(self._open.of_runs)]
        return now

    def _rings(self, labels: np.ndarray, corners: Corners, runs: Runs, pieces: np.ndarray) -> Iterator[_Ring]:
        """The rings that close in this band; chains that stay open are kept."""
        order, begins, sinks, sources = self._linked(labels, corners)
        count = len(corners.x)
        nowhere = np.zeros(len(order) - count, np.int64)  # chains and the seam's ends are no corners
        places = np.stack([np.append(corners.x, nowhere), np.append(corners.row + self._rows, nowhere)], axis=1)
        xy = places.astype(np.int32)[order]
        special = np.flatnonzero(order >= count)
        ends = np.append(begins[1:], len(order))
        twice_area = _twice_areas(xy, begins)
        has_special = np.searchsorted(special, ends) > np.searchsorted(special, begins)
        plain = begins[~has_special]
        home = pieces[runs.at(corners.pixel[order[plain]])]
        simple = (plain, ends[~has_special], twice_area[~has_special], home)
        for begin, end, area, piece in zip(*(values.tolist() for values in simple), strict=True):
            yield _Ring(piece, xy[begin:end], area < 0)
        earlier, self._chains = self._chains, []
        seams = sinks, sources
        for begin, end in zip(begins[has_special].tolist(), ends[has_special].tolist(), strict=True):
            there = special[slice(*np.searchsorted(special, (begin, end)))].tolist()
            ring = self._walk(order, xy, (begin, end), there, earlier, seams, count)
            if ring is not None:
                own = order[begin:end]
                pixel = corners.pixel[own[own < count][:1]]
                yield _Ring(int(pieces[runs.at(pixel)][0]), ring, bool(_twice_areas(ring, np.zeros(1, int))[0] < 0))

    def _linked(self, labels: np.ndarray, corners: Corners) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """All cycles of corners, then open chains, then the seam's ends: where outlines leave, where they come in."""
        last = labels[-1]
        edge = last[1:] != last[:-1]
        sinks = np.flatnonzero(edge & (last[:-1] != NOT_LABELLED))
        sources = np.flatnonzero(edge & (last[1:] != NOT_LABELLED))
        heads = np.array([chain.head_x for chain in self._chains], np.int64)
        tails = np.array([chain.tail_x for chain in self._chains], np.int64)
        count, chains, seam = len(corners.x), len(heads), len(sinks)
        chain_nodes = count + np.arange(chains)
        sink_nodes = count + chains + np.arange(seam)
        source_nodes = sink_nodes + seam
        following = np.concatenate([corners.following, np.full(chains + 2 * seam, -1)])
        down, up = corners.down, corners.up
        following[_by_column((tails, down.top_columns), (chain_nodes, down.tops))] = _by_column(
            (down.bottom_columns, sinks), (down.bottoms, sink_nodes)
        )
        following[_by_column((up.bottom_columns, sources), (up.bottoms, source_nodes))] = _by_column(
            (heads, up.top_columns), (chain_nodes, up.tops)
        )
        following[sink_nodes] = source_nodes  # closes open chains into cycles, which are cut there again
        order, begins = cycles(following, source_nodes)
        return order, begins, sinks, sources

    def _walk(
        self,
        order: np.ndarray,
        xy: np.ndarray,
        span: tuple[int, int],
        special: list[int],
        earlier: list[_Chain],
        seams: tuple[np.ndarray, np.ndarray],
        corners: int,
    ) -> np.ndarray | None:
        """Follow one cycle through chains and seams: the ring, if it closed; else its chains are kept."""
        sinks, sources = seams
        parts: list[np.ndarray] = []
        head_x: int | None = None
        at, end = span
        for position in [*special, end]:
            if position > at:
                parts.append(xy[at:position].copy())  # a view would hold the whole band
            at = position + 1
            if position == end:
                break
            node = int(order[position]) - corners
            if node < len(earlier):
                parts += earlier[node].parts
            elif node < len(earlier) + len(sinks):
                assert head_x is not None
                if len(parts) > _PARTS:
                    parts = [np.concatenate(parts)]
                self._chains.append(_Chain(head_x, int(sinks[node - len(earlier)]), parts))
                parts = []
            else:
                head_x = int(sources[node - len(earlier) - len(sinks)])
        return _from_the_top(np.concatenate(parts)) if head_x is None else None


def _is_too_much(labels: np.ndarray) -> bool:
    return labels.size > _PIXELS_AT_ONCE or np.count_nonzero(labels[:, 1:] != labels[:, :-1]) > _CHANGES_AT_ONCE


def _by_column(columns: tuple[np.ndarray, np.ndarray], nodes: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Nodes of two lists in the order of their columns, and within a column as they stand."""
    return np.concatenate(nodes)[np.argsort(np.concatenate(columns), kind="stable")]


def _twice_areas(corners: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """(M,) twice the area of each ring, by the shoelace formula; negative for holes."""
    if not len(begins):
        return np.empty(0, np.int64)
    after = np.arange(1, len(corners) + 1)
    after[np.append(begins[1:], len(corners)) - 1] = begins
    x, y = corners.T.astype(np.int64)
    return np.asarray(np.add.reduceat(x * y[after] - x[after] * y, begins))


def _from_the_top(ring: np.ndarray) -> np.ndarray:
    """A ring from its uppermost, then leftmost corner on."""
    top = np.flatnonzero(ring[:, 1] == ring[:, 1].min())
    return np.roll(ring, -int(top[np.argmin(ring[top, 0])]), axis=0)


def _in_order(holes: list[np.ndarray]) -> list[np.ndarray]:
    return sorted(holes, key=lambda ring: tuple(ring[0, ::-1].tolist()))
