"""Reads the objects of a GeoJSON file in the background; what was read so far can be shown at any time.

Where `predict` wrote their outlines as arrays beside the file, these are mapped instead: all of them are there at once.
"""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

from lamella.errors import LamellaError
from lamella.formats.json_stream import iterate_features
from lamella.formats.outline_arrays import GrowingOutlines
from lamella.formats.outline_file import open_outlines
from lamella.view.server.layers.outlines import Outlines

_LOG = logging.getLogger("lamella.view")

# Corners kept: 8 bytes each, so 320 MB. Of further objects only the boxes are kept, and that is said.
MOST_CORNERS = 40_000_000
_LOOK_AFTER = 64  # features between two looks at the clock
_FIRST_SHOWN_S, _GROWTH = 0.25, 1.5  # when what was read is first shown, and how much later each time


class OutlineReader:
    """Begins when it is first asked.

    Args:
        path: `.geojson` or `.geojson.gz`.
        most_corners: See `MOST_CORNERS`. Mapped corners are not counted: only those in view are in memory.

    Attributes:
        mapped: Nothing has to be read.
        boxed: Objects of which only the box was kept.
    """

    def __init__(self, path: Path, most_corners: int = MOST_CORNERS) -> None:
        self.path, self._most = path, most_corners
        self._bytes = max(1, path.stat().st_size)
        self._taken = 0
        mapped = _mapped(path)
        self.mapped = mapped is not None
        self._shown = _shown(GrowingOutlines()) if mapped is None else mapped
        self._fault: LamellaError | None = None
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.boxed = 0
        if self.mapped:
            self._done.set()

    @property
    def ready(self) -> float:
        """The share of the file that was read."""
        return 1.0 if self._done.is_set() else min(0.999, self._taken / self._bytes)

    def start(self) -> None:
        with self._lock:
            if self._thread is None and not self.mapped:
                # A daemon: a viewer that is ended does not wait for half a million outlines.
                self._thread = threading.Thread(target=self._read, name=f"outlines of {self.path.name}", daemon=True)
                self._thread.start()

    def outlines(self, wait_s: float = 0.0) -> Outlines:
        """What was read so far.

        Args:
            wait_s: How long to wait for the end of the file, at most: short files are shown whole at once.

        Raises:
            LamellaError: The file is damaged.
        """
        self.start()
        self._done.wait(wait_s)
        if self._fault is not None:
            raise self._fault
        return self._shown

    def _read(self) -> None:
        growing, began = GrowingOutlines(), time.monotonic()
        show_at = _FIRST_SHOWN_S
        try:
            for number, feature in iterate_features(self.path, self._count):
                growing.add(self.path, number, feature, keep=growing.corners < self._most)
                if number % _LOOK_AFTER == 0 and time.monotonic() - began > show_at:
                    self._shown, show_at = _shown(growing), show_at * _GROWTH
            self._shown, self.boxed = _shown(growing), growing.boxed
        except LamellaError as error:
            self._fault = error
        except Exception as error:  # noqa: BLE001 - told to whoever asks, as nobody sees a thread's own
            self._fault = LamellaError(self.path, f"it cannot be shown ({error!r})", "Export it again.")
        finally:
            self._done.set()

    def _count(self, taken: int) -> None:
        self._taken = taken


def _mapped(path: Path) -> Outlines | None:
    try:
        found = open_outlines(path)
    except LamellaError as error:
        _LOG.warning("%s The GeoJSON is read instead.", error)
        return None
    return None if found is None else Outlines(**vars(found))


def _shown(growing: GrowingOutlines) -> Outlines:
    return Outlines(**vars(growing.arrays()))
