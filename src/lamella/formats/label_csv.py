"""Labels CSV: which classes a whole slide or patch shows. How labels are written is read off or said, never guessed.

`image_name,label` with the number of a class, with 0 and 1 for every class ("1,0"), or with names; or `image_name` and
a column of 0 and 1 for every class. A bare "1" may be the second class or the presence of the only one: it is read
only where `label_format` says which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lamella.errors import DatasetError
from lamella.formats.tables import read_csv

LabelFormat = Literal["class_index", "columns", "multi_hot"]
Labels = tuple[int, ...]
"""0 or 1 for each class."""

LABEL = "label"
_NAMES = ("image_name", "filename", "slide_id", "name")
_BETWEEN_NAMES = ";"
_SAY = "Set label_format to class_index, columns or multi_hot."


@dataclass(frozen=True)
class LabelRows:
    """What a labels CSV says.

    Attributes:
        labels: (name as written, labels; None where its cells are empty), in the file's order.
        problems: Lines that cannot be understood.
    """

    labels: tuple[tuple[str, Labels | None], ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class LabelReader:
    """Cells to labels.

    Attributes:
        classes: Names of the classes in order.
        background: A name that means none of the classes; None: there is no such name.
        layout: `names` where labels are names of classes.
    """

    classes: tuple[str, ...]
    background: str | None
    layout: LabelFormat | Literal["names"]

    def __call__(self, row: Mapping[str, str]) -> Labels | None:
        """The labels of a row; None where its cells are empty.

        Raises:
            ValueError: It cannot be understood; its text says why.
        """
        if self.layout == "columns":
            return self._of_columns(row)
        text = row.get(LABEL, "")
        if not text:
            return None
        if self.layout == "multi_hot":
            return self._of_bits(text)
        return self._of_index(text) if self.layout == "class_index" else self._of_names(text)

    def _of_columns(self, row: Mapping[str, str]) -> Labels | None:
        cells = [row.get(name, "") for name in self.classes]
        if not any(cells):
            return None
        wrong = [
            f"{name} is {cell!r}" for name, cell in zip(self.classes, cells, strict=True) if cell not in ("0", "1")
        ]
        if wrong:
            raise ValueError(f"{', '.join(wrong)}, not 0 or 1")
        return tuple(int(cell) for cell in cells)

    def _of_bits(self, text: str) -> Labels:
        bits = text.strip("[]()").replace(",", " ").split()
        if len(bits) != len(self.classes) or set(bits) - {"0", "1"}:
            raise ValueError(f"{text!r} is not {len(self.classes)} times 0 or 1, one for each class")
        return tuple(int(bit) for bit in bits)

    def _of_index(self, text: str) -> Labels:
        if not text.isdecimal() or int(text) >= len(self.classes):
            numbers = f"0 to {len(self.classes) - 1} ({', '.join(self.classes)})"
            raise ValueError(f"label {text!r} is no class; numbers are {numbers}")
        return tuple(int(number == int(text)) for number in range(len(self.classes)))

    def _of_names(self, text: str) -> Labels:
        names = [text] if text in self.classes else [name.strip() for name in text.split(_BETWEEN_NAMES)]
        if names == [self.background]:
            return (0,) * len(self.classes)
        unknown = [name for name in names if name not in self.classes]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is no class; classes are {', '.join(self.classes)}")
        return tuple(int(name in names) for name in self.classes)


def read_labels(
    path: Path | str, classes: Sequence[str], background: str | None, label_format: LabelFormat | None
) -> LabelRows:
    """Read a labels CSV.

    Raises:
        DatasetError: A column is missing, or it does not say how labels are written.
        LamellaError: It cannot be read.
    """
    rows = read_csv(path)
    name = next((one for one in _NAMES if rows and one in rows[0]), None)
    if name is None:
        cause = f"it has no column {_NAMES[0]} (it has {', '.join(rows[0])})" if rows else "it labels nothing"
        raise DatasetError(path, cause, f"Give {_NAMES[0]},{LABEL} or {_NAMES[0]} and a column for every class.")
    reader = label_reader(path, rows, classes, background, label_format)
    found: list[tuple[str, Labels | None]] = []
    problems = []
    for line, row in enumerate(rows, start=2):  # line 1 is the header
        try:
            found.append((row[name], reader(row)))
        except ValueError as error:
            problems.append(f"{path}, line {line} ({row[name]}): {error}")
    return LabelRows(tuple(found), tuple(problems))


def label_reader(
    path: Path | str,
    rows: Sequence[Mapping[str, str]],
    classes: Sequence[str],
    background: str | None,
    label_format: LabelFormat | None,
) -> LabelReader:
    """How the labels of these rows are written: as said, or as their columns leave no doubt of.

    Args:
        path: Named in errors.
        rows: Column -> cell.
        classes: Names in order.
        background: See `LabelReader`.
        label_format: As said; None where nothing was.

    Raises:
        DatasetError: The wished columns are missing, or more than one reading is possible.
    """
    columns = {name for row in rows for name in row}
    lacking = [name for name in classes if name not in columns]
    if label_format == "columns" or (label_format is None and LABEL not in columns and len(lacking) < len(classes)):
        if lacking:
            raise DatasetError(
                path, f"it has no column for {', '.join(lacking)}", "Give every class a column of 0 and 1."
            )
        return LabelReader(tuple(classes), background, "columns")
    if LABEL not in columns:
        raise DatasetError(path, f"it has no column {LABEL} and none named after the classes", _SAY)
    if label_format is None:
        _refuse_numbers(path, rows, classes, both=not lacking)
    return LabelReader(tuple(classes), background, label_format or "names")


def _refuse_numbers(path: Path | str, rows: Sequence[Mapping[str, str]], classes: Sequence[str], both: bool) -> None:
    if both:
        raise DatasetError(path, f"it has a column {LABEL} and one for every class", _SAY)
    texts = (row.get(LABEL, "") for row in rows)
    number = next((text for text in texts if text and not set(text) - set("0123456789,; []()")), None)
    if number is not None:
        raise DatasetError(
            path,
            f"label {number!r} may be the number of a class (class_index) or 0 and 1 for each of "
            f"{len(classes)} (multi_hot), and label_format does not say which",
            _SAY,
        )
