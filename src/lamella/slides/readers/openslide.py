"""Vendor slide formats through OpenSlide.

One limit is OpenSlide's own: it takes places in whole level-0 pixels, so at a level whose downsample d is not whole it
starts up to 0.5 / d level pixels away from the asked pixel and interpolates. The own TIFF reader has no such shift.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import openslide
from PIL import Image

from lamella.errors import SlideError, first_line

# The DICOM reader first makes sure that the file is the slide and not its label; OpenSlide takes both.
_NOT_HERE = {"dicom": "it is DICOM, which the dicom reader takes"}


class OpenSlideReader:
    """Any format that OpenSlide knows, DICOM excepted."""

    name = "openslide"

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._refuse_vendor(_NOT_HERE)
        self._slide = self._open()
        self.properties: Mapping[str, str] = dict(self._slide.properties)
        self._sizes = [(int(width), int(height)) for width, height in self._slide.level_dimensions]
        self._downsamples = tuple(float(downsample) for downsample in self._slide.level_downsamples)

    @property
    def level_sizes(self) -> list[tuple[int, int]]:
        return list(self._sizes)

    def read_level(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        """(height, width, 3) uint8; pixels the scanner never took are white glass.

        Raises:
            SlideError: OpenSlide cannot decode the place.
        """
        downsample = self._downsamples[level]
        place = round(x * downsample), round(y * downsample)
        try:
            image = self._slide.read_region(place, level, (width, height))
        except openslide.OpenSlideError as error:
            # A handle that failed once answers nothing more; the rest may be sound. The old one is closed when the last
            # thread that reads from it lets go.
            self._slide = self._open()
            raise SlideError(
                self.path,
                f"level {level} cannot be read at x={x}, y={y} ({width} x {height} px): {first_line(error)}",
                "Fetch the slide again from its source, or leave it out.",
            ) from error
        return on_white(image)

    def close(self) -> None:
        self._slide.close()

    def _refuse_vendor(self, refused: Mapping[str, str]) -> None:
        vendor = openslide.OpenSlide.detect_format(str(self.path))
        if vendor is None:
            raise SlideError(self.path, "OpenSlide does not know this format", "Give a whole-slide image.")
        if vendor in refused:
            raise SlideError(self.path, refused[vendor], "Give it to that reader.")

    def _open(self) -> openslide.OpenSlide:
        try:
            return openslide.OpenSlide(str(self.path))
        except openslide.OpenSlideError as error:
            raise SlideError(
                self.path, f"OpenSlide cannot open it ({first_line(error)})", "Fetch the slide again from its source."
            ) from error


def on_white(image: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8 of an RGBA image laid over white."""
    pixels = np.asarray(image)
    if pixels[..., 3].min(initial=255) == 255:
        return np.ascontiguousarray(pixels[..., :3])
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return np.ascontiguousarray(np.asarray(Image.alpha_composite(white, image))[..., :3])
