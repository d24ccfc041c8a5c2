"""Places and sizes. The only file in which micrometres, level-0, mask and read pixels are converted.

Every raster over a slide (level 0, a pyramid level, a mask, a thumbnail, a tensor) is a `Frame`. Rasters are
converted through micrometres, never by counting "levels". Coordinates have their origin at the top left of the
slide; boxes are half-open and may be fractional.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lamella.errors import MaskMismatchError


@dataclass(frozen=True, slots=True)
class Box:
    """A half-open rectangle [x0, x1) x [y0, y1). The variable's name states the frame: box_um, box_px0, box_px."""

    x0: float
    y0: float
    x1: float
    y1: float

    @classmethod
    def around(cls, x: float, y: float, width: float, height: float | None = None) -> Box:
        """The box of this size centred on (x, y); square if no height is given."""
        height = width if height is None else height
        return cls(x - width / 2, y - height / 2, x + width / 2, y + height / 2)

    @property
    def width(self) -> float:
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        return self.y1 - self.y0

    @property
    def area(self) -> float:
        return max(0.0, self.width) * max(0.0, self.height)

    @property
    def center(self) -> tuple[float, float]:
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2

    def scaled(self, factor_x: float, factor_y: float) -> Box:
        return Box(self.x0 * factor_x, self.y0 * factor_y, self.x1 * factor_x, self.y1 * factor_y)

    def shifted(self, dx: float, dy: float) -> Box:
        return Box(self.x0 + dx, self.y0 + dy, self.x1 + dx, self.y1 + dy)

    def intersection(self, other: Box) -> Box:
        """The shared rectangle; its area is 0 where the two do not meet."""
        return Box(max(self.x0, other.x0), max(self.y0, other.y0), min(self.x1, other.x1), min(self.y1, other.y1))

    def contains(self, other: Box, slack: float = 0.0) -> bool:
        """Whether `other` lies inside, allowing `slack` units over the edge (for rounding)."""
        return (
            other.x0 >= self.x0 - slack
            and other.y0 >= self.y0 - slack
            and other.x1 <= self.x1 + slack
            and other.y1 <= self.y1 + slack
        )


@dataclass(frozen=True, slots=True)
class Frame:
    """A raster laid over a slide: its size in pixels and the micrometres per pixel of each axis."""

    width_px: int
    height_px: int
    mpp_x: float
    mpp_y: float

    @property
    def mpp(self) -> float:
        """One number for both axes (geometric mean, so that areas stay right)."""
        return math.sqrt(self.mpp_x * self.mpp_y)

    @property
    def size_um(self) -> tuple[float, float]:
        return self.width_px * self.mpp_x, self.height_px * self.mpp_y

    @property
    def bounds_px(self) -> Box:
        return Box(0, 0, self.width_px, self.height_px)

    def box_um(self, box_px: Box) -> Box:
        """This frame's pixels to micrometres."""
        return box_px.scaled(self.mpp_x, self.mpp_y)

    def box_px(self, box_um: Box) -> Box:
        """Micrometres to this frame's pixels."""
        return box_um.scaled(1 / self.mpp_x, 1 / self.mpp_y)

    def box_in(self, other: Frame, box_px: Box) -> Box:
        """This frame's pixels to the other frame's pixels."""
        return other.box_px(self.box_um(box_px))

    def point_in(self, other: Frame, x_px: float, y_px: float) -> tuple[float, float]:
        """A point of this frame in the other frame's pixels."""
        return x_px * self.mpp_x / other.mpp_x, y_px * self.mpp_y / other.mpp_y

    def resized(self, width_px: int, height_px: int) -> Frame:
        """A raster of another pixel count over the same extent; its scale is the exact, fractional ratio."""
        return Frame(
            width_px, height_px, self.mpp_x * self.width_px / width_px, self.mpp_y * self.height_px / height_px
        )


def snap_px(fov_um: float, mpp: float, patch_px: int) -> int:
    """Pixels of a view: `fov_um / mpp` at the nearest multiple of the ViT patch, ties downward, at least one patch."""
    patches = fov_um / mpp / patch_px
    # 1e-9 absorbs the rounding of the division, so that an exact tie counts as one.
    return max(1, math.ceil(patches - 0.5 - 1e-9)) * patch_px


LevelMethod = Literal["native", "from_finer", "from_coarser"]


@dataclass(frozen=True, slots=True)
class LevelChoice:
    """The pyramid level that a view is read from, and how its pixels become the asked ones."""

    level: int
    method: LevelMethod


def choose_level(level_mpps: Sequence[float], mpp: float, tolerance: float = 0.05) -> LevelChoice:
    """Choose the level for a view at `mpp`.

    The nearest spacing if it is within the relative tolerance (`native`); else the coarsest finer level, to be
    area-averaged down (`from_finer`); else the finest coarser level, to be interpolated up (`from_coarser`).

    Args:
        level_mpps: Micrometres per pixel of each level, in any order.
        mpp: The asked micrometres per pixel.
        tolerance: Largest relative difference that counts as the same spacing.
    """
    nearest = min(range(len(level_mpps)), key=lambda level: abs(level_mpps[level] - mpp))
    if abs(level_mpps[nearest] - mpp) <= tolerance * mpp:
        return LevelChoice(nearest, "native")
    finer = [level for level, level_mpp in enumerate(level_mpps) if level_mpp < mpp]
    if finer:
        return LevelChoice(max(finer, key=lambda level: level_mpps[level]), "from_finer")
    return LevelChoice(min(range(len(level_mpps)), key=lambda level: level_mpps[level]), "from_coarser")


def mask_frame(
    slide: Frame,
    width_px: int,
    height_px: int,
    *,
    mpp: tuple[float, float] | None = None,
    tolerance: float = 0.05,
    name: object = "mask",
) -> Frame:
    """Lay a mask over a slide: the one mapping used when indexing and at run time.

    The mask covers the slide's whole extent. Two ratios are computed, from the shapes (per axis) and, where the mask
    states its own spacing, from the spacings; they must agree.

    Args:
        slide: The slide's level-0 frame.
        width_px: Mask width in mask pixels.
        height_px: Mask height in mask pixels.
        mpp: The mask's own (x, y) micrometres per pixel, if its file states them.
        tolerance: Largest relative disagreement between the ratios.
        name: What to call the mask in an error.

    Raises:
        MaskMismatchError: The mask has another aspect than the slide, or its spacing contradicts its shape.
    """
    frame = slide.resized(width_px, height_px)
    aspect = frame.mpp_x / slide.mpp_x / (frame.mpp_y / slide.mpp_y)
    # A mask side is a whole number of pixels: its ratio is only known to about one pixel in its length.
    slack = tolerance + 1 / width_px + 1 / height_px
    if abs(aspect - 1) > slack:
        raise MaskMismatchError(
            name,
            f"it has {width_px} x {height_px} pixels, another aspect than the slide's "
            f"{slide.width_px} x {slide.height_px} ({aspect:.3f} to 1)",
            "Give the mask made for this slide, covering all of it, or leave mask_path empty to compute one.",
        )
    if mpp is not None:
        for axis, stated, shaped in (("x", mpp[0], frame.mpp_x), ("y", mpp[1], frame.mpp_y)):
            if abs(stated / shaped - 1) > slack:
                raise MaskMismatchError(
                    name,
                    f"its file states {stated:.4g} um per pixel in {axis}, but its shape over the slide means "
                    f"{shaped:.4g}",
                    "Give the mask made for this slide, or correct the spacing in the file or in the manifest.",
                )
    return frame


@dataclass(frozen=True, slots=True)
class BinGrid:
    """A lattice of square bins laid over a slide: any origin, turned and mirrored as the chip lay under the tissue.

    The centre of bin (row, col) is `origin + row * row_step + col * col_step`, all as (x, y) in level-0 pixels. Rows
    and columns may be numbers or arrays.
    """

    origin_px0: tuple[float, float]
    row_step_px0: tuple[float, float]
    col_step_px0: tuple[float, float]
    bin_um: float

    @classmethod
    def upright(cls, bin_um: float, mpp_x: float, mpp_y: float) -> BinGrid:
        """Rows down, columns right; the first bin lies in the slide's top left corner."""
        dx, dy = bin_um / mpp_x, bin_um / mpp_y
        return cls((dx / 2, dy / 2), (0.0, dy), (dx, 0.0), bin_um)

    @property
    def mirrored(self) -> bool:
        """Whether the tissue is seen from the other side: rows down and columns right turn the wrong way round."""
        (col_x, col_y), (row_x, row_y) = self.col_step_px0, self.row_step_px0
        return col_x * row_y - col_y * row_x < 0

    @property
    def turn_deg(self) -> float:
        """Angle of the columns' direction to the image's, -90 to 90, whichever way they run."""
        x, y = self.col_step_px0
        return math.degrees(math.atan2(y if x >= 0 else -y, abs(x)))

    def place_px0(self, row: Any, col: Any) -> tuple[Any, Any]:
        """(x, y) of the centre of bins, fractional ones too, in level-0 pixels."""
        x = self.origin_px0[0] + row * self.row_step_px0[0] + col * self.col_step_px0[0]
        y = self.origin_px0[1] + row * self.row_step_px0[1] + col * self.col_step_px0[1]
        return x, y

    def bin_at(self, x_px0: Any, y_px0: Any) -> tuple[Any, Any]:
        """(row, col), fractional, of places in level-0 pixels: the inverse of `place_px0`."""
        (row_x, row_y), (col_x, col_y) = self.row_step_px0, self.col_step_px0
        dx, dy = x_px0 - self.origin_px0[0], y_px0 - self.origin_px0[1]
        area = row_x * col_y - row_y * col_x
        return (dx * col_y - dy * col_x) / area, (dy * row_x - dx * row_y) / area

    def coarser(self, factor: int) -> BinGrid:
        """The grid of blocks of `factor` x `factor` bins; block (0, 0) begins with bin (0, 0)."""
        x, y = self.place_px0((factor - 1) / 2, (factor - 1) / 2)
        row, col = self.row_step_px0, self.col_step_px0
        return BinGrid(
            (x, y), (row[0] * factor, row[1] * factor), (col[0] * factor, col[1] * factor), self.bin_um * factor
        )
