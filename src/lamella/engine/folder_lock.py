"""Two runs must not write into one folder at once. The lock is the operating system's: it ends with its process.

A lock *file* would stay behind when a run is killed, and the next one would have to guess. This is an advisory `flock`
on a file that stands in the folder anyway: nothing is left behind, whatever ends the process. Runs that do the whole
folder hold it alone, shards of one run hold it together.
"""

from __future__ import annotations

import os
import sys
import time
import weakref
from pathlib import Path

from lamella.errors import OutputConflictError, storage_faults

try:
    import fcntl
except ImportError:  # Windows has no flock; runs go on unlocked there, and say so
    fcntl = None  # type: ignore[assignment]

# Shards of one array start within the same second, and only one of them may write the settings: the others wait.
_SHARDS_WAIT_S = 30.0
_LOOK_EVERY_S = 0.05


class FolderLock:
    """The right to write into a folder. It lasts as long as this object, and at most as long as the process.

    Attributes:
        alone: Nobody else can hold the folder now. False for shards, and where the file system has no locks.
    """

    def __init__(self, file: Path) -> None:
        self._fd: int | None = None
        self._fd = _open(file)
        self._file = file
        self.alone = False
        _open_locks.add(self)

    def take(self, *, shared: bool) -> bool:
        """Try once. False if another process is in the way."""
        if fcntl is None or self._fd is None:
            return _say_unlocked(self._file, "this system has none")
        try:
            fcntl.flock(self._fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:  # NFS without a lock service, some cluster file systems
            return _say_unlocked(self._file, error.strerror or "flock failed")
        self.alone = not shared
        return True

    def release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __del__(self) -> None:
        self.release()


def lock_folder(file: Path, *, shared: bool, settled: Path, who: str) -> FolderLock:
    """Lock the folder of `file`.

    A second claim by the same process gets the lock that it has: one process does not stand in its own way.

    Args:
        file: What is locked; made if it is not there.
        shared: A shard: others of its kind may hold the folder too. The first of them gets it alone, to write the
            settings; the others wait until `settled` exists.
        settled: The file that says that the settings are written.
        who: The command, for the message.

    Raises:
        OutputConflictError: Another process holds the folder.
        StorageError: The folder cannot be written to.
    """
    key = str(file.resolve())
    lock = _held.get(key)
    if lock is None:
        lock = _held[key] = FolderLock(file)
    give_up = time.monotonic() + _SHARDS_WAIT_S
    while not lock.take(shared=shared and settled.exists()):
        if not shared or time.monotonic() > give_up:
            raise OutputConflictError(
                file.parent,
                f"another `{who}` is writing there now",
                "Wait until it has ended, or stop it; then run the same command again. What it finished is kept.",
            )
        time.sleep(_LOOK_EVERY_S)
    return lock


_held: weakref.WeakValueDictionary[str, FolderLock] = weakref.WeakValueDictionary()
_open_locks: weakref.WeakSet[FolderLock] = weakref.WeakSet()
_told: set[str] = set()


def _open(file: Path) -> int | None:
    with storage_faults(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
    try:
        return os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        with storage_faults(file.parent):
            if not file.exists():
                raise
            return os.open(file, os.O_RDONLY)  # a finished run on a read-only disk answers its own command


def _say_unlocked(file: Path, reason: str) -> bool:
    """Go on without a lock; said once."""
    if not _told:
        print(
            f"note: {file.parent}: folders cannot be locked there ({reason}). Do not start two runs on one folder.",
            file=sys.stderr,
        )
        _told.add(reason)
    return True


def _forget_in_child() -> None:
    """A forked child (a loader's worker) must not keep the folder locked when its parent is killed."""
    for lock in list(_open_locks):
        lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
