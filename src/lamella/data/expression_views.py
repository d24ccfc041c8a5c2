"""Features of several scales at the places of a sample, along the rows and columns of its bins.

Each scale is a raster over the image, made once. A sample asks it for the places of its own bins or tokens, so a
mirrored and turned chip, or another size of bin, needs no other raster and no resampled picture.

Shapes: S samples, D_v width of view v, t tokens along a view's side (view 0: one a bin).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lamella.formats.feature_raster import FeatureRaster
from lamella.geometry import BinGrid
from lamella.models.expression.contract import ViewShape

Standardise = Literal["none", "slide"]
# A deviation below this share of the mean is float16's rounding (2**-11) of a feature that is the same everywhere.
_CONSTANT_SHARE, _CONSTANT = 1e-3, 1e-6


@dataclass(frozen=True)
class SlideViews:
    """The views of one slide.

    Attributes:
        rasters: One per view, the first for the bins.
        shapes: Of the views; of view 0, `token_um` is the bins' side and `tokens` their number.
        standardise: slide: each feature with mean 0 and deviation 1 over the tissue of its slide.
    """

    rasters: tuple[FeatureRaster, ...]
    shapes: tuple[ViewShape, ...]
    standardise: Standardise = "slide"

    def __post_init__(self) -> None:
        widths = [raster.facts.width for raster in self.rasters]
        if widths != [shape.width for shape in self.shapes]:
            raise ValueError(f"rasters are {widths} wide, the views {[shape.width for shape in self.shapes]}")

    def at(
        self, grid: BinGrid, row_c: float, col_c: float, bins: int | None = None
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The views around a centre.

        Bin i of n lies at `row_c + i - (n - 1) / 2`, so the centre of an even number of bins is between two of them.

        Args:
            grid: Of the bins.
            row_c: Fractional row of the centre.
            col_c: Fractional column.
            bins: Along the side of view 0; as its shape says unless given.

        Returns:
            float32 (D_v, t, t) and bool (t, t) for each view; 0 where not seen.
        """
        features, seen = [], []
        for number, (raster, shape) in enumerate(zip(self.rasters, self.shapes, strict=True)):
            tokens = shape.tokens if bins is None or number else bins
            spacing_um = shape.token_um if number else grid.bin_um
            values, there = _sampled(raster, grid, (row_c, col_c), tokens, spacing_um)
            if self.standardise == "slide":
                values = _standardised(values, there, raster)
            features.append(np.ascontiguousarray(values.transpose(2, 0, 1)))
            seen.append(there)
        return features, seen

    def many(
        self, grid: BinGrid, centres_rc: np.ndarray | Sequence[tuple[float, float]], bins: int | None = None
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """`at` for (S, 2) centres: float32 (S, D_v, t, t) and bool (S, t, t) for each view."""
        found = [self.at(grid, float(row), float(col), bins) for row, col in centres_rc]
        views = range(len(self.rasters))
        features = [np.stack([each[0][view] for each in found]) for view in views]
        return features, [np.stack([each[1][view] for each in found]) for view in views]


def tokens_of_view(token_um: float, fov_um: float | None, sample_um: float) -> int:
    """Tokens along a view's side: what covers the field of view, or, by default, 16 and at least the sample."""
    # 1e-6 of a token: a field of a whole number of tokens needs no more for the division's rounding.
    least = math.ceil(sample_um / token_um - 1e-6)
    return max(16, least) if fov_um is None else max(1, math.ceil(fov_um / token_um - 1e-6))


def _sampled(
    raster: FeatureRaster, grid: BinGrid, centre_rc: tuple[float, float], tokens: int, spacing_um: float
) -> tuple[np.ndarray, np.ndarray]:
    """float32 (t, t, D) and bool (t, t).

    Where a place is larger than the raster's tokens, it is the mean of so many places inside it as there are tokens:
    one alone would leave out most of them.
    """
    step = spacing_um / grid.bin_um
    along = (np.arange(tokens) - (tokens - 1) / 2) * step
    parts = max(1, round(spacing_um / raster.facts.token_um))
    inner = ((np.arange(parts) + 0.5) / parts - 0.5) * step
    total = np.zeros((tokens, tokens, raster.facts.width), np.float32)
    count = np.zeros((tokens, tokens), np.float32)
    for down in inner:
        for across in inner:
            row, col = centre_rc[0] + along[:, None] + down, centre_rc[1] + along[None, :] + across
            values, seen = raster.sample(*grid.place_px0(row, col))
            total += values
            count += seen
    seen = 2 * count >= parts**2  # at least half of it
    total /= np.where(seen, count, 1)[..., None]
    total[~seen] = 0
    return total, seen


def _standardised(values: np.ndarray, seen: np.ndarray, raster: FeatureRaster) -> np.ndarray:
    mean, std = np.asarray(raster.facts.mean, np.float32), np.asarray(raster.facts.std, np.float32)
    varies = std > _CONSTANT_SHARE * np.abs(mean) + _CONSTANT
    factor = np.where(varies, 1 / np.where(varies, std, 1), 0).astype(np.float32)
    values -= mean
    values *= factor
    values[~seen] = 0
    return values
