"""Generated tissue: four classes that differ in form only.

Tissue is drawn as one scalar field, the stain density (0 glass ... 1 dense nucleus). The field of every class is
rank-matched to one common distribution, and colour (see phantom.py) is a function of that field alone. So the colours
of a region say nothing about its class; arrangement, shape, size and orientation of nuclei, lumens and fibres do.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

MPP = 0.5
"""Micrometres per pixel at level 0."""
LABEL_STEP_PX0 = 8
"""A pixel of the tissue and label masks covers this many level-0 pixels a side (4 um)."""
CLASSES = {1: "gland", 2: "stroma", 3: "lymphoid", 4: "solid"}
"""Class ids in the label masks; 0 is glass."""
GLASS, GLAND, STROMA, LYMPHOID, SOLID = range(5)
_CELLS = 4
"""Regions a side: about 380 um each on a 1.5 mm slide, a few context views wide."""


# The distribution every class is matched to, as (share of pixels, density): 12 % lumen and clefts, 66 % cytoplasm and
# fibres, 22 % nuclei. Middle values of H&E tissue, so that no class looks forced.
_TARGET_SHARES = (0.00, 0.10, 0.14, 0.40, 0.70, 0.77, 0.80, 0.90, 1.00)
_TARGET_DENSITY = (0.00, 0.04, 0.22, 0.33, 0.46, 0.54, 0.66, 0.80, 0.98)


@dataclass(frozen=True)
class Tissue:
    """One piece of tissue before any scanner saw it."""

    density: np.ndarray
    """(H, W) float32, 0 glass to 1 dense nucleus, at `MPP`."""
    labels: np.ndarray
    """(H, W) uint8 class ids, 0 is glass."""


def draw_tissue(seed: int, size_px: int, classes: Sequence[int] = tuple(CLASSES)) -> Tissue:
    """Draw a square piece of tissue with regions of these classes on glass.

    Args:
        seed: The same seed draws the same tissue.
        size_px: Side in level-0 pixels, a multiple of `LABEL_STEP_PX0`.
        classes: Ids of the classes it holds, all by default. A class named twice gets twice the area.

    Raises:
        ValueError: An id is none of `CLASSES`, or there is none or more than a slide has regions for.
    """
    if not 0 < len(classes) <= _CELLS**2 or not set(classes) <= set(CLASSES):
        raise ValueError(f"1 to {_CELLS**2} of the classes {list(CLASSES)} are drawn, not {list(classes)}")
    rng = np.random.default_rng(seed)
    labels = _regions(rng, size_px, classes)
    density = _Canvas(rng, labels)
    _draw_glands(density)
    _draw_stroma(density)
    _draw_lymphoid(density)
    _draw_solid(density)
    return Tissue(_equalised(density.composed(), labels), labels)


# ---- where each class lies ------------------------------------------------------------------------------------------


def _regions(rng: np.random.Generator, size_px: int, classes: Sequence[int]) -> np.ndarray:
    """(H, W) uint8 labels: warped Voronoi regions inside an uneven outline, drawn coarse and smoothly enlarged."""
    side = size_px // LABEL_STEP_PX0
    unit = (np.arange(side, dtype=np.float32) + 0.5) / side
    warp_x, warp_y = (0.03 * smooth(rng, (side, side), side / 6) for _ in range(2))
    x, y = unit[None, :] + warp_x, unit[:, None] + warp_y
    grid = (np.indices((_CELLS, _CELLS)).reshape(2, -1).T + 0.5 + rng.uniform(-0.25, 0.25, (_CELLS**2, 2))) / _CELLS
    distance = (x[None] - grid[:, 0, None, None]) ** 2 + (y[None] - grid[:, 1, None, None]) ** 2
    # Outside cells are partly glass: hand out classes from the middle outwards, so that every class gets its share.
    order = np.argsort(((grid - 0.5) ** 2).sum(axis=1))
    of_cell = np.empty(_CELLS**2, np.int64)
    rounds = math.ceil(_CELLS**2 / len(classes))
    of_cell[order] = np.concatenate([rng.permutation(list(classes)) for _ in range(rounds)])[: _CELLS**2]
    coarse = of_cell[distance.argmin(axis=0)]
    radius = np.hypot((x - 0.5) / 0.46, (y - 0.5) / 0.43) + 0.05 * smooth(rng, (side, side), side / 3)
    coarse[radius > 1] = GLASS
    best, labels = np.zeros((size_px, size_px), np.float32), np.zeros((size_px, size_px), np.uint8)
    for label in range(len(CLASSES) + 1):
        soft = ndimage.gaussian_filter((coarse == label).astype(np.float32), 1.5)  # no staircase at the borders
        share = _enlarged(soft, size_px)
        labels[share > best] = label
        np.maximum(best, share, out=best)
    return labels


# ---- what each class looks like -------------------------------------------------------------------------------------


class _Canvas:
    """Layers that the classes draw into: nuclei, white spaces and cytoplasm, each (H, W) float32 in 0..1."""

    def __init__(self, rng: np.random.Generator, labels: np.ndarray) -> None:
        self.rng = rng
        self.labels = labels
        self.nuclei = np.zeros(labels.shape, np.float32)
        self.white = np.zeros(labels.shape, np.float32)
        self.cytoplasm = np.full(labels.shape, 0.4, np.float32)

    def scatter(self, spacing_um: float, jitter: float) -> np.ndarray:
        """(N, 2) x, y in micrometres: a hexagonal grid over the slide, each point moved by `jitter` spacings."""
        height_um, width_um = (side * MPP for side in self.labels.shape)
        rows = np.arange(0, height_um, spacing_um * math.sqrt(3) / 2)
        columns = np.arange(0, width_um, spacing_um)
        y, x = np.meshgrid(rows, columns, indexing="ij")
        x = x + (np.arange(len(rows)) % 2)[:, None] * spacing_um / 2
        points = np.stack([x.ravel(), y.ravel()], axis=1)
        return points + self.rng.normal(0, jitter * spacing_um, points.shape)

    def within(self, points_um: np.ndarray, label: int) -> np.ndarray:
        """(N,) bool: which points lie on this class."""
        column, row = (points_um / MPP).astype(np.int64).T
        inside = (row >= 0) & (column >= 0) & (row < self.labels.shape[0]) & (column < self.labels.shape[1])
        found = np.zeros(len(points_um), bool)
        found[inside] = self.labels[row[inside], column[inside]] == label
        return found

    def stamp(
        self, layer: np.ndarray, label: int, points_um: np.ndarray, radii_um: np.ndarray, angles: np.ndarray, lobes=0.0
    ) -> None:
        """Put ellipses of one class, radii (N, 2) in um and angles (N,) in radians, into a layer; the larger stays."""
        kept = self.within(points_um, label)
        variants = self.rng.integers(0, 4, len(points_um)) * (lobes > 0)  # a plain ellipse has one form
        for (x, y), (a, b), angle, variant in zip(
            points_um[kept] / MPP, radii_um[kept] / MPP, angles[kept], variants[kept], strict=True
        ):
            # Half-pixel sizes and 24 directions: few enough sprites to keep, too many to see.
            sprite = _ellipse(round(2 * a) / 2, round(2 * b) / 2, int(angle / math.pi * 24) % 24, lobes, int(variant))
            _put(layer, sprite, int(x), int(y))

    def composed(self) -> np.ndarray:
        """(H, W) float32 density before equalisation: cytoplasm, white spaces cut out of it, nuclei on top."""
        mottle = 0.5 * smooth(self.rng, self.labels.shape, 3 / MPP) + 0.5 * smooth(self.rng, self.labels.shape, 9 / MPP)
        density = (self.cytoplasm + 0.05 * mottle) * (1 - self.white)
        np.maximum(density, self.nuclei * (0.82 + 0.07 * mottle), out=density)
        # A little grain of two micrometres everywhere: ranks need no ties, and all classes keep the same fine texture.
        return density + 0.02 * smooth(self.rng, self.labels.shape, 1.5 / MPP)


def _draw_glands(canvas: _Canvas) -> None:
    """Round acini: a white lumen, a ring of upright oval nuclei at the base, thin pink septa between."""
    rng = canvas.rng
    centres = canvas.scatter(58, 0.07)
    centres = centres[canvas.within(centres, GLAND)]
    size = rng.uniform(0.85, 1.15, len(centres))
    turn = rng.uniform(0, math.pi, len(centres))
    canvas.stamp(canvas.white, GLAND, centres, np.stack([12.5 * size, 9.5 * size], axis=1), turn, lobes=0.25)
    per_ring = 24
    around = np.linspace(0, 2 * math.pi, per_ring, endpoint=False)[None] + rng.normal(0, 0.06, (len(centres), per_ring))
    distance = 22.5 * size[:, None] + rng.normal(0, 1.0, around.shape)
    # An ellipse that follows the lumen: a little longer along its axis.
    stretch = 1 + 0.12 * np.cos(2 * (around - turn[:, None]))
    offsets = np.stack([np.cos(around), np.sin(around)], axis=-1) * (distance * stretch)[..., None]
    points = (centres[:, None] + offsets).reshape(-1, 2)
    radii = np.stack([rng.uniform(3.4, 4.6, len(points)), rng.uniform(2.0, 2.5, len(points))], axis=1)
    canvas.stamp(canvas.nuclei, GLAND, points, radii, around.ravel())


def _draw_stroma(canvas: _Canvas) -> None:
    """Wavy fibres in bundles, spindle nuclei along them, long thin clefts between."""
    rng = canvas.rng
    shape = canvas.labels.shape
    # Fibres are the contour lines of a smooth height, so they never cross; nuclei and clefts lie along them.
    y, x = (MPP * np.arange(side, dtype=np.float32) for side in shape)
    turn = rng.uniform(0, math.pi)
    height_um = math.cos(turn) * x[None, :] + math.sin(turn) * y[:, None]
    height_um += 50 * smooth(rng, shape, 220 / MPP) + 4 * smooth(rng, shape, 40 / MPP)
    slope_y, slope_x = np.gradient(height_um[::16, ::16])  # 8 um apart: the bundles bend over tens
    here = canvas.labels == STROMA
    phase = height_um[here] * (2 * math.pi)
    canvas.cytoplasm[here] = 0.4 + 0.09 * np.sin(phase / 6) + 0.07 * np.sin(phase / 15)
    spindles = (canvas.nuclei, 13.0, (7.0, 10.0), (1.3, 1.8))
    clefts = (canvas.white, 23.0, (8.0, 16.0), (1.7, 2.5))
    for layer, spacing_um, long_um, short_um in (spindles, clefts):
        points = canvas.scatter(spacing_um, 0.25)
        points = points[canvas.within(points, STROMA)]
        column, row = (points / MPP).astype(np.int64).T
        along = np.arctan2(slope_y, slope_x)[row // 16, column // 16] + math.pi / 2
        angles = along + rng.normal(0, 0.12, len(points))
        radii = np.stack([rng.uniform(*long_um, len(points)), rng.uniform(*short_um, len(points))], axis=1)
        canvas.stamp(layer, STROMA, points, radii, angles % math.pi)


def _draw_lymphoid(canvas: _Canvas) -> None:
    """Crowded small round nuclei, with small gaps between them."""
    rng = canvas.rng
    points = canvas.scatter(9.2, 0.16)
    radius = rng.uniform(2.2, 2.7, len(points))
    canvas.stamp(canvas.nuclei, LYMPHOID, points, np.stack([radius, radius], axis=1), np.zeros(len(points)))
    gaps = canvas.scatter(14, 0.3)
    radius = rng.uniform(2.0, 3.6, (len(gaps), 2))
    canvas.stamp(canvas.white, LYMPHOID, gaps, radius, rng.uniform(0, math.pi, len(gaps)), lobes=0.35)


def _draw_solid(canvas: _Canvas) -> None:
    """Sheets of large cells: big uneven nuclei, a vacuole beside many of them, visible cell borders."""
    rng = canvas.rng
    cells = canvas.scatter(18.5, 0.12)
    round_cell = np.full((len(cells), 2), 7.6)
    borders = np.zeros_like(canvas.white)
    canvas.stamp(borders, SOLID, cells, round_cell, np.zeros(len(cells)), lobes=0.2)
    here = canvas.labels == SOLID
    canvas.cytoplasm[here] = 0.47 - 0.14 * borders[here]
    radii = rng.uniform(3.4, 5.6, (len(cells), 1)) * rng.uniform(0.88, 1.12, (len(cells), 2))
    canvas.stamp(canvas.nuclei, SOLID, cells, radii, rng.uniform(0, math.pi, len(cells)), lobes=0.3)
    angle = rng.uniform(0, 2 * math.pi, len(cells))
    vacuoles = (cells + 7.5 * np.stack([np.cos(angle), np.sin(angle)], axis=1))[rng.random(len(cells)) < 0.8]
    radii = rng.uniform(2.6, 4.6, (len(vacuoles), 1)).repeat(2, axis=1)
    canvas.stamp(canvas.white, SOLID, vacuoles, radii, np.zeros(len(vacuoles)), lobes=0.1)


@functools.lru_cache(maxsize=4096)
def _ellipse(a_px: float, b_px: float, turn: int, lobes: float, variant: int) -> np.ndarray:
    """(2r+1, 2r+1) float32 soft ellipse: 1 inside, falling to 0 over the two pixels around its edge."""
    reach = math.ceil(max(a_px, b_px) * (1 + lobes)) + 2
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    angle = turn * math.pi / 24
    along, across = x * math.cos(angle) + y * math.sin(angle), -x * math.sin(angle) + y * math.cos(angle)
    polar = np.arctan2(across, along)
    uneven = np.sin(2 * polar + variant) + 0.7 * np.sin(3 * polar + 2.1 * variant) + 0.4 * np.sin(5 * polar - variant)
    radius = np.hypot(along / a_px, across / b_px) / (1 + lobes * 0.4 * uneven)
    return np.clip((1 - radius) * min(a_px, b_px) / 2 + 0.5, 0, 1).astype(np.float32)


def _put(layer: np.ndarray, sprite: np.ndarray, x: int, y: int) -> None:
    reach = sprite.shape[0] // 2
    y0, x0 = max(0, y - reach), max(0, x - reach)
    target = layer[y0 : y + reach + 1, x0 : x + reach + 1]
    cut = sprite[y0 - y + reach :, x0 - x + reach :][: target.shape[0], : target.shape[1]]
    np.maximum(target, cut, out=target)


# ---- one distribution of densities for all classes ------------------------------------------------------------------


def _equalised(density: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Give every class the same distribution of densities, at full and at half resolution; glass becomes 0.

    Half resolution counts because finer structures lose more contrast when a view is read at 1 um per pixel.
    """
    matched = _matched(density, labels, _TARGET_SHARES, _TARGET_DENSITY)
    height, width = density.shape
    halved = matched.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))
    half_labels = labels[::2, ::2]
    shares = np.linspace(0, 1, 257)
    per_class = [np.quantile(halved[half_labels == label], shares) for label in np.unique(labels) if label]
    if not per_class:
        return matched
    halved_matched = _matched(halved, half_labels, shares, np.mean(per_class, axis=0))
    change = np.where(half_labels > GLASS, halved_matched - halved, 0)
    matched += change.repeat(2, axis=0).repeat(2, axis=1)
    return _matched(matched, labels, _TARGET_SHARES, _TARGET_DENSITY)


def _matched(density: np.ndarray, labels: np.ndarray, shares: Sequence[float], targets: Sequence[float]) -> np.ndarray:
    """Match the ranks of each class to the distribution given by its quantiles `targets` at `shares`."""
    matched = np.zeros_like(density)
    for label in CLASSES:
        here = labels == label
        if not here.any():
            continue
        values = density[here]
        low, high = float(values.min()), float(values.max())
        bins = ((values - low) * (8191 / max(high - low, 1e-6))).astype(np.int32)  # 8192: finer than the colours
        counts = np.bincount(bins, minlength=8192)
        ranks = (np.cumsum(counts) - counts / 2) / len(values)
        matched[here] = np.interp(ranks, shares, targets).astype(np.float32)[bins]
    return matched


def smooth(rng: np.random.Generator, shape: tuple[int, int], scale_px: float) -> np.ndarray:
    """(H, W) float32 smooth noise, about unit variance, with features of `scale_px`."""
    rows, columns = (max(2, math.ceil(side / scale_px) + 1) for side in shape)
    coarse = Image.fromarray(rng.normal(0, 1.4, (rows, columns)).astype(np.float32))  # 1.4: enlarging averages
    return np.array(coarse.resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


def _enlarged(coarse: np.ndarray, size_px: int) -> np.ndarray:
    return np.asarray(Image.fromarray(coarse).resize((size_px, size_px), Image.Resampling.BICUBIC))
