"""Two runs side by side: what was set differently, how they ended, and the results that may be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lamella.errors import LamellaError
from lamella.metrics.segments.protocol import ProtocolError, refuse_mixed_trees
from lamella.view.server.runs.gene_results import measure_title
from lamella.view.server.runs.result_table import Line, Table, why, with_bars
from lamella.view.server.runs.run_files import RunFiles
from lamella.view.server.runs.run_log import last_row
from lamella.view.server.runs.run_results import (
    comparable,
    conditions,
    is_of_genes,
    line_maker,
    refuse_mixed_question,
    results_of,
)
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
    genes = is_of_genes(trees[0])
    if genes != is_of_genes(trees[1]):
        refused.append("One report is of gene expression and the other is not.")
        return []
    (head, one), (_, two) = comparable(trees[0]), comparable(trees[1])
    rows: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    reasons: dict[str, None] = {}  # a set in order
    for key in dict.fromkeys((*one, *two)):
        first, second = one.get(key, []), two.get(key, [])
        title = f"{measure_title(key[1])} at {key[0]}" if genes else key[0]
        try:
            reason = why_not(trees, first, second, names)
        except (KeyError, TypeError) as error:
            reason = why(error)
        if reason:
            reasons[f"{title}: not compared, {reason}."] = None
        else:
            rows.setdefault(title, []).extend(
                (name, row) for name, part in zip(names, (first, second), strict=True) for row in part
            )
    tables = []
    for title, found in rows.items():
        try:
            if not genes:  # rows of different measures, too, share the conditions of their table
                refuse_mixed_question(title, [row for _, row in found])
            lines = [_named(name, line_maker(trees[0])(row)) for name, row in found]
        except (ProtocolError, KeyError, TypeError, ValueError) as error:
            reasons[f"{title}: not compared, {why(error)}."] = None
            continue
        about = [text for text in (conditions(found[0][1]),) if text]  # the same of all
        tables.append(Table(title, about, ("run", *head), with_bars(lines)))
    refused += list(reasons)
    return tables


def _named(name: str, line: Line) -> Line:
    return replace(line, cells=(name, *line.cells))


def why_not(
    trees: tuple[Mapping[str, Any], Mapping[str, Any]],
    first: Sequence[Mapping[str, Any]],
    second: Sequence[Mapping[str, Any]],
    names: Names,
) -> str:
    """Why rows of two reports may not stand in one table; empty if they may.

    The conditions must be the same: of segmentations and of expression the protocol, of others what tells their data:
    the data set's name, the numbers of items and of groups, and the baseline.
    """
    if not first or not second:
        return f"some measures or probes are only in {names[not first]}"
    if is_of_genes(trees[0]):
        marks = [str(tree["protocol"]["hash"]) for tree in trees]
        if marks[0] != marks[1]:
            return f"other places, truth, genes, patients or settings (protocols {marks[0]} and {marks[1]})"
        return ""
    try:
        refuse_mixed_trees([*first, *second], "these rows")
    except (ProtocolError, KeyError, TypeError) as error:
        return str(error).removeprefix("these rows: ")
    return "" if first[0].get("protocol") is not None else _other_data(trees, first, second)


def _other_data(
    trees: tuple[Mapping[str, Any], Mapping[str, Any]],
    first: Sequence[Mapping[str, Any]],
    second: Sequence[Mapping[str, Any]],
) -> str:
    """Where rows without a protocol are of other data, as far as a report tells; empty if they are not."""
    sets = [(tree.get("facts") or {}).get("data set") for tree in trees]
    if sets[0] != sets[1]:
        return f"other data sets ({sets[0]} and {sets[1]})"
    counts = [{(row["estimate"]["n"], row["estimate"]["groups"]) for row in rows} for rows in (first, second)]
    if not counts[0] & counts[1]:
        one, two = (min(each) for each in counts)
        return f"other data (n: {one[0]:,} and {two[0]:,}; groups: {one[1]:,} and {two[1]:,})"
    bases = [
        {(row["baseline"]["name"], round(row["baseline"]["value"], 6)) for row in rows} for rows in (first, second)
    ]
    if not bases[0] & bases[1]:
        (name, value), (other, less) = (min(each) for each in bases)
        return f"other data (baseline: {value:g} {name} and {less:g} {other})"
    return ""


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
