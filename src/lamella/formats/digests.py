"""What a file holds, as a short text: outputs made of it can tell whether it changed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

_HEX = 16  # 64 bits: no two files of a study are taken for each other


def file_digest(path: Path | str) -> str:
    """16 hex digits of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:_HEX]


def value_digest(value: Any) -> str:
    """16 hex digits of a plain value (what JSON can hold)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:_HEX]
