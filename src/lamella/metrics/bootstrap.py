"""Intervals by resampling groups (patients or slides): tiles of one slide are not independent, so they move together.

Every metric here is a function of per-group sums (a confusion matrix, hits and tries), so a draw is one weighted sum of
them and thousands of draws cost one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

# Two groups allow three different resamples: no percentile of three numbers is an interval.
MIN_GROUPS = 3
# Draws in which the statistic is undefined (a class is missing) are left out, up to this share.
MAX_UNDEFINED = 0.05

Statistic = Callable[[np.ndarray], np.ndarray]
"""Maps sums (..., R, shape of one group's sums) to numbers (..., R)."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, what it rests on, and what must be said about it."""

    value: float
    low: float
    high: float
    n: int
    groups: int
    note: str = ""


def group_sums(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Sum rows by group.

    Args:
        values: (N, ...) numbers.
        groups: (N,) labels of any kind that sort.

    Returns:
        (G, ...) float64, in the order of the sorted groups.
    """
    names, position = np.unique(groups, return_inverse=True)
    sums = np.zeros((len(names), *values.shape[1:]))
    np.add.at(sums, position, values)
    return sums


def group_bootstrap(
    sums: np.ndarray,
    statistic: Statistic,
    *,
    n: int,
    bounds: tuple[float, float],
    draws: int = 4000,
    seed: int = 0,
) -> Estimate:
    """The 95 % interval of a statistic of summed groups, expanded for few groups.

    Percentiles of the resamples, moved outwards so that they fit as a t-interval does: plain percentiles are too narrow
    for few groups. Source: Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 69
    (2015), "expanded percentile interval": level Phi(-sqrt(n / (n - 1)) t) with n groups.

    The R replicates are equally good versions of the same thing (random initialisations, exchanged labels). The value
    is their mean; each resample takes one of them by chance, so that their spread is in the interval.

    With fewer than three groups nothing narrower than the statistic's whole range can be justified: that range is the
    interval, and the note says why.

    Args:
        sums: (G, R, ...) per-group sums, as of `group_sums`.
        statistic: Maps (..., R, ...) to (..., R). For a paired difference, stack both on a further axis.
        n: Rows (tiles) behind the sums.
        bounds: Smallest and largest value that the statistic can take.
        draws: Resamples; 4000 put ten of them beyond each end with six groups.
        seed: Makes the interval repeatable.
    """
    count, replicates = sums.shape[:2]
    value = float(statistic(sums.sum(axis=0)).mean())
    if count < MIN_GROUPS:
        return Estimate(value, *bounds, n, count, f"{count} group(s): too few for an interval; the whole range stands")
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(count, np.full(count, 1 / count), size=draws)
    drawn = np.asarray(statistic(np.tensordot(weights, sums, axes=1)), np.float64)
    drawn = drawn[np.arange(draws), rng.integers(replicates, size=draws)]
    defined = drawn[np.isfinite(drawn)]
    if len(defined) < (1 - MAX_UNDEFINED) * draws:
        note = f"undefined in {1 - len(defined) / draws:.0%} of the resamples; the whole range stands"
        return Estimate(value, *bounds, n, count, note)
    return Estimate(value, *expanded_interval(defined, count), n, count)


def expanded_interval(drawn: np.ndarray, groups: int) -> tuple[float, float]:
    """Ends of the 95 % interval from the resamples' values: their percentiles, expanded for few groups (Hesterberg)."""
    tail = 100 * stats.norm.cdf(-np.sqrt(groups / (groups - 1)) * stats.t.ppf(0.975, groups - 1))
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return float(low), float(high)
