"""From the curves of one run or two to charts: which lines share one, and what is said of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from starlette.datastructures import QueryParams

from lamella.errors import LamellaError
from lamella.view.monitor_panels import LOSS, PARTS, panel_of
from lamella.view.server.runs.chart import LOOKS, Chart, Line, draw_chart, smoothed, text_of
from lamella.view.server.runs.run_curves import AXES, LogCurves, RunCurves

MOST_SMOOTH = 100_000
OWN = "run"
"""What a log in the run's own folder is called beside those of folders in it."""


@dataclass(frozen=True)
class Wish:
    """How a page wants its curves.

    Attributes:
        axis: One of AXES.
        logarithmic: Of the values.
        smooth: Mean of so many steps; 1 leaves values as they are.
        logs: Titles of the logs; the first few where none is named.
    """

    axis: str = AXES[0]
    logarithmic: bool = False
    smooth: int = 1
    logs: tuple[str, ...] = ()

    @classmethod
    def of_query(cls, query: QueryParams) -> Wish:
        """From `x`, `log`, `smooth` and any number of `logs`.

        Raises:
            LamellaError: One of them cannot be.
        """
        axis, smooth = query.get("x", AXES[0]), query.get("smooth") or "1"
        if axis not in AXES:
            raise LamellaError("x", f"{axis!r} is not one of {', '.join(AXES)}", "Choose one of them.")
        if not smooth.isdecimal() or not 1 <= int(smooth) <= MOST_SMOOTH:
            raise LamellaError("smooth", f"{smooth!r} is no number from 1 to {MOST_SMOOTH}", "Give one.")
        return cls(axis, "log" in query, int(smooth), tuple(query.getlist("logs")))


@dataclass(frozen=True)
class Charts:
    """What a page shows of logs.

    Attributes:
        charts: What tells most stands first.
        constant: Columns that never changed, as text.
        warnings: Of the monitors.
        logs: (title, whether it is shown).
        notes: What was left out or merged.
        any: Whether a log has a line.
    """

    charts: Sequence[Chart]
    constant: Sequence[str]
    warnings: Sequence[str]
    logs: Sequence[tuple[str, bool]]
    notes: Sequence[str]
    any: bool


def charts_of(runs: Mapping[str, RunCurves], wish: Wish) -> Charts:
    """Draw the curves as far as they have been read.

    Args:
        runs: By name.
        wish: How.
    """
    titles = list(dict.fromkeys(log.title or OWN for run in runs.values() for log in run.logs.values()))
    wanted = [title for title in titles if title in wish.logs] or titles[:LOOKS]
    found: dict[str, list[_Named]] = {}
    warnings: list[str] = []
    damaged = 0
    for name, run in runs.items():
        with run.lock:
            for log in run.logs.values():
                title = log.title or OWN
                damaged += log.damaged
                warnings += [f"{_joined(name, runs, title, titles)}{text}" for text in log.warnings]
                if title in wanted:
                    _gather(found, log, _joined(name, runs, title, titles), AXES.index(wish.axis))
    found = _split(found)
    constant = [text for title, lines in found.items() if (text := _constant(title, lines))]
    charts = [
        draw_chart(title, [_line(each, wish) for each in lines], wish.logarithmic)
        for title, lines in sorted(found.items(), key=_rank)
        if not _constant(title, lines)
    ]
    merged = max((each.each for lines in found.values() for each in lines), default=1)
    notes = []
    if merged > 1:
        notes.append(f"Long curves: a line is the mean of up to {merged} steps, the area behind it their range.")
    if damaged:
        notes.append(f"{damaged} damaged lines of the logs are left out.")
    logs = [(title, title in wanted) for title in titles]
    return Charts(charts, constant, warnings, logs, notes, bool(found))


def version_of(runs: Iterable[RunCurves]) -> str:
    """Changes when there is something new to draw."""
    return ".".join(str(run.version) for run in runs)


def status_of(runs: Sequence[RunCurves]) -> str:
    """When the newest line was written, and what is still to be read."""
    ages = [age for run in runs if (age := run.age_s()) is not None]
    if not ages:
        return "There is no log yet."
    age, left = min(ages), sum(run.left_bytes for run in runs)
    unit, seconds, _ = next(each for each in _UNITS if age < each[2])
    reading = f" {left / 1e6:,.1f} MB are still to be read." if left > 0 else ""
    return f"Last written {age / seconds:.0f} {unit} ago.{reading}"


_UNITS = (("s", 1.0, 120.0), ("min", 60.0, 7200.0), ("h", 3600.0, 172_800.0), ("days", 86_400.0, math.inf))


@dataclass(frozen=True)
class _Named:
    """A curve as it was when it was looked at, where it is from, and its name in the panel."""

    words: str
    name: str
    held: bool
    points: tuple[list[float], list[float], list[float], list[float]]
    each: int
    last: float

    @property
    def label(self) -> str:
        return f"{self.words}{self.name}"


def _rank(panel: tuple[str, list[_Named]]) -> int:
    """What tells most stands first: the loss, its parts, what was measured on held views, the course's own numbers."""
    title, lines = panel
    return 2 if lines[0].held else 0 if title == LOSS else 1 if title.startswith(PARTS) else 3


def _split(found: Mapping[str, list[_Named]]) -> dict[str, list[_Named]]:
    """A panel of more lines than there are kinds of them becomes one for each column."""
    panels: dict[str, list[_Named]] = {}
    for title, lines in found.items():
        for line in lines:
            many = len(lines) > LOOKS and len({each.name for each in lines}) > 1
            panels.setdefault(f"{title}: {line.name}" if many else title, []).append(line)
    return panels


def _gather(found: dict[str, list[_Named]], log: LogCurves, words: str, axis: int) -> None:
    """Copies the points, since another request may add to them; the run's lock is held."""
    for column, curve in log.curves.items():
        panel, label = panel_of(column, log.held)
        title = f"{panel} (held views)" if log.held and "held views" not in panel else panel
        found.setdefault(title, []).append(_Named(words, label, log.held, curve.points(axis), curve.each, curve.last))


def _joined(name: str, runs: Mapping[str, RunCurves], title: str, titles: Sequence[str]) -> str:
    """`first run, fold0: ` as far as there is more than one."""
    words = [*([name] if len(runs) > 1 else []), *([title] if len(titles) > 1 else [])]
    return f"{', '.join(words)}: " if words else ""


def _constant(title: str, lines: Sequence[_Named]) -> str:
    """`weight decay 0.05` of what never changed over three points; empty of others."""
    numbers = {value for each in lines for part in each.points[2:] for value in part}
    if len(numbers) == 1 and all(len(each.points[1]) > 2 for each in lines):
        return f"{title} {text_of(numbers.pop())}"
    return ""


def _line(curve: _Named, wish: Wish) -> Line:
    # A log without images has no place along them.
    placed = [point for point in zip(*curve.points, strict=True) if math.isfinite(point[0])]
    x, mean, low, high = zip(*placed, strict=True) if placed else ((), (), (), ())
    count = max(1, round(wish.smooth / curve.each))
    if count == 1:
        return Line(curve.label, x, mean, low, high, curve.last)
    return Line(curve.label, x, smoothed(mean, count), low, high, curve.last, mean)
