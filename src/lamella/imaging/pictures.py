"""Ordinary images through Pillow: PNG, JPEG, TIFF, BMP and what else it reads; one picture a file."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lamella.errors import ImageError, first_line
from lamella.imaging.measured import MedicalImage
from lamella.imaging.silence import silence

# What Pillow lets out on damaged files; shared by those that read animations.
PILLOW_FAULTS = (
    OSError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, EOFError, SyntaxError, MemoryError,
    RuntimeError, NotImplementedError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
_AGAIN = "Fetch the file again from its source, or convert it to PNG."
# Grey of more than 8 bits, kept as stored. Pillow names 16-bit grey by its byte order; "I" is 32-bit, "F" float.
_DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")


def read_picture(path: Path) -> MedicalImage:
    """Read an ordinary image: colours and 8-bit grey as bytes, deeper grey as stored numbers.

    Palettes are looked up, transparency is laid on white, the camera's orientation (EXIF) is applied. No spacing is
    taken from it: the resolution of such files is that of a printer or a screen.

    Raises:
        ImageError: It is no image, damaged, or holds several pages.
    """
    try:
        with silence, Image.open(io.BytesIO(path.read_bytes())) as image:
            pages = getattr(image, "n_frames", 1)
            if pages > 1:
                cause = f"it holds {pages} pages"
                raise ImageError(path, cause, "Give one page a file (or an animation as a video).")
            image.load()
            return _measured(path, ImageOps.exif_transpose(image))
    except FileNotFoundError as error:
        raise ImageError(path, "the file does not exist", "Correct the path.") from error
    except UnidentifiedImageError as error:
        raise ImageError(path, "it is no image that is known here", "Give PNG, JPEG, TIFF, BMP, DICOM.") from error
    except PILLOW_FAULTS as error:
        raise ImageError(path, f"it is a damaged image ({first_line(error)})", _AGAIN) from error


def _measured(path: Path, image: Image.Image) -> MedicalImage:
    if image.mode in _DEEP:
        values = np.asarray(image).astype(np.float32)
        if not np.isfinite(values).all():
            raise ImageError(path, "some of its values are NaN or infinite", "Correct them where it was made.")
        return MedicalImage(values, "stored", source=str(path))
    return MedicalImage(bytes_of(image), "byte", source=str(path))


def bytes_of(image: Image.Image) -> np.ndarray:
    """(Y, X) of grey or (Y, X, 3) of colours as uint8, transparency on white."""
    if image.mode == "1":
        image = image.convert("L")
    if image.has_transparency_data:
        grey = image.mode in ("L", "LA", "La")
        above = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), above).convert("L" if grey else "RGB")
    if image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    return np.asarray(image)
