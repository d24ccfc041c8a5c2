"""Where a DICOM file says that its compressed frames lie, checked before OpenSlide follows it.

libdicom (in OpenSlide 4.0) follows a wrong offset out of the file, and takes the process with it.
Source of the layout: DICOM PS3.5, A.4 (encapsulated pixels: a table of offsets, then items, then a delimiter).
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

import pydicom

_PIXELS = b"\xe0\x7f\x10\x00"  # (7FE0,0010), little-endian: the only order for compressed pixels
_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"  # (FFFE,E000) and (FFFE,E0DD)
_UNDEFINED = 0xFFFFFFFF  # a length that is not stated: the pixels follow as items


def check_frames(path: Path) -> None:
    """Refuse a file whose compressed frames do not lie where its table of offsets says.

    Raises:
        ValueError: An offset leads to no frame, or a frame reaches beyond the file.
    """
    with open(path, "rb") as file:
        pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["NumberOfFrames"])
        head = file.read(12)  # tag, kind, reserved, length
        if len(head) < 12 or head[:4] != _PIXELS or struct.unpack("<I", head[8:])[0] != _UNDEFINED:
            return  # not compressed, or pixels elsewhere
        size = os.fstat(file.fileno()).st_size
        table = _item(file, size)
        if table is None:
            raise ValueError("its table of frames is damaged")
        start, length = table
        offsets = list(struct.unpack(f"<{length // 4}I", file.read(length // 4 * 4)))
        frames = _frames(file, start + length, size)
        # libdicom takes a frame to end where the next begins, so they must also ascend.
        if not set(offsets) <= frames or offsets != sorted(set(offsets)):
            raise ValueError("its table of frames names a place where none begins")


def _frames(file: BinaryIO, first: int, size: int) -> set[int]:
    """Where all items behind the table begin, from its end."""
    found, at = set(), first
    file.seek(at)
    while (item := _item(file, size)) is not None:
        found.add(at - first)
        at = sum(item)
        file.seek(at)
    file.seek(at)
    if file.read(4) != _END and at < size:
        raise ValueError(f"its frame {len(found)} is damaged")
    return found


def _item(file: BinaryIO, size: int) -> tuple[int, int] | None:
    """(start, length) of the item that begins here; None if none does, or it ends beyond the file."""
    head = file.read(8)
    if len(head) < 8 or head[:4] != _ITEM:
        return None
    start, length = file.tell(), struct.unpack("<I", head[4:])[0]
    return (start, length) if start + length <= size else None
