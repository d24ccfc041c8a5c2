"""Which genes are predictable? A line for every gene, and the measures by how sparse a gene is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lamella.metrics.genes.correlation import PEARSON
from lamella.metrics.genes.scores import GeneScores, SlideScores
from lamella.metrics.genes.summary import gene_means


@dataclass(frozen=True)
class GeneLine:
    """One gene of one predictor at one resolution.

    Attributes:
        predictor, resolution_um, gene: Which.
        stratum: Its class of sparsity, by the data's own resolution: the same at all.
        zero_share, mean: Mean over the slides at this resolution, of the truth.
        slides, patients: On which it was judged.
        undefined: `reason (slide)` of those where it has no number.
        values: Measure -> mean over the slides with a number; NaN where there is none.
        shuffled_pearson: The same Pearson with shuffled labels, mean over shuffles and slides.
        above_shuffles: Patients in whom Pearson lies above every shuffle on every slide, of those with a number.
    """

    predictor: str
    resolution_um: float
    gene: str
    stratum: str
    zero_share: float
    mean: float
    slides: int
    patients: int
    undefined: tuple[str, ...]
    values: Mapping[str, float]
    shuffled_pearson: float
    above_shuffles: int


def stratum_of(zero_share: float, ends: Sequence[float]) -> str:
    """The class of a share of zeros, such as `80-95 % zero`."""
    edges = [0.0, *sorted(ends), 1.0]
    number = int(np.clip(np.searchsorted(edges, zero_share, side="right") - 1, 0, len(edges) - 2))
    return f"{100 * edges[number]:g}-{100 * edges[number + 1]:g} % zero"


def strata_of(scores: GeneScores, ends: Sequence[float]) -> dict[str, str]:
    """Gene -> its class, by its mean share of zeros over the slides at the data's own resolution."""
    shares: dict[str, list[float]] = {}
    for slide in scores.slides:
        if slide.own:
            for gene, share in zip(slide.genes, slide.zero_share, strict=True):
                shares.setdefault(gene, []).append(float(share))
    return {gene: stratum_of(float(np.mean(values)), ends) for gene, values in shares.items()}


def gene_lines(predictor: str, scores: GeneScores, names: Sequence[str], ends: Sequence[float]) -> list[GeneLine]:
    """A line for every gene at every resolution.

    Args:
        predictor: Its name.
        scores: Of the predictor.
        names: Measures.
        ends: Of the classes of sparsity.
    """
    strata = strata_of(scores, ends)
    found = []
    for resolution_um in scores.resolutions:
        slides = scores.at(resolution_um)
        means = {name: gene_means(slides, name) for name in names}
        where: dict[str, list[tuple[SlideScores, int]]] = {gene: [] for gene in scores.genes}
        for slide in slides:
            for number, gene in enumerate(slide.genes):
                where[gene].append((slide, number))
        for gene, having in where.items():
            if having:
                values = {name: means[name].get(gene, math.nan) for name in names}
                found.append(_line(predictor, resolution_um, gene, strata[gene], having, values))
    return found


def _line(
    predictor: str,
    resolution_um: float,
    gene: str,
    stratum: str,
    having: Sequence[tuple[SlideScores, int]],
    values: Mapping[str, float],
) -> GeneLine:
    shuffled, above = [], {}
    for slide, at in having:
        value = slide.values[PEARSON][at]
        if PEARSON in slide.shuffled and math.isfinite(value):
            others = slide.shuffled[PEARSON][:, at]
            shuffled.append(float(others.mean()))
            above[slide.patient] = above.get(slide.patient, True) and bool(value > others.max())
    return GeneLine(
        predictor,
        resolution_um,
        gene,
        stratum,
        float(np.mean([slide.zero_share[at] for slide, at in having])),
        float(np.mean([slide.mean[at] for slide, at in having])),
        len(having),
        len({slide.patient for slide, _ in having}),
        tuple(f"{slide.reasons[at]} ({slide.slide_id})" for slide, at in having if slide.reasons[at]),
        values,
        float(np.mean(shuffled)) if shuffled else math.nan,
        sum(above.values()),
    )


@dataclass(frozen=True)
class StratumLine:
    """The genes of one class of sparsity: a measure's median and quartiles over them, and how many are predictable."""

    predictor: str
    resolution_um: float
    stratum: str
    measure: str
    genes: int
    judged: int
    median: float
    q25: float
    q75: float
    above_shuffles_everywhere: int


def stratum_lines(lines: Sequence[GeneLine], names: Sequence[str]) -> list[StratumLine]:
    """Lines of genes gathered by predictor, resolution, class and measure."""
    gathered: dict[tuple[str, float, str], list[GeneLine]] = {}
    for line in lines:
        gathered.setdefault((line.predictor, line.resolution_um, line.stratum), []).append(line)
    found = []
    for (predictor, resolution_um, stratum), genes in gathered.items():
        everywhere = sum(line.above_shuffles == line.patients for line in genes)
        for name in names:
            values = np.array([line.values[name] for line in genes])
            values = values[np.isfinite(values)]
            quartiles = np.percentile(values, [50, 25, 75]) if len(values) else np.full(3, np.nan)
            found.append(
                StratumLine(
                    predictor,
                    resolution_um,
                    stratum,
                    name,
                    len(genes),
                    len(values),
                    *(float(each) for each in quartiles),
                    everywhere,
                )
            )
    return found
