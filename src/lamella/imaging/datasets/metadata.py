"""The tables that come with a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lamella.errors import DatasetError, LamellaError
from lamella.formats.tables import read_csv

_HEAD_BYTES = 4096  # a header is shorter


def rows_of(path: Path) -> list[dict[str, str]]:
    """All rows of a table.

    Raises:
        DatasetError: It is missing, is no CSV, or has no row.
    """
    try:
        rows = read_csv(path)
    except LamellaError as error:
        raise DatasetError(error.thing, error.cause, error.remedy) from error
    if not rows:
        raise DatasetError(path, "it has no row", "Download it again.")
    return rows


def has_columns(path: Path, wanted: Sequence[str]) -> bool:
    """Whether a file begins like a table with these columns; other data sets have tables of the same name."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.readline(_HEAD_BYTES).decode("utf-8-sig", errors="replace")
    return set(wanted) <= {column.strip() for column in head.split(",")}


def refuse_columns(path: Path, rows: Sequence[dict[str, str]], wanted: Sequence[str]) -> None:
    """Refuse a table without one of these columns.

    Raises:
        DatasetError: Names the absent ones and those that are there.
    """
    absent = [column for column in wanted if column not in rows[0]]
    if absent:
        raise DatasetError(
            path,
            f"the column {', '.join(absent)} is absent (it has {', '.join(filter(None, rows[0]))})",
            "Download it again.",
        )


def lines_of(path: Path) -> list[str]:
    """The lines of a list of names, blank ones left out.

    Raises:
        DatasetError: It cannot be read.
    """
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(path, f"it cannot be read ({error})", "Download it again.") from error
