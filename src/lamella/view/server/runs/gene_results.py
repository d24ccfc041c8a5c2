"""Result tables of gene expression: one for each resolution and measure, models first, then what they stand beside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from lamella.metrics.genes.controls import Kind
from lamella.metrics.genes.settings import GeneMetricSettings
from lamella.metrics.genes.summary import summary_measures
from lamella.view.server.runs.result_table import Line, Table, why, with_bars

GENE_HEAD = (
    "predictor", "kind", "mean [95 % interval]", "median (quartiles)", "baseline: mean map",
    "label shuffle: mean, 95th pct. (number)", "places", "genes", "undefined", "slides / patients", "note",
)  # fmt: skip
_KINDS = get_args(Kind)
_ARROWS = {"higher": "higher is better", "lower": "lower is better", "neither": "for orientation"}


def gene_tables(tree: Mapping[str, Any], refused: list[str]) -> Iterator[Table]:
    """The tables; the reason of one that cannot be shown goes to `refused`."""
    groups: dict[tuple[float, str], list[Mapping[str, Any]]] = {}
    for row in tree["rows"]:
        groups.setdefault((row["resolution_um"], row["measure"]), []).append(row)
    for (um, measure), rows in groups.items():
        title = f"{measure_title(measure)} at {um:g} µm"
        try:
            ordered = sorted(rows, key=lambda row: _KINDS.index(row["kind"]))
            lines = with_bars([gene_line(row) for row in ordered])
        except (KeyError, TypeError, ValueError) as error:
            refused.append(f"{title}: not shown, {why(error)}")
            continue
        gone = [
            f"{each['predictor']} ({each['reason']})"
            for each in tree.get("undefined", ())
            if each["measure"] == measure and each["resolution_um"] == um
        ]
        about = [f"No number: {'; '.join(gone)}."] if gone else []
        yield Table(title, about, GENE_HEAD, lines)


def measure_title(name: str) -> str:
    """`Pearson (higher is better)`; the name itself of a measure with other than the default settings."""
    measure = summary_measures(GeneMetricSettings()).get(name)
    return name.replace("_", " ") if measure is None else f"{measure.title} ({_ARROWS[measure.better]})"


def gene_line(row: Mapping[str, Any]) -> Line:
    """A row as text. What a row must have is read without a default.

    Raises:
        KeyError, TypeError: It lacks something.
    """
    control, base = row["control"], row["baseline"]
    cells = (
        str(row["predictor"]),
        str(row["kind"]),
        f"{row['value']:z.3f} [{row['low']:z.3f}, {row['high']:z.3f}]",
        "" if row["median"] is None else f"{row['median']:z.3f} ({row['q25']:z.3f}, {row['q75']:z.3f})",
        str(row["baseline_note"]) if base is None else f"{base:z.3f}",
        str(row["control_note"])
        if control is None
        else f"{control['mean']:z.3f}, {control['high']:z.3f} ({control['shuffles']})",
        f"{row['n']:,}",
        f"{row['genes']:,}",
        f"{row['undefined']:,}",
        f"{row['slides']} / {row['patients']}",
        str(row.get("note", "")),
    )
    scale = (f"{row['resolution_um']:g}", str(row["measure"]))
    return Line(cells, scale, (row["low"], row["value"], row["high"]), base)
