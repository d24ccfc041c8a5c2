"""Two runs side by side: what was set differently, how they ended, and the results that may be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lamella.errors import LamellaError
from lamella.metrics.segments.protocol import ProtocolError, refuse_mixed_trees
from lamella.view.server.runs.result_table import Line, Table, why, with_bars
from lamella.view.server.runs.run_files import RunFiles
from lamella.view.server.runs.run_log import last_row
from lamella.view.server.runs.run_results import comparable, is_of_genes, line_maker, results_of
from lamella.view.server.runs.run_settings import ABSENT, SettingDifference, different, facts_of, settings_of

Names = tuple[str, str]


@dataclass(frozen=True)
class Comparison:
    """What two runs do not share.

    Attributes:
        facts: (label, of the first, of the second) where they differ.
        settings: That differ.
        shared: How many settings are the same.
        ends: (log and column, last value of the first, of the second).
        tables: Results of both, question by question.
        refused: Results that are not put side by side, and why.
        faults: Files that cannot be read.
    """

    facts: Sequence[tuple[str, str, str]]
    settings: Sequence[SettingDifference]
    shared: int
    ends: Sequence[tuple[str, str, str]]
    tables: Sequence[Table]
    refused: Sequence[str]
    faults: Sequence[str]


def compare(folders: tuple[Path, Path], files: tuple[RunFiles, RunFiles], names: Names) -> Comparison:
    """Compare two runs; a file of either that cannot be read is told in `faults`.

    Args:
        folders: Of the runs.
        files: What lies in them.
        names: Of the runs, for the tables.
    """
    faults: list[str] = []

    def read(of: Any, folder: Path, otherwise: Any) -> Any:
        try:
            return of(folder)
        except LamellaError as error:
            faults.append(str(error))
            return otherwise

    one, two = ({**read(facts_of, folder, {})} for folder in folders)
    keys = dict.fromkeys((*one, *two))
    facts = [(key, one.get(key, ABSENT), two.get(key, ABSENT)) for key in keys if one.get(key) != two.get(key)]
    settings, shared = different(*(read(settings_of, folder, []) for folder in folders))
    found = [read(results_of, folder, None) for folder in folders]
    refused: list[str] = []
    tables = [] if None in found else compared_results((found[0].tree, found[1].tree), names, refused)
    return Comparison(facts, settings, shared, _ends(files), tables, refused, faults)


def compared_results(
    trees: tuple[Mapping[str, Any], Mapping[str, Any]], names: Names, refused: list[str]
) -> list[Table]:
    """The rows of both reports that answer the same question under the same conditions.

    Args:
        trees: Of the two results.json.
        names: Of the runs.
        refused: Gets a sentence for each question that is not compared.
    """
    if is_of_genes(trees[0]) != is_of_genes(trees[1]):
        refused.append("One report is of gene expression and the other is not.")
        return []
    (head, one), (_, two) = comparable(trees[0]), comparable(trees[1])
    lines: dict[str, list[Line]] = {}
    reasons: dict[str, None] = {}
    make = line_maker(trees[0])
    for key in dict.fromkeys((*one, *two)):
        first, second = one.get(key), two.get(key)
        reason = why_not(trees, first, second, names)
        if reason or first is None or second is None:
            reasons[f"{key[0]}: not compared, {reason}."] = None
            continue
        try:
            pairs = [(name, make(row)) for name, rows in zip(names, (first, second), strict=True) for row in rows]
        except (KeyError, TypeError, ValueError) as error:
            reasons[f"{key[0]}: not compared, {why(error)}."] = None
            continue
        lines.setdefault(key[0] if not is_of_genes(trees[0]) else " at ".join(reversed(key)), []).extend(
            replace(line, cells=(name, *line.cells)) for name, line in pairs
        )
    refused += list(reasons)
    return [Table(title, (), ("run", *head), with_bars(rows)) for title, rows in lines.items()]


def why_not(
    trees: tuple[Mapping[str, Any], Mapping[str, Any]],
    first: Sequence[Mapping[str, Any]] | None,
    second: Sequence[Mapping[str, Any]] | None,
    names: Names,
) -> str:
    """Why rows of two reports may not stand in one table; empty if they may.

    The conditions must be the same: of segmentations the protocol, of expression its protocol, of others the number of
    items and of groups and the baseline, which are those of the data.
    """
    if first is None or second is None:
        return f"only {names[first is None]} asked all of it"
    if is_of_genes(trees[0]):
        marks = [str(tree["protocol"]["hash"]) for tree in trees]
        if marks[0] != marks[1]:
            return f"other places, truth, genes, patients or settings (protocols {marks[0]} and {marks[1]})"
        return ""
    try:
        refuse_mixed_trees([*first, *second], "these rows")
    except (ProtocolError, KeyError, TypeError) as error:
        return str(error).removeprefix("these rows: ")
    if first[0].get("protocol") is None:
        data = [{_data_of(row) for row in rows} for rows in (first, second)]
        if not data[0] & data[1]:
            one, two = (next(iter(sorted(each))) for each in data)
            return f"other data (n, groups, baseline: {_said(one)} and {_said(two)})"
    return ""


def _data_of(row: Mapping[str, Any]) -> tuple[int, int, str, float]:
    estimate, baseline = row["estimate"], row["baseline"]
    return estimate["n"], estimate["groups"], baseline["name"], round(baseline["value"], 6)


def _said(data: tuple[int, int, str, float]) -> str:
    return f"{data[0]:,}, {data[1]:,}, {data[3]:g} {data[2]}"


def _ends(files: tuple[RunFiles, RunFiles]) -> list[tuple[str, str, str]]:
    """The last line of every log that both have."""
    one, two = ({(log.title, log.path.name): log.path for log in each.logs.values()} for each in files)
    found = []
    for title, name in one.keys() & two.keys():
        rows = [last_row(paths[title, name]) for paths in (one, two)]
        for key in dict.fromkeys((*rows[0], *rows[1])):
            values = [row.get(key, ABSENT) for row in rows]
            if all(isinstance(value, int | float) or value in (None, ABSENT) for value in values):
                where = f"{title}/{name}" if title else name
                found.append((f"{where}: {key}", _number(values[0]), _number(values[1])))
    return sorted(found, key=lambda line: line[0].partition(":")[0])


def _number(value: Any) -> str:
    if value is None:
        return "not a number"
    return f"{value:,}" if isinstance(value, int) else value if isinstance(value, str) else f"{value:.4g}"
