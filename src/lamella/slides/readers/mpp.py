"""The one place that decides how large a level-0 pixel of a slide is, and says where the number came from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lamella.errors import ResolutionError

# A pixel finer than this lies far below what light resolves (about 0.2 um): the number is in another unit.
MIN_MPP = 0.05
# At this spacing a nucleus (5-10 um) is a third of a pixel: such pictures are label photos, or the number is made up.
MAX_MPP = 30.0
# Two scales of one scanner (0.2461 and 0.25, calibrated and nominal) differ by a few percent; a wrong objective by 100.
CONTRADICTION = 0.10

CENTIMETRE_UM = 1e4
INCH_UM = 2.54e4
# TIFF tag 296; a file without the tag means inches. 1 is "no absolute unit": such a file states no resolution.
_TIFF_UNITS = {1: "none", 2: "inch", 3: "centimeter"}
_UNIT_UM = {"inch": INCH_UM, "centimeter": CENTIMETRE_UM}

# Micrometres per pixel as such: (key in x, key in y), in the order of trust. `openslide.mpp-*` stands first because
# OpenSlide already knows each vendor's own place for the number.
_SPACINGS = (
    ("openslide.mpp-x", "openslide.mpp-y"),
    ("aperio.MPP", "aperio.MPP"),
    ("openslide.mirax.MPP", "openslide.mirax.MPP"),
    ("mirax.LAYER_0_LEVEL_0_SECTION.MICROMETER_PER_PIXEL_X", "mirax.LAYER_0_LEVEL_0_SECTION.MICROMETER_PER_PIXEL_Y"),
    ("ome.PhysicalSizeX", "ome.PhysicalSizeY"),
)
_HAMAMATSU = ("hamamatsu.XResolution", "hamamatsu.YResolution")  # pixels per centimetre
_TIFF = ("tiff.XResolution", "tiff.YResolution")  # pixels per tiff.ResolutionUnit


@dataclass(frozen=True, slots=True)
class Resolution:
    """Micrometres per level-0 pixel of each axis."""

    mpp_x: float
    mpp_y: float
    origin: str
    """`stated`, or the property of the file that it was read from."""
    note: str = ""
    """A plain sentence for the user where the stated value contradicts the file; else empty."""


def resolve_mpp(
    path: Path | str, properties: Mapping[str, str], stated: float | tuple[float, float] | None = None
) -> Resolution:
    """Find the micrometres per pixel of a slide.

    A stated value wins over the file. Of the file's own properties the first one that is there counts; the next
    is not tried where it is absurd, because a guess among contradicting numbers would be silent.

    Args:
        path: The slide, for messages.
        properties: What the file states, with OpenSlide's key names.
        stated: From the manifest or `--mpp`; one number for both axes, or (x, y).

    Raises:
        ResolutionError: Nothing is stated, or the number is absurd (outside 0.05 to 30 um).
    """
    if stated is not None:
        x, y = stated if isinstance(stated, tuple) else (stated, stated)
        _check(path, x, y, "the stated mpp")
        return Resolution(float(x), float(y), "stated", _contradiction(path, properties, x, y))
    found = _from_file(path, properties)
    if found is None:
        raise ResolutionError(path, "the file does not say how many micrometres a pixel measures (mpp)")
    _check(path, found.mpp_x, found.mpp_y, f"its {found.origin}")
    return found


def tiff_resolution(x: float, y: float, unit: int) -> dict[str, str]:
    """TIFF's resolution tags (282, 283, 296) as properties under OpenSlide's names."""
    return {
        "tiff.XResolution": repr(float(x)),
        "tiff.YResolution": repr(float(y)),
        "tiff.ResolutionUnit": _TIFF_UNITS.get(int(unit), "none"),
    }


def _from_file(path: Path | str, properties: Mapping[str, str]) -> Resolution | None:
    for key_x, key_y in _SPACINGS:
        if properties.get(key_x) and properties.get(key_y):
            x, y = _number(path, properties, key_x), _number(path, properties, key_y)
            return Resolution(x, y, key_x)
    unit_um = _UNIT_UM.get(properties.get("tiff.ResolutionUnit", "inch"))
    for (key_x, key_y), length_um in ((_HAMAMATSU, CENTIMETRE_UM), (_TIFF, unit_um)):
        if length_um is not None and properties.get(key_x) and properties.get(key_y):
            per_x, per_y = _number(path, properties, key_x), _number(path, properties, key_y)
            # 0 pixels per unit is what some writers put for "unknown"; it becomes an infinite, so refused, spacing.
            spacings = [length_um / value if value else math.inf for value in (per_x, per_y)]
            return Resolution(spacings[0], spacings[1], key_x)
    return None


def _number(path: Path | str, properties: Mapping[str, str], key: str) -> float:
    try:
        return float(properties[key].replace(",", "."))  # some scanners write the decimal comma of their locale
    except ValueError:
        raise ResolutionError(path, f"its {key} is {properties[key]!r}, not a number") from None


def _check(path: Path | str, x: float, y: float, source: str) -> None:
    if not all(MIN_MPP <= value <= MAX_MPP for value in (x, y)):  # NaN compares false, so it is refused too
        spacing = f"{x:.4g}" if x == y else f"{x:.4g} x {y:.4g}"
        raise ResolutionError(
            path,
            f"{source} means {spacing} um per pixel, which no slide has ({MIN_MPP:g} to {MAX_MPP:g} is believable)",
        )


def _contradiction(path: Path | str, properties: Mapping[str, str], x: float, y: float) -> str:
    try:
        found = _from_file(path, properties)
    except ResolutionError as error:
        return f"{path}: {error.cause}; the stated mpp is used"
    if found is None or all(abs(own / said - 1) <= CONTRADICTION for own, said in ((found.mpp_x, x), (found.mpp_y, y))):
        return ""
    return (
        f"{path}: the stated mpp of {x:.4g} contradicts the file, whose {found.origin} means {found.mpp_x:.4g}; "
        "the stated one is used"
    )
