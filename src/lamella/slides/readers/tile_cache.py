"""Decoded tiles kept for the next view: bounded in bytes, shared by threads, each tile decoded by one of them only."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future

import numpy as np

# A sweep with overlap over a 100,000 px wide slide comes back to a row of 390 RGB tiles of 256 px: 77 MB. Twice that
# keeps the row while the next is read.
CACHE_BYTES = 160 * 2**20


_Key = tuple[object, Hashable]


class TileCache:
    """Tiles by owner (a reader) and key, the least recently used given up first.

    Args:
        max_bytes: Limit of all tiles together; a larger tile is handed out but not kept.
    """

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self.max_bytes = max_bytes
        self._tiles: OrderedDict[_Key, np.ndarray] = OrderedDict()
        self._bytes = 0
        self._flights: dict[_Key, Future[np.ndarray]] = {}
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        """Held now; never more than the limit."""
        return self._bytes

    def peek(self, owner: object, key: Hashable) -> np.ndarray | None:
        """The tile if it is here."""
        with self._lock:
            return self._found((owner, key))

    def get(self, owner: object, key: Hashable, decode: Callable[[], np.ndarray]) -> np.ndarray:
        """The tile, decoded now if it is not here.

        Threads that ask for one tile at the same time wait for the first of them, and share its error. The owner is
        held as long as its tiles: two readers are never taken for one.
        """
        place = (owner, key)
        with self._lock:
            tile = self._found(place)
            if tile is not None:
                return tile
            flight = self._flights.get(place)
            if flight is None:
                mine = self._flights[place] = Future()
        if flight is not None:
            return flight.result()
        try:
            tile = decode()
        except BaseException as error:
            with self._lock:
                del self._flights[place]
            mine.set_exception(error)
            raise
        with self._lock:
            del self._flights[place]
            self._keep(place, tile)
        mine.set_result(tile)
        return tile

    def drop(self, owner: object) -> None:
        """Give up every tile of an owner that closes."""
        with self._lock:
            for key in [key for key in self._tiles if key[0] is owner]:
                self._bytes -= self._tiles.pop(key).nbytes

    def _found(self, place: _Key) -> np.ndarray | None:
        tile = self._tiles.get(place)
        if tile is not None:
            self._tiles.move_to_end(place)
        return tile

    def _keep(self, place: _Key, tile: np.ndarray) -> None:
        self._tiles[place] = tile
        self._bytes += tile.nbytes
        while self._bytes > self.max_bytes:
            self._bytes -= self._tiles.popitem(last=False)[1].nbytes
