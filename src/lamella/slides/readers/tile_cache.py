"""Decoded tiles kept for the next view: bounded in bytes, shared by threads, each tile decoded by one of them only.

The memory of tiles is cut from large slabs and used again and again. Fresh memory for each tile would take a third as
long as decoding it, because the operating system hands out, and clears, one page of 4 kB at a time.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

# A sweep with overlap over a 100,000 px wide slide comes back to a row of 390 RGB tiles of 256 px: 77 MB. Twice that
# keeps the row while the next is read.
CACHE_BYTES = 160 * 2**20
# From 4 MB on, numpy asks the system for pages of 2 MB.
_SLAB_BYTES = 16 * 2**20
# Slabs of caches that closed, for the next slide: as many as one cache takes. Lists grow and shrink without a lock.
_SPARE_SLABS: list[np.ndarray] = []

_Place = tuple[object, Hashable]


@dataclass(eq=False, slots=True)
class _Entry:
    tile: np.ndarray
    users: int = 0
    """Views that are copying from it now; its memory is not used again before they are done."""


class TileCache:
    """Tiles by owner (a reader) and key, the least recently used given up first.

    Args:
        max_bytes: Limit of all tiles together, those in use included; where it is reached, tiles are not kept.
    """

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self.max_bytes = max_bytes
        self._entries: OrderedDict[_Place, _Entry] = OrderedDict()
        self._flights: dict[_Place, tuple[_Entry, Future[None]]] = {}
        self._free: dict[int, list[np.ndarray]] = {}
        self._slabs: dict[int, list[np.ndarray]] = {}
        """Bytes of a tile -> the slabs that are cut into such tiles."""
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        """Of the tiles that are kept now."""
        with self._lock:
            return sum(entry.tile.nbytes for entry in self._entries.values())

    def __contains__(self, place: _Place) -> bool:
        return place in self._entries

    @contextmanager
    def tile(
        self, owner: object, key: Hashable, shape: tuple[int, ...], decode: Callable[[np.ndarray], object]
    ) -> Iterator[np.ndarray]:
        """Lend a tile, decoded now if it is not here; do not hold on to it.

        Threads that ask for one tile at the same time wait for the first of them, and share its error.

        Args:
            owner: Held as long as its tiles, so that two readers are never taken for one.
            key: Which of the owner's tiles.
            shape: Of the tile, uint8.
            decode: Fills memory of that shape.
        """
        entry = self._borrowed((owner, key), shape, decode)
        try:
            yield entry.tile
        finally:
            with self._lock:
                entry.users -= 1

    def drop(self, owner: object) -> None:
        """Give up every tile of an owner that closes, but those that are lent; their memory is for the next."""
        with self._lock:
            own = [place for place, entry in self._entries.items() if place[0] is owner and not entry.users]
            for place in own:
                entry = self._entries.pop(place)
                self._free[entry.tile.nbytes].append(entry.tile)
            if not (self._entries or self._flights):
                self._forget(self._slabs)

    def _borrowed(self, place: _Place, shape: tuple[int, ...], decode: Callable[[np.ndarray], object]) -> _Entry:
        with self._lock:
            entry = self._entries.get(place)
            if entry is not None:
                self._entries.move_to_end(place)
                entry.users += 1
                return entry
            others = self._flights.get(place)
            if others is None:
                memory, kept = self._room(shape)
                entry, flight = self._flights[place] = _Entry(memory), Future()
            else:
                entry, flight = others
            entry.users += 1
        if others is not None:
            flight.result()
            return entry
        try:
            decode(entry.tile)
        except BaseException as error:
            with self._lock:
                del self._flights[place]
                if kept:
                    self._free[memory.nbytes].append(memory)
            flight.set_exception(error)
            raise
        with self._lock:
            del self._flights[place]
            if kept:
                self._entries[place] = entry
        flight.set_result(None)
        return entry

    def _room(self, shape: tuple[int, ...]) -> tuple[np.ndarray, bool]:
        """Memory for a tile, and whether it belongs to the cache."""
        size = math.prod(shape)
        free = self._free.setdefault(size, [])
        if not free:
            free += self._slab(size) or self._given_up(size)
        if not free and self._give_up_other_sizes(size):
            free += self._slab(size)
        return (free.pop().reshape(shape), True) if free else (np.empty(shape, np.uint8), False)

    def _slab(self, size: int) -> list[np.ndarray]:
        """Fresh memory for some tiles, as far as the limit allows."""
        left = self.max_bytes - sum(slab.nbytes for slabs in self._slabs.values() for slab in slabs)
        if min(left, _SLAB_BYTES) < size:
            tiles = left // size  # a large tile, or the last ones of a small cache
            slab = np.empty(tiles * size, np.uint8)
        else:
            tiles = min(left, _SLAB_BYTES) // size
            slab = _spare_or_fresh() if left >= _SLAB_BYTES else np.empty(left, np.uint8)
        if tiles:
            self._slabs.setdefault(size, []).append(slab)
        return list(slab[: tiles * size].reshape(tiles, size))

    def _given_up(self, size: int) -> list[np.ndarray]:
        """The memory of the least recently used tile of this size that nobody is copying from."""
        for place, entry in self._entries.items():
            if entry.tile.nbytes == size and not entry.users:
                del self._entries[place]
                return [entry.tile]
        return []

    def _give_up_other_sizes(self, size: int) -> bool:
        """Let go of all tiles of other sizes, unless one is in use."""
        others = {place: entry for place, entry in self._entries.items() if entry.tile.nbytes != size}
        flying = any(entry.tile.nbytes != size for entry, _ in self._flights.values())
        if flying or any(entry.users for entry in others.values()):
            return False
        for place in others:
            del self._entries[place]
        self._forget([other for other in self._slabs if other != size])
        return True

    def _forget(self, sizes: Iterable[int]) -> None:
        """Let go of the memory of tiles of these sizes, none of which is kept any more."""
        for size in list(sizes):
            self._free.pop(size, None)
            for slab in self._slabs.pop(size):
                if slab.nbytes == _SLAB_BYTES and len(_SPARE_SLABS) < CACHE_BYTES // _SLAB_BYTES:
                    _SPARE_SLABS.append(slab)


def _spare_or_fresh() -> np.ndarray:
    try:
        return _SPARE_SLABS.pop()
    except IndexError:
        return np.empty(_SLAB_BYTES, np.uint8)
