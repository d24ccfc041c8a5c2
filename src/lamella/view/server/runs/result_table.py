"""A table of results as a page shows it: text, and a bar for each interval on the scale of its measure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lamella.errors import first_line

BAR_WIDTH = 120
"""Units of a bar's scale from end to end."""
_MARGIN = 4  # so that a dot at the end of the scale is whole


@dataclass(frozen=True)
class Bar:
    """Places on the scale, 0 to BAR_WIDTH; `base` is None where the row has no baseline."""

    low: float
    value: float
    high: float
    base: float | None


@dataclass(frozen=True)
class Line:
    """One row.

    Attributes:
        cells: Texts in the order of the head.
        scale: Rows that share it are drawn on one scale.
        numbers: (low, value, high).
        base: The baseline's value, None if it has none.
        bar: Where these stand on the scale.
    """

    cells: tuple[str, ...]
    scale: tuple[str, ...]
    numbers: tuple[float, float, float]
    base: float | None
    bar: Bar | None = None


@dataclass(frozen=True)
class Table:
    """Rows that may stand side by side, under a heading that says what they are of."""

    title: str
    about: Sequence[str]
    head: Sequence[str]
    lines: Sequence[Line]


def with_bars(lines: Sequence[Line]) -> list[Line]:
    """The lines with their bars; rows of one measure share a scale that holds all their intervals and baselines."""
    ends: dict[tuple[str, ...], tuple[float, float]] = {}
    for line in lines:
        numbers = [*line.numbers, *([] if line.base is None else [line.base])]
        low, high = ends.get(line.scale, (math.inf, -math.inf))
        ends[line.scale] = min(low, *numbers), max(high, *numbers)
    return [replace(line, bar=_bar(line, *ends[line.scale])) for line in lines]


def why(error: Exception) -> str:
    """Why a table cannot be shown, in words."""
    return f"a row lacks {error}" if isinstance(error, KeyError) else first_line(error)


def _bar(line: Line, low: float, high: float) -> Bar:
    def place(number: float) -> float:
        share = (number - low) / (high - low) if high > low else 0.5
        return round(_MARGIN + share * (BAR_WIDTH - 2 * _MARGIN), 1)

    return Bar(*map(place, line.numbers), None if line.base is None else place(line.base))
