"""The report of expression as text: warnings first, then one table for each resolution and measure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from lamella.metrics.genes.comparison import Difference
from lamella.metrics.genes.controls import MEANINGS, Kind
from lamella.metrics.genes.correlation import PEARSON
from lamella.metrics.genes.deviance import NB, POISSON
from lamella.metrics.genes.gene_report import GeneReport
from lamella.metrics.genes.measures import AGREEMENT, FISHER, Measure
from lamella.metrics.genes.nonzero import AUPRC
from lamella.metrics.genes.overview import overview
from lamella.metrics.genes.strata import GeneLine
from lamella.metrics.genes.summary import GeneRow, summary_measures

_ARROWS = {"higher": "higher is better", "lower": "lower is better", "neither": "for orientation"}
_KINDS: tuple[Kind, ...] = ("model", "baseline", "control", "ceiling")
_SHOWN = 12
# Genes of the best and the worst that the text names; all are in per_gene.csv.
_GENES = 10
# Of the differences, the text has these; results.json has all.
_COMPARED = (PEARSON, AUPRC, POISSON, NB)
HOW_TO_READ = (
    "A value is the mean over genes, then over slides, with its 95 % interval from resamples of patients, genes and "
    "blocks of places. Median and quartiles are over genes.",
    "Baseline: the mean map of the training patients, scored alike. A constant has no correlation; its AUROC is .5 and "
    "its AUPRC the share of non-zero places, and it explains no deviance.",
    "Label shuffle: the same prediction against the truth of other places; mean and 95th percentile of the shuffles. "
    "Of bins whole blocks of places are exchanged, so that the truth keeps its texture; of spots single ones.",
    "Deviance explained is against the judged slide's own mean; NB's dispersion is taken by moments from the judged "
    "truth, the same for every predictor.",
    "Coarser bins are sums of truth and prediction over whole blocks of judged bins.",
    "A gene whose truth is constant on a slide (all zero, as a rule) has no number there, and a constant prediction "
    "has no correlation: both are left out of the mean and counted in the column `undefined`, never taken as 0.",
)
_DESCRIPTIVE = (
    "Descriptive only: maps that are mostly empty agree for being empty. In the published control, shuffled labels "
    "still had an SSIM of .493 of .571 while Pearson fell from .100 to .001. Read the shuffle's column and the skill."
)
_ABOUT: Mapping[str, str] = {
    AGREEMENT: "One number for all genes of a slide: are the patchy genes predicted to be patchy? Genes of many counts "
    "have a high I anyway, so read it beside the controls. Shuffled: the I of other genes.",
    "moran_predicted": "Of counts: the I of Poisson counts drawn from the prediction, as the truth has such noise too.",
    "moran_excess": "Of counts with Poisson noise added to the prediction, in closed form; 0 is best, and a truth "
    "that varies more than a Poisson leaves a perfect prediction above it. Shuffled: to a truth without any order.",
    FISHER: "The same correlations averaged as Fisher's z.",
}


def text_of(report: GeneReport) -> str:
    """The whole text."""
    lines = [f"# {report.title}", ""]
    lines += [line for warning in report.warnings for line in (f"> **{warning}**", "")]
    lines += _bullets("In short", _in_short(report))
    lines += overview(report)
    lines += _bullets("How to read the tables", HOW_TO_READ)
    lines += _predictors(report)
    known = summary_measures(report.settings)
    resolutions = sorted({row.resolution_um for row in report.summary.rows})
    for resolution_um in resolutions:
        lines += [f"## At {resolution_um:g} µm", ""]
        rows = [row for row in report.summary.rows if row.resolution_um == resolution_um]
        for name, measure in known.items():
            having = [row for row in rows if row.measure == name]
            if having:
                lines += _table(report, resolution_um, measure, having)
        lines += _unjudged(report, resolution_um)
    lines += _differences(report.differences, known)
    lines += _strata(report)
    lines += _genes(report)
    lines += _bullets("Notes", report.notes)
    lines += _bullets("Facts", [f"{key}: {value}" for key, value in (report.facts or {}).items()])
    lines += [f"Protocol {report.protocol['hash']} (places, truth, genes, patients and settings; in results.json).", ""]
    if report.pictures:
        lines += ["## Pictures", "", *(f"![{what}]({file})\n\n{what}\n" for file, what in report.pictures)]
    if report.command:
        lines += ["## Repeat", "", "```", report.command, "```", ""]
    return "\n".join(lines)


def _in_short(report: GeneReport) -> list[str]:
    """One sentence for each resolution: the first model's Pearson between all that it must be read beside."""
    found = []
    pearson = [row for row in report.summary.rows if row.measure == PEARSON]
    model = next((row.predictor for row in pearson if row.kind == "model"), None)
    for own in (row for row in pearson if row.predictor == model):
        others = [row for row in pearson if row.resolution_um == own.resolution_um and row is not own]
        beside = []
        if own.control is not None:
            beside.append(f"label shuffle {own.control.mean:z.3f}")
        for kind in _KINDS[1:]:
            beside += [f"{row.predictor} {row.value:z.3f} ({kind})" for row in others if row.kind == kind]
        found.append(
            f"At {own.resolution_um:g} µm {model} has a mean Pearson of {own.value:z.3f} [{own.low:z.3f}, "
            f"{own.high:z.3f}] over {own.genes} genes, {own.slides} slides and {own.patients} patient(s). Beside it: "
            f"{'; '.join(beside)}; the training mean map, a constant, has none."
        )
    return found


def _bullets(head: str, texts: Sequence[str]) -> list[str]:
    return [f"## {head}", "", *(f"- {text}" for text in texts), ""] if texts else []


def _predictors(report: GeneReport) -> list[str]:
    found = []
    for kind in _KINDS:
        for name in dict.fromkeys(line.predictor for line in report.lines):
            if report.kinds[name] == kind:
                found.append(f"**{name}** ({kind})" + (f": {MEANINGS[name]}" if name in MEANINGS else ""))
    return _bullets("Predictors", found)


def _table(report: GeneReport, resolution_um: float, measure: Measure, rows: Sequence[GeneRow]) -> list[str]:
    """One measure of all predictors, models first."""
    lines = [f"### {measure.title} at {resolution_um:g} µm ({_ARROWS[measure.better]})", ""]
    about = _DESCRIPTIVE if measure.descriptive else _ABOUT.get(measure.name, "")
    lines += [about, ""] if about else []
    head = (
        "predictor",
        "kind",
        "mean [95 % interval]",
        "median (quartiles)",
        "baseline: mean map",
        "label shuffle: mean, 95th pct. (number)",
        "places",
        "genes",
        "undefined",
        "slides / patients",
        "note",
    )
    lines += [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in sorted(rows, key=lambda row: _KINDS.index(row.kind)):
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in _cells(row)) + " |")
    gone = [
        f"{each.predictor} ({each.reason})"
        for each in report.summary.undefined
        if each.measure == measure.name and each.resolution_um == resolution_um
    ]
    return [*lines, "", *([f"No number: {'; '.join(gone)}.", ""] if gone else [])]


def _cells(row: GeneRow) -> tuple[str, ...]:
    quartiles = f"{row.median:z.3f} ({row.q25:z.3f}, {row.q75:z.3f})" if math.isfinite(row.median) else ""
    control = row.control_note
    if row.control is not None:
        control = f"{row.control.mean:z.3f}, {row.control.high:z.3f} ({row.control.shuffles})"
    return (
        row.predictor,
        row.kind,
        f"{row.value:z.3f} [{row.low:z.3f}, {row.high:z.3f}]",
        quartiles,
        row.baseline_note if row.baseline is None else f"{row.baseline:z.3f}",
        control,
        str(row.n),
        str(row.genes),
        str(row.undefined),
        f"{row.slides} / {row.patients}",
        row.note,
    )


def _unjudged(report: GeneReport, resolution_um: float) -> list[str]:
    lines = []
    for reason, who in report.unjudged.get(resolution_um, {}).items():
        more = f" and {len(who) - _SHOWN} more" if len(who) > _SHOWN else ""
        lines.append(f"Not judged, {reason}: {', '.join(who[:_SHOWN])}{more}.")
    return [*lines, ""] if lines else []


def _differences(found: Sequence[Difference], known: Mapping[str, Measure]) -> list[str]:
    if not found:
        return []
    lines = ["## Differences between predictors", ""]
    lines += ["Paired: the same patients, genes and blocks of places are drawn for both. Other measures: results.json."]
    lines += [""]
    head = (
        "first - second",
        "measure",
        "µm",
        "difference [95 % interval]",
        "patients in whom first is better",
        "genes",
    )
    lines += [f"| {' | '.join((*head, 'note'))} |", f"|{'---|' * (len(head) + 1)}"]
    for each in found:
        if each.measure not in _COMPARED:
            continue
        cells = (
            f"{each.first} - {each.second}",
            known[each.measure].title,
            f"{each.resolution_um:g}",
            f"{each.value:+z.4f} [{each.low:+z.4f}, {each.high:+z.4f}]",
            f"{each.better} of {each.patients} patients",
            str(each.genes),
            each.note,
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return [*lines, ""]


def _strata(report: GeneReport) -> list[str]:
    """Pearson by sparsity, of models and baselines."""
    rows = [
        line
        for line in report.strata
        if line.measure == PEARSON and report.kinds[line.predictor] in ("model", "baseline") and line.judged
    ]
    if not rows:
        return []
    lines = ["## Pearson by sparsity of the gene", ""]
    lines += [
        "Above shuffles: genes whose Pearson lies above every shuffle, on every slide of every patient. Descriptive, "
        "no test: of many genes some get there by chance.",
        "",
        "| predictor | µm | class | genes | with a number | median (quartiles) | above shuffles |",
        "|---|---|---|---|---|---|---|",
    ]
    for line in sorted(rows, key=lambda line: (line.resolution_um, line.predictor, _leading(line.stratum))):
        lines.append(
            f"| {line.predictor} | {line.resolution_um:g} | {line.stratum} | {line.genes} | {line.judged} | "
            f"{line.median:z.3f} ({line.q25:z.3f}, {line.q75:z.3f}) | {line.above_shuffles_everywhere} |"
        )
    return [*lines, ""]


def _leading(stratum: str) -> float:
    return float(stratum.split("-")[0])


def _genes(report: GeneReport) -> list[str]:
    """The best and the worst genes of the first model, at the data's own resolution."""
    model = next((line.predictor for line in report.lines if report.kinds[line.predictor] == "model"), None)
    own = [line for line in report.lines if line.predictor == model]
    if not own:
        return []
    finest = min(line.resolution_um for line in own)
    ranked = [line for line in own if line.resolution_um == finest and math.isfinite(line.values[PEARSON])]
    ranked.sort(key=lambda line: (-line.values[PEARSON], line.gene))
    shown = ranked if len(ranked) <= 2 * _GENES else [*ranked[:_GENES], *ranked[-_GENES:]]
    lines = [f"## Which genes are predictable: {model} at {finest:g} µm", ""]
    lines += [f"The best and the worst of {len(ranked)}, by Pearson; all are in per_gene.csv.", ""]
    lines += ["| gene | Pearson | shuffled | class | mean | patients above all shuffles |", "|---|---|---|---|---|---|"]
    return [*lines, *(_gene_row(line) for line in shown), ""]


def _gene_row(line: GeneLine) -> str:
    return (
        f"| {line.gene} | {line.values[PEARSON]:z.3f} | {line.shuffled_pearson:z.3f} | {line.stratum} | "
        f"{line.mean:.4g} | {line.above_shuffles} of {line.patients} |"
    )
