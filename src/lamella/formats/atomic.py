"""Files appear whole or not at all: written beside their place, then renamed into it."""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lamella.errors import storage_faults

# `.<stem>.<host>-<process>-<random>.part<suffix>`: process numbers repeat among machines that share a folder.
_PART = re.compile(r"\..+\.[\w-]+-\d+-[0-9a-f]{8}\.part(\.[^.]*)?")


@contextmanager
def whole_file(path: Path | str) -> Iterator[Path]:
    """Yield a path beside `path` to write to; on success it takes the place of `path`, on any error it is removed.

    The bytes reach the disk before the rename, so a machine that dies leaves the old file or the new one. A file that
    holds the same bytes already is left alone, so that an identical rerun changes nothing. A process that is killed
    leaves its part behind, which nobody takes for the file; `remove_parts` clears it away.

    Raises:
        StorageError: The disk is full, over quota, read-only or not writable.
    """
    path = Path(path)
    part = _part(path)
    with storage_faults(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            if _same_bytes(part, path):
                return
            with open(part, "rb") as written:
                os.fsync(written.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def remove_parts(folder: Path | str, *, leave: str = "") -> list[Path]:
    """Remove what killed processes left half written in the folder. Only safe while nobody writes there.

    Args:
        folder: Where to look, its subfolders included.
        leave: Subfolders that hold a file of this name are left alone.
    """
    left: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not (leave and Path(place, name, leave).exists())]
        left += [Path(place, name) for name in names if _PART.fullmatch(name)]
    for path in left:
        path.unlink(missing_ok=True)
    return left


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Write JSON, whole or not at all. NaN is refused: it is not JSON."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def _part(path: Path) -> Path:
    host = re.sub(r"[^\w-]", "-", socket.gethostname())
    mark = f"{host}-{os.getpid()}-{secrets.token_hex(4)}"
    # The suffix stays last: writers that choose a format by suffix (tifffile, matplotlib) must see the real one.
    return path.with_name(f".{path.stem}.{mark}.part{path.suffix}")


def _same_bytes(one: Path, other: Path) -> bool:
    # Not filecmp.cmp: it remembers answers by time stamp, and two writes can fall into one tick of the clock.
    if not other.is_file() or one.stat().st_size != other.stat().st_size:
        return False
    with open(one, "rb") as a, open(other, "rb") as b:
        while chunk := a.read(1 << 20):
            if chunk != b.read(1 << 20):
                return False
    return True
