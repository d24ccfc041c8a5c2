"""Which class is it? Linear probe and kNN on frozen features, beside random weights, pixels and exchanged labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lamella.metrics.attentive import attentive_scores
from lamella.metrics.comparison import Comparison, auc_title, class_measures, weighted
from lamella.metrics.exchanged import exchanged_classes
from lamella.metrics.image_study import ImageAnswer, ImageStudy, with_classes
from lamella.metrics.ranking import auc
from lamella.metrics.report import Reference, Row
from lamella.metrics.resamples import Resamples
from lamella.metrics.scored import Scored, knn_scores, linear_scores

CLASSES = "Classification"
MEANING = (
    "Can the class be read from the features of items that neither the probe nor the encoder saw? AUC does not depend "
    "on a threshold; accuracy is read beside balanced accuracy and the majority rate. The same table holds the same "
    "network with random weights, plain statistics without a network, and labels exchanged between groups (chance, or "
    "there is a leak)."
)
LINEAR, LAST_LAYERS, ATTENTIVE = "linear", "linear, last 4 layers", "attentive pooling"
Fit = Callable[[np.ndarray, np.ndarray, ImageStudy], Scored]


def ask_classes(study: ImageStudy, probes: Sequence[str] = (LINEAR, "knn")) -> ImageAnswer:
    """Class probes of every encoder.

    Args:
        study: Items, features and parts.
        probes: `linear` (with the poolings that the study holds) and `knn`.

    Raises:
        CannotAsk: No labels, or one class only.
    """
    study = with_classes(study)
    test, classes = study.test_rows, len(study.class_names)
    truth = study.labels[test]
    resamples = Resamples(study.groups[test], seed=study.seed)
    comparison = Comparison(CLASSES, resamples, study.judged, study.twin, study.noun)
    measures = class_measures(truth, classes)
    rows: list[Row] = []
    differences: list[Row] = []
    conclusions: list[str] = []
    tables: dict[str, list[Mapping[str, Any]]] = {"predictions": [], "per_class": [], "confusion": []}
    for probe, (features, fit) in _probes(study, probes).items():
        scored = {name: [fit(each, study.labels, study) for each in them] for name, them in features.items()}
        sham = _exchanged(study, features[study.judged][0], fit) if probe != ATTENTIVE else None
        notes = {name: "; ".join(dict.fromkeys(e.note for e in them if e.note)) for name, them in scored.items()}
        for name, asked in measures.items():
            found = {
                encoder: resamples.of([weighted(name, truth, each.scores) for each in them])
                for encoder, them in scored.items()
            }
            lies = None if sham is None else [weighted(name, lie[test], each.scores) for lie, each in sham]
            constant = None if sham is None else _constant(name, [lie[test] for lie, _ in sham], classes)
            control = None if lies is None else resamples.of(lies)
            rows += comparison.rows(asked, probe, found, control, notes, constant)
            if name in (auc_title(classes), "balanced accuracy"):
                gaps, sentences = comparison.differences(asked, probe)
                differences += gaps
                conclusions += sentences if probe == LINEAR and name == auc_title(classes) else []
        _tabulate(study, truth, probe, scored, tables)
    return ImageAnswer((*differences, *rows), tuple(conclusions), tuple(_notes(study, truth)), tables=tables)


def _probes(study: ImageStudy, probes: Sequence[str]) -> dict[str, tuple[Mapping[str, tuple[np.ndarray, ...]], Fit]]:
    found: dict[str, tuple[Mapping[str, tuple[np.ndarray, ...]], Fit]] = {}
    if "linear" in probes:
        found[LINEAR] = (study.features, linear_scores)
        if study.last_layers:
            found[LAST_LAYERS] = (study.last_layers, linear_scores)
        if study.tokens:
            found[ATTENTIVE] = (study.tokens, attentive_scores)
    if "knn" in probes:
        found[f"kNN, k={study.probes.knn_k}"] = (study.features, knn_scores)
    return found


def _exchanged(study: ImageStudy, features: np.ndarray, fit: Fit) -> list[tuple[np.ndarray, Scored]]:
    """Probes of the judged encoder fitted and judged on labels that were exchanged between groups of each part."""
    pairs = []
    for draw in range(study.probes.control_draws):
        lie = exchanged_classes(study, draw)
        pairs.append((lie, fit(features, lie, study)))
    return pairs


def _constant(name: str, lies: Sequence[np.ndarray], classes: int) -> Reference:
    """What a constant answer gets on exchanged labels: groups of unlike sizes or mixed labels change their balance."""
    each = [class_measures(lie, classes)[name].baseline for lie in lies]
    return Reference(each[0].name, float(np.mean([one.value for one in each])))


def _tabulate(
    study: ImageStudy,
    truth: np.ndarray,
    probe: str,
    scored: Mapping[str, Sequence[Scored]],
    tables: Mapping[str, list[Mapping[str, Any]]],
) -> None:
    """Predictions, per-class AUC and confusion counts of each encoder's first replicate."""
    names, test = study.class_names, study.test_rows
    ones = np.ones((1, len(truth)))
    for encoder, (first, *_) in scored.items():
        predicted = first.scores.argmax(1)
        who = {"encoder": encoder, "probe": probe}
        tables["predictions"] += [
            {
                **who,
                "item_id": study.items[row],
                "group": study.groups[row],
                "truth": names[truth[number]],
                "predicted": names[predicted[number]],
                **{f"score_{name}": round(float(first.scores[number, c]), 6) for c, name in enumerate(names)},
            }
            for number, row in enumerate(test)
        ]
        for c, name in enumerate(names):
            own, called = truth == c, predicted == c
            value = float(auc(first.scores[:, c], own, ones)[0])
            tables["per_class"].append(
                {
                    **who,
                    "class": name,
                    "test_items": int(own.sum()),
                    "auc": "" if np.isnan(value) else round(value, 6),
                    "recall": round(float(called[own].mean()), 6) if own.any() else "",
                    "precision": round(float(own[called].mean()), 6) if called.any() else "",
                }
            )
            tables["confusion"] += [
                {**who, "truth": name, "predicted": other, "count": int((own & (predicted == o)).sum())}
                for o, other in enumerate(names)
            ]


def _notes(study: ImageStudy, truth: np.ndarray) -> list[str]:
    counts = np.bincount(truth, minlength=len(study.class_names))
    composition = ", ".join(f"{name} {count}" for name, count in zip(study.class_names, counts, strict=True))
    notes = [f"{CLASSES}, judged {study.noun}: {composition}"]
    absent = [name for name, count in zip(study.class_names, counts, strict=True) if not count]
    if absent:
        notes.append(f"{CLASSES}: no judged item is of {', '.join(absent)}; these classes are in no mean")
    if len(study.parts) > 1:
        notes.append(f"{CLASSES}: scores of the {len(study.parts)} folds' probes are pooled before they are ranked")
    return notes
