"""Sparse counts of any source are brought to one form, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import sparse

from lamella.formats.spatial_counts import ExpressionError

_INT32 = 2**31 - 1


def damaged(path: Path | str, what: str) -> ExpressionError:
    """The file was cut off, or contradicts itself."""
    return ExpressionError(path, f"it cannot be read whole ({what})", "Copy it anew from where it was made.")


def checked_counts(path: Path | str, counts: sparse.csr_array) -> sparse.csr_array:
    """Counts in order within each row: int32 if all are whole and none is below zero, else float32.

    A file of integers is one of counts; values below zero are refused there. A file of other numbers may hold values
    on any scale, and they are kept.

    Raises:
        ExpressionError: An integer is below zero, a value is not finite, or an entry stands twice.
    """
    if not counts.has_sorted_indices:
        counts.sort_indices()
    if counts.nnz and not counts.has_canonical_format:
        raise damaged(path, "a gene stands twice at one place")
    data = counts.data
    if data.dtype.kind in "iub":
        if len(data) and data.dtype.kind == "i" and data.min() < 0:
            raise ExpressionError(
                path, f"it holds a count below zero ({int(data.min())})", "Give the counts as they were sequenced."
            )
        if len(data) and data.max() > _INT32:
            raise damaged(path, f"a count of {int(data.max())}")
        counts.data = data.astype(np.int32, copy=False)
        return counts
    if not np.isfinite(data).all():
        raise ExpressionError(path, "it holds a value that is not a finite number", "Make the matrix again.")
    whole = len(data) == 0 or (data.min() >= 0 and data.max() <= _INT32 and np.array_equal(data, np.floor(data)))
    counts.data = data.astype(np.int32 if whole else np.float32, copy=False)
    return counts
