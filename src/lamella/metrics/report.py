"""The one place that writes result tables. A row without n, interval and baseline cannot be made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from lamella.formats.atomic import write_json, write_text
from lamella.metrics.bootstrap import Estimate
from lamella.metrics.segments.protocol import FLAG, HEADS, Protocol, ProtocolError, refuse_mixed

Better = Literal["higher", "lower", "neither"]
_ARROWS = {"higher": "higher is better", "lower": "lower is better", "neither": "for orientation"}
MAJORITY = "majority class"
# Of several labels an item: the second alone flatters, because most classes are absent from most items.
MATCHES = ("exact match", "element-wise accuracy")


class ReportError(ValueError):
    """A table would say less than it must. A fault of the code that makes the table, not of the user."""


@dataclass(frozen=True)
class Reference:
    """What a number is compared with."""

    name: str
    value: float


@dataclass(frozen=True)
class Row:
    """One number of a result table.

    Raises:
        ReportError: n, the interval, the baseline or the encoder is missing or not a number.
    """

    question: str
    measure: str
    probe: str
    encoder: str
    estimate: Estimate
    baseline: Reference
    better: Better
    control: Reference | None = None
    """The same number with labels that mean nothing (see `controls.py`)."""
    note: str = ""
    protocol: Protocol | None = None
    """Of a segmentation: under which conditions it was scored."""

    def __post_init__(self) -> None:
        where = f"{self.question} / {self.measure} / {self.probe} / {self.encoder}"
        if not isinstance(self.estimate, Estimate) or not isinstance(self.baseline, Reference):
            raise ReportError(f"{where}: a row needs an estimate with its interval, and a baseline")
        numbers = (self.estimate.value, self.estimate.low, self.estimate.high, self.baseline.value)
        if not all(math.isfinite(number) for number in numbers):
            raise ReportError(f"{where}: value, interval and baseline must be numbers, not {numbers}")
        if self.estimate.n < 1 or self.estimate.groups < 1 or self.estimate.low > self.estimate.high:
            raise ReportError(f"{where}: n and groups must be at least 1 and the interval in order")
        if not self.encoder or not self.baseline.name:
            raise ReportError(f"{where}: encoder and baseline must be named")
        if self.protocol is not None and not isinstance(self.protocol, Protocol):
            raise ReportError(f"{where}: a protocol is a Protocol, not {type(self.protocol).__name__}")
        told = self.protocol is not None and self.protocol.label_oracle
        if told != (FLAG in self.encoder):
            raise ReportError(f"{where}: a row that was told the true labels, and only such a row, is named {FLAG}")


@dataclass(frozen=True)
class Unasked:
    """A question that the data cannot answer, and why."""

    question: str
    reason: str


@dataclass(frozen=True)
class Report:
    """A result table with its questions, its sentences and the command that repeats it."""

    title: str
    rows: Sequence[Row]
    meanings: dict[str, str] = field(default_factory=dict)
    """Question -> what is asked and how to read the answer."""
    warnings: Sequence[str] = ()
    """What must be read before the numbers."""
    conclusions: Sequence[str] = ()
    unasked: Sequence[Unasked] = ()
    notes: Sequence[str] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    pictures: Sequence[tuple[str, str]] = ()
    """(file beside results.md, what it shows)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", tuple(self.rows))  # what was checked is what is written
        balanced = {_place(row) for row in self.rows if row.measure == "balanced accuracy"}
        for row in self.rows:
            if row.measure != "accuracy":
                continue
            if _place(row) not in balanced:
                raise ReportError(f"{_place(row)}: accuracy may not stand without balanced accuracy")
            if row.baseline.name != MAJORITY:
                raise ReportError(f"{_place(row)}: accuracy must stand beside the majority rate")

        exact, elements = ({_place(row) for row in self.rows if row.measure == name} for name in MATCHES)
        if exact != elements:
            raise ReportError(f"{sorted(exact ^ elements)[0]}: {' and '.join(MATCHES)} must stand beside each other")
        refuse_mixed_rows(self.rows)

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write results.md and results.json, each whole or not at all; returns their paths."""
        markdown, data = folder / "results.md", folder / "results.json"
        write_text(markdown, self.markdown())
        write_json(data, self.tree())
        return markdown, data

    def tree(self) -> dict[str, Any]:
        """The report as plain values; each row has its protocol with both hashes."""
        tree = asdict(self)
        for plain, row in zip(tree["rows"], self.rows, strict=True):
            plain["protocol"] = None if row.protocol is None else row.protocol.tree()
        return tree

    def markdown(self) -> str:
        """The report as text: warnings and conclusions first, then one table for each question."""
        lines = [f"# {self.title}", ""]
        lines += [line for warning in self.warnings for line in (f"> **{warning}**", "")]
        lines += _bullets("What the numbers say", self.conclusions)
        questions = list(dict.fromkeys(row.question for row in self.rows))
        for question in questions:
            lines += [f"## {question}", ""]
            if question in self.meanings:
                lines += [self.meanings[question], ""]
            rows = [row for row in self.rows if row.question == question]
            lines += [*_conditions(rows), *_table(rows)]
        lines += _bullets("Not asked", [f"**{skipped.question}**: {skipped.reason}" for skipped in self.unasked])
        lines += _bullets("Notes", self.notes)
        lines += _bullets("Facts", [f"{key}: {value}" for key, value in self.facts.items()])
        if self.pictures:
            lines += ["## Pictures", "", *(f"![{caption}]({file})\n\n{caption}\n" for file, caption in self.pictures)]
        if self.command:
            lines += ["## Repeat", "", "```", self.command, "```", ""]
        return "\n".join(lines)


def refuse_mixed_rows(rows: Sequence[Row]) -> None:
    """Refuse a table (a question) in which numbers stand side by side that mean different things.

    Rows of a segmentation share the conditions of their table (all but the prompt), its title says the task, and a
    measure is taken of the same n in every row.

    Raises:
        ReportError: Names the table and what differs.
    """
    for question in dict.fromkeys(row.question for row in rows):
        table = [row for row in rows if row.question == question]
        protocols = [row.protocol for row in table]
        try:
            refuse_mixed(protocols, question)
        except ProtocolError as error:
            raise ReportError(str(error)) from error
        if protocols[0] is None:
            named = next((head for head in HEADS.values() if question.startswith(head)), None)
            if named:
                raise ReportError(f"{question}: rows under '{named}' must say their protocol")
            continue
        if not question.startswith(protocols[0].head):
            raise ReportError(f"{question}: a table of this task must be headed '{protocols[0].head}'")
        for measure in dict.fromkeys(row.measure for row in table):
            counts = {row.estimate.n for row in table if row.measure == measure}
            if len(counts) > 1:
                raise ReportError(f"{question} / {measure}: rows of different n ({sorted(counts)}) in one table")


def digits(n: int) -> int:
    """Decimals that n rows can carry: their share moves in steps of 1/n, and three decimals need about a thousand."""
    return 3 if n >= 1000 else 2


def span(estimate: Estimate, *, sign: bool = False) -> str:
    """`0.71 [0.62, 0.80]`; differences get a sign and a digit more, so that an end beside zero shows its side."""
    form = f"{'+' if sign else ''}z.{digits(estimate.n) + sign}f"  # z: no negative zero
    return f"{estimate.value:{form}} [{estimate.low:{form}}, {estimate.high:{form}}]"


def _place(row: Row) -> tuple[str, str, str]:
    return row.question, row.probe, row.encoder


def _bullets(head: str, texts: Sequence[str]) -> list[str]:
    return [f"## {head}", "", *(f"- {text}" for text in texts), ""] if texts else []


def _conditions(rows: Sequence[Row]) -> list[str]:
    """What all rows of a segmentation's table share."""
    protocol = rows[0].protocol
    if protocol is None:
        return []
    ignored = ", ".join(protocol.ignored) or "nothing"
    grid = "each image's own pixels" if protocol.mpp is None else f"{protocol.mpp:g} µm/px"
    oracle = "oracle" if protocol.oracle else "no oracle"
    if any(row.protocol is not None and row.protocol.label_oracle for row in rows):
        oracle += f" but in the rows named {FLAG}"
    return [
        f"Protocol {protocol.table}: {protocol.task}, {oracle}; scored: "
        f"{protocol.scored}, n = {protocol.n}, at {grid}; classes: {', '.join(protocol.classes)}; ignored: {ignored}; "
        f"judged items: {protocol.split}.",
        "",
    ]


_HEAD = ("measure", "probe", "encoder", "value [95 % interval]", "baseline", "control", "n", "groups", "note")


def _table(rows: Sequence[Row]) -> list[str]:
    head: tuple[str, ...] = _HEAD
    if rows[0].protocol is not None:
        head = (*("model" if name == "encoder" else name for name in _HEAD), "protocol")
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    measures, probes = (list(dict.fromkeys(names)) for names in zip(*((r.measure, r.probe) for r in rows), strict=True))
    for row in sorted(rows, key=lambda row: (measures.index(row.measure), probes.index(row.probe))):
        places = digits(row.estimate.n)
        cells: tuple[str, ...] = (
            f"{row.measure} ({_ARROWS[row.better]})",
            row.probe,
            row.encoder,
            span(row.estimate, sign=row.estimate.low < 0),
            f"{row.baseline.value:.{places}f} {row.baseline.name}",
            f"{row.control.value:.{places}f} {row.control.name}" if row.control else "",
            str(row.estimate.n),
            str(row.estimate.groups),
            "; ".join(note for note in (row.estimate.note, row.note) if note),
        )
        if row.protocol is not None:
            cells = (*cells, row.protocol.hash)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return [*lines, ""]
