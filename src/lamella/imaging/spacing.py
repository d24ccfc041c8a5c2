"""Sizes and spacings: volumes to a spacing in millimetres, images to a size in pixels, both without aliasing."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Literal

import numpy as np
from PIL import Image
from scipy import sparse

from lamella.imaging.measured import Volume

# Below this relative difference a spacing counts as reached: a thousandth of a voxel over 1,000.
_SAME = 1e-6

Triple = tuple[float, float, float]
Fit = Literal["crop", "pad", "stretch"]


def respaced(volume: Volume, target_mm: Triple) -> Volume:
    """The volume at another (z, y, x) spacing, its affine with it; see `resample_volume`."""
    values = resample_volume(volume.values_CZYX, volume.spacing_mm, target_mm)
    factors = np.array([target / own for own, target in zip(volume.spacing_mm, target_mm, strict=True)])[::-1]
    affine = volume.affine.copy()
    affine[:3, :3] = volume.affine[:3, :3] * factors
    # The corner of the volume stays, so the centre of its first voxel moves by half the difference.
    affine[:3, 3] += volume.affine[:3, :3] @ ((factors - 1) / 2)
    return replace(volume, values_CZYX=values, spacing_mm=target_mm, affine=affine)


def resample_volume(
    values_CZYX: np.ndarray, spacing_mm: Triple, target_mm: Triple, *, labels: bool = False
) -> np.ndarray:
    """Resample to another spacing about the volume's corner; sizes are rounded to whole voxels.

    Values are interpolated linearly; an axis that gets coarser is averaged with a triangle as wide as two new voxels,
    so that nothing aliases. Labels take the nearest voxel and are never mixed.

    Args:
        values_CZYX: (C, Z, Y, X) or (Z, Y, X).
        spacing_mm: (z, y, x) now.
        target_mm: (z, y, x) wanted.
        labels: Whether the values are class numbers.

    Returns:
        The same number of axes; float32, or the labels' dtype.

    Raises:
        ValueError: A spacing is not above 0.
    """
    if min(*spacing_mm, *target_mm) <= 0:
        raise ValueError(f"spacings must be above 0, not {spacing_mm} and {target_mm}")
    values = values_CZYX if labels else values_CZYX.astype(np.float32, copy=False)
    scales = [target / own for own, target in zip(spacing_mm, target_mm, strict=True)]
    # The axis that shrinks most goes first: the others then have less to do. X is the dearest, so it goes last.
    for axis in (*sorted((0, 1), key=lambda axis: -scales[axis]), 2):
        values = _along(values, values.ndim - 3 + axis, scales[axis], labels=labels)
    return np.ascontiguousarray(values)


def resized_length(length: int, spacing_mm: float, target_mm: float) -> int:
    """Voxels of an axis after `resample_volume`."""
    return max(1, round(length * spacing_mm / target_mm))


def _along(values: np.ndarray, axis: int, scale: float, *, labels: bool) -> np.ndarray:
    length = values.shape[axis]
    outputs = max(1, round(length / scale))
    if abs(scale - 1) < _SAME and outputs == length:
        return values
    if labels:
        return np.take(values, _nearest(length, outputs, scale), axis=axis)
    weights = _weights(length, outputs, scale)  # (outputs, length)
    if axis == values.ndim - 1:  # neighbours lie side by side: whole rows through one product of dense matrices
        return values @ weights.toarray().T
    # Rows of numbers are weighted whole, a few for each output: a sparse matrix takes a tenth of a dense one's time.
    blocks = values.reshape(-1, length, int(np.prod(values.shape[axis + 1 :])))
    found = np.empty((len(blocks), outputs, blocks.shape[2]), np.float32)
    for block, out in zip(blocks, found, strict=True):
        out[...] = weights @ block
    return found.reshape(*values.shape[:axis], outputs, *values.shape[axis + 1 :])


def _nearest(length: int, outputs: int, scale: float) -> np.ndarray:
    return np.floor((np.arange(outputs) + 0.5) * scale).astype(np.int64).clip(0, length - 1)


@functools.lru_cache(maxsize=64)  # the volumes of a data set share a few sizes
def _weights(length: int, outputs: int, scale: float) -> sparse.csr_matrix:
    """(outputs, length) float32: a triangle about each new voxel's centre, at least one old voxel to each side."""
    centres = (np.arange(outputs) + 0.5) * scale - 0.5
    reach = max(scale, 1.0)
    distance = np.abs(np.arange(length)[None, :] - centres.clip(0, length - 1)[:, None])
    weights = (1 - distance / reach).clip(0)
    return sparse.csr_matrix((weights / weights.sum(axis=1, keepdims=True)).astype(np.float32))


# ---- images ---------------------------------------------------------------------------------------------------------


def resize_image(pixels_YXC: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize with antialiasing: bilinear, with the triangle widened where the image shrinks.

    Args:
        pixels_YXC: (Y, X) or (Y, X, C), uint8 or float32.
        height: Rows wanted.
        width: Columns wanted.

    Returns:
        (height, width[, C]) of the same dtype.
    """
    if pixels_YXC.shape[:2] == (height, width):
        return pixels_YXC
    if pixels_YXC.dtype == np.uint8 and (pixels_YXC.ndim == 2 or pixels_YXC.shape[2] == 3):
        return np.asarray(Image.fromarray(pixels_YXC).resize((width, height), Image.Resampling.BILINEAR))
    if pixels_YXC.ndim == 3:
        return np.stack([resize_image(plane, height, width) for plane in np.moveaxis(pixels_YXC, -1, 0)], axis=-1)
    plane = np.ascontiguousarray(pixels_YXC, np.float32)
    return np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR)).astype(
        pixels_YXC.dtype
    )


def fit(pixels_YXC: np.ndarray, size_px: int, keep_aspect: Fit = "crop") -> np.ndarray:
    """Make an image square.

    Args:
        pixels_YXC: (Y, X) or (Y, X, C), uint8 or float32.
        size_px: Side wanted.
        keep_aspect: `crop` scales the short side and cuts the middle out of the long one; `pad` scales the long side
            and leaves black (0) around it; `stretch` does not keep the aspect.

    Returns:
        (size_px, size_px[, C]).
    """
    height, width = pixels_YXC.shape[:2]
    if keep_aspect == "stretch":
        return resize_image(pixels_YXC, size_px, size_px)
    side = min(height, width) if keep_aspect == "crop" else max(height, width)
    scaled = resize_image(pixels_YXC, max(1, round(height * size_px / side)), max(1, round(width * size_px / side)))
    top, left = ((length - size_px) // 2 for length in scaled.shape[:2])
    if keep_aspect == "crop":
        return scaled[top : top + size_px, left : left + size_px]
    padded = np.zeros((size_px, size_px, *scaled.shape[2:]), scaled.dtype)
    padded[-top : -top + scaled.shape[0], -left : -left + scaled.shape[1]] = scaled
    return padded
