"""Pixel truth of a bag, for judging only: read from mask files as channels of the study.

A mask is laid over the slide (`geometry.mask_frame`) and sampled at pixel centres, nearest: class numbers are never
mixed. What lies off the slide, or holds a value that nothing was said of, is NOT_LABELLED.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image, UnidentifiedImageError

from lamella.data.bags import Bag, WeakStudy
from lamella.errors import LamellaError, MaskMismatchError, first_line
from lamella.formats.label_values import NOT_LABELLED
from lamella.geometry import Frame, mask_frame
from lamella.slides.masks import MAX_PX, open_mask

_TIFF_SUFFIXES = (".tif", ".tiff")
_TIFF_JPEG = (6, 7)  # compressions of the TIFF standard: old and new JPEG
# A centre on the edge between two pixels belongs to the one that begins there, whatever way its number was rounded.
_ROUNDING_PX = 1e-6
_SIZES_KEPT = 4096  # as many as a study of patches has; two numbers each
_KEPT = 4  # masks in memory: 64 MB each at most, and a batch seldom looks at more


def truth_frame(mask_path: Path, slide: Frame) -> Frame:
    """The raster of a truth mask over its slide; only the file's header is read.

    Raises:
        MaskMismatchError: It is missing, no image, or of another shape than the slide.
    """
    if not mask_path.is_file():
        raise MaskMismatchError(mask_path, "the mask file does not exist", "Correct its path.")
    stat = mask_path.stat()
    return mask_frame(slide, *_size_px(mask_path, stat.st_size, stat.st_mtime_ns), name=mask_path)


@lru_cache(maxsize=_SIZES_KEPT)
def _size_px(mask_path: Path, _size: int, _changed: int) -> tuple[int, int]:
    """Width and height, from the file's header; size and time of change make a file that was replaced another one."""
    try:
        if mask_path.suffix.lower() in _TIFF_SUFFIXES:
            with tifffile.TiffFile(mask_path) as tiff:
                page: Any = tiff.series[0].levels[0].keyframe
                _refuse_lossy(mask_path, int(page.compression) in _TIFF_JPEG)
                return int(page.imagewidth), int(page.imagelength)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # only its size is asked
            with Image.open(mask_path) as image:
                _refuse_lossy(mask_path, image.format == "JPEG")
                return image.size
    except (OSError, ValueError, KeyError, IndexError, tifffile.TiffFileError, UnidentifiedImageError) as error:
        raise MaskMismatchError(
            mask_path, f"the mask cannot be read ({first_line(error)})", "Save it as PNG or TIFF with one channel."
        ) from error


def _refuse_lossy(path: Path, lossy: bool) -> None:
    """A JPEG blurs class numbers into those of other classes."""
    if lossy:
        raise MaskMismatchError(
            path, "it is a JPEG, which changes class numbers", "Save the mask as PNG, or ask for it."
        )


def truth_of(study: WeakStudy, bag: Bag, frame: Frame) -> np.ndarray:
    """(H, W) uint8 channels of the study or NOT_LABELLED, on a raster laid over the slide from its top-left corner.

    Raises:
        LamellaError: The bag has no truth, or it cannot be read.
    """
    return truth_rows(study, bag, frame, 0, frame.height_px)


def truth_rows(study: WeakStudy, bag: Bag, frame: Frame, y0: int, y1: int) -> np.ndarray:
    """Rows y0 to y1 of `truth_of`; of a large tiled TIFF only the tiles in them are decoded."""
    y_um = (np.arange(y0, y1) + 0.5) * frame.mpp_y
    x_um = (np.arange(frame.width_px) + 0.5) * frame.mpp_x
    return sampled(study, bag, y_um, x_um)


def sampled(study: WeakStudy, bag: Bag, y_um: np.ndarray, x_um: np.ndarray) -> np.ndarray:
    """(H, W) uint8 channels or NOT_LABELLED at all pairs of (H,) rows and (W,) columns, in micrometres of the slide.

    Raises:
        LamellaError: The bag has no truth, or it cannot be read.
    """
    if bag.mask_path is None:
        raise LamellaError(bag.slide_id, "it has no mask to be judged by", "Give one, or leave the slide out.")
    over = truth_frame(bag.mask_path, bag.frame)
    rows, columns = (
        np.floor(um / mpp + _ROUNDING_PX).astype(np.int64) for um, mpp in ((y_um, over.mpp_y), (x_um, over.mpp_x))
    )
    rows_in, columns_in = (rows >= 0) & (rows < over.height_px), (columns >= 0) & (columns < over.width_px)
    channels = np.full((len(rows), len(columns)), NOT_LABELLED, np.uint8)
    if rows_in.any() and columns_in.any():
        values = _values(bag.mask_path, rows[rows_in], columns[columns_in], over)
        channels[np.ix_(rows_in, columns_in)] = as_channels(study, values)
    return channels


def as_channels(study: WeakStudy, values: np.ndarray) -> np.ndarray:
    """Values of a mask file as channels of the study; those that nothing was said of are NOT_LABELLED."""
    channels = np.full(values.shape, NOT_LABELLED, np.uint8)
    for channel, name in enumerate(study.channels):
        for value in study.mask_values.get(name, ()):
            channels[values == value] = channel
    return channels


def _values(path: Path, rows: np.ndarray, columns: np.ndarray, over: Frame) -> np.ndarray:
    """The mask's values at these of its pixels."""
    if over.width_px * over.height_px > MAX_PX:
        return _of_large(path, rows, columns)
    stat = path.stat()
    return _whole(path, stat.st_size, stat.st_mtime_ns)[np.ix_(rows, columns)]


@lru_cache(maxsize=_KEPT)
def _whole(path: Path, _size: int, _changed: int) -> np.ndarray:
    """A mask as it is; see `_size_px`."""
    return open_mask(path).values


def _of_large(path: Path, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Pixels of a TIFF too large to be held, always of its finest level: coarser ones may have mixed class numbers."""
    if path.suffix.lower() not in _TIFF_SUFFIXES:
        raise MaskMismatchError(path, "it is too large to be read in one piece", "Save it as a tiled TIFF.")
    try:
        with tifffile.TiffFile(path) as tiff:
            return _tiff_pixels(path, tiff.series[0].levels[0].keyframe, rows, columns)
    except (OSError, ValueError, KeyError, IndexError, tifffile.TiffFileError) as error:
        raise MaskMismatchError(path, f"the mask cannot be read ({first_line(error)})", "Save it again.") from error


def _tiff_pixels(path: Path, page: Any, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Decodes the tiles or strips that hold these pixels, one at a time."""
    if page.samplesperpixel != 1 or page.dtype.kind not in "biu":
        raise MaskMismatchError(path, "the mask is not one channel of whole numbers", "Save it with class numbers.")
    high, wide = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
    across = -(-page.imagewidth // wide)
    out = np.zeros((len(rows), len(columns)), page.dtype)
    for down in np.unique(rows // high):
        in_rows = np.flatnonzero(rows // high == down)
        for right in np.unique(columns // wide):
            in_columns, number = np.flatnonzero(columns // wide == right), int(down * across + right)
            if not page.databytecounts[number]:
                continue  # a sparse file leaves empty tiles out: they are 0
            file = page.parent.filehandle
            file.seek(page.dataoffsets[number])
            tile, _, _ = page.decode(file.read(page.databytecounts[number]), number)
            pixels = tile.reshape(tile.shape[-3:])[..., 0]
            out[np.ix_(in_rows, in_columns)] = pixels[
                np.ix_(rows[in_rows] - down * high, columns[in_columns] - right * wide)
            ]
    return out
