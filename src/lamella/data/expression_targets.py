"""What is predicted of each place: counts, or counts made comparable between places.

Library size is the total of all measured genes of a place, not of the panel alone. A place without a single count has
0 in every target, as scanpy's `normalize_total` leaves it. All targets keep zeros zero, so all stay sparse.

Shapes: N places, G genes of the panel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from lamella.data.expression import Target
from lamella.formats.spatial_counts import ExpressionError, SpatialCounts

_PER_TEN_THOUSAND, _PER_MILLION = 1e4, 1e6
# Mean over a place and its neighbours on the chip's array, where they exist.
_NEIGHBOURS = tuple((row, column) for row in (-1, 0, 1) for column in (-1, 0, 1))


def target_values(counts: SpatialCounts, genes: Sequence[str], target: Target) -> sparse.csr_array:
    """The target at every place.

    Args:
        counts: All measured genes of the slide.
        genes: The panel.
        target: counts; log1p: ln(1 + c); log10_library: log10(1 + 1e4 c / total); log_cpm: ln(1 + 1e6 c / total);
            log_cpm_smoothed: log_cpm averaged over the 3 x 3 places around each that exist; values: as the file has
            them.

    Returns:
        (N, G) float32.

    Raises:
        ExpressionError: A gene is not there, a target of counts is asked of values that are none, or neighbours of
            places without rows and columns.
    """
    if target != "values":
        check_counts(counts, target)
    chosen = sparse.csr_array(counts.of_genes(genes).counts).astype(np.float32)
    if target in ("counts", "values"):
        return chosen
    if target == "log1p":
        np.log1p(chosen.data, out=chosen.data)
        return chosen
    total = totals(counts)
    per = _PER_TEN_THOUSAND if target == "log10_library" else _PER_MILLION
    row_of = np.repeat(np.arange(len(total)), np.diff(chosen.indptr))
    logged = np.log1p(chosen.data.astype(np.float64) * per / total[row_of])
    chosen.data = (logged / np.log(10) if target == "log10_library" else logged).astype(np.float32)
    if target == "log_cpm_smoothed":
        return sparse.csr_array(neighbour_means(counts) @ chosen).astype(np.float32)
    return chosen


def totals(counts: SpatialCounts) -> np.ndarray:
    """(N,) float64 total of all measured genes of every place."""
    return np.asarray(counts.counts.sum(axis=1, dtype=np.float64)).reshape(-1)


def check_counts(counts: SpatialCounts, target: Target) -> None:
    """Refuse fractions and negative values where counts are needed.

    Raises:
        ExpressionError: What was found.
    """
    if counts.are_counts:
        return
    values = counts.counts.data
    negative = int(np.count_nonzero(values < 0))
    fractional = int(np.count_nonzero(values != np.floor(values)))
    raise ExpressionError(
        counts.source,
        f"target {target} needs counts, and {fractional} of its {values.size} stored values are no whole numbers, "
        f"{negative} are negative",
        "Give the raw counts, or set data.target=values and a loss for values (mse).",
    )


def neighbour_means(counts: SpatialCounts) -> sparse.csr_array:
    """(N, N) float64 weights: 1 / k at each of the k places of the 3 x 3 around a place that exist, itself included.

    Raises:
        ExpressionError: The places have no rows and columns.
    """
    if counts.array_rc is None:
        raise ExpressionError(
            counts.source,
            "target log_cpm_smoothed averages neighbours on the array, and its places have no rows and columns",
            "Choose data.target=log_cpm.",
        )
    rc = counts.array_rc.astype(np.int64)
    rc = rc - rc.min(axis=0) + 1  # a rim of one, so that no neighbour wraps into the next row
    width = int(rc[:, 1].max()) + 2
    key = rc[:, 0] * width + rc[:, 1]
    order = np.argsort(key)
    sorted_keys = key[order]
    pairs = []
    for down, right in _NEIGHBOURS:
        wanted = key + down * width + right
        found = np.minimum(np.searchsorted(sorted_keys, wanted), len(key) - 1)
        there = sorted_keys[found] == wanted
        pairs.append((np.flatnonzero(there), order[found[there]]))
    rows, columns = (np.concatenate(each) for each in zip(*pairs, strict=True))
    existing = np.bincount(rows, minlength=len(key))
    return sparse.csr_array((1.0 / existing[rows], (rows, columns)), shape=(len(key), len(key)))
