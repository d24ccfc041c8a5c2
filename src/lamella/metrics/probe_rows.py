"""From a probe question to table rows: every encoder, two probes, the constant answer, the control, the differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lamella.metrics.bootstrap import group_sums
from lamella.metrics.classes import accuracy, balanced_accuracy, confusions, macro_f1
from lamella.metrics.compared import Measure, difference_rows, encoder_rows, estimate
from lamella.metrics.controls import exchange_labels
from lamella.metrics.probes import Predictions, knn_probe, linear_probe
from lamella.metrics.report import MAJORITY, Better, Reference, Row
from lamella.metrics.study import Answer, Study, folds_of

EXCHANGED = "labels exchanged"
LINEAR = "linear"
_STATISTICS = {"balanced accuracy": balanced_accuracy, "accuracy": accuracy, "macro F1": macro_f1}


@dataclass(frozen=True)
class ProbeQuestion:
    """One label to be read from the features of tiles of unseen groups; `labels` are 0..C-1 without gaps."""

    title: str
    study: Study
    labels: np.ndarray
    names: tuple[str, ...]
    better: Better

    def answer(self, notes: Sequence[str] = ()) -> Answer:
        """All rows of the question; the differences are those of the linear probe's balanced accuracy."""
        constant = self._constant()
        rows: list[Row] = []
        counted: dict[str, dict[str, np.ndarray]] = {}
        for probe in (LINEAR, f"kNN, k={self.study.probes.knn_k}"):
            sham, remarks = self._control(probe), {}
            counted[probe] = {}
            for encoder, replicates in self.study.features.items():
                counted[probe][encoder], remarks[encoder] = self._counted(probe, replicates)
            for measure in self._measures(probe):
                majority = Reference(MAJORITY, estimate(self.study, measure, constant).value)
                control = Reference(EXCHANGED, estimate(self.study, measure, sham).value)
                rows += encoder_rows(self.study, measure, counted[probe], majority, control, remarks)
                rows.append(self._orientation(measure, f"{self.study.judged}, {EXCHANGED}", sham, majority))
        for measure in self._measures("constant"):
            majority = Reference(MAJORITY, estimate(self.study, measure, constant).value)
            rows.append(self._orientation(measure, MAJORITY, constant, majority))
        differences, conclusions = difference_rows(self.study, self._measures(LINEAR)[0], counted[LINEAR])
        counts = np.bincount(self.labels, minlength=len(self.names))
        composition = ", ".join(f"{name} {count}" for name, count in zip(self.names, counts, strict=True))
        notes = (f"{self.title}, tiles: {composition}", *notes)
        return Answer((*differences, *rows), tuple(conclusions), notes)

    def _measures(self, probe: str) -> list[Measure]:
        return [Measure(self.title, name, probe, stat, self.better, dims=2) for name, stat in _STATISTICS.items()]

    def _orientation(self, measure: Measure, name: str, sums: np.ndarray, baseline: Reference) -> Row:
        """A row that is no candidate: the constant answer, the control."""
        found = estimate(self.study, measure, sums)
        return Row(measure.question, measure.name, measure.probe, name, found, baseline, "neither")

    def _constant(self) -> np.ndarray:
        """(G, 1, C, C): the best constant answer, always the most frequent class."""
        return self._sums([(self.labels, np.full(len(self.labels), np.bincount(self.labels).argmax()))])

    def _counted(self, probe: str, replicates: Sequence[np.ndarray]) -> tuple[np.ndarray, str]:
        """(G, R, C, C) confusions of an encoder, and what must be said about its fits."""
        found = [self._predict(probe, features, self.labels) for features in replicates]
        notes = dict.fromkeys(predictions.note for predictions in found if predictions.note)
        return self._sums([(self.labels, predictions.labels) for predictions in found]), "; ".join(notes)

    def _control(self, probe: str) -> np.ndarray:
        """(G, draws, C, C): the judged encoder's probe on exchanged labels."""
        study, pairs = self.study, []
        for draw in range(study.probes.control_draws):
            truth = exchange_labels(self.labels, study.slides, len(self.names), study.seed + 1 + draw)
            pairs.append((truth, self._predict(probe, study.judged_features, truth).labels))
        return self._sums(pairs)

    def _predict(self, probe: str, features: np.ndarray, truth: np.ndarray) -> Predictions:
        study, folds = self.study, folds_of(self.study, truth)
        if probe == LINEAR:
            return linear_probe(features, truth, study.groups, folds, study.make_folds, study.probes)
        return knn_probe(features, truth, folds, study.probes)

    def _sums(self, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        """(G, R, C, C) from R pairs of truth and prediction."""
        classes, groups = len(self.names), self.study.groups
        return np.stack([group_sums(confusions(*pair, classes), groups) for pair in pairs], axis=1)
