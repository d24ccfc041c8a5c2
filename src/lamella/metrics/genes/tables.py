"""Writes what was found: results.md to read, results.json with everything, per_gene.csv with a line for every gene."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lamella.formats.atomic import write_json, write_text
from lamella.metrics.genes import markdown
from lamella.metrics.genes.bootstrap import ENOUGH_PATIENTS
from lamella.metrics.genes.comparison import differences
from lamella.metrics.genes.controls import Kind
from lamella.metrics.genes.correlation import PEARSON
from lamella.metrics.genes.deviance import POISSON
from lamella.metrics.genes.gene_report import GeneReport
from lamella.metrics.genes.measures import measures
from lamella.metrics.genes.nonzero import AUPRC
from lamella.metrics.genes.protocol import protocol
from lamella.metrics.genes.scores import GeneScores
from lamella.metrics.genes.settings import GeneMetricSettings
from lamella.metrics.genes.strata import GeneLine, gene_lines, stratum_lines
from lamella.metrics.genes.summary import summarise, undefined_genes

BY_SPARSITY = (PEARSON, AUPRC, POISSON)
"""Measures that are gathered by the sparsity of the gene; those of every gene are all in per_gene.csv."""


def write_expression_report(
    folder: Path,
    results: Mapping[str, GeneScores],
    kinds: Mapping[str, Kind],
    settings: GeneMetricSettings,
    *,
    title: str,
    pairs: Sequence[tuple[str, str]] = (),
    facts: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    warnings: Sequence[str] = (),
    command: str = "",
    pictures: Sequence[tuple[str, str]] = (),
) -> list[Path]:
    """Write results.md, results.json and per_gene.csv, each whole or not at all.

    Args:
        folder: Where.
        results: Predictor -> scores, in the order of the tables.
        kinds: Predictor -> model, baseline, control or ceiling.
        settings: As they were scored with.
        title: Heading.
        pairs: Predictors whose differences are wanted, (first, second).
        facts: Of the data and the protocol.
        notes: Sentences behind the tables.
        warnings: Sentences before them, beside those that the number of patients asks for.
        command: That repeats it.
        pictures: (file beside results.md, what it shows).

    Returns:
        The three files.

    Raises:
        GeneReportError: Predictors were judged by different truths, or a row lacks what it must have.
    """
    names = list(measures(settings))
    summary = summarise(results, kinds, settings)
    first = next(iter(results.values()))
    lines = [line for name, scores in results.items() for line in gene_lines(name, scores, names, settings.strata)]
    report = GeneReport(
        title,
        summary,
        differences(results, pairs, settings),
        tuple(lines),
        tuple(stratum_lines(lines, [name for name in BY_SPARSITY if name in names])),
        kinds,
        protocol(first, settings),
        first.patients,
        {resolution: undefined_genes(first, resolution) for resolution in first.resolutions},
        settings,
        (*few_patients(len(first.patients)), *warnings),
        tuple(notes),
        facts,
        command,
        tuple(pictures),
    )
    text, data, genes = folder / "results.md", folder / "results.json", folder / "per_gene.csv"
    write_text(text, markdown.text_of(report))
    write_json(data, tree_of(report))
    write_text(genes, per_gene_csv(report.lines, names))
    return [text, data, genes]


def few_patients(count: int) -> tuple[str, ...]:
    """What must be said of few patients before any number."""
    if count >= ENOUGH_PATIENTS:
        return ()
    who = "one patient" if count == 1 else f"{count} patients"
    return (
        f"n = {who}: this allows no claim of significance. Intervals are descriptive; no p value is given, and a "
        "difference between predictors is no finding about patients.",
    )


def tree_of(report: GeneReport) -> dict[str, Any]:
    """The report as plain values; numbers that are not defined are null."""
    return {
        "title": report.title,
        "protocol": dict(report.protocol),
        "patients": list(report.patients),
        "warnings": list(report.warnings),
        "notes": list(report.notes),
        "facts": dict(report.facts or {}),
        "command": report.command,
        "predictors": {name: report.kinds[name] for name in dict.fromkeys(line.predictor for line in report.lines)},
        "rows": [_plain(asdict(row)) for row in report.summary.rows],
        "undefined": [asdict(each) for each in report.summary.undefined],
        "unjudged_genes": {
            f"{um:g}": {why: list(who) for why, who in all_.items()} for um, all_ in report.unjudged.items()
        },
        "differences": [_plain(asdict(each)) for each in report.differences],
        "strata": [_plain(asdict(each)) for each in report.strata],
        "pictures": [list(each) for each in report.pictures],
    }


def per_gene_csv(lines: Sequence[GeneLine], names: Sequence[str]) -> str:
    """A line for every predictor, resolution and gene; empty where there is no number."""
    held = io.StringIO()
    writer = csv.writer(held, lineterminator="\n")
    head = ("predictor", "resolution_um", "gene", "stratum", "zero_share", "mean", "slides", "patients")
    writer.writerow([*head, *names, "pearson_shuffled", "patients_above_all_shuffles", "undefined"])
    for line in lines:
        writer.writerow(
            [
                line.predictor,
                f"{line.resolution_um:g}",
                line.gene,
                line.stratum,
                f"{line.zero_share:.4f}",
                f"{line.mean:.6g}",
                line.slides,
                line.patients,
                *(_number(line.values[name]) for name in names),
                _number(line.shuffled_pearson),
                line.above_shuffles,
                "; ".join(line.undefined),
            ]
        )
    return held.getvalue()


def _number(value: float) -> str:
    return f"{value:.5f}" if math.isfinite(value) else ""


def _plain(tree: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in tree.items()
    }
