"""Paired differences between predictors: the same patients, genes and blocks of places are drawn for both."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lamella.metrics.genes.bootstrap import ENOUGH_PATIENTS, Drawn, Resampler, defined
from lamella.metrics.genes.scores import GeneScores
from lamella.metrics.genes.settings import GeneMetricSettings
from lamella.metrics.genes.summary import summary_measures


@dataclass(frozen=True)
class Difference:
    """A measure of `first` less that of `second`, over the genes that both have.

    Attributes:
        resolution_um, measure, first, second: Which.
        value, low, high: With its 95 % interval.
        better: Patients in which `first` is the better one, of `patients`.
        n: Places. genes: Names.
        note: What must be said about the interval.
    """

    resolution_um: float
    measure: str
    first: str
    second: str
    value: float
    low: float
    high: float
    better: int
    patients: int
    n: int
    genes: int
    note: str


def differences(
    results: Mapping[str, GeneScores], pairs: Sequence[tuple[str, str]], settings: GeneMetricSettings
) -> tuple[Difference, ...]:
    """All measures of all pairs of predictors that both have.

    Raises:
        ValueError: A predictor of a pair was not scored.
    """
    absent = sorted({name for pair in pairs for name in pair} - set(results))
    if absent:
        raise ValueError(f"not scored: {', '.join(absent)}")
    found = []
    for first, second in pairs:
        for resolution_um in results[first].resolutions:
            resampler = Resampler(results[first], resolution_um, settings)
            for name, measure in summary_measures(settings).items():
                if measure.better != "neither":
                    found += _difference(results, first, second, resampler, name, measure.better == "higher")
    return tuple(found)


def _difference(
    results: Mapping[str, GeneScores], first: str, second: str, resampler: Resampler, measure: str, higher: bool
) -> list[Difference]:
    """Nothing where one of the two has no such number."""
    both = _common(results[first], results[second], resampler.resolution_um, measure)
    if not any(genes.any() for genes in both.values()):
        return []
    one, other = (resampler.of(results[name], measure, only=both) for name in (first, second))
    drawn = Drawn(one.value - other.value, one.draws - other.draws, one.patients, one.n, one.genes, one.undefined)
    low, high, note = drawn.interval()
    if not math.isfinite(drawn.value) or not math.isfinite(low):
        return []
    sign = 1 if higher else -1
    better = sum(sign * (one.by_patient[patient] - other.by_patient[patient]) > 0 for patient in one.by_patient)
    if drawn.patients >= ENOUGH_PATIENTS and low <= 0 <= high:
        note = "no difference shown"
    return [
        Difference(
            resampler.resolution_um,
            measure,
            first,
            second,
            drawn.value,
            low,
            high,
            better,
            drawn.patients,
            drawn.n,
            drawn.genes,
            note,
        )
    ]


def _common(one: GeneScores, other: GeneScores, resolution_um: float, measure: str) -> dict[str, np.ndarray]:
    """Slide -> (G,) genes that both predictors have a number of."""
    found = {}
    others = {slide.slide_id: slide for slide in other.at(resolution_um)}
    for slide in one.at(resolution_um):
        try:
            found[slide.slide_id] = defined(slide, measure) & defined(others[slide.slide_id], measure)
        except KeyError:  # one of them has no such measure: a ceiling of Pearson alone
            found[slide.slide_id] = np.zeros(len(slide.genes), bool)
    return found
