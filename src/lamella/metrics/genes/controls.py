"""Predictors that learned nothing of the places, and ones that saw the truth: what every number is read beside.

Shapes: N places, G genes.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy import ndimage, sparse, spatial

from lamella.metrics.genes.judged import JudgedSlide
from lamella.metrics.genes.moran import spacing_um
from lamella.metrics.genes.settings import GeneMetricSettings

Kind = Literal["model", "baseline", "control", "ceiling"]

MEAN_MAP, TOTAL, DARKNESS = "training mean map", "total count", "darkness"
BLURRED, NEIGHBOURS = "blurred truth", "neighbours' truth"
NOISE_CEILING = "count-thinning ceiling"
KINDS: dict[str, Kind] = {
    MEAN_MAP: "control",
    TOTAL: "control",
    DARKNESS: "control",
    BLURRED: "ceiling",
    NEIGHBOURS: "ceiling",
    NOISE_CEILING: "ceiling",
}
MEANINGS = {
    MEAN_MAP: "every place gets the mean of the training patients: it knows a gene's level and no place. It has no "
    "correlation (it is constant)",
    TOTAL: "one number a place, the total count of all genes there, measured on the judged slide itself (no model has "
    "it), the gene's own count in it: every gene is its training mean x that total / the slide's mean total",
    DARKNESS: "one number a place, the mean optical density of the image, untrained: every gene is its training mean x "
    "that darkness / the slide's mean darkness",
    BLURRED: "the truth itself, blurred by a Gaussian: a ceiling, as it has seen the truth, each place's own noise too",
    NEIGHBOURS: "the blurred truth without the place's own: what the neighbourhood alone tells",
    NOISE_CEILING: "the correlation that the true rates would have if counts had a Poisson's noise alone, from halves "
    "of the counts; counts that vary more (bursts) put it too high",
}
# Beyond four standard deviations a Gaussian holds 0.006 % of its weight.
_TRUNCATE = 4.0


def controls(slide: JudgedSlide, settings: GeneMetricSettings) -> dict[str, JudgedSlide]:
    """The slide with the prediction of every control and of the ceilings made of its truth, to be scored like a model.

    Without the training mean (`slide.training_mean`) the mean map is left out, and so are total and darkness of counts,
    whose levels rest on it.
    """
    found: dict[str, np.ndarray] = {}
    mean = slide.training_mean
    if mean is not None:
        found[MEAN_MAP] = np.broadcast_to(mean, slide.truth.shape)
    for name, scalar in ((TOTAL, slide.total), (DARKNESS, slide.darkness)):
        if slide.scale == "log":
            # Correlations and ranks do not ask for a level; a total is on the scale of counts.
            level = np.log1p(scalar) if name == TOTAL else scalar
            found[name] = np.broadcast_to(level[:, None], slide.truth.shape)
        elif mean is not None:
            share = np.maximum(scalar, 0).astype(np.float64)
            found[name] = share[:, None] / max(share.mean(), np.finfo(np.float64).tiny) * mean
    found[BLURRED], found[NEIGHBOURS] = blurred(slide, settings.blur_um)
    return {name: slide.with_predicted(np.asarray(values, np.float32)) for name, values in found.items()}


def blurred(slide: JudgedSlide, sigma_um: float) -> tuple[np.ndarray, np.ndarray]:
    """The truth smoothed by a Gaussian over the judged places, and the same without each place's own truth.

    Weights are of the judged places alone and sum to 1, so that borders are not darker. A place without any neighbour
    in reach has the slide's mean in the second.

    Args:
        slide: Bins, or spots.
        sigma_um: Standard deviation; at least the distance between neighbouring places.

    Returns:
        Two (N, G) float32.
    """
    weighted, total_N1, own = (_on_lattice if slide.rc is not None else _of_spots)(slide, sigma_um)
    others_N1 = total_N1 - own
    alone = others_N1 <= 1e-9 * own
    rest = (weighted - own * slide.truth) / np.where(alone, 1, others_N1)
    neighbours = np.where(alone, slide.truth.mean(axis=0), np.maximum(rest, 0) if (slide.truth >= 0).all() else rest)
    return (weighted / total_N1).astype(np.float32), neighbours.astype(np.float32)


def _on_lattice(slide: JudgedSlide, sigma_um: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Weighted sums (N, G) of the truth, sums of weights (N, 1), and the weight of a place itself."""
    assert slide.rc is not None
    sigma = max(sigma_um / slide.bin_um, 1.0)
    rows, cols = (slide.rc - slide.rc.min(axis=0)).astype(np.int64).T
    shape = (int(rows.max()) + 1, int(cols.max()) + 1)

    def spread(values_N: np.ndarray | float) -> np.ndarray:
        map_HW = np.zeros(shape, np.float32)
        map_HW[rows, cols] = values_N
        return ndimage.gaussian_filter(map_HW, sigma, mode="constant", truncate=_TRUNCATE)[rows, cols]

    weighted = np.stack([spread(slide.truth[:, gene]) for gene in range(slide.truth.shape[1])], axis=1)
    radius = int(_TRUNCATE * sigma + 0.5)
    line = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return weighted, spread(1.0)[:, None], float((1 / line.sum()) ** 2)


def _of_spots(slide: JudgedSlide, sigma_um: float) -> tuple[np.ndarray, np.ndarray, float]:
    places = slide.places_um.astype(np.float64)
    if len(places) < 2:
        return slide.truth.astype(np.float64), np.ones((len(places), 1)), 1.0
    sigma = max(sigma_um, spacing_um(places))
    tree = spatial.cKDTree(places)
    near = tree.sparse_distance_matrix(tree, _TRUNCATE * sigma, output_type="coo_matrix")
    weights = np.exp(-0.5 * (near.data / sigma) ** 2)
    # Distances of zero (each place to itself, and places that coincide) are stored, too.
    kernel = sparse.csr_array((weights, (near.row, near.col)), near.shape)
    return kernel @ slide.truth.astype(np.float64), np.asarray(kernel.sum(axis=1)).reshape(-1, 1), 1.0
