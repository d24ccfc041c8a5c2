"""HDF5 files on a disk that fills up. The library ends the whole process (SIGSEGV) when it cannot write its last bytes.

Tried with HDF5 2.0 and h5py 3.16 on a full tmpfs: the write raises, closing raises, and the interpreter dies when the
file object is freed. So the room is taken before the library writes: a full disk is then a plain error.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

_OWN_BYTES = 2**16  # superblock, headers and attributes: a few kilobytes in files of this project
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def h5_with_room(path: Path, data_bytes: int) -> Iterator[h5py.File]:
    """Open a new HDF5 file for which there is room.

    Args:
        path: Overwritten.
        data_bytes: What its datasets will hold.

    Raises:
        OSError: There is no room (ENOSPC, EDQUOT); nothing of HDF5 was started.
    """
    with open(path, "wb") as file:
        _take(file.fileno(), data_bytes + _OWN_BYTES)
    with h5py.File(path, "w") as h5:  # empties the file: the room is free again for a moment
        _take(h5.id.get_vfd_handle(), data_bytes + _OWN_BYTES)
        yield h5
        h5.flush()
        used = h5.id.get_filesize()
    os.truncate(path, used)


def take_room(file: h5py.File, data_bytes: int) -> None:
    """Take room for more data in a file that grows, opened by `h5_with_room`, before the library is asked to write.

    Raises:
        OSError: There is no room; the library was not started on it.
    """
    _take(file.id.get_vfd_handle(), file.id.get_filesize() + data_bytes + _OWN_BYTES)


def _take(descriptor: int, size: int) -> None:
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise
        # The file system cannot promise room (some network disks): it is written without.
