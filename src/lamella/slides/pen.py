"""Pen marks and black ground on a slide's thumbnail.

Ink is told from stain by the ratios of its optical densities in red, green and blue, which do not change with its
strength. A mark is known by a core of a colour that no stain has; from there it is followed into its pale edge and over
tissue through colours that stain may have too, but no farther than ink runs. Red ink is nearly as blood and strong
eosin are: where its colour alone does not tell, it must have the form of a stroke. Violet and pink inks have the
colours of haematoxylin and eosin themselves and are not recognised.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from lamella.geometry import Frame
from lamella.slides.connected import without_small
from lamella.slides.glass import Glass, balanced

# Thousandths of optical density; + 1: black is finite. At 1.5, nearly black, it ends: 21 times that fits into 16 bits.
_DENSITY = np.round(-1000 * np.log10((np.arange(256) + 1) / 256)).clip(0, 1500).astype(np.int16)
_PALE = 143  # a density of 0.25: no core takes so little of every channel
_BAND_PX = 2**20  # pixels whose densities are held at a time

_LEAST_CORE_UM2 = 10_000.0  # a speck of pigment is no pen
_BLUR_UM = 24.0  # a mark's own blurred rim, whatever its colour
_LEAST_STROKE_UM = 800.0  # the finest pens draw a third of a millimetre wide; a shorter dash is left alone
_ELONGATION = 3.0  # of a stroke: its length in widths
_CORE_IN_STROKE = 0.1  # a bloody needle biopsy has the form of a stroke too, but next to nothing of the colour of ink
_EVENNESS = 0.8  # of a stroke: the share of its area in places at least half as wide as its widest
_AROUND = np.ones((3, 3), bool)

Densities = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Red, green and blue, each of one shape, int16 thousandths of optical density above glass."""


def find_pen(picture: np.ndarray, glass: Glass, frame: Frame) -> np.ndarray:
    """(H, W) bool: pen marks, black borders and black ground, with their blurred edges.

    Args:
        picture: (H, W, 3) uint8.
        glass: The picture's.
        frame: The picture laid over its slide.
    """
    cores = _cores(picture, glass)
    least_px = _LEAST_CORE_UM2 / (frame.mpp_x * frame.mpp_y)
    found = np.zeros(picture.shape[:2], bool)
    for number, ink in enumerate(_INKS):
        core = (cores & (1 << number)).astype(bool)
        if np.count_nonzero(core) < least_px:
            continue
        core = without_small(core, least_px, _AROUND)
        if core.any():
            found |= _with_edge(core, ink, picture, glass, frame)
    return ndimage.binary_dilation(found, iterations=max(1, round(_BLUR_UM / frame.mpp))) if found.any() else found


def _cores(picture: np.ndarray, glass: Glass) -> np.ndarray:
    """(H, W) uint8: bit i is set where a pixel has the core colour of ink i, band by band."""
    height, width = picture.shape[:2]
    cores = np.zeros((height, width), np.uint8)
    rows = max(1, _BAND_PX // width)
    for top in range(0, height, rows):
        band = balanced(picture[top : top + rows], glass)
        dark = band.min(axis=2) < _PALE
        densities = _densities(band[dark])
        cores[top : top + rows][dark] = sum(
            ink.core(*densities).astype(np.uint8) << number for number, ink in enumerate(_INKS)
        )
    return cores


def _with_edge(core: np.ndarray, ink: _Ink, picture: np.ndarray, glass: Glass, frame: Frame) -> np.ndarray:
    """A core and what it runs out into, without leaving the ink's colours."""
    reach = max(1, round(ink.run_um / frame.mpp))
    near = (slice(None), slice(None)) if ink.stroke is not None else _around(core, reach)
    densities = _densities(balanced(picture[near], glass))
    start = core[near]
    if ink.stroke is not None:
        start = start | _strokes(start | ink.stroke(*densities), start, frame)
    grown = np.zeros_like(core)
    grown[near] = ndimage.binary_dilation(start, _AROUND, iterations=reach, mask=start | ink.edge(*densities))
    return grown


def _around(mask: np.ndarray, reach_px: int) -> tuple[slice, slice]:
    """Rows and columns that hold all of a mask and `reach_px` more on each side."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return (
        slice(max(0, rows[0] - reach_px), rows[-1] + reach_px + 1),
        slice(max(0, columns[0] - reach_px), columns[-1] + reach_px + 1),
    )


def _densities(pixels: np.ndarray) -> Densities:
    return _DENSITY[pixels[..., 0]], _DENSITY[pixels[..., 1]], _DENSITY[pixels[..., 2]]


# ---- colours, as thousandths of optical density --------------------------------------------------------------------
# Measured at 2 to 8 um per pixel on H&E of five sources (TCGA, Aperio's CMU-1, GlaS, NuInsSeg, her2st) and on their
# haematoxylin and DAB parts restained: what is called a core here holds at most 1 in 1,000 of their tissue pixels.


def _blue_or_green(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> np.ndarray:
    """Takes much more red than green (haematoxylin: up to 1.25 times), or is far too dark for haematoxylin."""
    hue = (red > 250) & (10 * red > 13 * green) & (10 * red > 11 * blue)
    return hue | ((red > 750) & (red > green) & (2 * blue < red + 200))


def _bluish(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> np.ndarray:
    pale = (red > 20) & (20 * red > 21 * green) & (10 * red > 11 * blue)
    return pale | ((red > 250) & (10 * red > 9 * green))


def _yellow(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> np.ndarray:
    """Yellow and orange: takes blue only; brown DAB that takes as much blue takes red as well."""
    return (blue > 300) & (red < 120) & (2 * blue > 3 * green)


def _yellowish(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> np.ndarray:
    return (blue > 50) & (4 * blue > 5 * green) & (3 * red < blue)


def _red(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> np.ndarray:
    """Takes nearly as much blue as green; eosin and blood take half to two thirds."""
    return (green > 350) & (4 * blue > 3 * green) & (3 * red < green)


def _maybe_red(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> np.ndarray:
    return (green > 300) & (20 * blue > 11 * green) & (3 * red < green)


def _reddish(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> np.ndarray:
    return (green > 30) & (2 * blue > green) & (5 * red < 2 * green)


def _black(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> np.ndarray:
    """Darker than any fold of tissue averaged to a thumbnail, and without colour."""
    most, least = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    return (least > 750) | ((least > 600) & (most - least < 200))


def _greyish(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> np.ndarray:
    most, least = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    return (least > 100) & (6 * (most - least) < least)


class _Ink(NamedTuple):
    core: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    edge: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    run_um: float
    """How far the edge may reach beyond the core."""
    stroke: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None
    """What counts as core where it has the form of a stroke."""


# A real blue mark ran out over 300 um. The edges of red and yellow have the colours of eosin and DAB: they may not go
# as far.
_INKS = (
    _Ink(_blue_or_green, _bluish, 320.0),
    _Ink(_yellow, _yellowish, 80.0),
    _Ink(_red, _reddish, 80.0, _maybe_red),
    _Ink(_black, _greyish, 80.0),
)


# ---- forms ----------------------------------------------------------------------------------------------------------


def _strokes(mask: np.ndarray, core: np.ndarray, frame: Frame) -> np.ndarray:
    """The connected pieces that are long, about equally wide all along, and of the core's colour in part."""
    strokes = np.zeros_like(mask)
    labels, _ = ndimage.label(mask, _AROUND)
    least_px = _LEAST_STROKE_UM / frame.mpp
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        if max(side.stop - side.start for side in place) >= least_px:
            piece = labels[place] == number
            if core[place][piece].mean() >= _CORE_IN_STROKE and _is_stroke(np.pad(piece, 1)):
                strokes[place] |= piece
    return strokes


def _is_stroke(piece: np.ndarray) -> bool:
    """Whether a piece, (H, W) bool and False all around, is long, and even: opening it by half its depth keeps it."""
    depth_px = ndimage.distance_transform_edt(piece)
    deepest_px = float(np.quantile(depth_px[piece], 0.98))
    area_px = np.count_nonzero(piece)
    if area_px < _ELONGATION * (2 * deepest_px) ** 2:
        return False
    eroded = depth_px > deepest_px / 2
    opened = ndimage.distance_transform_edt(~eroded) <= deepest_px / 2
    return bool(np.count_nonzero(opened & piece) >= _EVENNESS * area_px)
