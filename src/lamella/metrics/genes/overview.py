"""One table of everything: a row for each predictor, and the few columns that a reader looks for first."""

from __future__ import annotations

from lamella.metrics.genes.correlation import PEARSON, SPEARMAN
from lamella.metrics.genes.deviance import NB, POISSON
from lamella.metrics.genes.gene_report import GeneReport
from lamella.metrics.genes.measures import measures
from lamella.metrics.genes.nonzero import AUPRC
from lamella.metrics.genes.ssim import JOINT, SEPARATE, SKILL
from lamella.metrics.genes.summary import GeneRow

# Shown with intervals at every size of bin, and others without, at the finest alone; SSIM's skill where it is defined.
_EVERYWHERE = (PEARSON,)
_FINEST = (SPEARMAN, AUPRC, POISSON, NB, SEPARATE, JOINT)
_COARSER = (SKILL[SEPARATE], SKILL[JOINT])


def overview(report: GeneReport) -> list[str]:
    """Lines of Markdown; the rows in the order of the predictors, models first.

    An empty cell has no number: a constant has no correlation, values on a logarithmic scale have no deviance.
    """
    found = {(row.predictor, row.measure, row.resolution_um): row for row in report.summary.rows}
    columns = _columns(report)
    title = {name: measure.title for name, measure in measures(report.settings).items()}
    head = ["predictor", "kind", *(f"{title[name]}, {um:g} µm" for name, um in columns)]
    lines = ["## At a glance", "", "Means over genes, then slides; below, every number stands with what belongs to it."]
    lines += ["", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    order = list(dict.fromkeys(line.predictor for line in report.lines))
    kinds = ("model", "baseline", "control", "ceiling")
    for name in sorted(order, key=lambda name: kinds.index(report.kinds[name])):
        cells = [_cell(found.get((name, measure, um)), measure in _EVERYWHERE) for measure, um in columns]
        if any(cells):
            lines.append(f"| {' | '.join((name.replace('|', chr(92) + '|'), report.kinds[name], *cells))} |")
    return [*lines, ""]


def _columns(report: GeneReport) -> list[tuple[str, float]]:
    """Measure and size of every column for which any predictor has a number."""
    having = {(row.measure, row.resolution_um) for row in report.summary.rows}
    sizes = sorted({row.resolution_um for row in report.summary.rows})
    wanted = [(name, um) for name in _EVERYWHERE for um in sizes]
    wanted += [(name, sizes[0]) for name in _FINEST if sizes]
    wanted += [(name, um) for name in _COARSER for um in sizes[1:]]
    return [column for column in wanted if column in having]


def _cell(row: GeneRow | None, interval: bool) -> str:
    if row is None:
        return ""
    return f"{row.value:z.3f} [{row.low:z.3f}, {row.high:z.3f}]" if interval else f"{row.value:z.3f}"
