"""Frames of a scanner put in order: sorted along their normal, evenly spaced, one grid.

Source of the geometry: DICOM PS3.3, C.7.6.2.1.1 (ImagePositionPatient is the centre of the first pixel, in LPS mm).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lamella.errors import ImageError
from lamella.imaging.orientation import LPS_TO_RAS

# Direction cosines written with 6 digits differ by this much within one series; 1e-3 is a twentieth of a degree.
_SAME_DIRECTION = 1e-3
_SAME_SPACING = 1e-3  # relative; 0.6875 is written as 0.688 at worst
# A slice may lie this share of a gap from its even place: positions are written with two decimals at worst.
_OFF_PLACE = 0.1
_SAME_PLACE_MM = 1e-3
# A stack is tilted when its frames drift by more than this many pixels from first to last.
_MOST_DRIFT_PX = 0.5
_SHOWN = 4


@dataclass(frozen=True)
class Plane:
    """Where one frame lies.

    Attributes:
        name: For messages: its file, or its number.
        position_mm: (3,) centre of the first pixel, LPS.
        cosines: (2, 3) directions along a row and along a column.
        spacing_mm: (row spacing, column spacing).
        size: (rows, columns).
        moment: Number of its time point, 0 where there is but one.
    """

    name: str
    position_mm: tuple[float, float, float]
    cosines: tuple[tuple[float, float, float], tuple[float, float, float]]
    spacing_mm: tuple[float, float]
    size: tuple[int, int]
    moment: int = 0

    @property
    def normal(self) -> np.ndarray:
        return np.cross(*self.cosines)


@dataclass(frozen=True)
class Stack:
    """The order of frames and the grid they make.

    Attributes:
        order_TZ: Places of the frames in the list that was given, by time point and slice.
        affine: (4, 4), from (column, row, slice) to RAS millimetres.
    """

    order_TZ: np.ndarray
    affine: np.ndarray


def stack(thing: object, planes: Sequence[Plane]) -> Stack:
    """Sort frames along their normal and find the grid.

    Raises:
        ImageError: They are no one evenly spaced, straight stack; the message names frames and a remedy.
    """
    _check_alike(thing, planes)
    normal = planes[0].normal
    along = np.array([float(np.dot(plane.position_mm, normal)) for plane in planes])
    moments = sorted({plane.moment for plane in planes})
    order_TZ = _by_moment(thing, planes, along, moments)
    first = order_TZ[0]
    _check_even(thing, [planes[place].name for place in first], along[first])
    places_mm = np.array([planes[place].position_mm for place in first])
    step_mm = (places_mm[-1] - places_mm[0]) / (len(first) - 1)
    _check_straight(thing, step_mm * (len(first) - 1), planes[0])
    return Stack(order_TZ, _affine(planes[first[0]], step_mm))


def _affine(plane: Plane, step_mm: np.ndarray) -> np.ndarray:
    lps = np.eye(4)
    lps[:3, 0] = np.array(plane.cosines[0]) * plane.spacing_mm[1]  # the next column is one column spacing away
    lps[:3, 1] = np.array(plane.cosines[1]) * plane.spacing_mm[0]
    lps[:3, 2] = step_mm
    lps[:3, 3] = plane.position_mm
    return LPS_TO_RAS @ lps


# ---- what makes a stack none ----------------------------------------------------------------------------------------


def _check_alike(thing: object, planes: Sequence[Plane]) -> None:
    if len(planes) < 2:
        raise ImageError(thing, "it holds one slice, which makes no volume", "Read it as an image.")
    for plane in planes:
        rows = np.array(plane.cosines)
        if np.abs(rows @ rows.T - np.eye(2)).max() > 10 * _SAME_DIRECTION:
            raise ImageError(thing, f"{plane.name} has an impossible orientation", "Fetch the file again.")
        if min(plane.spacing_mm) <= 0:
            raise ImageError(thing, f"{plane.name} has a pixel spacing of {min(plane.spacing_mm):g} mm", "Correct it.")
    sizes = Counter(plane.size for plane in planes)
    if len(sizes) > 1:
        raise ImageError(thing, f"its slices have {_several(sizes, planes, 'size')}", "Give each size its own folder.")
    groups = _grouped(planes)
    if len(groups) > 1:
        said = "; ".join(f"{len(names)} like {names[0]}" for names in groups[:_SHOWN])
        raise ImageError(
            thing, f"its slices have {len(groups)} orientations ({said})", "Give each orientation its own folder."
        )
    spacings = np.array([plane.spacing_mm for plane in planes])
    if np.abs(spacings / spacings[0] - 1).max() > _SAME_SPACING:
        odd = planes[int(np.abs(spacings / spacings[0] - 1).max(axis=1).argmax())]
        cause = (
            f"its pixel spacing differs: {planes[0].name} has {planes[0].spacing_mm}, {odd.name} {odd.spacing_mm} mm"
        )
        raise ImageError(thing, cause, "Give each spacing its own folder.")


def _several(counts: Counter[tuple[int, int]], planes: Sequence[Plane], noun: str) -> str:
    said = [
        f"{count} of {size[0]} x {size[1]} such as {next(plane.name for plane in planes if plane.size == size)}"
        for size, count in counts.most_common(_SHOWN)
    ]
    return f"{len(counts)} {noun}s ({'; '.join(said)})"


def _grouped(planes: Sequence[Plane]) -> list[list[str]]:
    groups: list[tuple[np.ndarray, list[str]]] = []
    for plane in planes:
        for cosines, names in groups:
            if np.abs(cosines - plane.cosines).max() <= _SAME_DIRECTION:
                names.append(plane.name)
                break
        else:
            groups.append((np.array(plane.cosines), [plane.name]))
    return [names for _, names in groups]


def _by_moment(thing: object, planes: Sequence[Plane], along: np.ndarray, moments: list[int]) -> np.ndarray:
    rows = []
    for moment in moments:
        members = np.array([place for place, plane in enumerate(planes) if plane.moment == moment])
        rows.append(members[np.argsort(along[members], kind="stable")])
        sorted_mm = along[rows[-1]]
        same = np.flatnonzero(np.diff(sorted_mm) < _SAME_PLACE_MM)
        if len(same):
            one, other = (planes[rows[-1][same[0] + step]].name for step in (0, 1))
            raise ImageError(
                thing,
                f"{len(same) + 1} slices share their place with another, such as {one} and {other}",
                "Remove copies; give each time point, echo or b-value its own folder.",
            )
    if len({len(row) for row in rows}) > 1:
        counts = ", ".join(str(len(row)) for row in rows[:_SHOWN])
        raise ImageError(thing, f"its time points have unlike numbers of slices ({counts}, ...)", "Fetch all slices.")
    order_TZ = np.stack(rows)
    if np.abs(along[order_TZ] - along[order_TZ[0]]).max() > _OFF_PLACE * max(_SAME_PLACE_MM, float(np.ptp(along))):
        raise ImageError(thing, "its time points lie in different places", "Give each time point its own folder.")
    return order_TZ


def _check_even(thing: object, names: Sequence[str], along_mm: np.ndarray) -> None:
    if len(along_mm) < 2:
        raise ImageError(thing, "it holds one slice, which makes no volume", "Read it as an image or a video.")
    gaps = np.diff(along_mm)
    usual = float(np.median(gaps))
    even = np.linspace(along_mm[0], along_mm[-1], len(along_mm))
    if np.abs(along_mm - even).max() <= _OFF_PLACE * usual:
        return
    widest = int(gaps.argmax())
    times = gaps[widest] / usual
    between = f"between {names[widest]} and {names[widest + 1]}"
    if times > 1.5 and abs(times - round(times)) < 2 * _OFF_PLACE:
        missing = round(times) - 1
        noun = "slice is" if missing == 1 else "slices are"
        raise ImageError(thing, f"{missing} {noun} missing {between}", "Fetch the whole series.")
    cause = f"its slices are unevenly spaced: usually {usual:.3g} mm apart, {gaps[widest]:.3g} mm {between}"
    raise ImageError(
        thing, cause, "Give the evenly spaced part its own folder, or interpolate it with another program."
    )


def _check_straight(thing: object, extent_mm: np.ndarray, plane: Plane) -> None:
    drift_px = np.array(plane.cosines) @ extent_mm / np.array(plane.spacing_mm[::-1])
    if np.abs(drift_px).max() > _MOST_DRIFT_PX:
        height = abs(float(np.dot(extent_mm, plane.normal)))
        angle = np.degrees(np.arctan2(np.linalg.norm(np.array(plane.cosines) @ extent_mm), height))
        raise ImageError(
            thing,
            f"its slices are stacked askew by {angle:.1f} degrees (the gantry was tilted)",
            "Straighten it with another program, for example `dcm2niix`.",
        )
