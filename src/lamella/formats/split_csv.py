"""Split CSV: which slide is trained on, validated on and tested on.

Two layouts: columns `train,val,test` of different lengths, each a list of names (CLAM's and PBIP's; an unnamed column
of row numbers is passed over); or `filename,split`, a row for each name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from lamella.errors import DatasetError
from lamella.formats.tables import read_csv

PartName = Literal["train", "val", "test"]

_PARTS: dict[str, PartName] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_NAMES = ("filename", "image_name", "slide_id", "name")
_SPLIT = "split"
_REMEDY = "Give columns train,val,test, or filename,split."


def part_of(word: str) -> PartName | None:
    """The part that a word means; None for a word that means none."""
    return _PARTS.get(word.strip().lower())


def read_split(path: Path | str) -> list[tuple[str, PartName]]:
    """(name, part) of every cell, in the file's order, as written: with or without extension, repeated or not.

    Columns may be of different lengths: what is missing at the end of a row is empty. A row with more cells than the
    header is refused, because nothing says whose they are.

    Raises:
        DatasetError: The columns are of neither layout, a word is no part, a name is missing, or nobody is trained on.
        LamellaError: It cannot be read, or a row is longer than the header.
    """
    rows = read_csv(path)
    if not rows:
        raise DatasetError(path, "it names no slide", _REMEDY)
    header = list(rows[0])
    found = _listed(path, rows) if _SPLIT in header else _columns(path, header, rows)
    if not any(part == "train" for _, part in found):
        raise DatasetError(path, "it trains on no slide", "Name at least one slide for train.")
    return found


def _columns(path: Path | str, header: list[str], rows: list[dict[str, str]]) -> list[tuple[str, PartName]]:
    parts = {name: part_of(name) for name in header if name}
    strange = [name for name, part in parts.items() if part is None]
    if strange:
        raise DatasetError(path, f"its column {strange[0]!r} is no part of a split", _REMEDY)
    if len(set(parts.values())) < len(parts):
        raise DatasetError(path, f"two columns mean the same part ({', '.join(parts)})", _REMEDY)
    return [(row[name], part) for name, part in parts.items() if part is not None for row in rows if row[name]]


def _listed(path: Path | str, rows: list[dict[str, str]]) -> list[tuple[str, PartName]]:
    column = next((name for name in _NAMES if name in rows[0]), None)
    if column is None:
        raise DatasetError(path, f"it has a column split, but none of {', '.join(_NAMES)}", _REMEDY)
    found: list[tuple[str, PartName]] = []
    for number, row in enumerate(rows, start=2):  # line 1 is the header
        part = part_of(row[_SPLIT])
        if not row[column] or part is None:
            cause = f"{row[_SPLIT]!r} is no part of a split" if row[column] else f"it has no {column}"
            raise DatasetError(f"{path}, line {number}", cause, "Parts are train, val and test.")
        found.append((row[column], part))
    return found
