"""Which bins and spots of a slide count: those on tissue of the image that were measured."""

from __future__ import annotations

import numpy as np

from lamella.data.expression import ExpressionSlide
from lamella.data.expression_settings import ExpressionDataSettings
from lamella.data.expression_tissue import lattice_fractions, place_fractions, slide_tissue
from lamella.formats.spatial_counts import ExpressionError, SpatialCounts

BoxRC = tuple[int, int, int, int]
"""First row and column, and those behind the last."""


def captured_box(counts: SpatialCounts) -> BoxRC:
    """The chip's rows and columns: as the file says, or those of the bins that are there."""
    assert counts.array_rc is not None
    (row0, col0), (row1, col1) = counts.array_rc.min(axis=0), counts.array_rc.max(axis=0)
    return counts.captured_rc or (int(row0), int(col0), int(row1) + 1, int(col1) + 1)


def judged_bins(slide: ExpressionSlide, settings: ExpressionDataSettings) -> tuple[np.ndarray, int]:
    """Which bins of the chip count.

    Returns:
        (rows, columns) bool over `captured_box`, and how many bins on tissue are left out because the file says
        nothing of them.

    Raises:
        ExpressionError: Bins have no rows and columns, or none lies on tissue.
        SlideError: The image cannot be read, or shows no tissue.
    """
    counts = slide.counts
    if counts.grid is None or counts.array_rc is None:
        raise ExpressionError(
            counts.source, "its bins have no rows and columns", "Give the vendor's folder with its tissue positions."
        )
    box = captured_box(counts)
    share = lattice_fractions(slide_tissue(slide, settings.tissue), slide.frame, counts.grid, box)
    mask = share >= _least(settings)
    on_tissue = int(np.count_nonzero(mask))
    if not counts.all_measured:
        measured = np.zeros(mask.shape, bool)
        measured[counts.array_rc[:, 0] - box[0], counts.array_rc[:, 1] - box[1]] = True
        mask &= measured
    judged = int(np.count_nonzero(mask))
    _check_any(slide, judged)
    return mask, on_tissue - judged


def judged_spots(slide: ExpressionSlide, settings: ExpressionDataSettings) -> np.ndarray:
    """(S,) rows of the slide's counts: the spots that count.

    Raises:
        ExpressionError: None lies on tissue.
        SlideError: The image cannot be read, or shows no tissue.
    """
    counts = slide.counts
    tissue = slide_tissue(slide, settings.tissue)
    share = place_fractions(tissue, slide.frame, counts.places_px0, counts.size_um, "spot")
    kept = np.flatnonzero(share >= _least(settings))
    _check_any(slide, len(kept))
    return kept


def _least(settings: ExpressionDataSettings) -> float:
    """Least share of tissue; 0 asks for some of it, not for none."""
    return max(settings.min_tissue_fraction, float(np.finfo(np.float32).eps))


def _check_any(slide: ExpressionSlide, judged: int) -> None:
    if not judged:
        raise ExpressionError(
            slide.slide_id,
            "none of its bins or spots lies on tissue of the image",
            "Look at `lamella expression check`: the image may be another slide's, turned, or of another resolution.",
        )
