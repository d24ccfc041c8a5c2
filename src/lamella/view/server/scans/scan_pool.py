"""Open scans: at most so many bytes of them, and one that is being read."""

from __future__ import annotations

import threading
from collections import OrderedDict

from lamella.view.server.catalogue.items import ScanItem
from lamella.view.server.scans.film import SeenFilm
from lamella.view.server.scans.volume import SeenVolume

Seen = SeenVolume | SeenFilm


class ScanPool:
    """Keeps what was looked at last. Several threads use it.

    Args:
        max_bytes: Of all scans that are held; the one last asked for is held however large it is.
    """

    def __init__(self, max_bytes: int = 1 << 30) -> None:
        self.max_bytes = max_bytes
        self._open: OrderedDict[str, Seen] = OrderedDict()
        self._lock = threading.Lock()

    def scan(self, item: ScanItem) -> Seen:
        """The open scan; read at the first call. Who comes meanwhile waits: two at once would take twice the memory.

        Raises:
            ImageError: It cannot be read.
            MissingExtraError: It is a video file and PyAV is not installed.
        """
        with self._lock:
            if item.id not in self._open:
                self._open[item.id] = (
                    SeenVolume(item.path, item.masks) if item.kind == "volume" else SeenFilm(item.path)
                )
            self._open.move_to_end(item.id)
            while len(self._open) > 1 and self.bytes > self.max_bytes:
                self._open.popitem(last=False)
            return self._open[item.id]

    @property
    def bytes(self) -> int:
        return sum(seen.nbytes for seen in self._open.values())
