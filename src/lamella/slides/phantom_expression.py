"""Generated expression with a known truth: rates of genes at every bin, tied to what the tissue looks like there.

The logarithm of a gene's rate is a sum of what morphology says (the class of tissue, nuclei, the distance to the border
of a region), of a field that no image shows, and of the patient. Counts are drawn from negative binomials, some of them
zero-inflated; the expected counts, which no model can beat, are kept.

Shapes: R rows and C columns of bins, G genes, F properties of the tissue.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage, sparse

from lamella.geometry import BinGrid
from lamella.slides.phantom_tissue import CLASSES, GLASS, MPP, Tissue, smooth

# What the rates are made of, in this order. Shares of the classes stand first.
PROPERTIES = (*CLASSES.values(), "nuclei", "edge", "hidden")
_NUCLEI, _EDGE, _HIDDEN = (PROPERTIES.index(name) for name in ("nuclei", "edge", "hidden"))
_NUCLEUS = 0.6
"""Stain density above which a pixel is nucleus: between the cytoplasm's and the chromatin's (phantom_tissue.py)."""
_EMPTY = 0.2
"""Stain density below which a pixel is lumen, cleft or glass: nothing to catch transcripts from."""
_SPREAD_UM = 3.0
"""Deviation of the Gaussian that transcripts have moved by before they are caught: one to two bins of 2 um."""
_EDGE_UM = 30.0
"""Over such a distance from the border of its region a gene of the edge falls by the factor e."""
_HIDDEN_UM = 120.0
"""Size of the patches of the field that no image shows."""
_AMBIENT = 0.03
"""Share of its mean rate that a gene has where nothing is stained: transcripts that leaked there."""
_NUCLEI_USUAL = 0.22
"""Share of nuclei in all classes (phantom_tissue.py): weights count from there, so that they do not change the mean."""


@dataclass(frozen=True)
class Genes:
    """What is expressed.

    Attributes:
        names: G names; they say what each gene follows.
        log_base: (G,) logarithm of the rate per bin of 2 um, before the properties.
        weights: (G, F) change of the logarithm by each of `PROPERTIES`.
        theta: (G,) inverse dispersion of the negative binomial.
        zero: (G,) probability of a structural zero.
    """

    names: tuple[str, ...]
    log_base: np.ndarray
    weights: np.ndarray
    theta: np.ndarray
    zero: np.ndarray


@dataclass(frozen=True)
class Chip:
    """Bins of 2 um laid over an image."""

    grid: BinGrid
    rows: int
    cols: int


def make_genes(number: int, seed: int, mean_per_bin: tuple[float, float] = (0.006, 0.2)) -> Genes:
    """Genes of ten kinds in turn: markers of the four classes, nuclei, cytoplasm, edge, two mixed, one unseen.

    Args:
        number: G.
        seed: Of the whole cohort: genes are the same in all patients.
        mean_per_bin: Least and largest mean count per bin of 2 um; between them even in the logarithm. The default
            makes 95 to 97 % of a panel's entries zeros.
    """
    rng = np.random.default_rng([seed, 11])
    classes = list(CLASSES.values())
    kinds = (*classes, "nuclei", "cytoplasm", "edge", *(f"{name}_nuclei" for name in classes[::3]), "hidden")
    names, rows = [], []
    for gene in range(number):
        kind = kinds[gene % len(kinds)]
        names.append(f"{kind.upper()}{gene // len(kinds) + 1}")
        row = 0.15 * rng.normal(size=len(PROPERTIES))  # no gene follows one thing alone
        for place, name in enumerate(classes):
            if kind.startswith(name):
                row[: len(classes)] -= 0.5
                row[place] += rng.uniform(1.8, 2.6)  # six to thirteen times the other classes' rate
        row[_NUCLEI] += 0.7 + {"nuclei": 3.0, "cytoplasm": -3.0}.get(kind, 2.0 if kind.endswith("_nuclei") else 0.0)
        row[_EDGE] += 2.0 if kind == "edge" else 0.0
        row[_HIDDEN] = 0.9 if kind == "hidden" else 0.1
        rows.append(row)
    weights = np.array(rows)
    least, most = np.log(mean_per_bin)
    mean = np.exp(rng.permutation(np.linspace(least, most, number)))
    # Over tissue of equal shares of the classes with few nuclei and edges, the mean is about the asked one.
    usual = (
        np.log(np.exp(weights[:, : len(CLASSES)]).mean(axis=1)) + weights[:, _NUCLEI] * 0.3 + weights[:, _EDGE] * 0.3
    )
    theta = np.exp(rng.uniform(np.log(0.5), np.log(8), number))
    zero = np.where(rng.random(number) < 0.5, 0.0, rng.uniform(0.1, 0.5, number))
    return Genes(tuple(names), np.log(mean) - usual - np.log1p(-zero), weights, theta, zero)


def lay_chip(size_px: int, side_bins: int, *, turn_deg: float, mirrored: bool = True) -> Chip:
    """A chip in the middle of a square image at `MPP`, turned, and seen from the other side as real ones are.

    Raises:
        ValueError: It does not fit into the image.
    """
    angle, step = np.deg2rad(turn_deg), 2.0 / MPP
    col = np.array([np.cos(angle), np.sin(angle)]) * step
    row = np.array([-np.sin(angle), np.cos(angle)]) * step
    if mirrored:
        col = -col
    reach = (abs(row) + abs(col)).max() * side_bins / 2
    if reach > size_px / 2:
        raise ValueError(f"{side_bins} bins of 2 um turned by {turn_deg} degrees do not fit into {size_px} px at {MPP}")
    x, y = np.array([size_px / 2, size_px / 2]) - (row + col) * (side_bins - 1) / 2
    row_step, col_step = (float(row[0]), float(row[1])), (float(col[0]), float(col[1]))
    return Chip(BinGrid((float(x), float(y)), row_step, col_step, 2.0), side_bins, side_bins)


def properties_of(tissue: Tissue, seed: int) -> np.ndarray:
    """(F + 1, H, W) float32 `PROPERTIES` at level 0, smoothed as transcripts spread; last, how much is stained."""
    rng = np.random.default_rng([seed, 12])
    spread = _SPREAD_UM / MPP
    shares = [_blurred(tissue.labels == label, spread) for label in CLASSES]
    nuclei = _blurred(tissue.density > _NUCLEUS, spread) - _NUCLEI_USUAL
    edge = np.exp(-_border_distance_um(tissue.labels) / _EDGE_UM)
    hidden = smooth(rng, tissue.labels.shape, _HIDDEN_UM / MPP)
    return np.stack([*shares, nuclei, edge, hidden, _blurred(tissue.density > _EMPTY, spread)]).astype(np.float32)


def rates(tissue: Tissue, genes: Genes, places_px0: np.ndarray, seed: int, *, patient: np.ndarray) -> np.ndarray:
    """(N, G) float32 expected counts of bins of 2 um at places (N, 2); `patient` (G,) is added to the logarithms."""
    raster = properties_of(tissue, seed)
    x, y = places_px0.T
    # A pixel's value stands in its middle: half a pixel between places and numbers of pixels. Transcripts spread by
    # more than a bin, so the value at a bin's centre is its mean.
    there = np.stack([ndimage.map_coordinates(each, [y - 0.5, x - 0.5], order=1, mode="nearest") for each in raster], 1)
    stained = there[:, -1:]
    log_rate = genes.log_base + patient + there[:, :-1] @ genes.weights.T
    mean = np.exp(genes.log_base + patient)
    expected: np.ndarray = (stained * np.exp(log_rate) + (1 - stained) * _AMBIENT * mean) * (1 - genes.zero)
    return expected.astype(np.float32)


def draw(expected: np.ndarray, genes: Genes, seed: int) -> sparse.csr_array:
    """(N, G) int32 counts: a structural zero or a negative binomial, with these expected counts (N, G)."""
    rng = np.random.default_rng([seed, 13])
    columns = []
    for gene, theta in enumerate(genes.theta):
        mean = expected[:, gene] / (1 - genes.zero[gene])
        counts = rng.poisson(mean * rng.gamma(theta, 1 / theta, len(mean))).astype(np.int32)
        counts[rng.random(len(counts)) < genes.zero[gene]] = 0
        columns.append(sparse.csc_array(counts[:, None]))
    return sparse.csr_array(sparse.hstack(columns, format="csr"))


def _blurred(mask: np.ndarray, scale_px: float) -> np.ndarray:
    blurred: np.ndarray = ndimage.gaussian_filter(mask.astype(np.float32), scale_px, truncate=3)
    return blurred


def _border_distance_um(labels: np.ndarray) -> np.ndarray:
    """(H, W) float32 distance to the nearest tissue of another class; glass is none."""
    coarse = labels[2::4, 2::4]  # 2 um: the distances change over tens
    distance = np.zeros(coarse.shape, np.float32)
    for label in CLASSES:
        here = coarse == label
        if here.any():
            others = (coarse == GLASS) | here
            away = ndimage.distance_transform_edt(others) if not others.all() else np.full(coarse.shape, 1e3)
            distance[here] = away[here] * (4 * MPP)
    return distance.repeat(4, axis=0).repeat(4, axis=1)
