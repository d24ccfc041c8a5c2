"""Truth and prediction of some genes of a slide, gene by gene in rows, with what several measures need of them.

Shapes: g genes, N places in the order of an `Arrangement`, B blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lamella.metrics.genes.arrangement import Arrangement
from lamella.metrics.genes.judged import JudgedSlide, Scale

# Expected counts below this are taken as this: the logarithm of zero has no value, and one count where none was
# expected at all then costs 28 units of deviance.
MIN_COUNT = 1e-6


@dataclass(frozen=True)
class Sorted:
    """Rows of scores in rising order.

    Attributes:
        order: (g, N) the place at each position.
        values: (g, N) the score there.
        first, last: (g, N) the first and the last position with the same score.
    """

    order: np.ndarray
    values: np.ndarray
    first: np.ndarray
    last: np.ndarray

    @classmethod
    def of(cls, scores_gN: np.ndarray, *, mostly_equal: bool = False) -> Sorted:
        """Sort rows; `mostly_equal` ones, as of sparse counts, some fifteen times faster by the stable algorithm."""
        order = np.argsort(scores_gN, axis=1, kind="stable" if mostly_equal else None)
        values = np.take_along_axis(scores_gN, order, axis=1)
        genes, count = values.shape
        position = np.broadcast_to(np.arange(count, dtype=np.int32), values.shape)
        new = np.ones((genes, count + 1), bool)
        new[:, 1:-1] = values[:, 1:] != values[:, :-1]
        first = np.maximum.accumulate(np.where(new[:, :-1], position, 0), axis=1)
        ends = np.where(new[:, 1:], position, count - 1)
        last = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
        return cls(order, values, first, last)

    def at_places(self, values_gN: np.ndarray) -> np.ndarray:
        """Values of positions, put where their places are."""
        placed = np.empty_like(values_gN)
        np.put_along_axis(placed, self.order, values_gN, axis=1)
        return placed

    @cached_property
    def ranks(self) -> np.ndarray:
        """(g, N) float64 rank of every place from 1, ties sharing their mean rank."""
        return self.at_places((self.first + self.last) / 2.0 + 1)

    def top_weights(self, count_g: np.ndarray) -> np.ndarray:
        """(g, N) chance of every place to be among the `count_g` highest, ties being broken at random."""
        genes, count = self.values.shape
        rows = np.arange(genes)
        edge = np.clip(count - count_g, 0, count - 1)
        first, last = self.first[rows, edge].astype(np.int64), self.last[rows, edge].astype(np.int64)
        share = (count_g - (count - 1 - last)) / (last - first + 1)
        position = np.arange(count)
        tied = (position >= first[:, None]) & (position <= last[:, None])
        weights = np.where(tied, share[:, None], (position > last[:, None]).astype(np.float64))
        return self.at_places(np.where(count_g[:, None] > 0, weights, 0.0))


class Pairs:
    """Some genes of one slide.

    Attributes:
        scale: Of the slide.
        truth: (g, N) float64 as given.
        predicted: (g, N) float64 as given.
        x, y: (g, N) float64 prediction and truth on the scale of the correlations: log1p of counts, else as they are.
    """

    def __init__(self, slide: JudgedSlide, arrangement: Arrangement, genes: slice) -> None:
        self.scale: Scale = slide.scale
        self.starts = arrangement.starts
        self.sizes = arrangement.sizes
        # Sorting and logarithms run along a gene, so genes are rows.
        self.truth = np.ascontiguousarray(slide.truth[:, genes][arrangement.order].T.astype(np.float64))
        self.predicted = np.ascontiguousarray(slide.predicted[:, genes][arrangement.order].T.astype(np.float64))
        self.x, self.y = on_scale(self.predicted, self.scale), on_scale(self.truth, self.scale)

    @property
    def shape(self) -> tuple[int, int]:
        return self.truth.shape  # type: ignore[return-value]

    @cached_property
    def x_sorted(self) -> Sorted:
        # float32 as it was given, which sorts faster; the order on the scale of the correlations is the same.
        return Sorted.of(self.predicted.astype(np.float32))

    @cached_property
    def y_sorted(self) -> Sorted:
        return Sorted.of(self.truth.astype(np.float32), mostly_equal=True)

    @cached_property
    def x_constant(self) -> np.ndarray:
        """(g,) whether the prediction says the same of every place."""
        return np.ptp(self.x, axis=1) == 0

    @cached_property
    def y_constant(self) -> np.ndarray:
        """(g,) whether the truth is the same everywhere, as of a gene that nothing was counted of."""
        return np.ptp(self.y, axis=1) == 0

    @cached_property
    def positive(self) -> np.ndarray:
        """(g, N) whether the gene is expressed there at all."""
        return self.truth > 0

    @cached_property
    def mu(self) -> np.ndarray:
        """(g, N) expected counts, bounded away from zero."""
        return np.maximum(self.predicted, MIN_COUNT)

    def blocks(self, *parts_gN: np.ndarray) -> np.ndarray:
        """(B, g, K) float64 sums of K contributions over the blocks."""
        return np.stack([np.add.reduceat(part, self.starts, axis=1).T for part in parts_gN], axis=-1)

    def counted(self, sums_BgK: np.ndarray) -> np.ndarray:
        """(B, g, 1 + K): the number of places before the sums."""
        sizes = np.broadcast_to(self.sizes[:, None, None].astype(np.float64), (*sums_BgK.shape[:2], 1))
        return np.concatenate([sizes, sums_BgK], axis=-1)


def on_scale(values: np.ndarray, scale: Scale) -> np.ndarray:
    """On the scale of the correlations: log1p of counts (expected ones below zero count as zero), else as they are."""
    return np.log1p(np.maximum(values, 0)) if scale == "counts" else values
