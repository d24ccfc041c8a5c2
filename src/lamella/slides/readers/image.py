"""Plain images and arrays as slides of one level. They state no micrometres per pixel: these must be given.

A dpi entry of a PNG or JPEG speaks of print, not of tissue, and is not used; the resolution tags of a TIFF are. EXIF
orientation and ICC profiles are ignored: the stored pixels are the slide, as they are for every other reader.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from lamella.errors import SlideError, first_line
from lamella.slides.readers.mpp import tiff_resolution
from lamella.slides.readers.openslide import on_white

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
_MODES = ("RGB", "RGBA", "L", "LA", "P", "PA", "1", "YCbCr")
_PILLOW_ERRORS = (OSError, SyntaxError, ValueError, EOFError)  # SyntaxError is Pillow's word for a broken PNG
_TILE_WIDTH_TAG = 322
# Pillow's own threshold against decompression bombs, 0.27 GB decoded; eight such slides may be open in a process.
MAX_IMAGE_PX = 89_478_485


class ArrayReader:
    """Pixels in memory as a slide of one level."""

    name = "array"

    def __init__(self, pixels: np.ndarray, properties: Mapping[str, str] | None = None) -> None:
        """Args: pixels: (H, W, 3) uint8, or (H, W) uint8 grey.

        Raises:
            ValueError: Another shape or type.
        """
        if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
            raise ValueError(f"expected (H, W, 3) or (H, W) uint8, not {pixels.shape} {pixels.dtype}")
        self._pixels = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
        self.properties: Mapping[str, str] = properties or {}

    @property
    def level_sizes(self) -> list[tuple[int, int]]:
        return [(self._pixels.shape[1], self._pixels.shape[0])]

    def read_level(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        """(height, width, 3) uint8 copy of a rectangle inside the array."""
        return self._pixels[y : y + height, x : x + width].copy()

    def close(self) -> None: ...


class ImageReader:
    """A PNG, JPEG, BMP, WebP or untiled TIFF. Opening reads the header only; the first read decodes all of it.

    Its size is bounded: a larger picture belongs into a tiled pyramid.
    """

    name = "image"

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._decoded: ArrayReader | None = None
        self._lock = threading.Lock()
        with self._opened() as image:
            self._check(image)
            self._size = image.size
            self.properties: Mapping[str, str] = _properties(image)

    @property
    def level_sizes(self) -> list[tuple[int, int]]:
        return [self._size]

    def read_level(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        """(height, width, 3) uint8 of a rectangle inside the image.

        Raises:
            SlideError: The image cannot be decoded.
        """
        with self._lock:  # the first thread decodes, the others wait
            if self._decoded is None:
                self._decoded = ArrayReader(self._decode())
            decoded = self._decoded
        return decoded.read_level(level, x, y, width, height)

    def close(self) -> None:
        self._decoded = None

    @contextmanager
    def _opened(self) -> Iterator[Image.Image]:
        try:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                with Image.open(self.path, formats=_FORMATS) as image:
                    self._check_size(image)
                    yield image
                    # Pillow guesses on after a damaged TIFF tag. Other formats warn about EXIF, which is not used here.
                    if said and image.format == "TIFF":
                        raise self._refusal(f"it is a damaged TIFF ({first_line(said[0].message)})")
        except Image.DecompressionBombError as error:
            raise self._too_large() from error
        except UnidentifiedImageError as error:
            raise self._refusal("it is not an image that Pillow knows") from error
        except _PILLOW_ERRORS as error:
            raise self._refusal(f"the image is damaged ({first_line(error)})") from error

    def _check_size(self, image: Image.Image) -> None:
        if image.width * image.height > MAX_IMAGE_PX:
            raise self._too_large()

    def _too_large(self) -> SlideError:
        return SlideError(
            self.path,
            f"it has more than the {MAX_IMAGE_PX / 1e6:.0f} million pixels that are read at once from a plain image",
            f"Make it a pyramid: `vips tiffsave {self.path.name} slide.tif --tile --pyramid --compression jpeg`.",
        )

    def _check(self, image: Image.Image) -> None:
        if self.path.suffix.lower() not in IMAGE_SUFFIXES:
            raise SlideError(
                self.path,
                f"it is a {image.format} image, whatever its name says",
                f"Rename it to .{str(image.format).lower()} if you mean it, or fetch the slide again.",
            )
        if image.mode not in _MODES:
            raise self._refusal(f"its pixels are of Pillow's mode {image.mode}, not 8-bit RGB or grey")
        if _TILE_WIDTH_TAG in getattr(image, "tag_v2", {}):
            raise self._refusal("it is a tiled TIFF, not a plain image")

    def _decode(self) -> np.ndarray:
        with self._opened() as image:
            transparent = "A" in image.mode or "transparency" in image.info
            return on_white(image.convert("RGBA")) if transparent else np.asarray(image.convert("RGB"))

    def _refusal(self, cause: str) -> SlideError:
        return SlideError(self.path, cause, "Save it as 8-bit RGB PNG, JPEG or TIFF.")


def _properties(image: Image.Image) -> dict[str, str]:
    tags = getattr(image, "tag_v2", None)
    if image.format != "TIFF" or tags is None or 282 not in tags or 283 not in tags:
        return {}
    return tiff_resolution(float(tags[282]), float(tags[283]), tags.get(296, 2))
