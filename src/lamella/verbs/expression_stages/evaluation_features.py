"""What the simple baselines read: the tokens of each place, their mean and how they differ, of several scales.

Shapes: N places of a slide, D features (of all scales together).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np

from lamella.formats.feature_raster import FeatureRaster
from lamella.formats.spatial_counts import Shape

# Places whose features are in memory at once: 16,384 x 500 features are 33 MB.
_ROWS = 16_384
# Features of a slide that are kept between passes; those of larger slides are read again each time.
_KEPT_BYTES = 2**26
# Fewer samples of a place do not tell how its tokens differ.
_LEAST_SAMPLES = 4
# Samples along a place's side, at most: a mean of 81 is smooth to a few per cent.
_MOST_PARTS = 9


class PlaceFeatures:
    """Features of the judged places of one slide, each with mean 0 and deviation 1 over them. No label is looked at.

    Args:
        rasters: Of the scales.
        px0: (N, 2) x and y of the centres in level-0 pixels.
        size_um: Side of a bin, or diameter of a spot.
        shape: bin or spot.
        mpp: (x, y) micrometres per level-0 pixel.
        texture: Also the deviation between the tokens of a place, where it holds four at least.
    """

    def __init__(
        self,
        rasters: Sequence[FeatureRaster],
        px0: np.ndarray,
        size_um: float,
        shape: Shape,
        mpp: tuple[float, float],
        *,
        texture: bool = False,
    ) -> None:
        self._rasters, self._px0 = tuple(rasters), np.asarray(px0, np.float64)
        self._offsets = [_offsets_px0(size_um, raster.facts.token_um, shape, mpp) for raster in rasters]
        self._textured = [texture and len(offsets) >= _LEAST_SAMPLES for offsets in self._offsets]
        self.width = sum(
            raster.facts.width * (1 + textured) for raster, textured in zip(rasters, self._textured, strict=True)
        )
        self._kept: np.ndarray | None = None
        self._kept_seen = np.zeros(0, bool)

    def __len__(self) -> int:
        return len(self._px0)

    def parts(self) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """Rows, their float32 (n, D) features and whether they are seen at all scales (n,); 0 where they are not."""
        mean_D, scale_D = self._standard
        for rows in _pieces(len(self)):
            raw, seen = self._raw(rows)
            x = (raw - mean_D) / scale_D
            x[~seen] = 0
            yield rows, x, seen

    def of(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """float32 (n, D) features of some places, and whether they are seen."""
        mean_D, scale_D = self._standard
        if self._kept is not None:
            raw, seen = self._kept[numbers], self._kept_seen[numbers]
        else:
            raw, seen = self._sampled(self._px0[numbers])
        x = (raw - mean_D) / scale_D
        x[~seen] = 0
        return x, seen

    @cached_property
    def unseen(self) -> int:
        """Places at which some scale has no features."""
        return sum(int((~self._raw(rows)[1]).sum()) for rows in _pieces(len(self)))

    @cached_property
    def _standard(self) -> tuple[np.ndarray, np.ndarray]:
        """float32 mean and deviation of each feature over the seen places; of a constant one it is infinite."""
        if len(self) * self.width * 4 <= _KEPT_BYTES:
            self._kept, self._kept_seen = self._sampled(self._px0)
        count, total, square = 0, np.zeros(self.width), np.zeros(self.width)
        for rows in _pieces(len(self)):
            raw, seen = self._raw(rows)
            wide = raw[seen].astype(np.float64)
            count, total, square = count + len(wide), total + wide.sum(0), square + (wide * wide).sum(0)
        mean = total / max(1, count)
        spread = np.sqrt(np.maximum(square / max(1, count) - mean**2, 0))
        # float16 on disk has three digits: what varies less is rounding.
        varies = spread > 1e-4 * np.maximum(np.abs(mean), 1e-3)
        return mean.astype(np.float32), np.where(varies, spread, np.inf).astype(np.float32)

    def _raw(self, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        if self._kept is not None:
            return self._kept[rows], self._kept_seen[rows]
        return self._sampled(self._px0[rows])

    def _sampled(self, px0: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found, all_seen = [], np.ones(len(px0), bool)
        for raster, offsets, textured in zip(self._rasters, self._offsets, self._textured, strict=True):
            total, count = np.zeros((len(px0), raster.facts.width), np.float32), np.zeros(len(px0), np.float32)
            square = np.zeros_like(total) if textured else None
            first: np.ndarray | None = None
            for dx, dy in offsets:
                values, seen = raster.sample(px0[:, 0] + dx, px0[:, 1] + dy)
                total += values
                count += seen
                if square is not None:  # around the first sample: squares of large numbers lose their difference
                    first = values if first is None else first
                    square += (values - first) ** 2 * seen[:, None]
            some = np.maximum(count, 1)[:, None]
            found.append(total / some)
            if square is not None and first is not None:
                found.append(np.sqrt(np.maximum(square / some - (found[-1] - first) ** 2, 0)))
            # At least half of the place.
            all_seen &= 2 * count >= len(offsets)
        return np.concatenate(found, axis=1), all_seen


def _pieces(count: int) -> Iterator[slice]:
    return (slice(first, min(first + _ROWS, count)) for first in range(0, count, _ROWS))


def _offsets_px0(size_um: float, token_um: float, shape: Shape, mpp: tuple[float, float]) -> np.ndarray:
    """(K, 2) places within a bin or a disk, about one for each token, relative to its centre, in level-0 pixels."""
    parts = min(_MOST_PARTS, max(1, math.ceil(size_um / token_um - 1e-6)))
    along = (np.arange(parts) + 0.5) / parts - 0.5
    y, x = (each.ravel() for each in np.meshgrid(along, along, indexing="ij"))
    inside = np.hypot(x, y) <= 0.5 if shape == "spot" else np.ones(len(x), bool)
    return np.stack([x[inside] * size_um / mpp[0], y[inside] * size_um / mpp[1]], axis=1)
