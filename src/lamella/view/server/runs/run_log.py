"""Curves of a run from log.jsonl and monitors.jsonl, read on from where a page has read before.

A page holds a cursor: of each file, how far it has read and a check of the last bytes before that. A resumed run may
have cut the file, or written other lines there; the check tells, and that file is read from its beginning.
"""

from __future__ import annotations

import json
import math
import re
import time
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lamella.errors import LamellaError
from lamella.view.monitor_panels import panel_of
from lamella.view.server.runs.run_files import MONITORS, RunFile

AXES = ("step", "images_seen")
MAX_BYTES = 4 << 20
"""Read for one answer: about ten thousand steps."""
_CHECK_BYTES = 64
_MOST_POINTS = 8_000  # of one curve; a screen has fewer columns. Of longer logs the least and the greatest are kept
_LINE_BYTES = 350.0  # of a step, to guess how many a file holds
_NO_CURVES = frozenset({"step", "iteration", "epoch", "images_seen", "warnings"})
_CURSOR = re.compile(r"([A-Za-z0-9._-]+):(\d{1,15}):(\d{1,10})")


@dataclass
class Curve:
    """One column of one file: points in order; y is None where the run wrote no number."""

    x: list[float] = field(default_factory=list)
    y: list[float | None] = field(default_factory=list)


@dataclass(frozen=True)
class Piece:
    """Lines that were added to a file."""

    curves: Mapping[str, Curve]
    offset: int
    check: int
    again: bool
    """It was read from its beginning, since it is not the file it was."""
    more: bool
    rows: int
    damaged: int
    """Lines that are no JSON object."""
    warnings: list[str]


def read_cursor(text: str) -> dict[str, tuple[int, int]]:
    """Log id -> (bytes read, check of the last of them).

    Raises:
        LamellaError: It is none.
    """
    if not text:
        return {}
    parts = [_CURSOR.fullmatch(part) for part in text.split(",")]
    if not all(parts):
        raise LamellaError("after", "it is no cursor of this viewer", "Load the page again.")
    return {part[1]: (int(part[2]), int(part[3])) for part in parts if part}


def curves_answer(logs: Iterable[RunFile], cursor: Mapping[str, tuple[int, int]], axis: str) -> dict[str, Any]:
    """What a page asks for, again and again: the new points of every log.

    Args:
        logs: Of a run.
        cursor: How far the page has read.
        axis: One of AXES.
    """
    if axis not in AXES:
        raise LamellaError("x", f"{axis!r} is not one of {', '.join(AXES)}", "Choose one of them.")
    answer, held, newest, left = [], [], 0.0, MAX_BYTES
    more = False
    for log in logs:
        offset, check = cursor.get(log.id, (0, 0))
        try:
            piece = read_on(log.path, offset, check, axis, left)
            newest = max(newest, log.path.stat().st_mtime)
        except FileNotFoundError:
            continue  # removed since the folder was listed
        left = max(0, left - max(0, piece.offset - (0 if piece.again else offset)))
        more |= piece.more
        held.append(f"{log.id}:{piece.offset}:{piece.check}")
        if piece.rows or piece.again or piece.damaged or log.id not in cursor:
            answer.append(_tree(log, piece))
    age = round(time.time() - newest, 1) if newest else None
    return {"logs": answer, "cursor": ",".join(held), "more": more, "age_s": age}


def read_on(path: Path, offset: int, check: int, axis: str, max_bytes: int) -> Piece:
    """The whole lines after an offset.

    Raises:
        OSError: The file cannot be read.
    """
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        again = offset > 0 and (offset > size or _check(file, offset) != check)
        if again:
            offset = 0
        file.seek(offset)
        data = file.read(max_bytes)
        end = data.rfind(b"\n") + 1
        if not end and len(data) == max_bytes > _CHECK_BYTES:  # a line without end is none of ours: go on behind it
            end = len(data)
        reached = offset + end
        seen = _check(file, reached)
    curves, warnings, rows, damaged = _points(data[:end].splitlines(), axis, _every(size))
    return Piece(curves, reached, seen, again, reached + (len(data) - end) < size, rows, damaged, warnings)


def last_row(path: Path) -> dict[str, Any]:
    """The last whole line of a log; empty if there is none."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - (64 << 10)))
        lines = file.read().split(b"\n")[:-1]
    for line in reversed(lines):
        row = _row(line)
        if row is not None:
            return row
    return {}


def _check(file: Any, offset: int) -> int:
    file.seek(max(0, offset - _CHECK_BYTES))
    return zlib.crc32(file.read(min(offset, _CHECK_BYTES)))


def _every(size: int) -> int:
    """How many rows share two points."""
    return max(1, math.ceil(2 * size / _LINE_BYTES / _MOST_POINTS)) if size / _LINE_BYTES > _MOST_POINTS else 1


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _points(lines: list[bytes], axis: str, every: int) -> tuple[dict[str, Curve], list[str], int, int]:
    curves: dict[str, Curve] = {}
    warnings: list[str] = []
    rows = damaged = 0
    for line in lines:
        row = _row(line)
        x = None if row is None else _number(row.get(axis, row.get(AXES[0])))
        if row is None or x is None:
            damaged += 1
            continue
        rows += 1
        told = row.get("warnings") or ()
        warnings += [f"{axis.replace('_', ' ')} {x:,.0f}: {text}" for text in told if isinstance(text, str)]
        for name, value in row.items():
            if name in _NO_CURVES or not (value is None or isinstance(value, int | float)):
                continue
            curve = curves.setdefault(name, Curve())
            curve.x.append(x)
            curve.y.append(_number(value))
    return {name: _thin(curve, every) for name, curve in curves.items()}, warnings, rows, damaged


def _number(value: Any) -> float | None:
    """Rounded to what a screen can show; None of what is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value if isinstance(value, int) else float(f"{value:.6g}")


def _thin(curve: Curve, every: int) -> Curve:
    """Of each run of so many points the least and the greatest, in their order: no spike is lost."""
    if every == 1:
        return curve
    kept: set[int] = {0, len(curve.y) - 1}
    for first in range(0, len(curve.y), every):
        part = range(first, min(first + every, len(curve.y)))
        numbers = [(value, at) for at in part if (value := curve.y[at]) is not None]
        kept |= {min(numbers)[1], max(numbers)[1]} if numbers else {first}
    order = sorted(kept)
    return Curve([curve.x[at] for at in order], [curve.y[at] for at in order])


def _tree(log: RunFile, piece: Piece) -> dict[str, Any]:
    held = log.path.name == MONITORS
    curves = []
    for name, curve in piece.curves.items():
        panel, label = panel_of(name, held)
        curves.append({"name": name, "panel": panel, "label": label, "held": held, "x": curve.x, "y": curve.y})
    return {
        "id": log.id,
        "title": log.title,
        "again": piece.again,
        "rows": piece.rows,
        "damaged": piece.damaged,
        "warnings": piece.warnings,
        "curves": curves,
    }
