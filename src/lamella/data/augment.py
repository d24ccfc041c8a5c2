"""Other stains, other scanners, other orientations: changes of appearance that leave morphology alone.

Stain is varied in optical density, where the amounts of haematoxylin, eosin and the residual stain add up (Beer and
Lambert). Scaling and shifting each stain, gamma and brightness are then one affine map of the three optical densities,
so a view costs one table look-up, one 3 x 3 product and one exponential per pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from lamella.config import Settings

# Optical density of each stain in R, G, B: haematoxylin, eosin, DAB (here the residual). Ruifrok and Johnston,
# "Quantification of histochemical staining by color deconvolution", 2001; these are skimage.color.rgb_from_hed.
RGB_FROM_STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
STAINS_FROM_RGB = np.linalg.inv(RGB_FROM_STAINS)

# Intensities are counted from 1 to 256, so that black has a finite optical density and every value survives the round
# trip exactly.
_DENSITY = -np.log((np.arange(256, dtype=np.float32) + 1) / 256)


class StainSettings(Settings):
    """How far stain and scanner are varied. Each amount is drawn uniformly from plus or minus the value given."""

    enabled: bool = True
    """Vary stain and scanner at all."""
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Relative change of each stain's amount."""
    shift: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Optical density added to each stain, everywhere in the view."""
    gamma: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Relative change of the scanner's contrast curve."""
    brightness: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Relative change of the scanner's lamp."""
    drawn_per: Literal["sample", "role", "view"] = "role"
    """`role`: one draw for the context, another for its targets; `view`: one for every view; `sample`: one for all."""

    def streams(self, targets: int) -> list[int]:
        """The random stream of the context and of each target; equal numbers share one draw."""
        if self.drawn_per == "sample":
            return [0] * (targets + 1)
        return [0] + ([1] * targets if self.drawn_per == "role" else list(range(1, targets + 1)))


@dataclass(frozen=True)
class StainChange:
    """An affine map of optical densities: `density @ matrix + offset`, over (R, G, B)."""

    matrix: np.ndarray
    offset: np.ndarray

    @classmethod
    def of_stains(
        cls, scales: np.ndarray, shifts: np.ndarray, gamma: float = 1.0, brightness: float = 1.0
    ) -> StainChange:
        """Each stain's amount times its scale, plus its shift; then intensity ** gamma * brightness."""
        matrix = STAINS_FROM_RGB @ np.diag(scales) @ RGB_FROM_STAINS
        offset = np.asarray(shifts) @ RGB_FROM_STAINS
        return cls(gamma * matrix, gamma * offset - np.log(brightness))

    @classmethod
    def drawn(cls, settings: StainSettings, rng: np.random.Generator) -> StainChange:
        """A random change of the given strength."""
        scales = 1 + rng.uniform(-settings.scale, settings.scale, 3)
        shifts = rng.uniform(-settings.shift, settings.shift, 3)
        gamma = 1 + rng.uniform(-settings.gamma, settings.gamma)
        brightness = 1 + rng.uniform(-settings.brightness, settings.brightness)
        return cls.of_stains(scales, shifts, gamma, brightness)

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """(..., W, 3) uint8 to the same shape, uint8."""
        *_, width, channels = pixels.shape
        # In float32 and in place, intensity counted from 1 to 256: 512 x 512 pixels take about 2 ms.
        changed = _DENSITY.take(pixels.reshape(-1, channels)) @ (-self.matrix).astype(np.float32)
        lines = changed.reshape(
            -1, width * channels
        )  # by the line: adding three numbers pixel by pixel is 15 times slower
        lines += np.tile((np.log(256) - self.offset).astype(np.float32), width)
        np.exp(lines, out=lines)
        lines -= 0.5  # back to counting from 0, and half up for rounding
        np.clip(lines, 0, 255, out=lines)
        return lines.astype(np.uint8).reshape(pixels.shape)


@dataclass(frozen=True)
class Turn:
    """One of the eight orientations of a square: mirrored left-right or not, then quarter turns counter-clockwise."""

    mirror: bool
    quarters: int

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Turn:
        """Any of the eight, equally likely."""
        number = int(rng.integers(8))
        return cls(number >= 4, number % 4)

    def image(self, pixels: np.ndarray) -> np.ndarray:
        """(..., H, W, 3) pixels in the new orientation; a view, so that the pixels are copied once, into the batch."""
        if self.mirror:
            pixels = pixels[..., ::-1, :]
        return np.rot90(pixels, self.quarters, axes=(-3, -2))

    def boxes(self, boxes: np.ndarray, side: float) -> np.ndarray:
        """(K, 4) boxes x0, y0, x1, y1 inside a square of this side, where `image` puts their content."""
        x0, y0, x1, y1 = boxes.T
        if self.mirror:
            x0, x1 = side - x1, side - x0
        for _ in range(self.quarters):  # a point (x, y) goes to (y, side - x)
            x0, y0, x1, y1 = y0, side - x1, y1, side - x0
        return np.stack([x0, y0, x1, y1], axis=1)
