"""One writer at a time in an annotation folder: of all threads, and of all viewers on all machines that share it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lamella.engine.folder_lock import FolderLock
from lamella.errors import OutputConflictError

LOCK = ".lock"
# A save takes some tens of milliseconds, the largest a second or two: whoever waits longer waits for a hung disk.
_WAIT_S = 20.0
_LOOK_EVERY_S = 0.01


class WriteLock:
    """Makes the folder when it is first held.

    Args:
        folder: The annotation folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._here = threading.Lock()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold it.

        Raises:
            OutputConflictError: Another process has held it for too long.
            StorageError: The folder cannot be written to.
        """
        with self._here:
            lock = FolderLock(self._folder / LOCK)
            try:
                self._wait(lock)
                yield
            finally:
                lock.release()

    def _wait(self, lock: FolderLock) -> None:
        give_up = time.monotonic() + _WAIT_S
        while not lock.take(shared=False):
            if time.monotonic() > give_up:
                raise OutputConflictError(
                    self._folder, "another viewer has been writing there for too long", "Save again in a moment."
                )
            time.sleep(_LOOK_EVERY_S)
