"""Files appear whole or not at all: written beside their place, then renamed into it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lamella.errors import storage_faults


@contextmanager
def whole_file(path: Path | str) -> Iterator[Path]:
    """Yield a path beside `path` to write to; on success it takes the place of `path`, on any error it is removed.

    The bytes reach the disk before the rename, so a machine that dies leaves the old file or the new one. A file that
    holds the same bytes already is left alone, so that an identical rerun changes nothing.

    Raises:
        StorageError: The disk is full, over quota, read-only or not writable.
    """
    path = Path(path)
    # The suffix stays last: writers that choose a format by suffix (tifffile, matplotlib) must see the real one.
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
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


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Write JSON, whole or not at all. NaN is refused: it is not JSON."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def _same_bytes(one: Path, other: Path) -> bool:
    # Not filecmp.cmp: it remembers answers by time stamp, and two writes can fall into one tick of the clock.
    if not other.is_file() or one.stat().st_size != other.stat().st_size:
        return False
    with open(one, "rb") as a, open(other, "rb") as b:
        while chunk := a.read(1 << 20):
            if chunk != b.read(1 << 20):
                return False
    return True
