"""The tissue around one context, of many slides at once.

A random order goes from slide to slide, and decoding a mask and summing it up takes ten times as long as reading a
sample's pixels. So masks stay in memory with one bit a pixel, and only the window that is asked for is summed up.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from lamella.geometry import Box, Frame
from lamella.slides.index import IndexedSlide
from lamella.slides.tissue_map import TissueMap

# About 200 slides of 100,000 px a side with masks at 8 um per pixel, in each worker.
MAX_BYTES = 256 * 2**20


@dataclass(frozen=True)
class _Packed:
    """A tissue mask with eight pixels of a row in each byte."""

    bits: np.ndarray
    frame: Frame

    def window(self, box_um: Box) -> tuple[TissueMap, Box]:
        box_px = self.frame.box_px(box_um)
        # Whole bytes, and a pixel more than the box on each side, so that rounding never reaches over the window.
        first, last = max(0, int(box_px.x0 - 1) // 8), min(self.bits.shape[1], int(box_px.x1 + 1) // 8 + 1)
        top, bottom = max(0, int(box_px.y0) - 1), min(self.frame.height_px, int(box_px.y1) + 2)
        width_px = min(self.frame.width_px, 8 * last) - 8 * first
        mask = np.unpackbits(self.bits[top:bottom, first:last], axis=1, count=width_px).view(bool)
        frame = Frame(width_px, bottom - top, self.frame.mpp_x, self.frame.mpp_y)
        return TissueMap(mask, frame), box_um.shifted(-8 * first * frame.mpp_x, -top * frame.mpp_y)


class TissueWindows:
    """Tissue masks of one process, held up to a number of bytes; the least recently used go first."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self.held_bytes = 0
        self._masks: OrderedDict[str, _Packed] = OrderedDict()

    def __len__(self) -> int:
        return len(self._masks)

    def around(self, slide: IndexedSlide, box_um: Box) -> tuple[TissueMap, Box]:
        """The tissue of a box that lies on the slide.

        Returns:
            A small map, and the box in the micrometres of that map. Fractions of boxes inside it are those of the whole
            mask up to 1e-9; `place_targets` compares them at six decimals.

        Raises:
            LamellaError: The mask cannot be read.
        """
        packed = self._masks.get(slide.slide_id)
        if packed is None:
            packed = _Packed(np.packbits(slide.tissue().mask, axis=1), slide.mask_frame)
            self._masks[slide.slide_id] = packed
            self.held_bytes += packed.bits.nbytes
            while self.held_bytes > self.max_bytes and len(self._masks) > 1:
                self.held_bytes -= self._masks.popitem(last=False)[1].bits.nbytes
        self._masks.move_to_end(slide.slide_id)
        return packed.window(box_um)
