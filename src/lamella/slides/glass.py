"""What the empty glass of a slide looks like, and how its picture looks with that glass made white."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

# Glass is bright, flat and hardly coloured; what is usual is believed where it covers a trace of the picture, what is
# possible (a dim scan, a warm lamp, old mounting medium, eosin washed out into it) only where it covers much.
_USUAL = (190, 0.12, 0.03)  # least brightness of 255, most saturation, most lack of green beside red and blue
_POSSIBLE = (150, 0.30, 0.10)
_USUAL_SHARE = 0.005
_POSSIBLE_SHARE = 0.05
_FLAT = 5  # grey values between neighbours: JPEG noise on glass is 1-3, the palest tissue averages to 8 and more
_PEAK_SHARE = (
    0.1  # of the highest peak of brightness: a brighter peak above this is the glass, and the other is pale tissue
)
_SAMPLE_PX = 2**20  # glass is estimated on about so many pixels
_PADDING = 254  # what a scanner left out is filled with pure white, which is no glass
_BLOCK_PX = 16  # glass is followed in blocks of 128 um at 8 um per pixel
_BLOCK_DEVIATION = 1.6  # grey values within a block of glass: noise is about 1; tissue of a sixth of its stain has 3
_DARKEST_HAZE = 0.85
_EVEN = 0.03  # of the light: less is below the noise that tissue must exceed anyway
_TRUSTED = 0.05  # share of glass around a block from which on it is believed
WHITE = (243.0, 243.0, 243.0)
"""Glass where none is in sight: the usual setting of scanners."""


@dataclass(frozen=True)
class Glass:
    """The colour of empty glass."""

    colour: tuple[float, float, float]
    """Median red, green and blue, 0..255; `WHITE` if no glass is in sight."""
    share: float
    """Of the picture's pixels that are flat and bright enough for glass."""


def estimate_glass(picture: np.ndarray) -> Glass:
    """Find the glass of a slide: the brightest flat colour that covers more than a trace of it.

    Args:
        picture: (H, W, 3) uint8, the whole slide.
    """
    flat, seen_px = _flat_pixels(picture)
    for limits, least in ((_POSSIBLE, _POSSIBLE_SHARE), (_USUAL, _USUAL_SHARE)):
        candidates = _like_glass(flat, *limits)
        share = len(candidates) / seen_px
        if share >= least:
            return Glass(_brightest_colour(candidates), share)
    return Glass(WHITE, 0.0)


def balanced(picture: np.ndarray, glass: Glass) -> np.ndarray:
    """(H, W, 3) uint8: the picture as if its glass were white (255)."""
    table = np.arange(256)[:, None] * (255 / np.maximum(glass.colour, 1.0))
    table = (table + 0.5).clip(0, 255).astype(np.uint8)
    return np.stack([table[:, channel][picture[..., channel]] for channel in range(3)], axis=-1)


def _flat_pixels(picture: np.ndarray) -> tuple[np.ndarray, int]:
    """(N, 3) uint8: pixels hardly unlike their right and lower neighbours, and among how many they were sought."""
    height, width = picture.shape[:2]
    step = max(1, round((height * width / _SAMPLE_PX) ** 0.5))
    rows, columns = np.arange(0, height, step), np.arange(0, width, step)
    here = picture[::step, ::step]
    green = here[..., 1].astype(np.int16)
    below = picture[np.minimum(rows + 1, height - 1), ::step, 1]
    right = picture[::step, np.minimum(columns + 1, width - 1), 1]
    flat = (np.abs(green - below) <= _FLAT) & (np.abs(green - right) <= _FLAT)
    found = here[flat]
    scanned = found[found.min(axis=1) < _PADDING]
    seen_px = flat.size - (len(found) - len(scanned))
    # A picture that is pure white all over, or but for its tissue, has no other glass.
    return (scanned, seen_px) if len(scanned) >= _USUAL_SHARE * flat.size else (found, flat.size)


def _like_glass(pixels: np.ndarray, dimmest: int, deepest_tint: float, green_lack: float) -> np.ndarray:
    brightest, darkest = pixels.max(axis=1).astype(np.int16), pixels.min(axis=1).astype(np.int16)
    kept = (brightest >= dimmest) & (brightest - darkest <= deepest_tint * brightest)
    # Eosin and haematoxylin take green first.
    return pixels[kept & (pixels[:, 1] >= (1 - green_lack) * np.minimum(pixels[:, 0], pixels[:, 2]))]


def _brightest_colour(pixels: np.ndarray) -> tuple[float, float, float]:
    """The median colour of the brightest of the peaks of a histogram of brightness."""
    brightness = pixels.mean(axis=1, dtype=np.float32)
    counts = np.bincount((brightness + 0.5).astype(np.int64), minlength=256)
    counts = np.convolve(counts, np.ones(_FLAT), "same")
    peak = int(np.flatnonzero(counts >= _PEAK_SHARE * counts.max())[-1])
    while peak and counts[peak - 1] > counts[peak]:
        peak -= 1
    red, green, blue = np.median(pixels[np.abs(brightness - peak) <= _FLAT], axis=0)
    return float(red), float(green), float(blue)


def evened(picture: np.ndarray, glass: Glass) -> np.ndarray:
    """The picture with its glass the same colour everywhere: haze, washed-out stain and uneven light taken off.

    Glass is followed in blocks without texture (tissue has some, even where it is pale) and carried over tissue from
    around it. The picture itself is returned where its glass is even.

    Args:
        picture: (H, W, 3) uint8, the whole slide.
        glass: The picture's.

    Returns:
        (H, W, 3) uint8.
    """
    gain = _uneven_gain(picture, glass)
    if gain is None:
        return picture
    rows, columns = ((np.arange(side) + 0.5) / _BLOCK_PX - 0.5 for side in picture.shape[:2])
    result = np.empty_like(picture)
    for top in range(0, len(rows), _BLOCK_PX):
        band = slice(top, top + _BLOCK_PX)
        row, part = _between(rows[band], gain.shape[0])
        lines = gain[row] * (1 - part)[:, None, None] + gain[row + 1] * part[:, None, None]
        column, part = _between(columns, gain.shape[1])
        light = lines[:, column] * (1 - part)[None, :, None] + lines[:, column + 1] * part[None, :, None]
        result[band] = (picture[band] / light + 0.5).clip(0, 255)
    return result


def _between(places: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The block before each place and how far the next one is, 0..1; places outside take the nearest block."""
    before = np.floor(places).clip(0, count - 2).astype(np.int64)
    return before, (places - before).clip(0, 1).astype(np.float32)


def _uneven_gain(picture: np.ndarray, glass: Glass) -> np.ndarray | None:
    """(h, w, 3) float32: the light of glass in each block beside `glass`; None where it is even or hardly seen."""
    if glass.share == 0 or min(picture.shape[:2]) < 2 * _BLOCK_PX:
        return None
    means, deviation = _blocks(picture)
    tint = means.max(axis=2) - means.min(axis=2)
    light = means / np.asarray(glass.colour, np.float32)
    smooth = (deviation <= _BLOCK_DEVIATION) & (tint <= _POSSIBLE[1] * means.max(axis=2))
    smooth &= (light.min(axis=2) >= _DARKEST_HAZE) & (means.min(axis=2) < _PADDING)
    if not smooth.any() or np.ptp(light[smooth], axis=0).max() < _EVEN:
        return None
    gain = np.ones_like(light)
    # From far to near: blocks within a few of seen glass take its light, those deep in tissue that of a wider circle.
    for sigma in (16.0, 4.0, 1.0):
        weight = ndimage.gaussian_filter(smooth.astype(np.float32), sigma)
        for channel in range(3):
            near = ndimage.gaussian_filter(np.where(smooth, light[..., channel], 0), sigma)
            trust = np.minimum(weight / _TRUSTED, 1)
            gain[..., channel] += trust * (near / np.maximum(weight, 1e-6) - gain[..., channel])
    return gain.clip(_DARKEST_HAZE, 1 / _DARKEST_HAZE)


def _blocks(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean colour (h, w, 3) and standard deviation of green (h, w) of blocks of `_BLOCK_PX`; the last are smaller."""
    columns = np.arange(0, picture.shape[1], _BLOCK_PX)
    widths = np.diff(np.r_[columns, picture.shape[1]])
    means, deviations = [], []
    for top in range(0, picture.shape[0], _BLOCK_PX):
        band = picture[top : top + _BLOCK_PX]
        count = widths * len(band)
        mean = np.add.reduceat(band.sum(axis=0, dtype=np.int64), columns) / count[:, None]
        squares = (band[..., 1].astype(np.int64) ** 2).sum(axis=0)
        deviations.append(np.sqrt((np.add.reduceat(squares, columns) / count - mean[:, 1] ** 2).clip(0)))
        means.append(mean)
    return np.array(means, np.float32), np.array(deviations, np.float32)
