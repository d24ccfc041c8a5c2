"""The one place where pixels change their spacing: area averages going down, bilinear going up.

Boxes are fractional and exact: a level with a downsample of 1.9951 is weighted as such, not rounded to 2.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from PIL import Image
from scipy import sparse

from lamella.geometry import Box

# Below this relative difference a length counts as whole: a thousandth of a pixel over a 1,000 px view is invisible.
_WHOLE = 1e-6


# Up to the usual level tolerance an area average only adds jaggedness; beyond it bilinear would begin to alias.
_AREA_FROM = 1.05


def reach_px(box_px: Box, width_px: int, height_px: int) -> int:
    """How many whole pixels beyond the box `resample` looks at, so that neighbouring views join without a seam.

    One where it interpolates, none where it copies pixels or averages areas.
    """
    return int(not is_copy(box_px, width_px, height_px) and not _shrinks(box_px, width_px, height_px))


def resample(
    pixels: np.ndarray, box_px: Box, width_px: int, height_px: int, out: np.ndarray | None = None
) -> np.ndarray:
    """Resample the fractional box of an image to (height_px, width_px).

    Each axis that shrinks is averaged over the exact area of every output pixel; if neither shrinks by more than a few
    percent the result is bilinear.

    Args:
        pixels: (H, W, C) uint8. The box must lie inside it.
        box_px: The box in this image's pixels.
        width_px: Output width.
        height_px: Output height.
        out: Memory for the result.

    Returns:
        (height_px, width_px, C) uint8.
    """
    out = np.empty((height_px, width_px, pixels.shape[2]), np.uint8) if out is None else out
    if is_copy(box_px, width_px, height_px):
        x0, y0 = round(box_px.x0), round(box_px.y0)
        out[...] = pixels[y0 : y0 + height_px, x0 : x0 + width_px]
    elif not _shrinks(box_px, width_px, height_px):
        _bilinear(pixels, box_px, out)
    elif factor := _whole_factor(box_px, width_px, height_px):
        x0, y0 = round(box_px.x0), round(box_px.y0)
        _reduce(pixels[y0 : y0 + factor * height_px, x0 : x0 + factor * width_px], factor, out)
    else:
        _area(pixels, box_px, out)
    return out


def is_copy(box_px: Box, width_px: int, height_px: int) -> bool:
    """Whether the box is whole pixels at their own spacing."""
    offsets = (box_px.x0 - round(box_px.x0), box_px.y0 - round(box_px.y0))
    scales = (box_px.width / width_px - 1, box_px.height / height_px - 1)
    return all(abs(difference) < _WHOLE for difference in (*offsets, *scales))


def resample_mask(mask: np.ndarray, box_px: Box, width_px: int, height_px: int) -> np.ndarray:
    """Sample a 2-D mask at the output pixel centres (nearest); class ids are never mixed."""
    rows = np.floor(box_px.y0 + (np.arange(height_px) + 0.5) * box_px.height / height_px).astype(np.int64)
    columns = np.floor(box_px.x0 + (np.arange(width_px) + 0.5) * box_px.width / width_px).astype(np.int64)
    rows, columns = rows.clip(0, mask.shape[0] - 1), columns.clip(0, mask.shape[1] - 1)
    return mask[rows[:, None], columns[None, :]]


def _shrinks(box_px: Box, width_px: int, height_px: int) -> bool:
    return max(box_px.width / width_px, box_px.height / height_px) > _AREA_FROM


def _bilinear(pixels: np.ndarray, box_px: Box, out: np.ndarray) -> None:
    image = Image.fromarray(pixels)
    # Pillow refuses a box that leaves the image by as little as a rounding error.
    box = (max(0.0, box_px.x0), max(0.0, box_px.y0), min(box_px.x1, image.width), min(box_px.y1, image.height))
    out[...] = np.asarray(image.resize((out.shape[1], out.shape[0]), Image.Resampling.BILINEAR, box=box))


def _area(pixels: np.ndarray, box_px: Box, out: np.ndarray) -> None:
    height_px, width_px, channels = out.shape
    rows = _area_weights(pixels.shape[0], box_px.y0, box_px.y1, height_px)
    columns = _area_weights(pixels.shape[1], box_px.x0, box_px.x1, width_px)
    lines = rows @ pixels.reshape(pixels.shape[0], -1).astype(np.float32)  # (height_px, W * C)
    by_column = lines.reshape(height_px, -1, channels).transpose(1, 0, 2).reshape(pixels.shape[1], -1)
    averaged = (columns @ by_column).reshape(width_px, height_px, channels).transpose(1, 0, 2)
    out[...] = (averaged + 0.5).clip(0, 255)


def _whole_factor(box_px: Box, width_px: int, height_px: int) -> int:
    """By how much the box shrinks if that is a whole number of whole pixels; else 0."""
    factor = round(box_px.width / width_px)
    ends = (box_px.x0, box_px.y0, box_px.x1 - factor * width_px, box_px.y1 - factor * height_px)
    starts = (round(box_px.x0), round(box_px.y0), round(box_px.x0), round(box_px.y0))
    return factor if all(abs(end - start) < 1e-3 for end, start in zip(ends, starts, strict=True)) else 0


def _reduce(pixels: np.ndarray, factor: int, out: np.ndarray) -> None:
    """Means of factor x factor pixels, rounded half up."""
    if factor != 2:
        out[...] = np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).reduce(factor))
        return
    # 40x to 20x is what most ask for: Pillow's numbers in less time. Not in bands: each step lets other threads in.
    height, width, channels = out.shape
    rows = pixels.reshape(height, 2, width * 2 * channels)
    pairs = np.add(rows[:, 0], rows[:, 1], dtype=np.uint16).reshape(height, width, 2 * channels)
    pairs += 1  # twice: half of four
    for channel in range(channels):
        out[..., channel] = (pairs[..., channel] + pairs[..., channels + channel]) >> 2


@functools.lru_cache(maxsize=64)  # views of one profile repeat a handful of fractional offsets
def _area_weights(length_px: int, start: float, stop: float, outputs: int) -> sparse.csr_matrix:
    """(outputs, length_px) weights: row i averages its share of [start, stop), fractional ends included."""
    edges = start + (stop - start) * np.arange(outputs + 1) / outputs
    first = np.floor(edges[:-1] + 1e-9).astype(np.int64)
    taps = math.ceil((stop - start) / outputs) + 1
    index = first[:, None] + np.arange(taps + 1)
    overlap = np.minimum(index + 1, edges[1:, None]) - np.maximum(index, edges[:-1, None])
    weight = overlap.clip(0) * ((index >= 0) & (index < length_px))
    weight /= weight.sum(axis=1, keepdims=True)
    row = np.broadcast_to(np.arange(outputs)[:, None], index.shape)
    kept = weight > 0
    return sparse.csr_matrix(
        (weight[kept].astype(np.float32), (row[kept], index[kept])), shape=(outputs, length_px), dtype=np.float32
    )
