"""The same slide judged in coarser bins: sums of truth and of prediction over whole blocks of bins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import sparse

from lamella.metrics.genes.judged import JudgedSlide

# 8 / 2 = 4.0000000001 is a whole factor, and 8 / 3 is none.
_WHOLE = 1e-3


def resolutions(slide: JudgedSlide, wanted_um: Sequence[float]) -> tuple[JudgedSlide, ...]:
    """The slide as it is, and in those of the wanted bins that are a whole multiple of its own.

    Spots have one resolution. Bins in which nothing is left (no whole block was judged) are left out.
    """
    found = [slide]
    if slide.rc is None:
        return (slide,)
    for bin_um in sorted(set(wanted_um)):
        factor = round(bin_um / slide.bin_um)
        if factor > 1 and abs(bin_um / slide.bin_um - factor) < _WHOLE:
            coarse = pooled(slide, factor)
            if len(coarse.truth):
                found.append(coarse)
    return tuple(found)


def pooled(slide: JudgedSlide, factor: int) -> JudgedSlide:
    """The slide in blocks of `factor` x `factor` bins.

    Counts are summed, truth and prediction over the same bins; values on a logarithmic or other scale are averaged.
    Only blocks all of whose bins are judged are kept: in others, both sums would be small for the same reason, the
    border, and would agree for it.

    Raises:
        ValueError: The slide has no lattice, or two places share a bin.
    """
    if slide.rc is None:
        raise ValueError(f"{slide.slide_id}: spots have no coarser bins")
    rc_N2 = slide.rc.astype(np.int64)
    block_N2 = np.floor_divide(rc_N2, factor)
    low = block_N2.min(axis=0)
    width = int(block_N2[:, 1].max() - low[1]) + 1
    key_N = (block_N2[:, 0] - low[0]) * width + block_N2[:, 1] - low[1]
    keys, first, inverse, size = np.unique(key_N, return_index=True, return_inverse=True, return_counts=True)
    if size.max() > factor**2:
        raise ValueError(f"{slide.slide_id}: a block of {factor} x {factor} bins has {size.max()} places")
    whole = size == factor**2
    sums = sparse.csr_array((np.ones(len(key_N)), (inverse, np.arange(len(key_N)))), (len(keys), len(key_N)))[whole]
    means = sums / factor**2
    values, mean_factor = (sums, factor**2) if slide.scale == "counts" else (means, 1)
    mean_map = slide.training_mean
    return replace(
        slide,
        truth=_of(values, slide.truth),
        predicted=_of(values, slide.predicted),
        total=_of(sums, slide.total),
        darkness=_of(means, slide.darkness),
        rc=block_N2[first[whole]].astype(np.int32),
        bin_um=slide.bin_um * factor,
        places_um=_of(means, slide.places_um),
        training_mean=None if mean_map is None else (mean_map * mean_factor).astype(np.float32),
    )


def _of(blocks: sparse.csr_array, values: np.ndarray) -> np.ndarray:
    """Summed in float64: a block of 64 bins of large counts is exact."""
    return np.asarray(blocks @ values.astype(np.float64)).astype(np.float32)
