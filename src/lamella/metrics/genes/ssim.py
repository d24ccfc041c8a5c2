"""SSIM of a gene's map with its predicted map, in two definitions that differ in what they call the range.

Wang et al., IEEE TIP 13 (2004), with windows of 7 x 7 bins, all alike, as scikit-image's `structural_similarity` has
it: K1 = 0.01, K2 = 0.03, unbiased (co)variances. Only windows that lie in the judged places as a whole count.

joint: the range is that of truth and prediction together, and neither is rescaled. separate: each map is first
stretched to 0..1 by its own extremes, as published scores often do; a prediction of a tenth of the truth's level is
then as good as the truth, and noise is stretched to structure.

SSIM is descriptive. Maps that are mostly empty agree for being empty: in the published control, shuffled labels still
had .493 of .571. The skill is therefore given beside it: (SSIM - best) / (1 - best), where best is the better of a map
of zeros and of the training patients' mean.

Shapes: g genes, N places, B blocks, H x W the lattice around the places.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from lamella.metrics.genes.arrangement import Arrangement
from lamella.metrics.genes.judged import JudgedSlide
from lamella.metrics.genes.pairs import Pairs, on_scale

SEPARATE, JOINT = "ssim_separate", "ssim_joint"
SKILL = {SEPARATE: "ssim_separate_skill", JOINT: "ssim_joint_skill"}
WINDOW = 7
_K1, _K2 = 0.01, 0.03
_UNBIASED = WINDOW**2 / (WINDOW**2 - 1)


@dataclass(frozen=True)
class Maps:
    """Where places lie on a map, and which windows are whole.

    Attributes:
        shape: (H, W).
        pixel: (N,) place's pixel, in the order of the arrangement.
        centres: (M,) places (positions in that order) in the middle of whole windows.
    """

    shape: tuple[int, int]
    pixel: np.ndarray
    centres: np.ndarray

    @classmethod
    def of(cls, slide: JudgedSlide, arrangement: Arrangement) -> Maps:
        """The map of a slide of bins."""
        if slide.rc is None:
            raise ValueError(f"{slide.slide_id}: spots make no map")
        rc_N2 = slide.rc[arrangement.order].astype(np.int64)
        rc_N2 = rc_N2 - rc_N2.min(axis=0)
        height, width = (int(side) + 1 for side in rc_N2.max(axis=0))
        pixel = rc_N2[:, 0] * width + rc_N2[:, 1]
        return cls((height, width), pixel, _whole_windows((height, width), pixel))

    def part(self, chosen: np.ndarray) -> Maps:
        """The map of some places (positions), cropped to their rows."""
        row_N, col_N = np.divmod(self.pixel[chosen], self.shape[1])
        rows = row_N - row_N.min()
        shape = (int(rows.max()) + 1, self.shape[1])
        pixel = rows * self.shape[1] + col_N
        return Maps(shape, pixel, _whole_windows(shape, pixel))

    def means(self, values_gN: np.ndarray) -> np.ndarray:
        """(g, M) mean of the window around each centre."""
        at = self.pixel[self.centres]
        found = np.empty((len(values_gN), len(at)))
        for number, values_N in enumerate(values_gN):
            map_HW = np.zeros(self.shape)
            map_HW.ravel()[self.pixel] = values_N
            found[number] = ndimage.uniform_filter(map_HW, WINDOW, mode="constant").ravel()[at]
        return found


def _whole_windows(shape: tuple[int, int], pixel: np.ndarray) -> np.ndarray:
    judged = np.zeros(shape, bool)
    judged.ravel()[pixel] = True
    whole = ndimage.binary_erosion(judged, np.ones((WINDOW, WINDOW), bool))
    return np.flatnonzero(whole.ravel()[pixel])


@dataclass(frozen=True)
class Moments:
    """Means and unbiased (co)variances of the windows of prediction (x) and truth (y): (g, M) each."""

    x: np.ndarray
    y: np.ndarray
    xx: np.ndarray
    yy: np.ndarray
    xy: np.ndarray

    @classmethod
    def of(cls, maps: Maps, x_gN: np.ndarray, y_gN: np.ndarray) -> Moments:
        x, y = maps.means(x_gN), maps.means(y_gN)
        xx = maps.means(x_gN * x_gN) - x * x
        yy = maps.means(y_gN * y_gN) - y * y
        xy = maps.means(x_gN * y_gN) - x * y
        return cls(x, y, *(_UNBIASED * each for each in (np.maximum(xx, 0), np.maximum(yy, 0), xy)))

    def joint(self, span_g1: np.ndarray) -> np.ndarray:
        """(g, M) SSIM of maps of this range."""
        c1, c2 = (_K1 * span_g1) ** 2, (_K2 * span_g1) ** 2
        level = (2 * self.x * self.y + c1) / (self.x**2 + self.y**2 + c1)
        return level * (2 * self.xy + c2) / (self.xx + self.yy + c2)

    def separate(self, x_range: _Range, y_range: _Range) -> np.ndarray:
        """(g, M) SSIM after each map was stretched to 0..1: the moments are stretched, not the maps."""
        a, b = x_range.scale, y_range.scale
        stretched = Moments(
            a * (self.x - x_range.low),
            b * (self.y - y_range.low),
            a * a * self.xx,
            b * b * self.yy,
            a * b * self.xy,
        )
        return stretched.joint(np.ones_like(a))

    def against_constant(self, value_g1: np.ndarray) -> Moments:
        """The same truth beside a map of one value."""
        nothing = np.zeros_like(self.y)
        return Moments(nothing + value_g1, self.y, nothing, self.yy, nothing)


@dataclass(frozen=True)
class _Range:
    """(g, 1) lowest and highest value of maps."""

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, values_gN: np.ndarray) -> _Range:
        return cls(values_gN.min(axis=1, keepdims=True), values_gN.max(axis=1, keepdims=True))

    @classmethod
    def constant(cls, value_g1: np.ndarray) -> _Range:
        return cls(value_g1, value_g1)

    @property
    def scale(self) -> np.ndarray:
        """What stretches to 0..1; a constant map becomes zeros."""
        span = self.high - self.low
        return np.divide(1.0, span, out=np.zeros_like(span), where=span > 0)

    def with_(self, other: _Range) -> np.ndarray:
        """(g, 1) the common range."""
        return np.maximum(self.high, other.high) - np.minimum(self.low, other.low)


def mean_of(sums: np.ndarray) -> np.ndarray:
    """SSIM from (..., 2): windows and their sum."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(sums[..., 0] > 0, sums[..., 1] / sums[..., 0], np.nan)


def skill_of(sums: np.ndarray) -> np.ndarray:
    """Skill from (..., 4): windows, and the sums of the prediction, of zeros and of the mean map."""
    with np.errstate(invalid="ignore", divide="ignore"):
        own, zeros, mean = (np.where(sums[..., 0] > 0, sums[..., k] / sums[..., 0], np.nan) for k in (1, 2, 3))
        best = np.maximum(zeros, mean)
        return np.where(best < 1, (own - best) / (1 - best), np.nan)


def ssim_sums(pairs: Pairs, maps: Maps, training_mean_g: np.ndarray | None) -> dict[str, np.ndarray]:
    """(B, g, 2) sums of both definitions, and (B, g, 4) of their skills where the mean map is known.

    All genes count; a gene without any variation has none (NaN).
    """
    genes = pairs.shape[0]
    moments = Moments.of(maps, pairs.x, pairs.y)
    x, y = _Range.of(pairs.x), _Range.of(pairs.y)
    with np.errstate(invalid="ignore", divide="ignore"):
        parts = {SEPARATE: [moments.separate(x, y)], JOINT: [moments.joint(x.with_(y))]}
        if training_mean_g is not None:
            for constant in (np.zeros((genes, 1)), on_scale(training_mean_g[:, None].astype(np.float64), pairs.scale)):
                beside, only = moments.against_constant(constant), _Range.constant(constant)
                parts[SEPARATE].append(beside.separate(only, y))
                parts[JOINT].append(beside.joint(only.with_(y)))
    found = {}
    for name, (own, *constants) in parts.items():
        found[name] = _at_blocks(pairs, maps, [own])
        if constants:
            found[SKILL[name]] = _at_blocks(pairs, maps, [own, *constants])
    return found


def _at_blocks(pairs: Pairs, maps: Maps, parts_gM: list[np.ndarray]) -> np.ndarray:
    """(B, g, 1 + K): windows, and sums of K scores, each at the block of its centre."""
    counted = [np.ones_like(parts_gM[0]), *parts_gM]
    placed = [np.zeros(pairs.shape) for _ in counted]
    for whole, part in zip(placed, counted, strict=True):
        whole[:, maps.centres] = part
    sums = pairs.blocks(*placed)
    sums[:, pairs.y_constant] = np.nan
    return sums


def shuffled_ssim(pairs: Pairs, maps: Maps, shuffles_PN: np.ndarray, places: int) -> dict[str, np.ndarray]:
    """(P, g) SSIM of both definitions with the truth of other places.

    Of maps with more than `places` places each shuffle judges another band of rows of about that many: an SSIM needs
    filters over the whole map, and twenty of them of a whole slide at 2 um would take longer than all other measures.
    """
    genes, size = pairs.shape
    found = {name: np.full((len(shuffles_PN), genes), np.nan) for name in (SEPARATE, JOINT)}
    x, y = _Range.of(pairs.x), _Range.of(pairs.y)
    by_row = np.argsort(maps.pixel, kind="stable")
    for number, goes_N in enumerate(shuffles_PN):
        chosen, part = slice(None), maps
        if size > places:
            start = int((size - places) * (number + 0.5) / len(shuffles_PN))
            chosen = by_row[start : start + places]
            part = maps.part(chosen)
        if not len(part.centres):
            continue
        comes_N = np.empty_like(goes_N)
        comes_N[goes_N] = np.arange(size)
        moments = Moments.of(part, pairs.x[:, chosen], pairs.y[:, comes_N[chosen]])
        with np.errstate(invalid="ignore", divide="ignore"):
            found[SEPARATE][number] = moments.separate(x, y).mean(axis=1)
            found[JOINT][number] = moments.joint(x.with_(y)).mean(axis=1)
    for values in found.values():
        values[:, pairs.y_constant] = np.nan
    return found
