"""Several labels an item: one logistic regression for each class, judged class by class and together.

Letters: N items, T judged rows, C classes, S weightings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lamella.metrics.comparison import CONSTANT, Asked, Comparison
from lamella.metrics.exchanged import exchanged_marks
from lamella.metrics.image_study import ImageAnswer, ImageStudy, Part, labelled_only
from lamella.metrics.ranking import auc, average_precision
from lamella.metrics.report import MATCHES, Reference, Row
from lamella.metrics.resamples import Resamples, WeightedStatistic
from lamella.metrics.scored import LinearFits
from lamella.metrics.study import CannotAsk

SEVERAL = "Several labels"
MEANING = (
    "Which of the classes does an item show? AUC and average precision of each class, their means over the classes "
    "that can be judged, and at a threshold of 0.5 the exact match (all classes of an item right) beside the "
    "element-wise accuracy, which alone flatters: most classes are absent from most items."
)
PROBE = "linear, one against the rest"
EXACT, ELEMENTS = MATCHES


def ask_several(study: ImageStudy) -> ImageAnswer:
    """Multi-label probes of every encoder.

    Raises:
        CannotAsk: The data set has one label an item; or no class has positives and negatives to fit and to judge.
    """
    if not study.multi_label:
        raise CannotAsk("every item has one label; see classification")
    study = labelled_only(study)
    usable, notes = _usable(study)
    names = tuple(np.array(study.class_names)[usable])
    marks = study.labels[:, usable]
    test = study.test_rows
    truth = marks[test]
    resamples = Resamples(study.groups[test], seed=study.seed)
    comparison = Comparison(SEVERAL, resamples, study.judged, study.twin, study.noun)
    scores = {name: [_scores(each, marks, study) for each in them] for name, them in study.features.items()}
    lies = [exchanged_marks(study, marks, draw) for draw in range(study.probes.control_draws)]
    shams = [(lie[test], _scores(study.features[study.judged][0], lie, study)) for lie in lies]
    rows: list[Row] = []
    differences: list[Row] = []
    conclusions: list[str] = []
    for asked, statistic in _measures(truth, names):
        found = {
            name: resamples.of([statistic(truth, each) for each in replicates]) for name, replicates in scores.items()
        }
        control = resamples.of([statistic(lie, each) for lie, each in shams])
        rows += comparison.rows(asked, PROBE, found, control)
        if asked.name in ("macro AUC", "mAP"):
            gaps, sentences = comparison.differences(asked, PROBE)
            differences += gaps
            conclusions += sentences if asked.name == "macro AUC" else []
    tables = {
        "per_class": [line for name, (first, *_) in scores.items() for line in _per_class(name, truth, first, names)],
        "predictions": [
            line for name, (first, *_) in scores.items() for line in _predictions(study, name, truth, first, names)
        ],
    }
    return ImageAnswer((*differences, *rows), tuple(conclusions), tuple(notes), tables=tables)


Statistic = Callable[[np.ndarray, np.ndarray], WeightedStatistic]
"""(truth (T, C), scores (T, C)) to a function of row weights."""


def _measures(truth: np.ndarray, names: Sequence[str]) -> list[tuple[Asked, Statistic]]:
    """The means first, then exact match beside element-wise accuracy, then each class."""
    share = truth.mean(0)
    rarest, half = Reference("share of positives, mean", float(share.mean())), Reference(CONSTANT, 0.5)
    common = np.broadcast_to(share > 0.5, truth.shape)
    same = float((common == truth).all(1).mean()), float((common == truth).mean())
    measures: list[tuple[Asked, Statistic]] = [
        (Asked("macro AUC", half), _mean_of(auc)),
        (Asked("mAP", rarest), _mean_of(average_precision)),
        (Asked(EXACT, Reference("majority of each class", same[0])), _share(lambda right_TC: right_TC.all(1))),
        (Asked(ELEMENTS, Reference("majority of each class", same[1])), _share(lambda right_TC: right_TC.mean(1))),
    ]
    for column, name in enumerate(names):
        measures.append((Asked(f"AUC, {name}", half), _of_column(auc, column)))
        positives = Reference("share of positives", float(share[column]))
        measures.append((Asked(f"average precision, {name}", positives), _of_column(average_precision, column)))
    return measures


def _of_column(rank: Callable[..., np.ndarray], column: int) -> Statistic:
    return lambda truth, scores: lambda weights_SN: rank(scores[:, column], truth[:, column], weights_SN)


def _mean_of(rank: Callable[..., np.ndarray]) -> Statistic:
    """Mean over the classes that a resample can judge; on all rows every class can be."""

    def statistic(truth: np.ndarray, scores: np.ndarray) -> WeightedStatistic:
        def of(weights_SN: np.ndarray) -> np.ndarray:
            each = np.array([rank(scores[:, c], truth[:, c], weights_SN) for c in range(truth.shape[1])])
            defined = np.isfinite(each)
            count = defined.sum(0)
            total = np.where(defined, each, 0).sum(0)
            return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)

        return of

    return statistic


def _share(row: Callable[[np.ndarray], np.ndarray]) -> Statistic:
    def statistic(truth: np.ndarray, scores: np.ndarray) -> WeightedStatistic:
        values = row((scores > 0.5) == truth).astype(np.float64)
        return lambda weights_SN: weights_SN @ values / weights_SN.sum(1)

    return statistic


def _usable(study: ImageStudy) -> tuple[np.ndarray, list[str]]:
    """(C,) bool: classes with positives and negatives to fit in every part, and to judge; the others are named."""
    judged = study.labels[study.test_rows]
    fitted = [study.labels[part.train] for part in study.parts]
    can_fit = np.all([rows.any(0) & ~rows.all(0) for rows in fitted], axis=0)
    can_judge = judged.any(0) & ~judged.all(0)
    names = np.array(study.class_names)
    notes = []
    if (~can_judge).any():
        notes.append(
            f"{SEVERAL}: left out, for no judged item, or every one, is of it: {', '.join(names[~can_judge])}; "
            "they are in no mean"
        )
    if (can_judge & ~can_fit).any():
        notes.append(
            f"{SEVERAL}: left out, for the training items of a part are all or none of it: "
            f"{', '.join(names[can_judge & ~can_fit])}; they are in no mean"
        )
    if not (can_fit & can_judge).any():
        raise CannotAsk("; ".join(notes) or "no class is labelled")
    counts = ", ".join(f"{name} {count}" for name, count in zip(names, judged.sum(0), strict=True))
    notes.append(f"{SEVERAL}, judged {study.noun} ({len(judged)}): {counts}")
    return can_fit & can_judge, notes


def _scores(features: np.ndarray, marks: np.ndarray, study: ImageStudy) -> np.ndarray:
    """(T, C) probabilities, each class with its own regularisation."""
    found = []
    for part in study.parts:
        columns = [
            _one_class(features, marks[:, column].astype(np.int64), study, part) for column in range(marks.shape[1])
        ]
        found.append(np.stack(columns, axis=1))
    return np.concatenate(found)


def _one_class(features: np.ndarray, label: np.ndarray, study: ImageStudy, part: Part) -> np.ndarray:
    grid, train = sorted(study.probes.c_grid), part.train

    def fits(rows: np.ndarray) -> LinearFits:
        # Unweighted: a threshold of 0.5 then means more likely than not.
        return LinearFits(features[rows], label[rows], 2, study.probes, balanced=False)

    strength = grid[len(grid) // 2]
    if len(np.unique(label[part.val])) > 1:
        tried = fits(train)
        found = [_auc(tried.scores(c, features[part.val])[:, 1], label[part.val]) for c in grid]
        strength = grid[int(np.argmax(np.round(found, 6)))]
    elif len(np.unique(study.groups[train])) > 1:
        folds = study.make_folds(study.groups[train], label[train], study.probes.inner_folds)
        held = np.zeros((len(grid), len(train)))
        for fold in np.unique(folds):
            tried = fits(train[folds != fold])
            for number, c in enumerate(grid):
                held[number, folds == fold] = tried.scores(c, features[train[folds == fold]])[:, 1]
        strength = grid[int(np.argmax(np.round([_auc(each, label[train]) for each in held], 6)))]
    return fits(train).scores(strength, features[part.test])[:, 1]


def _auc(scores: np.ndarray, label: np.ndarray) -> float:
    return float(auc(scores, label > 0, np.ones((1, len(label))))[0])


def _per_class(encoder: str, truth: np.ndarray, scores: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    ones = np.ones((1, len(truth)))
    return [
        {
            "encoder": encoder,
            "probe": PROBE,
            "class": name,
            "test_items": int(truth[:, c].sum()),
            "auc": round(float(auc(scores[:, c], truth[:, c], ones)[0]), 6),
            "average_precision": round(float(average_precision(scores[:, c], truth[:, c], ones)[0]), 6),
        }
        for c, name in enumerate(names)
    ]


def _predictions(
    study: ImageStudy, encoder: str, truth: np.ndarray, scores: np.ndarray, names: Sequence[str]
) -> list[dict[str, Any]]:
    return [
        {
            "encoder": encoder,
            "probe": PROBE,
            "item_id": study.items[row],
            "group": study.groups[row],
            "truth": "|".join(name for name, has in zip(names, truth[number], strict=True) if has),
            "predicted": "|".join(name for name, score in zip(names, scores[number], strict=True) if score > 0.5),
            **{f"score_{name}": round(float(scores[number, c]), 6) for c, name in enumerate(names)},
        }
        for number, row in enumerate(study.test_rows)
    ]
