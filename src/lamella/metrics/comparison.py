"""Rows of one measure for all encoders on the same resamples, their paired differences, and the sentences.

Letters: N judged rows, S weightings of them, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from lamella.metrics.classes import accuracy, balanced_accuracy, macro_f1
from lamella.metrics.compared import verdict
from lamella.metrics.report import MAJORITY, Better, Reference, Row
from lamella.metrics.resamples import Resampled, Resamples, WeightedStatistic
from lamella.metrics.scored import macro_auc

CONSTANT = "constant answer"
EXCHANGED = "labels exchanged"


@dataclass(frozen=True)
class Asked:
    """A measure of a question: its name, how to read it, and what it is compared with."""

    name: str
    baseline: Reference
    better: Better = "higher"
    bounds: tuple[float, float] = (0.0, 1.0)


@dataclass
class Comparison:
    """Encoders beside each other in one question.

    Attributes:
        question: Its title.
        resamples: Of the judged rows.
        judged: The encoder that the others are compared with.
        twin: Which of them is the judged one with random weights.
        noun: What a row is.
    """

    question: str
    resamples: Resamples
    judged: str
    twin: str | None
    noun: str
    _found: dict[tuple[str, str], dict[str, Resampled]] = field(default_factory=dict)

    def rows(
        self,
        asked: Asked,
        probe: str,
        found: Mapping[str, Resampled],
        control: Resampled | None = None,
        notes: Mapping[str, str] | None = None,
        control_baseline: Reference | None = None,
    ) -> list[Row]:
        """One row for each encoder, and one for the judged encoder's probe of exchanged labels.

        Args:
            asked: The measure.
            probe: What read it.
            found: Encoder -> its values.
            control: Of the exchanged labels.
            notes: Encoder -> what must be said about its fits.
            control_baseline: What a constant answer gets on the exchanged labels, where it is not the same.
        """
        self._found[asked.name, probe] = dict(found)
        beside = None if control is None else Reference(EXCHANGED, float(control.point_R.mean()))
        rows = [
            Row(
                self.question,
                asked.name,
                probe,
                name,
                self.resamples.estimate(each, asked.bounds),
                asked.baseline,
                asked.better,
                beside,
                (notes or {}).get(name, ""),
            )
            for name, each in found.items()
        ]
        if control is not None:
            estimate = self.resamples.estimate(control, asked.bounds)
            name = f"{self.judged}, {EXCHANGED}"
            constant = control_baseline or asked.baseline
            rows.append(Row(self.question, asked.name, probe, name, estimate, constant, "neither"))
        return rows

    def differences(self, asked: Asked, probe: str) -> tuple[list[Row], list[str]]:
        """The judged encoder minus each of the others, and a sentence for each; `rows` must have been asked."""
        found, (low, high) = self._found[asked.name, probe], asked.bounds
        rows, sentences = [], []
        none = Reference("no difference", 0.0)
        for other in list(found)[1:]:
            gap, twin = found[self.judged] - found[other], other == self.twin
            estimate = self.resamples.estimate(gap, (low - high, high - low), another=twin)
            name, measure = f"{self.judged} minus {other}", f"difference: {asked.name}"
            note = ""
            if twin and len(gap.point_R) > 1:
                won = int((gap.point_R > 0).sum() if asked.better == "higher" else (gap.point_R < 0).sum())
                note = f"better than {won} of {len(gap.point_R)} random initialisations"
            elif twin:
                note = "one random initialisation: its luck is not in the interval"
            rows.append(Row(self.question, measure, probe, name, estimate, none, asked.better, note=note))
            named = f"{asked.name} ({probe}; {asked.better} is better)"
            text = verdict(self.question, named, asked.better, self.judged, other, estimate, twin=twin, noun=self.noun)
            sentences.append(f"{text[:-1]}; {note}." if note else text)
        return rows, sentences


# ---- measures of class scores ---------------------------------------------------------------------------------------


def class_measures(truth: np.ndarray, classes: int) -> dict[str, Asked]:
    """AUC, balanced accuracy, accuracy and macro F1, each beside what a constant answer gets."""
    constant = np.eye(classes)[np.full(len(truth), np.bincount(truth, minlength=classes).argmax())]
    found = {name: float(weighted(name, truth, constant)(np.ones((1, len(truth))))[0]) for name in CLASS_STATISTICS}
    auc_name = auc_title(classes)
    return {
        auc_name: Asked(auc_name, Reference(CONSTANT, 0.5)),
        **{name: Asked(name, Reference(MAJORITY, value)) for name, value in found.items()},
    }


CLASS_STATISTICS = {"balanced accuracy": balanced_accuracy, "accuracy": accuracy, "macro F1": macro_f1}


def auc_title(classes: int) -> str:
    """What the AUC of so many classes is called."""
    return "AUC" if classes == 2 else "macro AUC (one against the rest)"


def weighted(name: str, truth: np.ndarray, scores_NC: np.ndarray) -> WeightedStatistic:
    """A measure by name as a function of row weights."""
    classes = scores_NC.shape[1]
    if name == auc_title(classes):
        return lambda weights_SN: np.asarray(macro_auc(scores_NC, truth, weights_SN))
    cell = truth * classes + scores_NC.argmax(1)
    statistic = CLASS_STATISTICS[name]

    def of(weights_SN: np.ndarray) -> np.ndarray:
        counts = np.stack([np.bincount(cell, row, classes**2) for row in weights_SN]).reshape(-1, classes, classes)
        return statistic(counts)

    return of
