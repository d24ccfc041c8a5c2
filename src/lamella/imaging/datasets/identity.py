"""What an item is by its content, so that an image is found again under another name."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from lamella.errors import ImageError, first_line
from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.measured import Video, Volume

_BYTES = 8  # 16 hex digits: among a million images two differing ones share them with a chance of 3e-8
_CHUNK = 1 << 20


def item_digest(collection: Collection, item: Item) -> str:
    """16 hex digits of the content: of the bytes of its file or files, or of its row's values in an archive.

    The same bytes have the same digest under any name. A copy that was coded anew (PNG to JPEG) does not.

    Raises:
        ImageError: A file cannot be read.
    """
    digests = source_digests(collection, item)
    if len(digests) == 1:
        return digests[0]
    return hashlib.blake2b("".join(digests).encode(), digest_size=_BYTES).hexdigest()


def source_digests(collection: Collection, item: Item) -> tuple[str, ...]:
    """A digest of each source, so that two items that share one channel's file can be told.

    Raises:
        ImageError: A file cannot be read.
    """
    if item.row is not None:
        return (_of_values(collection, item),)
    return tuple(_of_path(path) for path in item.sources)


def _of_values(collection: Collection, item: Item) -> str:
    measured = collection.read(item)
    if isinstance(measured, Volume):
        values = measured.values_CZYX
    else:
        values = measured.frames_TYXC if isinstance(measured, Video) else measured.values
    digest = hashlib.blake2b(f"{values.dtype.str}{values.shape}".encode(), digest_size=_BYTES)
    digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _of_path(path: Path) -> str:
    if not path.is_dir():
        return _of_file(path)
    # Sorted by content, not by name: the slices of a series may be renamed with their folder.
    files = sorted(_of_file(file) for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    return hashlib.blake2b("".join(files).encode(), digest_size=_BYTES).hexdigest()


def _of_file(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=_BYTES)
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise ImageError(path, f"it cannot be read ({first_line(error)})", "Correct the path.") from error
    return digest.hexdigest()
