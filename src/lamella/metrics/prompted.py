"""How well a promptable model answers prompts, object by object. An oracle: the truth said what to ask and where.

An object counts by its own pixels; the answer to its prompt is compared with it alone, never with its whole class.
Dice = 2 |A and B| / (|A| + |B|).

Letters: N objects, P prompts, C classes, S resamples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lamella.metrics.bootstrap import Estimate
from lamella.metrics.compared import verdict
from lamella.metrics.dice import dice
from lamella.metrics.report import Better, Reference, Row
from lamella.metrics.resamples import Resamples, WeightedStatistic
from lamella.metrics.segments.protocol import Protocol

GOAL = 0.85
"""The Dice that clicks are counted to."""
CLASS_DICE, OBJECT_DICE = "mean per-class Dice, objects pooled", "Dice of an object, mean over objects"
CLICKS, REACHED = f"clicks to Dice {GOAL:g}", f"share of objects that reach Dice {GOAL:g}"
BOX, DISK = "the box itself, filled", "a disk of the median size"

Counts = Mapping[str, np.ndarray]
"""Prompt -> (N, 3): pixels in both, in the truth, in the answer."""


@dataclass(frozen=True)
class PromptedStudy:
    """Models asked about the same N objects.

    Attributes:
        title: What the table is called behind its task.
        judged: Name of the judged model.
        counts: Model -> counts of every prompt; the judged one first. Trivial answers go by BOX and DISK, under the
            prompts that they answer.
        clicks: Number of clicks -> (N,) Dice after so many, for each model: `clicks[model][k]`, every k from 1 on.
        items: (N,) id of the image of each object.
        groups: (N,) what is resampled together.
        channels: (N,) class of each object, an index into `classes`.
        classes: Names of the classes that have objects.
        protocol: Of the table; each row has its own prompt.
        seed: Of the resamples.
    """

    title: str
    judged: str
    counts: Mapping[str, Counts]
    clicks: Mapping[str, np.ndarray]
    items: np.ndarray
    groups: np.ndarray
    channels: np.ndarray
    classes: tuple[str, ...]
    protocol: Protocol
    seed: int = 0
    resamples: Resamples = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name, prompts in self.counts.items():
            for prompt, counts in prompts.items():
                if counts.shape != (self.protocol.n, 3) or len(self.items) != self.protocol.n:
                    raise ValueError(f"{name}, {prompt}: counts of {len(counts)} of {self.protocol.n} objects")
        object.__setattr__(self, "resamples", Resamples(self.groups, seed=self.seed))

    @property
    def question(self) -> str:
        """The title of the table."""
        return self.protocol.question(self.title)


def class_dice(counts_N3: np.ndarray, channels_N: np.ndarray, classes: int) -> WeightedStatistic:
    """Mean over the classes that have objects of the Dice of all their objects' pixels together."""
    each = [pooled(counts_N3, channels_N == number) for number in range(classes) if (channels_N == number).any()]

    def of(weights_SN: np.ndarray) -> np.ndarray:
        values = np.stack([statistic(weights_SN) for statistic in each])
        there = np.isfinite(values)
        count = there.sum(0)
        total = np.where(there, values, 0).sum(0)
        mean: np.ndarray = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
        return mean

    return of


def pooled(counts_N3: np.ndarray, chosen_N: np.ndarray) -> WeightedStatistic:
    """Dice of all pixels of some objects together."""
    counts = np.where(chosen_N[:, None], counts_N3, 0)
    return lambda weights_SN: np.asarray(dice(weights_SN @ counts))


def mean_of(values_N: np.ndarray) -> WeightedStatistic:
    """The mean over the objects."""

    def of(weights_SN: np.ndarray) -> np.ndarray:
        mean: np.ndarray = weights_SN @ values_N / weights_SN.sum(1)
        return mean

    return of


def clicks_needed(dice_NK: np.ndarray, goal: float = GOAL) -> tuple[np.ndarray, np.ndarray]:
    """(N,) clicks after which the goal was first reached, and (N,) whether it was.

    Where it was not, the count is censored: one more than were tried, the least that it can be.
    """
    reached_NK = dice_NK >= goal
    reached_N = np.asarray(reached_NK.any(1))
    return np.where(reached_N, reached_NK.argmax(1) + 1, dice_NK.shape[1] + 1), reached_N


# ---- rows ------------------------------------------------------------------------------------------------------------


def prompted_rows(study: PromptedStudy) -> tuple[list[Row], list[str]]:
    """All rows of the table, and sentences."""
    rows = [row for prompt in study.counts[study.judged] for row in _of_prompt(study, prompt)]
    differences, sentences = _differences(study)
    return [*rows, *_click_rows(study), *differences], [*_summary(study), *sentences]


def _of_prompt(study: PromptedStudy, prompt: str) -> Iterator[Row]:
    trivial = [name for name in (BOX, DISK) if prompt in study.counts.get(name, {})]
    measures: list[tuple[str, str]] = [(CLASS_DICE, "all"), (OBJECT_DICE, "each")]
    present = [number for number in range(len(study.classes)) if (study.channels == number).any()]
    if len(present) > 1:
        measures += [(f"Dice of {study.classes[number]}, objects pooled", str(number)) for number in present]
    for measure, kind in measures:
        values = {
            name: _statistic(study, prompts[prompt], kind)
            for name, prompts in study.counts.items()
            if prompt in prompts
        }
        points = {name: float(values[name](np.ones((1, study.protocol.n)))[0]) for name in trivial}
        best = max(points, key=lambda name: points[name]) if points else None
        baseline = Reference("nothing", 0.0) if best is None else Reference(best, points[best])
        for name, statistic in values.items():
            estimate = _estimate(study, statistic, (0.0, 1.0))
            note = _spread(study, name, prompt) if kind == "each" else ""
            yield _row(study, measure, prompt, name, estimate, baseline, "higher", note)


def _click_rows(study: PromptedStudy) -> Iterator[Row]:
    """Clicks to the goal, censored ones stated, and how many objects reach it."""
    for name, dice_NK in study.clicks.items():
        needed, reached = clicks_needed(dice_NK)
        tried, never = dice_NK.shape[1], int((~reached).sum())
        note = f"median {np.median(needed):g}; {never} of {len(needed)} never reach it and count {tried + 1}: at least"
        probe = f"up to {tried} clicks"
        most = Reference(f"never reached ({tried} clicks + 1)", float(tried + 1))
        found = _estimate(study, mean_of(needed.astype(np.float64)), (1.0, float(tried + 1)))
        yield _row(study, CLICKS, probe, name, found, most, "lower", note)
        share = _estimate(study, mean_of(reached.astype(np.float64)), (0.0, 1.0))
        yield _row(study, REACHED, probe, name, share, Reference("none", 0.0), "higher", "")


def _differences(study: PromptedStudy) -> tuple[list[Row], list[str]]:
    """The judged model against every other model, paired over the same resamples."""
    rows, sentences = [], []
    for other in (name for name in study.counts if name not in (study.judged, BOX, DISK)):
        for prompt in study.counts[study.judged]:
            found = [
                study.resamples.of([_statistic(study, study.counts[name][prompt], "all")])
                for name in (study.judged, other)
            ]
            estimate = study.resamples.estimate(found[0] - found[1], (-1.0, 1.0))
            name = f"{study.judged} minus {other}"
            measure = f"difference of {CLASS_DICE}"
            rows.append(
                _row(study, measure, prompt, name, estimate, Reference("no difference", 0.0), "higher", "paired")
            )
            sentences.append(
                verdict(prompt, CLASS_DICE, "higher", study.judged, other, estimate, twin=False, noun="objects")
            )
    return rows, sentences


def _row(
    study: PromptedStudy,
    measure: str,
    prompt: str,
    name: str,
    estimate: Estimate,
    baseline: Reference,
    better: Better,
    note: str,
) -> Row:
    protocol = replace(study.protocol, prompt=prompt)
    return Row(study.question, measure, prompt, name, estimate, baseline, better, None, note, protocol)


def _statistic(study: PromptedStudy, counts_N3: np.ndarray, kind: str) -> WeightedStatistic:
    if kind == "all":
        return class_dice(counts_N3, study.channels, len(study.classes))
    return mean_of(dice(counts_N3)) if kind == "each" else pooled(counts_N3, study.channels == int(kind))


def _estimate(study: PromptedStudy, statistic: WeightedStatistic, bounds: tuple[float, float]) -> Estimate:
    return study.resamples.estimate(study.resamples.of([statistic]), bounds)


def _spread(study: PromptedStudy, name: str, prompt: str) -> str:
    values = dice(study.counts[name][prompt])
    worst = int(values.argmin())
    return f"sd {values.std():.2f}, median {np.median(values):.2f}, worst {values[worst]:.2f} ({study.items[worst]})"


def _summary(study: PromptedStudy) -> Sequence[str]:
    values = {
        prompt: float(_statistic(study, counts, "all")(np.ones((1, study.protocol.n)))[0])
        for prompt, counts in study.counts[study.judged].items()
    }
    told = ", ".join(f"{prompt} {value:.2f}" for prompt, value in values.items())
    return [f"{study.judged}, {CLASS_DICE}, class and prompt given: {told}."]
