"""Lines that were added to a log since it was last read; a log that was cut or written anew is read from its beginning.

A resumed run drops the lines after its checkpoint and writes others there. So the place to go on from is remembered
with a check of the bytes before it.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

_CHECK_BYTES = 256  # holds the step and the time that it took, which two tries never share to the microsecond
_LONGEST_LINE = 64 << 10  # a line of a log has a few hundred bytes; one without end is none of ours


@dataclass(frozen=True)
class Mark:
    """How far a log has been read: bytes, and a check of the last of them."""

    offset: int = 0
    check: int = 0


@dataclass(frozen=True)
class Added:
    """What was read.

    Attributes:
        rows: One a line.
        damaged: Lines that are no JSON object.
        mark: Where to go on.
        again: It was read from its beginning, as it is not what it was.
        left_bytes: Still to be read; a last line that is being written counts among them.
    """

    rows: list[dict[str, Any]]
    damaged: int
    mark: Mark
    again: bool
    left_bytes: int


def read_on(path: Path, mark: Mark, max_bytes: int) -> Added:
    """The whole lines behind a mark.

    Args:
        path: log.jsonl or monitors.jsonl.
        mark: Of an earlier reading.
        max_bytes: To read at most, at least 64 KiB.

    Raises:
        OSError: The file cannot be read.
    """
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        again = mark.offset > 0 and (mark.offset > size or _check(file, mark.offset) != mark.check)
        offset = 0 if again else mark.offset
        file.seek(offset)
        data = file.read(max(max_bytes, _LONGEST_LINE))
        end = data.rfind(b"\n") + 1
        if not end and len(data) >= _LONGEST_LINE:
            end = len(data)  # go on behind it
        reached = Mark(offset + end, _check(file, offset + end))
    found = [_row(line) for line in data[:end].splitlines()]
    rows = [row for row in found if row is not None]
    return Added(rows, len(found) - len(rows), reached, again, size - reached.offset)


def last_row(path: Path) -> dict[str, Any]:
    """The last whole line of a log; empty if there is none."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _LONGEST_LINE))
        lines = file.read().split(b"\n")[:-1]
    rows = (_row(line) for line in reversed(lines))
    return next((row for row in rows if row is not None), {})


def _check(file: BinaryIO, offset: int) -> int:
    file.seek(max(0, offset - _CHECK_BYTES))
    return zlib.crc32(file.read(min(offset, _CHECK_BYTES)))


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
