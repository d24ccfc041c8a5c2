"""Rows in which encoders stand beside each other, and the paired differences that the conclusions rest on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lamella.metrics.bootstrap import Estimate, Statistic, group_bootstrap
from lamella.metrics.report import Better, Reference, Row, span
from lamella.metrics.study import Study

Sums = Mapping[str, np.ndarray]
"""Encoder name -> (G, R, ...) per-group sums, R replicates of the encoder; the judged one first."""


@dataclass(frozen=True)
class Measure:
    """A number asked of every encoder: how it comes from sums, and how to read it."""

    question: str
    name: str
    probe: str
    statistic: Statistic
    better: Better
    dims: int
    """Axes of one replicate's sums: 2 for a confusion matrix."""
    bounds: tuple[float, float] = (0.0, 1.0)


def estimate(study: Study, measure: Measure, sums: np.ndarray) -> Estimate:
    """The measure of one encoder, with its interval."""
    return group_bootstrap(sums, measure.statistic, n=len(study.slides), bounds=measure.bounds, seed=study.seed)


def encoder_rows(
    study: Study,
    measure: Measure,
    counted: Sums,
    baseline: Reference,
    control: Reference | None,
    notes: Mapping[str, str] | None = None,
) -> list[Row]:
    """One row for each encoder."""
    return [
        Row(
            measure.question,
            measure.name,
            measure.probe,
            encoder,
            estimate(study, measure, sums),
            baseline,
            measure.better,
            control,
            (notes or {}).get(encoder, ""),
        )
        for encoder, sums in counted.items()
    ]


def difference_rows(study: Study, measure: Measure, counted: Sums) -> tuple[list[Row], list[str]]:
    """The judged encoder minus each of the others on the same resamples, and a sentence for each."""
    rows, sentences = [], []
    low, high = measure.bounds
    for other in list(counted)[1:]:
        theirs = counted[other]
        ours = np.broadcast_to(counted[study.judged], theirs.shape)
        pair = np.stack([ours, theirs], axis=2)  # (G, R, 2, ...)
        found = group_bootstrap(
            pair, _difference_of(measure), n=len(study.slides), bounds=(low - high, high - low), seed=study.seed
        )
        name, none = f"{study.judged} minus {other}", Reference("no difference", 0.0)
        rows.append(
            Row(measure.question, f"difference: {measure.name}", measure.probe, name, found, none, measure.better)
        )
        sentences.append(_sentence(study, measure, other, found))
    return rows, sentences


def _difference_of(measure: Measure) -> Statistic:
    def difference(pair: np.ndarray) -> np.ndarray:
        ours, theirs = np.moveaxis(pair, -1 - measure.dims, 0)  # (..., R, 2, shape)
        return measure.statistic(ours) - measure.statistic(theirs)

    return difference


def _sentence(study: Study, measure: Measure, other: str, found: Estimate) -> str:
    reading = "higher is better" if measure.better == "higher" else "lower is better"
    named = f"{measure.name} ({measure.probe}; {reading})"
    twin = other == study.twin
    return verdict(measure.question, named, measure.better, study.judged, other, found, twin=twin, noun="tiles")


def verdict(
    question: str, measure: str, better: Better, judged: str, other: str, found: Estimate, *, twin: bool, noun: str
) -> str:
    """A difference in words: better, worse, or not measurably different; of the random twin, whether training helped.

    Args:
        question: Its title.
        measure: The measure, its probe and how to read it.
        better: Which direction is good.
        judged: The encoder that is judged.
        other: What it is compared with.
        found: The judged minus the other.
        twin: Whether `other` is the judged one with random weights.
        noun: What a row is.
    """
    if found.low > 0 or found.high < 0:
        good = (found.low > 0) == (better == "higher")
        word, effect = ("better", "helped") if good else ("worse", "hurt")
        judgement = f"{judged} is {word} than {other}"
    else:
        effect = "made no measurable difference"
        judgement = f"{judged} is not measurably different from {other}"
    pretraining = f" pretraining {effect}:" if twin else ""
    return (
        f"{question}:{pretraining} {judgement}. Difference of {measure} "
        f"{span(found, sign=True)}, {found.n} {noun}, {found.groups} groups{'; ' + found.note if found.note else ''}."
    )
