"""A guided filter: probabilities become, in each window, a linear function of the picture's colours.

Source: He, Sun, Tang, Guided Image Filtering, ECCV 2010, equations 14 to 16 (colour guide).

Shapes: C channels, Y x X pixels.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import uniform_filter1d

from lamella.dense.refining.settings import CrfSettings


def guided_probabilities(maps_CYX: np.ndarray, pixels_YXC: np.ndarray, settings: CrfSettings) -> np.ndarray:
    """Smooth probabilities along the picture's edges.

    Args:
        maps_CYX: float32, adding up to 1; all channels 0 where nobody looked: such pixels have no say.
        pixels_YXC: uint8 (Y, X, 3), the guide.
        settings: Radius of the window and epsilon.

    Returns:
        float32 (C, Y, X), adding up to 1; 0 where nobody looked.
    """
    seen = maps_CYX.any(0)
    means = _Means(seen, settings.guided_radius_px)
    guide = [pixels_YXC[..., channel] / 255.0 for channel in range(3)]
    guide_mean = [means.of(plane) for plane in guide]
    inverse = _inverse_covariance(guide, guide_mean, means, settings.guided_epsilon)
    found = np.empty(maps_CYX.shape, np.float32)
    for channel, share in enumerate(maps_CYX):
        share_mean = means.of(share)
        covariance = np.stack(
            [means.of(plane * share) - mean * share_mean for plane, mean in zip(guide, guide_mean, strict=True)], -1
        )
        slope = np.einsum("yxij,yxj->yxi", inverse, covariance)
        offset = share_mean - sum(slope[..., one] * guide_mean[one] for one in range(3))
        fitted = sum((means.of(slope[..., one]) * guide[one] for one in range(3)), means.of(offset))
        found[channel] = np.clip(fitted, 0, 1)
    total = found.sum(0)
    lost = total <= 0  # cannot be where it matters: the channels' fits add up to 1
    found = np.where(lost, maps_CYX, found / np.where(lost, 1, total))
    return np.where(seen, found, 0).astype(np.float32)


class _Means:
    """Means over the windows' pixels that were looked at."""

    def __init__(self, seen_YX: np.ndarray, radius_px: int) -> None:
        self._seen, self._side = seen_YX, 2 * radius_px + 1
        self._share = np.maximum(self._box(seen_YX.astype(np.float64)), 1e-9)

    def of(self, plane_YX: np.ndarray) -> np.ndarray:
        return self._box(np.where(self._seen, plane_YX, 0.0)) / self._share

    def _box(self, plane_YX: np.ndarray) -> np.ndarray:
        for axis in (0, 1):
            plane_YX = uniform_filter1d(plane_YX, self._side, axis=axis, mode="constant")
        return plane_YX


def _inverse_covariance(
    guide: list[np.ndarray], guide_mean: list[np.ndarray], means: _Means, epsilon: float
) -> np.ndarray:
    """(Y, X, 3, 3): of the colours in each window, with epsilon on the diagonal."""
    covariance = np.empty((*guide[0].shape, 3, 3))
    for one in range(3):
        for other in range(one, 3):
            plane = means.of(guide[one] * guide[other]) - guide_mean[one] * guide_mean[other]
            covariance[..., one, other] = covariance[..., other, one] = plane
    covariance += epsilon * np.eye(3)
    return np.linalg.inv(covariance)
