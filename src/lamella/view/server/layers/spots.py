"""Measured expression at spots and bins: each a disk or a square in the colour of a gene's count."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from lamella.errors import LamellaError, MaskMismatchError
from lamella.formats.expression_source import read_expression
from lamella.formats.spatial_counts import SpatialCounts
from lamella.geometry import Box, Frame
from lamella.view.server.layers.contract import LayerInfo, Legend, Look
from lamella.view.server.layers.layer import Making
from lamella.view.server.layers.placed_values import PlacedValues, squares_px0

TOTAL = "all genes together"
_KEPT = 16  # columns of genes that were looked at last: a million bins are 4 MB each


def spot_layers(path: Path, group: str, slide: Frame) -> Iterator[Making]:
    """The measured expression of a slide.

    Args:
        path: In any layout of `formats.expression_source`.
        group: The heading.
        slide: Level 0, whose micrometres per pixel say how large a spot is.

    Raises:
        ExpressionError: It cannot be read.
        MaskMismatchError: Its places lie off the slide.
    """
    yield lambda: SpotLayer(path, group, slide)


class SpotLayer(PlacedValues):
    """Counts of one gene, or of all together; read in the background, as a large slide's take a minute.

    Args:
        path: See `spot_layers`.
        group: The heading.
        slide: Level 0.
        wait_s: How long to wait for the names of the genes; else they are found by searching once they are known.
    """

    def __init__(self, path: Path, group: str, slide: Frame, wait_s: float = 1.0) -> None:
        self._path, self._slide = path, slide
        self._columns: OrderedDict[int, np.ndarray] = OrderedDict()
        self._keeping = threading.Lock()
        self._done = threading.Event()
        self._fault: LamellaError | None = None
        legend = Legend(unit="counts", bare="between the places")
        info = LayerInfo("measured", "measured genes", group, legend, note="still being read")
        super().__init__(info, (TOTAL,), np.zeros((0, 4)), self._column)
        self.info = replace(self.info, channel_count=2)  # there are more, which the page lets one search for
        threading.Thread(target=self._read, name=f"expression of {path.name}", daemon=True).start()
        if self._done.wait(wait_s) and self._fault is not None:
            raise self._fault

    @property
    def settled(self) -> bool:
        return self._done.is_set()

    def channel(self, look: Look) -> int | None:
        self._wait()
        return super().channel(look)

    def search(self, text: str, limit: int) -> Sequence[str]:
        self._wait()
        return super().search(text, limit)

    def _wait(self) -> None:
        """Until the file was read.

        Raises:
            LamellaError: It cannot be.
        """
        self._done.wait()
        if self._fault is not None:
            raise self._fault

    def _read(self) -> None:
        try:
            self._take(read_expression(self._path, mpp=(self._slide.mpp_x, self._slide.mpp_y)))
        except LamellaError as error:
            self._fault = error
        except Exception as error:  # noqa: BLE001 - told to whoever asks, as nobody sees a thread's own
            self._fault = LamellaError(self._path, f"it cannot be shown ({error!r})", "Make it again.")
        finally:
            self._done.set()

    def _take(self, found: SpatialCounts) -> None:
        places, slide = found.places_px0, self._slide
        inside = (places >= 0).all(axis=1) & (places < [slide.width_px, slide.height_px]).all(axis=1)
        if not inside.any():
            raise MaskMismatchError(
                self._path, "none of its places lies on the slide", "Show it over the slide it was measured on."
            )
        side = slide.box_px(Box(0, 0, found.size_um, found.size_um))
        self.bounds_px0 = squares_px0(places - np.array([side.width, side.height]) / 2, side.width, side.height)
        self.disks = found.shape == "spot"
        self._counts = found.counts.tocsc()
        self.names = (TOTAL, *found.genes)
        legend = replace(self.info.legend, unit="counts" if found.are_counts else "values")
        listed = self.names[:64]
        self.info = replace(
            self.info, legend=legend, channels=listed, channel_count=len(self.names), note=_note(found, inside)
        )

    def _column(self, channel: int) -> np.ndarray:
        with self._keeping:
            if channel not in self._columns:
                values = self._counts.sum(axis=1) if channel == 0 else self._counts[:, [channel - 1]].toarray()
                self._columns[channel] = np.asarray(values, np.float32).reshape(-1)
                if len(self._columns) > _KEPT:
                    self._columns.popitem(last=False)
            self._columns.move_to_end(channel)
            return self._columns[channel]


def _note(found: SpatialCounts, inside: np.ndarray) -> str:
    what = "spots" if found.shape == "spot" else "bins"
    off = f", {int((~inside).sum()):,} of them off the slide" if not inside.all() else ""
    return f"{len(found):,} {what} of {found.size_um:g} µm{off}, {len(found.genes):,} genes"
