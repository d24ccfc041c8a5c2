"""Which class is a region of? Answered by texts alone (zero-shot); wording and isolation are chosen without the judged.

Regions come from the truth masks, so every table here is an oracle's: it says how well given regions are named, not how
well they are found.

Letters: N regions, T judged ones, C classes, W ways (a wording with an isolation mode).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lamella.metrics.classes import balanced_accuracy, confusions
from lamella.metrics.comparison import Asked, Comparison, class_measures, weighted
from lamella.metrics.exchanged import exchanged_classes
from lamella.metrics.image_study import ImageAnswer, ImageStudy, Part
from lamella.metrics.report import MAJORITY, Reference, Row, digits, span
from lamella.metrics.resamples import Resamples, WeightedStatistic
from lamella.metrics.study import CannotAsk

HEAD = "Naming (oracle: regions given from the truth masks)"
ZERO_SHOT, EACH_WAY = f"{HEAD}: zero-shot", f"{HEAD}: every wording and isolation"
MEANINGS = {
    ZERO_SHOT: "Which class has the texts nearest to the region? The score of a class is the cosine with the mean of "
    "its texts' embeddings. Where several wordings or isolations were given, the one with the best balanced accuracy "
    "on the validation regions (else the training ones) is taken, and regions of other groups are judged. Beside it: "
    "the same network with random weights, and the same answers against labels exchanged between groups.",
    EACH_WAY: "The same regions under each wording and isolation, **for orientation**: taking the best of this table "
    "would choose on the judged regions.",
}
_ALONE = "Zero-shot: one group has no other to exchange labels with, so there is no control"
PROBE, TABLE = "zero-shot", "zero_shot"


@dataclass(frozen=True)
class Ways:
    """Scores of every region under every wording and isolation.

    Attributes:
        names: (W,) of the ways, such as `bcss5 / gray`.
        scores: Network name -> replicates, each (W, N, C) cosines; the judged network first, as in the study.
        scale: Network name -> what its cosines are multiplied with before the softmax.
    """

    names: tuple[str, ...]
    scores: Mapping[str, tuple[np.ndarray, ...]]
    scale: Mapping[str, float]


def class_embeddings(texts_TF: np.ndarray, owners_T: Sequence[int], classes: int) -> np.ndarray:
    """The mean of each class's text embeddings, brought to length 1 again.

    Args:
        texts_TF: Embeddings of length 1.
        owners_T: Class of each text.
        classes: C; each has at least one text.

    Returns:
        (C, F) float64.
    """
    owners = np.asarray(owners_T)
    means = np.stack([texts_TF[owners == number].astype(np.float64).mean(axis=0) for number in range(classes)])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def probabilities(cosines_NC: np.ndarray, scale: float) -> np.ndarray:
    """Softmax over the classes of scale x cosine, (N, C) float64."""
    logits = scale * np.asarray(cosines_NC, np.float64)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def named_class(scores_NC: np.ndarray) -> np.ndarray:
    """(N,) the class of the highest score; of equal ones the first in the order of the prompts file."""
    return scores_NC.argmax(axis=1)


def ties(scores_NC: np.ndarray) -> int:
    """How many rows have more than one highest score."""
    return int(((scores_NC == scores_NC.max(axis=1, keepdims=True)).sum(axis=1) > 1).sum())


def choose_way(scores_WNC: np.ndarray, labels: np.ndarray, part: Part) -> int:
    """The way with the best balanced accuracy on the part's validation rows, else its training rows; never the judged.

    Of equal ones the first that was given.
    """
    rows = part.val if len(part.val) else part.train
    if len(scores_WNC) == 1 or not len(rows):
        return 0
    classes = scores_WNC.shape[2]
    found = [
        float(balanced_accuracy(confusions(labels[rows], named_class(scores[rows]), classes).sum(axis=0)))
        for scores in scores_WNC
    ]
    return int(np.argmax(np.round(found, 6)))


def ask_zero_shot(study: ImageStudy, ways: Ways) -> ImageAnswer:
    """Names from texts alone, for every network.

    Args:
        study: Regions with their classes, groups and parts; features are not used.
        ways: Scores under each wording and isolation.

    Raises:
        CannotAsk: The judged regions are of one class only.
    """
    test = study.test_rows
    truth = study.labels[test]
    if len(np.unique(truth)) < 2:
        raise CannotAsk(f"the judged {study.noun} are of one class only")
    resamples = Resamples(study.groups[test], seed=study.seed)
    comparison = Comparison(ZERO_SHOT, resamples, study.judged, study.twin, study.noun)
    chosen = {name: [_chosen(study, one, study.labels) for one in them] for name, them in ways.scores.items()}
    scores = {
        name: [probabilities(each, ways.scale[name]) for each, _ in them] for name, them in chosen.items()
    }  # fmt: skip
    several = len(np.unique(study.groups)) > 1  # one group has no other to exchange its labels with
    lies = [exchanged_classes(study, draw) for draw in range(study.probes.control_draws)] if several else []
    shams = [(lie[test], _chosen(study, ways.scores[study.judged][0], lie)[0]) for lie in lies]
    rows: list[Row] = []
    differences: list[Row] = []
    conclusions: list[str] = []
    main = "balanced accuracy"
    for asked, statistic in _measures(truth, study.class_names):
        found = {name: resamples.of([statistic(truth, each) for each in them]) for name, them in scores.items()}
        control = resamples.of([statistic(lie, each) for lie, each in shams]) if shams else None
        if control is None or not np.isfinite(control.point_R).all():
            rows += comparison.rows(asked, PROBE, found)
        else:
            recall = asked.name.startswith("recall")
            constant = None if recall else _constant(asked.name, lies, test, len(study.class_names))
            rows += comparison.rows(asked, PROBE, found, control, control_baseline=constant)
        if asked.name == main:
            differences, conclusions = comparison.differences(asked, PROBE)
            conclusions = [_against_constant(rows, asked, study.judged), *conclusions]
    notes = [*_said(study, ways, truth), *_chosen_text(ways, chosen[study.judged][0][1]), _ties_text(chosen, study)]
    notes += [] if several else [_ALONE]
    first = scores[study.judged][0]
    return ImageAnswer(
        (*differences, *rows, *_each_way(study, ways, resamples, truth)),
        tuple(conclusions),
        tuple(notes),
        tables={
            TABLE: _predictions(study, test, truth, first),
            f"{TABLE}_confusion": _confusion(study, truth, first),
        },
    )


def _against_constant(rows: Sequence[Row], asked: Asked, judged: str) -> str:
    """The judged network beside the constant answer, in words: what random weights cannot say."""
    found = next(row.estimate for row in rows if (row.measure, row.encoder) == (asked.name, judged))
    base = asked.baseline
    word = "above" if found.low > base.value else "below" if found.high < base.value else "not measurably other than"
    return (
        f"{ZERO_SHOT}: {asked.name} of {judged} {span(found)}, {word} the {base.value:.{digits(found.n)}f} of always "
        f"saying the most frequent class; {found.n} regions, {found.groups} groups."
    )


def headed(answer: ImageAnswer, title: str) -> ImageAnswer:
    """An answer of another question under the naming's head, so that no table of it stands without the word oracle."""
    rows = tuple(replace(row, question=f"{HEAD}: {title}") for row in answer.rows)
    unasked = tuple(replace(each, question=f"{HEAD}: {each.question}") for each in answer.unasked)
    return replace(answer, rows=rows, unasked=unasked)


def _chosen(study: ImageStudy, scores_WNC: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """(T, C) cosines of the judged rows, part after part, each under the way chosen without it; and those ways."""
    taken = [choose_way(scores_WNC, labels, part) for part in study.parts]
    found = [scores_WNC[way][part.test] for way, part in zip(taken, study.parts, strict=True)]
    return np.concatenate(found), taken


def _measures(truth: np.ndarray, names: Sequence[str]) -> list[tuple[Asked, Any]]:
    """AUC, balanced accuracy, accuracy and macro F1; then the recall of each class that was judged."""
    classes = len(names)
    asked = class_measures(truth, classes)
    measures: list[tuple[Asked, Any]] = [
        (each, lambda labels, scores, name=name: weighted(name, labels, scores)) for name, each in asked.items()
    ]
    common = np.bincount(truth, minlength=classes).argmax()
    for number, name in enumerate(names):
        if (truth == number).any():
            constant = Reference(MAJORITY, float(number == common))
            measures.append((Asked(f"recall, {name}", constant), _recall_of(number)))
    return measures


def _recall_of(number: int) -> Any:
    def statistic(labels: np.ndarray, scores: np.ndarray) -> WeightedStatistic:
        own = labels == number
        hit = own & (named_class(scores) == number)

        def of(weights_SN: np.ndarray) -> np.ndarray:
            hits, all_of_it = weights_SN @ hit, weights_SN @ own
            return np.divide(hits, all_of_it, out=np.full(len(hits), np.nan), where=all_of_it > 0)

        return of

    return statistic


def _constant(name: str, lies: Sequence[np.ndarray], test: np.ndarray, classes: int) -> Reference:
    """What the majority answer gets on exchanged labels."""
    each = [class_measures(lie[test], classes)[name].baseline for lie in lies]
    return Reference(each[0].name, float(np.mean([one.value for one in each])))


def _each_way(study: ImageStudy, ways: Ways, resamples: Resamples, truth: np.ndarray) -> list[Row]:
    """Balanced accuracy of the judged network under each way, where there are several."""
    if len(ways.names) < 2:
        return []
    test, name = study.test_rows, "balanced accuracy"
    asked = replace(class_measures(truth, len(study.class_names))[name], better="neither")
    comparison = Comparison(EACH_WAY, resamples, study.judged, None, study.noun)
    rows = []
    for number, way in enumerate(ways.names):
        found = resamples.of([weighted(name, truth, ways.scores[study.judged][0][number][test])])
        rows += comparison.rows(asked, way, {study.judged: found})
    return rows


def _said(study: ImageStudy, ways: Ways, truth: np.ndarray) -> list[str]:
    counts = np.bincount(truth, minlength=len(study.class_names))
    composition = ", ".join(f"{name} {count}" for name, count in zip(study.class_names, counts, strict=True))
    notes = [
        f"Zero-shot, judged {study.noun}: {composition}",
        "Zero-shot: of equal scores the class that stands first in the prompts file is taken; probabilities are the "
        f"softmax of {ways.scale[study.judged]:.4g} (the model's own scale) times the cosine",
    ]
    absent = [name for name, count in zip(study.class_names, counts, strict=True) if not count]
    if absent:
        notes.append(f"Zero-shot: no judged region is of {', '.join(absent)}; these classes can only be wrong answers")
    return notes


def _chosen_text(ways: Ways, taken: Sequence[int]) -> list[str]:
    if len(ways.names) < 2:
        return [f"Zero-shot: one wording and isolation was given ({ways.names[0]}); nothing was chosen"]
    counts = ", ".join(f"{ways.names[way]} ({count} of {len(taken)})" for way, count in Counter(taken).most_common())
    return [f"Zero-shot: chosen without the judged groups, by part: {counts}; random weights choose for themselves"]


def _ties_text(chosen: Mapping[str, Sequence[tuple[np.ndarray, list[int]]]], study: ImageStudy) -> str:
    equal = ties(chosen[study.judged][0][0])
    return f"Zero-shot: {equal} of {len(study.test_rows)} {study.noun} have equal highest scores"


def _predictions(study: ImageStudy, test: np.ndarray, truth: np.ndarray, scores: np.ndarray) -> list[dict[str, Any]]:
    names, predicted = study.class_names, named_class(scores)
    return [
        {
            "region": study.items[row],
            "group": study.groups[row],
            "truth": names[truth[number]],
            "named": names[predicted[number]],
            **{f"p_{name}": round(float(scores[number, column]), 6) for column, name in enumerate(names)},
        }
        for number, row in enumerate(test)
    ]


def _confusion(study: ImageStudy, truth: np.ndarray, scores: np.ndarray) -> list[dict[str, Any]]:
    counts = confusions(truth, named_class(scores), len(study.class_names)).sum(axis=0)
    return [
        {"truth": own, "named": other, "count": int(counts[row, column])}
        for row, own in enumerate(study.class_names)
        for column, other in enumerate(study.class_names)
    ]
