"""A chart of lines as places in an SVG of 380 x 200: the template only writes them down."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LEFT, RIGHT, TOP, BOTTOM = 58.0, 374.0, 8.0, 168.0
_TICKS = 5  # intervals at most on a linear axis; more crowd a small chart
_LOG_TICKS = 5  # at most
LOOKS = 6
"""Kinds of lines, by colour and dashes; the style sheet has them."""


@dataclass(frozen=True)
class Line:
    """Values to draw.

    Attributes:
        label: In the legend.
        x: Places; they grow.
        y: Values; NaN makes a gap.
        low, high: Range behind each; the same as y where it is one value.
        last: The newest value.
        raw: What was smoothed, drawn thinly behind; empty if nothing was.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    last: float
    raw: Sequence[float] = ()


@dataclass(frozen=True)
class Tick:
    """A place on an axis and its text."""

    at: float
    text: str


@dataclass(frozen=True)
class DrawnLine:
    """SVG paths of a line; `look` counts the kinds of lines."""

    label: str
    last: str
    look: int
    path: str
    band: str
    raw: str


@dataclass(frozen=True)
class Chart:
    """What the template needs.

    Attributes:
        title: Above it.
        lines: In order.
        across, up: Ticks of the axes.
        ends: (x at LEFT, x at RIGHT, y at BOTTOM, y at TOP), to read values under the pointer.
        logarithmic: Of the values.
        hidden: Values that have no place on a logarithmic axis.
    """

    title: str
    lines: Sequence[DrawnLine]
    across: Sequence[Tick]
    up: Sequence[Tick]
    ends: tuple[float, float, float, float]
    logarithmic: bool
    hidden: int


@dataclass(frozen=True)
class _Axis:
    """Values between `low` and `high` lie between two places."""

    low: float
    high: float
    first: float
    last: float
    logarithmic: bool

    def place(self, value: float) -> float:
        low, high = (self._flat(self.low), self._flat(self.high))
        return self.first + (self.last - self.first) * (self._flat(value) - low) / (high - low)

    def _flat(self, value: float) -> float:
        return math.log(value) if self.logarithmic else value

    def ticks(self) -> list[Tick]:
        numbers = _decades(self.low, self.high) if self.logarithmic else []
        numbers = numbers if len(numbers) > 1 else _round_numbers(self.low, self.high)
        return [Tick(round(self.place(number), 1), text_of(number)) for number in numbers]


def draw_chart(title: str, lines: Sequence[Line], logarithmic: bool) -> Chart:
    """Place lines on common axes.

    Args:
        title: Above the chart.
        lines: In the order of the legend.
        logarithmic: Values of 0 or less are left out, and counted.
    """
    shown = [value for line in lines for part in (line.low, line.high, line.raw) for value in part]
    finite = [value for value in shown if math.isfinite(value)]
    numbers = [value for value in finite if value > 0] if logarithmic else finite
    hidden = sum(1 for line in lines for value in line.y if logarithmic and value <= 0)
    places = [x for line in lines for x in line.x]
    if not numbers:
        drawn = [DrawnLine(line.label, text_of(line.last), at % LOOKS, "", "", "") for at, line in enumerate(lines)]
        return Chart(title, drawn, (), (), (0.0, 1.0, 0.0, 1.0), logarithmic, hidden)
    across = _axis(places, LEFT, RIGHT, False)
    up = _axis(numbers, BOTTOM, TOP, logarithmic)
    drawn = [
        DrawnLine(
            line.label,
            text_of(line.last),
            at % LOOKS,
            _path(line.x, line.y, across, up),
            "" if line.raw or list(line.low) == list(line.high) else _band(line, across, up),
            _path(line.x, line.raw, across, up) if line.raw else "",
        )
        for at, line in enumerate(lines)
    ]
    ends = (across.low, across.high, up.low, up.high)
    return Chart(title, drawn, across.ticks(), up.ticks(), ends, logarithmic, hidden)


def smoothed(values: Sequence[float], count: int) -> list[float]:
    """Mean of the last `count` values, fewer at the beginning; what is no number stays none and is left out."""
    found, total, have = [], 0.0, 0
    for at, value in enumerate(values):
        gone = values[at - count] if at >= count else math.nan
        for number, sign in ((value, 1), (gone, -1)):
            if math.isfinite(number):
                total, have = total + sign * number, have + sign
        found.append(total / have if math.isfinite(value) else math.nan)
    return found


def text_of(value: float) -> str:
    """A number short enough for a tick."""
    if not math.isfinite(value):
        return "no number"
    size = abs(value)
    if size >= 1e7 or 0 < size < 1e-3:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return f"{value:,.7g}" if size >= 1000 else f"{value:.4g}"


def _axis(values: Iterable[float], first: float, last: float, logarithmic: bool) -> _Axis:
    found = list(values)
    low, high = min(found), max(found)
    if low == high:  # a single value stands in the middle
        wide = abs(low) / 2 or 0.5
        low, high = (low / 2, high * 2) if logarithmic else (low - wide, high + wide)
    return _Axis(low, high, first, last, logarithmic)


def _path(x: Sequence[float], y: Sequence[float], across: _Axis, up: _Axis) -> str:
    """SVG commands; the pen is lifted over gaps, and a value between two gaps is a dot."""
    words, down = [], False
    for at, value in enumerate(y):
        if not math.isfinite(value) or (up.logarithmic and value <= 0):
            down = False
            continue
        place = f"{across.place(x[at]):.1f} {up.place(value):.1f}"
        words.append(f"L{place}" if down else f"M{place}h.1")
        down = True
    return "".join(words)


def _band(line: Line, across: _Axis, up: _Axis) -> str:
    """The area between the least and the greatest; broken where there are none."""
    parts: list[list[tuple[float, float, float]]] = [[]]
    for x, low, high in zip(line.x, line.low, line.high, strict=True):
        if math.isfinite(low) and not (up.logarithmic and low <= 0):
            parts[-1].append((across.place(x), up.place(low), up.place(high)))
        elif parts[-1]:
            parts.append([])
    shapes = []
    for part in parts:
        edge = [*((x, high) for x, _, high in part), *((x, low) for x, low, _ in reversed(part))]
        shapes += [f"M{'L'.join(f'{x:.1f} {y:.1f}' for x, y in edge)}Z"] if edge else []
    return "".join(shapes)


def _decades(low: float, high: float) -> list[float]:
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    step = max(1, math.ceil((last - first + 1) / _LOG_TICKS))
    return [10.0**power for power in range(first, last + 1, step)]


def _round_numbers(low: float, high: float) -> list[float]:
    rough = (high - low) / _TICKS
    decade = 10.0 ** math.floor(math.log10(rough))
    step = next(each * decade for each in (1, 2, 5, 10) if each * decade >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [at * step for at in range(first, last + 1)]
