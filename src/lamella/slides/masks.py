"""Tissue masks in files: 8-bit PNG written, any image read; never more than a bounded number of pixels in memory."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image, UnidentifiedImageError

from lamella.errors import MaskMismatchError
from lamella.formats.atomic import whole_file

# 64 M pixels: 64 MB as bytes and 256 MB as an integral image. A whole 25 mm slide at 3 um per pixel fits.
MAX_PX = 2**26
# Spacings beyond this are print resolutions, not statements about tissue: 1,200 dpi is 21 um, 300 dpi 85 um per pixel.
_SANE_MPP = (0.05, 20.0)
_TIFF_SUFFIXES = {".tif", ".tiff", ".svs"}
_UM_PER_UNIT = {2: 25_400.0, 3: 10_000.0}  # TIFF ResolutionUnit: inch, centimetre


@dataclass(frozen=True)
class MaskFile:
    """A mask as read: its values and what its file says about its spacing."""

    values: np.ndarray
    """(H, W) integers."""
    mpp: tuple[float, float] | None
    """(x, y) micrometres per pixel of `values`, if the file states sane ones."""


def write_mask(path: Path | str, mask: np.ndarray) -> None:
    """Write a boolean (H, W) mask as an 8-bit PNG, 0 and 255."""
    with whole_file(path) as part:
        Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(part, format="PNG")


def read_mask(path: Path | str) -> np.ndarray:
    """The values of a mask, (H, W) integers; see `open_mask`."""
    return open_mask(path).values


def open_mask(path: Path | str, max_px: int = MAX_PX) -> MaskFile:
    """Read a mask of any image format.

    Of a TIFF pyramid the finest level of at most `max_px` pixels is read; a larger single level is thinned out to that
    while it is decoded (nearest, so values are never mixed). The same file always gives the same pixels.

    Raises:
        MaskMismatchError: The file is missing, unreadable, in colour, not of whole numbers, or too large.
    """
    path = Path(path)
    if not path.is_file():
        raise MaskMismatchError(
            path, "the mask file does not exist", "Correct mask_path, or leave it empty to compute a mask."
        )
    try:
        mask = _read_tiff(path, max_px) if path.suffix.lower() in _TIFF_SUFFIXES else _read_image(path, max_px)
    except (OSError, ValueError, KeyError, IndexError, tifffile.TiffFileError, UnidentifiedImageError) as error:
        raise MaskMismatchError(
            path, f"the mask cannot be read ({error})", "Save it as PNG or TIFF with one channel."
        ) from error
    return MaskFile(_one_channel(path, mask.values), mask.mpp)


def is_tissue(values: np.ndarray, mask_values: tuple[int, ...] = ()) -> np.ndarray:
    """(H, W) bool: which pixels hold one of `mask_values`, or any value but 0 if none are given."""
    return np.isin(values, mask_values) if mask_values else values != 0


def _read_image(path: Path, max_px: int) -> MaskFile:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is checked below, before decoding
        with Image.open(path) as image:
            if image.width * image.height > max_px:
                raise MaskMismatchError(
                    path,
                    f"it has {image.width} x {image.height} pixels, too many for a format that is read in one piece",
                    "Save it as a tiled TIFF, or at a lower resolution.",
                )
            return MaskFile(np.asarray(image), None)  # PNG and JPEG state dots per inch for print, not a spacing


def _read_tiff(path: Path, max_px: int) -> MaskFile:
    with tifffile.TiffFile(path) as tiff:
        levels = tiff.series[0].levels
        base = levels[0].keyframe
        page: Any = next((level.keyframe for level in levels if _pixels(level.keyframe) <= max_px), levels[-1].keyframe)
        step = int(np.ceil(np.sqrt(_pixels(page) / max_px)))
        values = page.asarray() if step == 1 else _thinned(page, step)
        mpp = _stated_mpp(base)
        if mpp is not None:
            mpp = (mpp[0] * base.imagewidth / values.shape[1], mpp[1] * base.imagelength / values.shape[0])
        return MaskFile(values, mpp if mpp and all(_SANE_MPP[0] <= value <= _SANE_MPP[1] for value in mpp) else None)


def _pixels(page: Any) -> int:
    return int(page.imagewidth) * int(page.imagelength)


def _thinned(page: Any, step: int) -> np.ndarray:
    """Every `step`-th pixel of both axes, decoded one tile or strip at a time."""
    first = step // 2  # the middle of every step, so that the thinned mask is not shifted
    rows, columns = np.arange(first, page.imagelength, step), np.arange(first, page.imagewidth, step)
    thinned = np.zeros((len(rows), len(columns)), page.dtype)
    for segment, position, shape in page.segments():
        if segment is None:
            continue  # a sparse file leaves empty tiles out: they are 0
        top, left = position[-3], position[-2]
        row0, row1 = np.searchsorted(rows, (top, top + shape[-3]))
        column0, column1 = np.searchsorted(columns, (left, left + shape[-2]))
        tile = segment.reshape(segment.shape[-3:])[..., 0]
        thinned[row0:row1, column0:column1] = tile[np.ix_(rows[row0:row1] - top, columns[column0:column1] - left)]
    return thinned


def _stated_mpp(page: Any) -> tuple[float, float] | None:
    unit = page.tags.valueof("ResolutionUnit")
    ratios = [page.tags.valueof(name) for name in ("XResolution", "YResolution")]
    if int(unit or 0) not in _UM_PER_UNIT or any(ratio is None or not ratio[0] or not ratio[1] for ratio in ratios):
        return None
    x, y = (_UM_PER_UNIT[int(unit)] * denominator / numerator for numerator, denominator in ratios)
    return x, y


def _one_channel(path: Path, values: np.ndarray) -> np.ndarray:
    if values.ndim == 3:
        colours = values[..., :3] if values.shape[2] >= 3 else values[..., :1]
        if not (colours == colours[..., :1]).all():
            raise MaskMismatchError(path, "the mask is in colour", "Save it with one channel that holds class numbers.")
        values = colours[..., 0]
    if values.ndim != 2 or values.dtype.kind not in "biu":
        raise MaskMismatchError(
            path,
            f"the mask holds {values.dtype} of shape {values.shape}, not one channel of whole numbers",
            "Save it with one channel that holds class numbers.",
        )
    return np.ascontiguousarray(values.astype(np.uint8) if values.dtype == bool else values)
