"""Encoded tiles that were sent before, bounded in bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable


class TileMemory:
    """The least recently asked for are forgotten first. Several threads use it.

    Args:
        max_bytes: Of all tiles together.
    """

    def __init__(self, max_bytes: int = 64 << 20) -> None:
        self.max_bytes = max_bytes
        self._tiles: OrderedDict[Hashable, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        return self._bytes

    def get(self, key: Hashable) -> bytes | None:
        with self._lock:
            if key in self._tiles:
                self._tiles.move_to_end(key)
            return self._tiles.get(key)

    def put(self, key: Hashable, tile: bytes) -> None:
        with self._lock:
            self._bytes += len(tile) - len(self._tiles.pop(key, b""))
            self._tiles[key] = tile
            while self._bytes > self.max_bytes:
                self._bytes -= len(self._tiles.popitem(last=False)[1])
