"""Flat views of images, volumes and video, with whatever lies over them in the same views.

A volume is shown in three planes, as radiologists look at them: the patient's right is on the left of the axial and
coronal planes (seen from the feet, from the front), the front is on the left of the sagittal plane, the head is up.
Volumes are in RAS+ (`imaging.measured.Volume`): x grows to the right, y to the front, z to the head.

Shapes: Z, Y, X voxels; T frames; an image's pixels are (Y, X, 3) uint8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

from lamella.view.layers import Layer, painted
from lamella.view.marks import INK, PAPER, draw_scale_bar, font

_UM_PER_MM = 1000.0
# Plane -> the axis it is cut across, what lies at its left, right, upper and lower edge, and the axes of its rows and
# columns.
PLANES = {
    "axial": (0, ("R", "L", "A", "P"), (1, 2)),
    "coronal": (1, ("R", "L", "S", "I"), (0, 2)),
    "sagittal": (2, ("A", "P", "S", "I"), (0, 1)),
}
_DARKEST, _BRIGHTEST = 0.5, 99.5  # percentiles: a few odd voxels shall not grey out the rest


@dataclass(frozen=True)
class Cut:
    """One flat view.

    Attributes:
        name: Such as `axial, slice 33 of 64`.
        pixels: (Y, X, 3) uint8, the way up it is shown.
        spacing_um: (row, column) size of a pixel; (1, 1) where it is unknown.
        measured: Whether that is known, so that a scale bar can be drawn.
        axis: Of the volume or video that is cut across; None for an image.
        share: Where along it, 0 to 1.
        edges: What lies at the left, right, upper and lower edge.
    """

    name: str
    pixels: np.ndarray
    spacing_um: tuple[float, float] = (1.0, 1.0)
    measured: bool = False
    axis: int | None = None
    share: float = 0.0
    edges: tuple[str, str, str, str] | None = None

    @property
    def size_um(self) -> tuple[float, float]:
        """(height, width); in pixels where the spacing is unknown."""
        return self.pixels.shape[0] * self.spacing_um[0], self.pixels.shape[1] * self.spacing_um[1]

    def of(self, grid: np.ndarray) -> np.ndarray:
        """The same view of a grid of any size that covers the same box."""
        if self.axis is None:
            return grid
        plane = np.take(grid, int(self.share * grid.shape[self.axis]), axis=self.axis)
        return plane[::-1, ::-1] if self.edges else plane


def image_cut(pixels: np.ndarray, mpp: float | None = None, name: str = "") -> Cut:
    """An image as its own view; `mpp` in micrometres per pixel."""
    return Cut(name, pixels, (mpp or 1.0,) * 2, mpp is not None)


def volume_cuts(
    values_ZYX: np.ndarray,
    spacing_mm: tuple[float, float, float] | None,
    at_zyx: tuple[int, int, int] | None = None,
) -> list[Cut]:
    """Axial, coronal and sagittal plane of a volume.

    Args:
        values_ZYX: One channel, any scale; black and white are its 0.5th and 99.5th percentile.
        spacing_mm: (z, y, x); None where unknown, and the planes have voxels of equal sides.
        at_zyx: Voxel through which the planes go; the middle unless given.
    """
    at_zyx = at_zyx or tuple(side // 2 for side in values_ZYX.shape)  # type: ignore[assignment]
    spacing = tuple(_UM_PER_MM * step for step in spacing_mm) if spacing_mm else (1.0, 1.0, 1.0)
    grey = grey_bytes(values_ZYX)
    cuts = []
    for name, (axis, edges, (rows, columns)) in PLANES.items():
        count, at = values_ZYX.shape[axis], at_zyx[axis]  # type: ignore[index]
        pixels = np.take(grey, at, axis=axis)[::-1, ::-1]
        cuts.append(
            Cut(
                f"{name}, slice {at + 1} of {count}",
                np.repeat(pixels[..., None], 3, axis=-1),
                (spacing[rows], spacing[columns]),
                spacing_mm is not None,
                axis,
                (at + 0.5) / count,
                edges,
            )
        )
    return cuts


def video_cuts(
    frames_TYX3: np.ndarray,
    count: int,
    frame_ms: float | None = None,
    spacing_mm: tuple[float, float] | None = None,
) -> list[Cut]:
    """Frames of a video, evenly in time.

    Args:
        frames_TYX3: uint8.
        count: How many, at most.
        frame_ms: Milliseconds from frame to frame, for their names.
        spacing_mm: (row, column).
    """
    total = len(frames_TYX3)
    count = min(count, total)
    spacing = tuple(_UM_PER_MM * step for step in spacing_mm) if spacing_mm else (1.0, 1.0)
    cuts = []
    for number in range(count):
        at = int((number + 0.5) * total / count)
        name = f"frame {at + 1} of {total}" + (f", {at * frame_ms / 1000:.2f} s" if frame_ms else "")
        cuts.append(Cut(name, frames_TYX3[at], spacing, spacing_mm is not None, 0, (at + 0.5) / total))  # type: ignore[arg-type]
    return cuts


def fullest(labels_ZYX: np.ndarray) -> tuple[int, int, int] | None:
    """The voxel whose three planes hold most of what is marked; None where nothing is."""
    marked = np.asarray(labels_ZYX) != 0
    if not marked.any():
        return None
    z, y, x = (int(marked.sum(axis=tuple({0, 1, 2} - {axis})).argmax()) for axis in range(3))
    return z, y, x


def common_scale(cuts: Sequence[Cut], side_px: int) -> float:
    """Pixels for a micrometre, so that the largest of these views fits a square of this side."""
    return side_px / max(max(cut.size_um) for cut in cuts)


def drawn(cut: Cut, px_per_um: float, layer: Layer | None = None, *, bar: bool = True) -> Image.Image:
    """A view with its layer, letters at its edges and a scale bar.

    Args:
        cut: The view.
        px_per_um: From `common_scale`: views side by side have one scale.
        layer: Of a grid over the whole image, volume or video.
        bar: Whether to draw the scale bar where the spacing is known.
    """
    height, width = (max(1, round(side * px_per_um)) for side in cut.size_um)
    image = Image.fromarray(np.ascontiguousarray(cut.pixels)).resize((width, height), Image.Resampling.BICUBIC)
    if layer is not None:
        flat = replace(layer, colours=cut.of(layer.colours), opacity=cut.of(layer.opacity))
        image = Image.fromarray(painted(np.asarray(image), flat))
    if cut.edges:
        _draw_edges(image, cut.edges)
    if bar and cut.measured and width >= 80:  # a narrower one has no room for its text
        draw_scale_bar(image, 1 / px_per_um, max(10, width // 24))
    return image


def grey_bytes(values: np.ndarray) -> np.ndarray:
    """uint8 of the same shape, from the 0.5th to the 99.5th percentile of all values."""
    low, high = np.percentile(values, (_DARKEST, _BRIGHTEST))
    if high <= low:
        low, high = float(values.min()), float(values.max())
    return (255 * np.clip((values - low) / max(high - low, 1e-12), 0, 1) + 0.5).astype(np.uint8)


def _draw_edges(image: Image.Image, edges: tuple[str, str, str, str]) -> None:
    width, height = image.size
    letters, inset = font(max(11, width // 18), bold=True), 4
    places = (
        ((inset, height / 2), "lm"),
        ((width - inset, height / 2), "rm"),
        ((width / 2, inset), "mt"),
        ((width / 2, height - inset), "mb"),
    )
    draw = ImageDraw.Draw(image)
    for text, (place, anchor) in zip(edges, places, strict=True):
        draw.text(place, text, font=letters, fill=PAPER, anchor=anchor, stroke_width=2, stroke_fill=INK)
