"""One row for every predictor, measure and resolution: a number with its interval, its baseline and its control.

A number is a mean over genes, then over slides. Medians and quartiles are over genes, of each gene's mean over slides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lamella.metrics.genes.bootstrap import Drawn, Resampler, base_of
from lamella.metrics.genes.controls import MEAN_MAP, Kind
from lamella.metrics.genes.correlation import PEARSON
from lamella.metrics.genes.measures import AGREEMENT, FISHER, Measure, measures
from lamella.metrics.genes.moran import MORAN_EXCESS, MORAN_PREDICTED, MORAN_TRUE, moran_of
from lamella.metrics.genes.protocol import GeneReportError, refuse_mixed
from lamella.metrics.genes.scores import UNJUDGED, GeneScores, SlideScores
from lamella.metrics.genes.settings import GeneMetricSettings

# The highest of the shuffles' means that one in twenty exceeds.
_HIGH = 95


@dataclass(frozen=True)
class Shuffled:
    """The same number with the truth of other places: mean over the shuffles, their 95th percentile, how many."""

    mean: float
    high: float
    shuffles: int


@dataclass(frozen=True)
class GeneRow:
    """One number of a table.

    Attributes:
        resolution_um, measure, predictor, kind: Which.
        value, low, high: Mean with its 95 % interval.
        median, q25, q75: Over genes; NaN for numbers that are one for all genes.
        baseline: The mean map's number.
        baseline_note: Why it has none: a constant has no correlation.
        control: With shuffled labels; None where no shuffle says anything (`control_note` has the reason).
        n: Places. genes: With a number on any slide. undefined: Slide-gene pairs without one.
        slides, patients: Behind it.
        note: What must be said about the interval.

    Raises:
        GeneReportError: Value, interval, n, baseline or control are missing without a reason.
    """

    resolution_um: float
    measure: str
    predictor: str
    kind: Kind
    value: float
    low: float
    high: float
    median: float
    q25: float
    q75: float
    baseline: float | None
    baseline_note: str
    control: Shuffled | None
    control_note: str
    n: int
    genes: int
    undefined: int
    slides: int
    patients: int
    note: str = ""

    def __post_init__(self) -> None:
        where = f"{self.resolution_um:g} um / {self.measure} / {self.predictor}"
        if not all(math.isfinite(each) for each in (self.value, self.low, self.high)) or self.low > self.high:
            raise GeneReportError(f"{where}: value and interval must be numbers in order")
        if self.n < 1 or self.genes < 1 or self.slides < 1 or self.patients < 1:
            raise GeneReportError(f"{where}: places, genes, slides and patients must be at least 1")
        if self.baseline is None and not self.baseline_note:
            raise GeneReportError(f"{where}: a row without a baseline must say why")
        if self.control is None and not self.control_note:
            raise GeneReportError(f"{where}: a row without a control must say why")


@dataclass(frozen=True)
class Undefined:
    """A number that could not be given, and why."""

    resolution_um: float
    measure: str
    predictor: str
    reason: str


@dataclass(frozen=True)
class Summary:
    """The rows of all tables, and what has none."""

    rows: tuple[GeneRow, ...]
    undefined: tuple[Undefined, ...]


def summary_measures(settings: GeneMetricSettings) -> dict[str, Measure]:
    """All measures of the tables: those of genes, Fisher's mean behind Pearson, the agreement behind Moran's excess."""
    found: dict[str, Measure] = {}
    for name, measure in measures(settings).items():
        found[name] = measure
        if name == PEARSON:
            found[FISHER] = Measure(FISHER, "Pearson, averaged by Fisher's z", measure.of)
        if name == MORAN_EXCESS:
            found[AGREEMENT] = Measure(AGREEMENT, "Moran's I, correlation over genes", measure.of)
    return found


def summarise(results: Mapping[str, GeneScores], kinds: Mapping[str, Kind], settings: GeneMetricSettings) -> Summary:
    """All rows of all predictors.

    Args:
        results: Predictor -> its scores. The mean map (`controls.MEAN_MAP`) is the baseline of all rows.
        kinds: Predictor -> what it is.
        settings: As it was scored with.

    Raises:
        GeneReportError: Predictors were judged on different places, truths, genes or resolutions, or have no kind.
    """
    refuse_mixed(results)
    unknown = sorted(set(results) - set(kinds))
    if unknown:
        raise GeneReportError(f"what these predictors are is not said: {', '.join(unknown)}")
    rows: list[GeneRow] = []
    undefined: list[Undefined] = []
    for resolution_um in next(iter(results.values())).resolutions:
        resampler = Resampler(next(iter(results.values())), resolution_um, settings)
        for measure in summary_measures(settings).values():
            _of_measure(results, kinds, resampler, measure, rows, undefined)
    return Summary(tuple(rows), tuple(undefined))


def _of_measure(
    results: Mapping[str, GeneScores],
    kinds: Mapping[str, Kind],
    resampler: Resampler,
    measure: Measure,
    rows: list[GeneRow],
    undefined: list[Undefined],
) -> None:
    """The rows of one table, added to `rows` and `undefined`."""
    base, resolution_um = base_of(measure.name), resampler.resolution_um
    having = {
        name: scores
        for name, scores in results.items()
        if any(base in slide.values for slide in scores.at(resolution_um))
    }
    if not having:
        return  # such as maps of spots
    drawn = {name: resampler.of(scores, measure.name) for name, scores in having.items()}
    for name, found in drawn.items():
        low, high, note = found.interval()
        slides = results[name].at(resolution_um)
        if not math.isfinite(found.value) or not math.isfinite(low):
            reason = _reason(slides) if not math.isfinite(found.value) else note
            undefined.append(Undefined(resolution_um, measure.name, name, reason))
            continue
        baseline, baseline_note = _baseline(drawn, results)
        control, control_note = _control(slides, measure.name, kinds[name])
        rows.append(
            GeneRow(
                resolution_um,
                measure.name,
                name,
                kinds[name],
                found.value,
                low,
                high,
                *_quartiles(slides, base if measure.name == base else ""),
                baseline,
                baseline_note,
                control,
                control_note,
                found.n,
                found.genes,
                found.undefined,
                len(slides),
                found.patients,
                note,
            )
        )


def _reason(slides: Sequence[SlideScores]) -> str:
    """The most frequent reason why genes have no number."""
    reasons = [reason for slide in slides for reason in slide.reasons if reason]
    return max(set(reasons), key=lambda each: (reasons.count(each), each)) if reasons else "too little varies"


def _baseline(drawn: Mapping[str, Drawn], results: Mapping[str, GeneScores]) -> tuple[float | None, str]:
    if MEAN_MAP not in results:
        return None, "no training mean was given"
    value = drawn[MEAN_MAP].value if MEAN_MAP in drawn else math.nan
    return (value, "") if math.isfinite(value) else (None, "undefined: constant")


def _control(slides: Sequence[SlideScores], measure: str, kind: Kind) -> tuple[Shuffled | None, str]:
    """Mean over genes, then slides, of each shuffle."""
    if measure == AGREEMENT:
        return _exchanged_genes(slides)
    base = PEARSON if measure == FISHER else measure
    found = [slide.shuffled[base] for slide in slides if base in slide.shuffled]
    if not found:
        return None, "the same with any labels" if measure in (MORAN_TRUE, MORAN_PREDICTED) else f"a {kind}: no shuffle"
    per_slide = []
    for values_PG in found:
        values = np.arctanh(np.clip(values_PG, -1 + 1e-6, 1 - 1e-6)) if measure == FISHER else values_PG
        there = np.isfinite(values)
        if there.any():
            count = np.maximum(there.sum(axis=1), 1)
            per_slide.append(np.where(there.any(axis=1), np.where(there, values, 0).sum(axis=1) / count, np.nan))
    if not per_slide or not np.isfinite(np.stack(per_slide)).any():
        return None, "undefined"
    values_P = _nanmean(np.stack(per_slide))
    values_P = np.tanh(values_P) if measure == FISHER else values_P
    values_P = values_P[np.isfinite(values_P)]
    return Shuffled(float(values_P.mean()), float(np.percentile(values_P, _HIGH)), len(values_P)), ""


def _exchanged_genes(slides: Sequence[SlideScores]) -> tuple[Shuffled | None, str]:
    """Moran's I of the truth beside that of another gene's prediction, as often as labels were shuffled."""
    per_slide = []
    for slide in slides:
        sums = slide.sums[MORAN_EXCESS].sum(axis=0, dtype=np.float64)
        truth, predicted = moran_of(sums[:, :4]), moran_of(sums[:, 4:])
        both = np.isfinite(truth) & np.isfinite(predicted)
        if both.sum() >= 3 and np.ptp(truth[both]) > 0 and np.ptp(predicted[both]) > 0:
            rng = np.random.default_rng(int(slide.truth_digest, 16))
            count = len(slide.shuffled[MORAN_EXCESS])
            mixed = [np.corrcoef(truth[both], rng.permutation(predicted[both]))[0, 1] for _ in range(count)]
            per_slide.append(np.array(mixed))
    if not per_slide:
        return None, "fewer than three genes"
    values = np.mean(per_slide, axis=0)
    return Shuffled(float(values.mean()), float(np.percentile(values, _HIGH)), len(values)), ""


def _quartiles(slides: Sequence[SlideScores], base: str) -> tuple[float, float, float]:
    """Median and quartiles over genes, of each gene's mean over the slides that have it."""
    if not base:
        return math.nan, math.nan, math.nan
    values = gene_means(slides, base)
    if not values:
        return math.nan, math.nan, math.nan
    q25, median, q75 = np.percentile(list(values.values()), [25, 50, 75])
    return float(median), float(q25), float(q75)


def gene_means(slides: Sequence[SlideScores], measure: str) -> dict[str, float]:
    """Gene -> mean over the slides where it has a number; genes without any are not in it."""
    found: dict[str, list[float]] = {}
    for slide in slides:
        for gene, value in zip(slide.genes, slide.values.get(measure, ()), strict=False):
            if math.isfinite(value):
                found.setdefault(gene, []).append(float(value))
    return {gene: float(np.mean(values)) for gene, values in sorted(found.items())}


def undefined_genes(scores: GeneScores, resolution_um: float) -> dict[str, list[str]]:
    """Reason -> `gene (slide)` of everything without any number, for the report to name."""
    found: dict[str, list[str]] = {}
    for slide in scores.at(resolution_um):
        for gene, reason in zip(slide.genes, slide.reasons, strict=True):
            if reason in UNJUDGED:
                found.setdefault(reason, []).append(f"{gene} ({slide.slide_id})")
    return found


def _nanmean(values: np.ndarray) -> np.ndarray:
    """Over the first axis; NaN where nothing is defined."""
    there = np.isfinite(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(there, values, 0).sum(axis=0) / there.sum(axis=0))
