"""Resamples of whole groups as weights of rows, for measures that are no function of per-group sums (a ranking).

The same resamples serve every encoder, so that differences between encoders are paired.

Shapes: N rows, G groups, S resamples, R replicates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lamella.metrics.bootstrap import MAX_UNDEFINED, MIN_GROUPS, Estimate, expanded_interval

# Fifty resamples lie beyond each end of the interval.
_DRAWS = 2000
# Numbers of one block of row weights: 32 MB of float64.
_BLOCK = 2**22

WeightedStatistic = Callable[[np.ndarray], np.ndarray]
"""Row weights (S, N) to (S,) numbers, NaN where undefined."""


@dataclass(frozen=True)
class Resampled:
    """A statistic of R replicates, on the rows as they are and on the S resamples."""

    point_R: np.ndarray
    drawn_SR: np.ndarray

    def __sub__(self, other: Resampled) -> Resampled:
        """The paired difference; one replicate stands against all of the other's."""
        return Resampled(self.point_R - other.point_R, self.drawn_SR - other.drawn_SR)


class Resamples:
    """S resamples of the groups of N rows.

    Args:
        groups: (N,) group of each row, of any kind that sorts.
        seed: Makes them repeatable.
        draws: S.
    """

    def __init__(self, groups: np.ndarray, *, seed: int = 0, draws: int = _DRAWS) -> None:
        names, self._position_N = np.unique(groups, return_inverse=True)
        self.n, self.groups, self._seed = len(groups), len(names), seed
        rng = np.random.default_rng(seed)
        # Bytes: no group is drawn 256 times, and 100,000 groups would be 1.6 GB in 64 bits.
        self._weights_SG = np.zeros((draws, self.groups), np.uint8)
        for row in self._weights_SG:
            row[:] = np.bincount(rng.integers(self.groups, size=self.groups), minlength=self.groups)

    def of(self, statistics: Sequence[WeightedStatistic]) -> Resampled:
        """The statistic of each replicate, on all rows and on every resample."""
        ones = np.ones((1, self.n))
        point_R = np.array([float(statistic(ones)[0]) for statistic in statistics])
        drawn_SR = np.empty((len(self._weights_SG), len(statistics)))
        block = max(1, _BLOCK // max(1, self.n))
        for start in range(0, len(drawn_SR), block):
            part = slice(start, start + block)
            weights_SN = self._weights_SG[part][:, self._position_N].astype(np.float64)
            for number, statistic in enumerate(statistics):
                drawn_SR[part, number] = statistic(weights_SN)
        return Resampled(point_R, drawn_SR)

    def over_draws(self, found: Resampled) -> Resampled:
        """The mean of draws (of labels) as one replicate; a resample takes as many draws, with replacement.

        The same draws are taken for every encoder.
        """
        draws = len(found.point_R)
        taken = np.random.default_rng([self._seed, 2]).integers(draws, size=(len(found.drawn_SR), draws))
        mean_S = np.take_along_axis(found.drawn_SR, taken, axis=1).mean(1)
        return Resampled(found.point_R.mean(keepdims=True), mean_S[:, None])

    def estimate(self, found: Resampled, bounds: tuple[float, float], *, another: bool = False) -> Estimate:
        """Mean over the replicates with its 95 % interval, as of `bootstrap.group_bootstrap`.

        Replicates are equally good versions of the same thing (random initialisations).

        Args:
            found: Of `of`.
            bounds: Smallest and largest value.
            another: Ask how far the replicates lie from one more of their kind (the judged encoder, if training did
                nothing to it): to each resample, their mean, t(R - 1) times their deviation times sqrt(1 + 1 / R) is
                added, the prediction interval of a normal sample. Three lucky draws do not make it narrow. Otherwise a
                resample takes one of the replicates by chance.
        """
        value, (draws, replicates) = float(found.point_R.mean()), found.drawn_SR.shape
        if self.groups < MIN_GROUPS:
            note = f"{self.groups} group(s): too few for an interval; the whole range stands"
            return Estimate(value, *bounds, self.n, self.groups, note)
        rng = np.random.default_rng([self._seed, 1])
        if another and replicates > 1:
            # Their deviation on the rows as they are: on a resample it would hold the resample's own noise, too.
            spread = found.point_R.std(ddof=1) * np.sqrt(1 + 1 / replicates)
            drawn = found.drawn_SR.mean(1) + rng.standard_t(replicates - 1, size=draws) * spread
            drawn = drawn.clip(*bounds)
        else:
            drawn = found.drawn_SR[np.arange(draws), rng.integers(replicates, size=draws)]
        defined = drawn[np.isfinite(drawn)]
        if len(defined) < (1 - MAX_UNDEFINED) * draws:
            note = f"undefined in {1 - len(defined) / draws:.0%} of the resamples; the whole range stands"
            return Estimate(value, *bounds, self.n, self.groups, note)
        return Estimate(value, *expanded_interval(defined, self.groups), self.n, self.groups)


def side_by_side(found: Sequence[Resampled]) -> Resampled:
    """Several replicates as one."""
    return Resampled(np.concatenate([each.point_R for each in found]), np.hstack([each.drawn_SR for each in found]))
