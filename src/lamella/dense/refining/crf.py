"""Labels that follow colours: a dense conditional random field, solved by mean field.

Every pixel is joined to every other: by a Gaussian of their distance, and by one of their distance and colours. The
pixels' own terms are -log p of the model. Source: Krahenbuhl and Koltun, Efficient Inference in Fully Connected CRFs
with Gaussian Edge Potentials, NeurIPS 2011, with Potts compatibility and symmetric normalisation of both kernels.

Shapes: C channels, Y x X pixels, N pixels that were looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lamella.dense.refining.lattice import Lattice
from lamella.dense.refining.settings import CrfSettings
from lamella.errors import LamellaError, MissingExtraError

LEAST_PROBABILITY = 1 / 510  # half a step of stored probabilities: what a stored 0 may have been, at most


def crf_probabilities(
    maps_CYX: np.ndarray, pixels_YXC: np.ndarray, settings: CrfSettings, origin: tuple[int, int] = (0, 0)
) -> np.ndarray:
    """What a CRF makes of probabilities.

    Args:
        maps_CYX: float32, adding up to 1; all channels 0 where nobody looked: such pixels have no say.
        pixels_YXC: uint8 (Y, X, 3).
        settings: Of the field; its engine is mean_field or pydensecrf2.
        origin: (y, x) of the first pixel in the raster, so that a window's lattice is part of the raster's.

    Returns:
        float32 (C, Y, X), adding up to 1; 0 where nobody looked.

    Raises:
        MissingExtraError: The engine is not installed.
        LamellaError: The standard deviations are too small for the picture.
    """
    seen_YX = maps_CYX.any(0)
    found = np.zeros(maps_CYX.shape, np.float32)
    if seen_YX.any():
        solve = _original if settings.engine == "pydensecrf2" else _mean_field
        log_p_CN = np.log(np.maximum(maps_CYX[:, seen_YX], np.float32(LEAST_PROBABILITY)))
        found[:, seen_YX] = solve(log_p_CN, _points(seen_YX, pixels_YXC, settings, origin), settings.iterations)
    return found


@dataclass(frozen=True)
class _Points:
    """Pixels as points of one kernel: (d, N) float32 in its standard deviations, and what disagreement costs."""

    points_dN: np.ndarray
    weight: float


def _points(
    seen_YX: np.ndarray, pixels_YXC: np.ndarray, settings: CrfSettings, origin: tuple[int, int]
) -> list[_Points]:
    y, x = np.nonzero(seen_YX)
    place_px = np.stack([x + origin[1], y + origin[0]]).astype(np.float32)
    kernels = [_Points(place_px / np.float32(settings.near_px), settings.near_weight)]
    if settings.alike_weight:
        colours = pixels_YXC[seen_YX].T.astype(np.float32) / np.float32(settings.alike_rgb)
        both = np.concatenate([place_px / np.float32(settings.alike_px), colours])
        kernels.append(_Points(both, settings.alike_weight))
    return [kernel for kernel in kernels if kernel.weight]


class _Kernel:
    """w D^-1/2 K D^-1/2, with D the row sums of K."""

    def __init__(self, kernel: _Points) -> None:
        try:
            self._lattice = Lattice.of(kernel.points_dN)
        except ValueError as error:
            raise LamellaError(
                "refine.crf", "near_px, alike_px or alike_rgb is too small for this picture", "Give a larger one."
            ) from error
        count = kernel.points_dN.shape[1]
        tiny = np.float32(1e-20)  # a point whose corners nobody shares still counts itself
        self._norm = 1 / np.sqrt(self._lattice.filter(np.ones(count, np.float32)) + tiny)
        self._after = np.float32(kernel.weight) * self._norm

    def message(self, belief_N: np.ndarray) -> np.ndarray:
        return self._after * self._lattice.filter(self._norm * belief_N)


def _mean_field(log_p_CN: np.ndarray, kernels: list[_Points], iterations: int) -> np.ndarray:
    """(C, N) the field's marginals after some rounds of asking all neighbours at once."""
    filters = [_Kernel(kernel) for kernel in kernels]
    belief = _softmax(log_p_CN.copy())
    ones = np.ones(log_p_CN.shape[1], np.float32)
    # Beliefs add up to 1 and filters are linear: the last channel's message is what the others' leave of this.
    whole = sum((one.message(ones) for one in filters), np.zeros_like(ones))
    for _ in range(iterations if filters else 0):
        following = log_p_CN.copy()
        following[-1] += whole
        for channel in range(len(belief) - 1):
            for one in filters:
                message = one.message(belief[channel])
                following[channel] += message
                following[-1] -= message
        belief = _softmax(following)
    return belief


def _softmax(scores_CN: np.ndarray) -> np.ndarray:
    """Over the channels, in place."""
    scores_CN -= scores_CN.max(0)
    np.exp(scores_CN, out=scores_CN)
    scores_CN /= scores_CN.sum(0)
    return scores_CN


def _original(log_p_CN: np.ndarray, kernels: list[_Points], iterations: int) -> np.ndarray:
    """The same by Krahenbuhl's own code."""
    try:
        from pydensecrf.densecrf import DenseCRF
    except ImportError as error:
        raise MissingExtraError("pydensecrf2", "crf") from error
    channels, count = log_p_CN.shape
    field = DenseCRF(count, channels)
    field.setUnaryEnergy(np.ascontiguousarray(-log_p_CN, np.float32))
    for kernel in kernels:
        field.addPairwiseEnergy(np.ascontiguousarray(kernel.points_dN), compat=kernel.weight)
    return np.asarray(field.inference(iterations), np.float32).reshape(channels, count)
