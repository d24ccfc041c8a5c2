"""One window of a prediction made into labels, and how far around it one must look.

Shapes: C channels, Y x X pixels of a window with its halo.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from lamella.dense.bands import first_largest
from lamella.dense.refining.crf import crf_probabilities
from lamella.dense.refining.edges import edge_halo_px, smoothed_edges
from lamella.dense.refining.guided import guided_probabilities
from lamella.dense.refining.morphology import closed, opened
from lamella.dense.refining.settings import RefineSettings
from lamella.formats.label_values import NOT_LABELLED

# Side of a window without its halo. The CRF takes about 400 bytes for each pixel, and a core's cache holds more of a
# small window: sides of 512 were a fifth faster than 1024, whatever their halos of 39 px cost.
CORE_PX = 512
_CORE_HALOS = 6  # a core is at least so many halos wide, or most of the work would be for halos
_CRF_REACH = 3  # standard deviations of the wider kernel; benchmarks/crf.py prints what is lost beyond


@dataclass(frozen=True)
class Window:
    """A place of a raster that is worked on at once.

    Attributes:
        core: (rows, columns) of the raster that are written.
        outer: The same with the halo, cut at the raster's edge.
    """

    core: tuple[slice, slice]
    outer: tuple[slice, slice]

    @property
    def inner(self) -> tuple[slice, slice]:
        """The core within the outer part."""
        rows, columns = (
            slice(core.start - outer.start, core.stop - outer.start)
            for core, outer in zip(self.core, self.outer, strict=True)
        )
        return rows, columns

    @property
    def origin(self) -> tuple[int, int]:
        return self.outer[0].start, self.outer[1].start


def windows_over(rows: slice, height: int, width: int, halo_px: int, core_px: int) -> Iterator[Window]:
    """The windows of a raster's rows, from left to right; `rows` begins at a multiple of the core's side."""
    for y in range(rows.start, rows.stop, core_px):
        for x in range(0, width, core_px):
            core = slice(y, min(y + core_px, rows.stop)), slice(x, min(x + core_px, width))
            outer = tuple(
                slice(max(0, side.start - halo_px), min(length, side.stop + halo_px))
                for side, length in zip(core, (height, width), strict=True)
            )
            yield Window(core, (outer[0], outer[1]))


def halo_px(settings: RefineSettings) -> int:
    """How far around a pixel its label depends on what is there; of the CRF, as far as it matters."""
    halo = 0
    if settings.use_crf:
        crf = settings.crf
        if crf.engine == "guided":
            halo += 2 * crf.guided_radius_px
        else:
            kernels = (crf.near_px, crf.near_weight), (crf.alike_px, crf.alike_weight)
            halo += math.ceil(_CRF_REACH * max((reach for reach, weight in kernels if weight), default=0))
    if settings.morphological_op != "none":
        halo += 3 * (settings.kernel_size // 2)  # there and back, and what is around a removed pixel
    if settings.edge_refinement:
        halo += edge_halo_px(settings.edges)
    return halo


def side_px(settings: RefineSettings) -> int:
    """Side of a window's core: a multiple of `CORE_PX`."""
    return CORE_PX * max(1, math.ceil(_CORE_HALOS * halo_px(settings) / CORE_PX))


def window_labels(
    maps_CYX: np.ndarray,
    pixels_YXC: np.ndarray | None,
    settings: RefineSettings,
    background: int | None,
    origin: tuple[int, int] = (0, 0),
) -> np.ndarray:
    """Everything but the small pieces.

    Args:
        maps_CYX: float32 probabilities, or uint8 of 255; all channels 0 where nobody looked.
        pixels_YXC: uint8 (Y, X, 3); None where the settings need none.
        settings: What is done.
        background: Channel, or None.
        origin: (y, x) of the window's first pixel in the raster.

    Returns:
        uint8 (Y, X) channels, NOT_LABELLED where nobody looked.
    """
    seen = maps_CYX.any(0)
    channels = len(maps_CYX)
    if settings.use_crf and seen.any():
        assert pixels_YXC is not None
        shares = _adding_up(maps_CYX, seen)
        if settings.crf.engine == "guided":
            maps_CYX = guided_probabilities(shares, pixels_YXC, settings.crf)
        else:
            maps_CYX = crf_probabilities(shares, pixels_YXC, settings.crf, origin)
    labels: np.ndarray = first_largest(torch.from_numpy(np.ascontiguousarray(maps_CYX))).numpy()
    labels[~seen] = NOT_LABELLED
    if settings.morphological_op == "closing":
        labels = closed(labels, channels, background, settings.kernel_size)
    elif settings.morphological_op == "opening":
        labels = opened(labels, channels, background, settings.kernel_size)
    if settings.edge_refinement:
        labels = smoothed_edges(labels, channels, background, settings.edges)
    return labels


def _adding_up(maps_CYX: np.ndarray, seen_YX: np.ndarray) -> np.ndarray:
    """float32: rounded bytes do not add up to 255."""
    shares = maps_CYX.astype(np.float32)
    shares /= np.where(seen_YX, shares.sum(0), 1)
    return shares
