"""Anchors of a catalogue: the contexts that are learned from, each with an example of its targets."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from lamella.errors import LamellaError, first_line
from lamella.geometry import Box, Frame
from lamella.slides.anchors.catalogue import CATALOGUE_FILE, FORMAT, read_shard
from lamella.slides.anchors.sampling import CrossSampling
from lamella.slides.anchors.targets import context_corners_um, place_targets
from lamella.slides.index import IndexedSlide
from lamella.slides.tissue_map import TissueMap
from lamella.view.marks import ANCHOR, PALETTE, web
from lamella.view.server.layers.colours import Indexed, painted, stops
from lamella.view.server.layers.contract import LayerInfo, Legend, Look, ObjectsInView
from lamella.view.server.layers.density import densest, density_under
from lamella.view.server.layers.layer import Making, PlainLayer, same_slide
from lamella.view.server.layers.objects import draw_outlines
from lamella.view.server.layers.outlines import Outlines
from lamella.view.server.layers.tile_index import touching

_AGAIN = "Run `lamella anchors` again, into a new folder."
_DENSITY_MAP = "magma"
_SEEN_PX = 24.0  # contexts smaller than this on the display overlap to a grid that says nothing
_NAMES, _COLOURS = ("context", "target"), (ANCHOR, PALETTE[3])
_MOST_WITH_TARGETS = 200  # contexts in view whose targets are placed: some milliseconds each


def anchor_layers(
    folder: Path, slide_id: str, indexed: IndexedSlide | None, group: str, slide: Frame
) -> Iterator[Making]:
    """The anchors of one slide.

    Args:
        folder: Of the catalogue.
        slide_id: As the catalogue calls the slide.
        indexed: The slide in its index, whose tissue says where targets may lie; None shows contexts alone.
        group: The heading.
        slide: Level 0.

    Raises:
        LamellaError: The catalogue is damaged, or has no anchors of this slide.
    """
    sampling, shard = _listed(folder, slide_id)
    yield lambda: AnchorLayer(shard, sampling, indexed, group, slide)


class AnchorLayer(PlainLayer):
    """Contexts and, near, an example of their targets: training draws others each time.

    Args:
        shard: Parquet file of the slide.
        sampling: The profile.
        indexed: See `anchor_layers`.
        group: The heading.
        slide: Level 0.

    Raises:
        LamellaError: The shard cannot be read.
        MaskMismatchError: The index is of another slide.
    """

    def __init__(
        self, shard: Path, sampling: CrossSampling, indexed: IndexedSlide | None, group: str, slide: Frame
    ) -> None:
        # The fields of view were laid out by the index's micrometres per pixel.
        self._slide = slide if indexed is None else same_slide(shard, indexed.frame, slide)
        self._indexed, self._sampling = indexed, sampling
        columns = read_shard(shard)
        self._centers = np.stack([columns["center_x_px0"], columns["center_y_px0"]], axis=1)
        self._thresholds = columns["min_target_tissue_fraction"]
        half = self._slide.box_px(Box(0, 0, sampling.context_fov_um / 2, sampling.context_fov_um / 2))
        reach = np.array([half.width, half.height])
        self._bounds = np.concatenate([self._centers - reach, self._centers + reach], axis=1)
        self._tissue: TissueMap | None = None
        self._targets: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()
        self._most = densest(self._centers, self._slide)
        shown = 1 if indexed is None else 2
        legend = Legend(
            classes=[(name, web(colour)) for name, colour in zip(_NAMES[:shown], _COLOURS[:shown], strict=True)],
            high=self._most,
            unit="anchors per mm²",
            stops=stops(_DENSITY_MAP),
            bare="where there are none",
            drawable=False,
        )
        drawn = "; near, one draw of their targets" if shown == 2 else "; without the index targets are not known"
        note = f"{len(self._centers):,} contexts of {sampling.context_fov_um:g} µm{drawn}"
        super().__init__(LayerInfo("anchors", "anchors", group, legend, objects=True, opacity=0.9, note=note))

    def paint(self, box_px0: Box, width_px: int, height_px: int, look: Look) -> Indexed | None:
        self.channel(look)
        px0 = box_px0.width / width_px
        found = self._in(Box(box_px0.x0 - px0, box_px0.y0 - px0, box_px0.x1 + px0, box_px0.y1 + px0))
        if not len(found):
            return None
        if self._sampling.context_fov_um / self._slide.mpp_x < _SEEN_PX * px0:
            values = density_under(self._centers, len(self._centers), box_px0, width_px, height_px, self._slide)
            return painted(values, look.low or 0.0, self._most if look.high is None else look.high, _DENSITY_MAP)
        shown = self._outlines(found)
        return draw_outlines(shown, np.arange(len(shown)), box_px0, width_px, height_px)

    def objects(self, box_px0: Box, limit: int) -> ObjectsInView:
        found = self._in(box_px0)
        if len(found) > limit:
            return ObjectsInView(len(found), ())
        shown = self._outlines(found)
        if len(shown) > limit:
            shown = self._outlines(found, targets=False)
        palette = shown.palette()
        return ObjectsInView(len(shown), [shown.feature(number, palette) for number in range(len(shown))])

    def _in(self, box_px0: Box) -> np.ndarray:
        return touching(self._bounds, box_px0)

    def _outlines(self, numbers: np.ndarray, targets: bool = True) -> Outlines:
        """Contexts and, of few, their targets, as boxes."""
        bounds, classes = [self._bounds[numbers]], [np.zeros(len(numbers), np.int32)]
        if targets and self._indexed is not None and len(numbers) <= _MOST_WITH_TARGETS:
            for number in numbers.tolist():
                placed = self._targets_px0(number)
                bounds.append(placed)
                classes.append(np.ones(len(placed), np.int32))
        every = np.concatenate(bounds).astype(np.float32)
        nothing = np.zeros(len(every) + 1, np.int64)
        return Outlines(
            bounds=every,
            classes=np.concatenate(classes),
            kinds=np.zeros(len(every), np.uint8),
            first_ring=nothing,
            first_corner=np.zeros(1, np.int64),
            outer=np.zeros(0, bool),
            corners=np.zeros((0, 2), np.float32),
            names=_NAMES,
            colours=_COLOURS,
        )

    def _targets_px0(self, number: int) -> np.ndarray:
        """(K, 4) targets of an anchor in level-0 pixels, the same each time."""
        with self._lock:
            if number not in self._targets:
                assert self._indexed is not None
                if self._tissue is None:
                    self._tissue = self._indexed.tissue()
                spacing, side_um = (self._slide.mpp_x, self._slide.mpp_y), self._sampling.context_fov_um
                x, y = context_corners_um(self._centers[[number]], spacing, self._sampling)[0].tolist()
                context, least = Box(x, y, x + side_um, y + side_um), float(self._thresholds[number])
                rng = np.random.default_rng(number)
                placed = place_targets(rng, self._tissue, context, self._sampling, least)
                self._targets[number] = (placed + np.array([x, y, x, y])) / np.array(spacing * 2)
            return self._targets[number]


def _listed(folder: Path, slide_id: str) -> tuple[CrossSampling, Path]:
    """The profile, and the shard of a slide. The index may have changed since: anchors are shown as they were made."""
    path = folder / CATALOGUE_FILE
    try:
        listing: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if listing["format"] != FORMAT:
            raise ValueError(f"its format is {listing['format']!r}")
        sampling = CrossSampling(**listing["sampling"])
        files = {shard["slide_id"]: Path(shard["file"]) for shard in listing["shards"]}
    except (OSError, KeyError, TypeError, ValueError, ValidationError) as error:
        raise LamellaError(path, f"it is damaged ({first_line(error)})", _AGAIN) from error
    file = files.get(slide_id)
    if file is None:
        raise LamellaError(path, f"it has no anchors of {slide_id}", "Show the slide without it.")
    if file.is_absolute() or ".." in file.parts:
        raise LamellaError(path, f"it names {file} outside of its folder", _AGAIN)
    return sampling, folder / file
