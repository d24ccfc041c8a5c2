"""A slide as stage 4 judges it: the raster at the study's spacing, its truth, and which of its pixels count.

Shapes: H, W pixels of the raster, C channels, M classes (without the background), N tiles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lamella.data.bag_tiles import read_truth, truth_rows
from lamella.data.bags import Bag, WeakStudy
from lamella.errors import LamellaError
from lamella.formats.label_values import NOT_LABELLED
from lamella.geometry import Box, Frame
from lamella.slides.slide import Slide, open_slide
from lamella.verbs.weak_stages.evaluation_settings import EvaluationSettings

BAND_PX = 1024
"""Rows of a large slide that are judged at once."""


@dataclass(frozen=True)
class Judged:
    """A slide on the raster that it is judged on: the study's spacing, laid over it from its top left corner.

    Attributes:
        study: Of the slide.
        bag: The slide.
        frame: The raster.
        settings: Of the evaluation.
        inside: Only pixels in the slide's tiles are judged.
    """

    study: WeakStudy
    bag: Bag
    frame: Frame
    settings: EvaluationSettings
    inside: bool

    @classmethod
    def of(cls, study: WeakStudy, bag: Bag, settings: EvaluationSettings, *, inside: bool) -> Judged:
        return cls(study, bag, raster_of(bag.frame, study.mpp), settings, inside)

    @property
    def small(self) -> bool:
        return self.frame.width_px * self.frame.height_px <= self.settings.in_memory_px

    @property
    def bands(self) -> list[tuple[int, int]]:
        """First row and the row behind the last of what is judged at once."""
        height = self.frame.height_px
        step = height if self.small else BAND_PX
        return [(y0, min(y0 + step, height)) for y0 in range(0, height, step)]

    def pixels(self, y0: int, y1: int, slide: Slide | None = None) -> np.ndarray:
        """(y1 - y0, W, 3) uint8 of the raster."""
        if slide is None:
            with open_slide(self.bag.wsi_path, mpp=self.bag.mpp_stated) as opened:
                return self.pixels(y0, y1, opened)
        return read_rows(slide, self.frame, y0, y1)

    def tiles_px(self) -> np.ndarray:
        """(N, 4) int64 x0, y0, x1, y1 of the tiles on the raster; edges are rounded alike: neighbours touch."""
        corners = self.bag.corners_px0 * (self.bag.frame.mpp_x, self.bag.frame.mpp_y)
        ends = np.concatenate([corners, corners + self.study.fov_um], axis=1)
        scale = np.array([self.frame.mpp_x, self.frame.mpp_y] * 2)
        limits = [self.frame.width_px, self.frame.height_px] * 2
        return np.rint(ends / scale).astype(np.int64).clip(0, limits)

    def within_tiles(self, y0: int, y1: int) -> np.ndarray:
        """(y1 - y0, W) bool."""
        inside = np.zeros((y1 - y0, self.frame.width_px), bool)
        tiles = self.tiles_px()
        for left, top, right, bottom in tiles[reaching(tiles, y0, y1)].tolist():
            inside[max(0, top - y0) : max(0, bottom - y0), left:right] = True
        return inside


def reaching(tiles_px: np.ndarray, y0: int, y1: int) -> np.ndarray:
    """(N,) bool: which tiles reach into rows."""
    return (tiles_px[:, 1] < y1) & (tiles_px[:, 3] > y0)


def raster_of(frame: Frame, mpp: float) -> Frame:
    """The raster of exactly this spacing over a slide, as the dense engine lays it."""
    width_um, height_um = frame.size_um
    return Frame(max(1, round(width_um / mpp)), max(1, round(height_um / mpp)), mpp, mpp)


def read_rows(slide: Slide, frame: Frame, y0: int, y1: int) -> np.ndarray:
    """(y1 - y0, W, 3) uint8 of a raster over a slide."""
    box_px0 = frame.box_in(slide.frame, Box(0, y0, frame.width_px, y1))
    return slide.read(box_px0, frame.mpp).pixels


# ---- truth -----------------------------------------------------------------------------------------------------------


def judged_truth(judged: Judged, y0: int, y1: int) -> np.ndarray:
    """(y1 - y0, W) uint8 true channels of rows of the raster; NOT_LABELLED also where nothing is judged."""
    truth = truth_rows(judged.study, judged.bag, judged.frame, y0, y1)
    if judged.inside:
        truth = np.where(judged.within_tiles(y0, y1), truth, NOT_LABELLED).astype(np.uint8)
    return truth


def true_pixels(judged: Judged) -> np.ndarray:
    """(C,) int64 judged pixels of each channel.

    Raises:
        LamellaError: There is none.
    """
    counts = sum(np.bincount(judged_truth(judged, y0, y1).ravel(), minlength=256) for y0, y1 in judged.bands)
    assert isinstance(counts, np.ndarray)
    found: np.ndarray = counts[: len(judged.study.channels)]
    if not found.any():
        where = " inside its tiles" if judged.inside else ""
        raise LamellaError(judged.bag.slide_id, f"its mask has no labelled pixel{where}", "Check data.mask_values.")
    return found


def true_labels(judged: Judged, truth_C: np.ndarray) -> tuple[np.ndarray, bool]:
    """(M,) bool and whether it is the label's word; the mask's where there is no label."""
    bag, count = judged.bag, len(judged.study.classes)
    if bag.labels is not None:
        return np.array(bag.labels, bool), True
    return truth_C[:count] > 0, False


def true_of_tiles(judged: Judged) -> np.ndarray:
    """(N, M) bool: the tiles' own labels, or what their masks show."""
    bag, study = judged.bag, judged.study
    if bag.tile_labels is not None:
        return bag.tile_labels.astype(bool)
    found = np.zeros((len(bag), len(study.classes)), bool)
    for row in range(len(bag)):
        truth = read_truth(study, bag, [row])
        found[row] = [(truth == number).any() for number in range(len(study.classes))]
    return found
