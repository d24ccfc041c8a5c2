"""What a file holds, as a short text: outputs made of it can tell whether it changed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

_HEX = 16  # 64 bits: no two files of a study are taken for each other
_ENDS_BYTES = 2**16  # a slide's header and its last tiles


def file_digest(path: Path | str) -> str:
    """16 hex digits of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:_HEX]


def value_digest(value: Any) -> str:
    """16 hex digits of a plain value (what JSON can hold)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:_HEX]


def ends_digest(path: Path | str) -> str:
    """16 hex digits of the size, beginning and end of a slide's file, or of every file in its folder.

    Reading all of a slide would take longer than what is made of it. Not of its name: a copy is the same input.
    """
    digest = hashlib.sha256()
    path = Path(path)
    for file_path in sorted(path.iterdir()) if path.is_dir() else [path]:
        if not file_path.is_file():
            continue
        size = file_path.stat().st_size
        with open(file_path, "rb") as file:
            digest.update(str(size).encode() + file.read(_ENDS_BYTES))
            file.seek(max(0, size - _ENDS_BYTES))
            digest.update(file.read(_ENDS_BYTES))
    return digest.hexdigest()[:_HEX]
