"""Result tables from results.json: never rows in one table that mean different things."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lamella.errors import LamellaError
from lamella.metrics.bootstrap import Estimate
from lamella.metrics.genes.markdown import HOW_TO_READ
from lamella.metrics.report import digits, span
from lamella.metrics.segments.protocol import Protocol, ProtocolError, refuse_mixed_trees
from lamella.view.server.runs.gene_results import GENE_HEAD, gene_line, gene_tables
from lamella.view.server.runs.result_table import Line, Table, why, with_bars
from lamella.view.server.runs.run_files import RESULTS, refuse_link_out

_MAX_BYTES = 64 << 20
HEAD = ("measure", "probe", "model", "value [95 % interval]", "baseline", "control", "n", "groups", "note")
_ARROWS = {"higher": "higher is better", "lower": "lower is better", "neither": "for orientation"}
_BROKEN = (KeyError, TypeError, ValueError, AttributeError)


@dataclass(frozen=True)
class Results:
    """What results.json says.

    Attributes:
        title: Heading.
        warnings: To be read before the numbers.
        conclusions: Sentences.
        tables: One a question.
        refused: Tables that are not shown, and why.
        notes: Sentences behind the tables.
        facts: Label -> text.
        command: That repeats it.
        captions: Picture's name in the folder -> what it shows.
        tree: The file's content.
    """

    title: str
    warnings: Sequence[str]
    conclusions: Sequence[str]
    tables: Sequence[Table]
    refused: Sequence[str]
    notes: Sequence[str]
    facts: Mapping[str, str]
    command: str
    captions: Mapping[str, str]
    tree: Mapping[str, Any] = field(repr=False)


def results_of(folder: Path) -> Results | None:
    """The results in a run's folder; None if it has none.

    Raises:
        LamellaError: The file is damaged.
    """
    path = folder / RESULTS
    if not path.is_file():
        return None
    refuse_link_out(path)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise LamellaError(path, "it is too large for a page", "Read it with a program.")
        tree = json.loads(path.read_text(encoding="utf-8"))
        refused: list[str] = []
        tables = list(tables_of(tree, refused))
        unasked = [f"{skipped['question']}: not asked, {skipped['reason']}" for skipped in tree.get("unasked", ())]
        return Results(
            str(tree["title"]),
            [str(text) for text in tree.get("warnings", ())],
            [str(text) for text in (*tree.get("conclusions", ()), *unasked)],
            tables,
            refused,
            [*(HOW_TO_READ if is_of_genes(tree) else ()), *(str(text) for text in tree.get("notes", ()))],
            {str(key): str(value) for key, value in (tree.get("facts") or {}).items()},
            str(tree.get("command", "")),
            {str(name): str(caption) for name, caption in tree.get("pictures", ())},
            tree,
        )
    except (*_BROKEN, OSError) as error:
        raise LamellaError(path, f"it cannot be read ({why(error)})", "Evaluate anew.") from error


def is_of_genes(tree: Mapping[str, Any]) -> bool:
    """Whether it is a report of expression, whose rows are of another form."""
    return "predictors" in tree


def tables_of(tree: Mapping[str, Any], refused: list[str]) -> Iterable[Table]:
    """The tables; the reason of one that cannot be shown goes to `refused`."""
    if is_of_genes(tree):
        yield from gene_tables(tree, refused)
        return
    for question, rows in by_question(tree).items():
        try:
            refuse_mixed_question(question, rows)
            lines = with_bars(_in_order([line_of(row) for row in rows]))
        except ProtocolError as error:  # a ValueError as well, but its whole text is to be read
            refused.append(f"{question}: not shown, {str(error).removeprefix(f'{question}: ')}")
            continue
        except _BROKEN as error:
            refused.append(f"{question}: not shown, {why(error)}")
            continue
        about = [text for text in (tree.get("meanings", {}).get(question, ""), conditions(rows[0])) if text]
        yield Table(question, about, HEAD, lines)


def by_question(tree: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """The rows of each table."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in tree["rows"]:
        found.setdefault(str(row["question"]), []).append(row)
    return found


def refuse_mixed_question(question: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse rows of different tasks or conditions, and a heading that names another task than the rows are of.

    Raises:
        ProtocolError: They are.
    """
    refuse_mixed_trees(rows, question)
    tree = rows[0].get("protocol")
    if tree is not None and not question.startswith(Protocol.of_tree(tree).head):
        raise ProtocolError(f"its rows are of the task {tree['task']}, which its heading does not say")


def conditions(row: Mapping[str, Any]) -> str:
    """What all rows of a segmentation's table share; empty of others."""
    tree = row.get("protocol")
    if tree is None:
        return ""
    grid = "each image's own pixels" if tree["mpp"] is None else f"{tree['mpp']:g} µm/px"
    return (
        f"Protocol {tree['table']}: {tree['task']}, {'oracle' if tree['oracle'] else 'no oracle'}; scored: "
        f"{tree['scored']}, n = {tree['n']}, at {grid}; classes: {', '.join(tree['classes'])}; "
        f"ignored: {', '.join(tree['ignored']) or 'nothing'}; judged items: {tree['split']}."
    )


def line_of(row: Mapping[str, Any]) -> Line:
    """A row as text. What a row must have (interval, n, baseline) is read without a default.

    Raises:
        KeyError, TypeError: It lacks something.
    """
    estimate, baseline, control = Estimate(**row["estimate"]), row["baseline"], row["control"]
    places = digits(estimate.n)
    cells = (
        f"{row['measure']} ({_ARROWS[row['better']]})",
        str(row["probe"]),
        str(row["encoder"]),
        span(estimate, sign=estimate.low < 0),
        f"{baseline['value']:.{places}f} {baseline['name']}",
        "none" if control is None else f"{control['value']:.{places}f} {control['name']}",
        f"{estimate.n:,}",
        f"{estimate.groups:,}",
        "; ".join(note for note in (estimate.note, row.get("note", "")) if note),
    )
    scale = (str(row["measure"]),)
    return Line(cells, scale, (estimate.low, estimate.value, estimate.high), float(baseline["value"]))


def comparable(tree: Mapping[str, Any]) -> tuple[Sequence[str], dict[tuple[str, ...], list[Mapping[str, Any]]]]:
    """Rows of a report by what two reports can share: (question, measure, probe), or (resolution, measure)."""
    found: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in tree["rows"]:
        if is_of_genes(tree):
            key = (f"{row['resolution_um']:g} µm", str(row["measure"]))
        else:
            key = (str(row["question"]), str(row["measure"]), str(row["probe"]))
        found.setdefault(key, []).append(row)
    return (GENE_HEAD if is_of_genes(tree) else HEAD), found


def line_maker(tree: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], Line]:
    """How a row of this report becomes a line."""
    return gene_line if is_of_genes(tree) else line_of


def _in_order(lines: Sequence[Line]) -> list[Line]:
    """By measure, then by probe, each in the order of its first row."""
    measures, probes = (list(dict.fromkeys(line.cells[at] for line in lines)) for at in (0, 1))
    return sorted(lines, key=lambda line: (measures.index(line.cells[0]), probes.index(line.cells[1])))
