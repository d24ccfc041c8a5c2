"""How much do few labels suffice for? n-shot probes and data efficiency, each over repeated draws of the labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from lamella.config import Settings
from lamella.metrics.bootstrap import Estimate
from lamella.metrics.comparison import Comparison, auc_title, class_measures, weighted
from lamella.metrics.image_study import Count, ImageAnswer, ImageStudy, Part, Strength, with_classes
from lamella.metrics.label_draws import share_rows, shot_rows
from lamella.metrics.probes import standardise
from lamella.metrics.report import Row, Unasked
from lamella.metrics.resamples import Resamples, side_by_side
from lamella.metrics.scored import LinearFits, choose_strength
from lamella.metrics.study import CannotAsk

FEW, EFFICIENCY = "Few labels", "Data efficiency"
MEANINGS = {
    FEW: "A linear probe with n labels of each class: the mean over draws of the labels, and its interval over draws "
    "and held-out groups together. All encoders get the same draws.",
    EFFICIENCY: "A linear probe on a share of the training labels, the classes in their proportion: the mean over "
    "draws. Where it was asked for, the same network trained from scratch on these labels stands beside it.",
}
SUPERVISED = "supervised from scratch"
Supervised = Callable[[ImageStudy, tuple[Part, ...], int], np.ndarray]
"""(study, parts with the drawn labels, seed) -> (T, C) scores of the judged rows."""


class NShotSettings(Settings):
    """Probes with n labels a class."""

    shots: tuple[Count, ...] = (5, 10, 20)
    """Labels of each class."""
    draws: Annotated[int, Field(ge=2)] = 20
    """Draws of the labels."""
    c: Strength = 0.1
    """Inverse regularisation strength: so few labels leave nothing to choose it on."""


class EfficiencySettings(Settings):
    """Probes on a share of the labels."""

    shares: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0)
    """Shares of the training labels."""
    draws: Annotated[int, Field(ge=2)] = 5
    """Draws of the labels for each share below 1."""
    supervised: bool = False
    """Also train the same network from scratch on the same labels (`finetune` says with what budget)."""


def ask_few_labels(study: ImageStudy, settings: NShotSettings) -> ImageAnswer:
    """n-shot probes of every encoder.

    Raises:
        CannotAsk: As for classification; or every n is larger than a class.
    """
    study = with_classes(study)
    table = _Draws(study, FEW)
    unasked, notes = (
        [],
        [
            f"{FEW}: features are standardised by all training {study.noun}, which needs no labels; "
            f"regularisation C = {settings.c:g}; labels are spread over as many groups as there are"
        ],
    )
    scaled = {name: [_scaled(study, each) for each in replicates] for name, replicates in study.features.items()}
    for shots in settings.shots:
        lacking = _lacking(study, shots)
        if lacking:
            unasked.append(Unasked(f"{FEW}, n = {shots}", f"the training part has {lacking}"))
            continue
        drawn = [
            [shot_rows(part.train, study.labels, study.groups, shots, _rng(study, shots, draw)) for part in study.parts]
            for draw in range(settings.draws)
        ]
        scores = {
            name: [[_n_shot(study, ready, rows, settings.c) for rows in drawn] for ready in replicates]
            for name, replicates in scaled.items()
        }
        said, _ = table.add(f"linear, {shots} a class", scores, {"shots": shots, "labels": len(drawn[0][0])})
        table.conclusions += said
    if not table.rows:
        raise CannotAsk("; ".join(f"n = {each.question.rpartition(' ')[2]}: {each.reason}" for each in unasked))
    return table.answer(notes, tuple(unasked), "nshot")


def ask_efficiency(
    study: ImageStudy, settings: EfficiencySettings, supervised: Supervised | None = None, budget: str = ""
) -> ImageAnswer:
    """Probes of every encoder on shares of the labels; regularisation is chosen as for the whole.

    Args:
        study: Items, features and parts.
        settings: Shares and draws.
        supervised: Trains the network from scratch, if that is asked for.
        budget: Of that training, in words.

    Raises:
        CannotAsk: As for classification.
    """
    study = with_classes(study)
    table = _Draws(study, EFFICIENCY)
    sentences: dict[float, list[str]] = {}
    gaps: dict[float, Estimate] = {}
    complete: list[float] = []
    for share in sorted(settings.shares):
        draws = 1 if share >= 1 else settings.draws
        parts = [tuple(_shared(study, part, share, draw) for part in study.parts) for draw in range(draws)]
        if all(len(np.unique(study.labels[part.train])) == len(study.class_names) for those in parts for part in those):
            complete.append(share)
        scores = {
            name: [[_on_share(study, features, those) for those in parts] for features in replicates]
            for name, replicates in study.features.items()
        }
        if supervised is not None:
            scores[SUPERVISED] = [[supervised(study, those, study.seed + draw) for draw, those in enumerate(parts)]]
        labels = round(np.mean([len(part.train) for part in parts[0]]))
        probe = f"linear, {share:.0%} of the labels ({labels})"
        sentences[share], gap = table.add(probe, scores, {"share": share, "labels": labels})
        if gap is not None:
            gaps[share] = gap
    shown = sorted({*complete[:1], max(sentences)})
    table.conclusions = [text for share in shown for text in sentences[share]] + _from_which_share(study, gaps)
    notes = [f"{EFFICIENCY}: {SUPERVISED}: {budget}"] if supervised is not None else []
    if all(len(np.unique(study.labels[part.val])) > 1 for part in study.parts):
        notes.append(f"{EFFICIENCY}: choices are made on the whole validation split, whose labels are not counted")
    return table.answer(notes, (), "efficiency")


def _from_which_share(study: ImageStudy, gaps: Mapping[float, Estimate]) -> list[str]:
    """From which share of the labels on the judged encoder is better than its random twin, in one sentence."""
    if not gaps:
        return []
    better, last = [share for share, gap in gaps.items() if gap.low > 0], max(gaps)
    lead = f"{EFFICIENCY}: {study.judged} is measurably better than {study.twin}"
    on = [share for share in gaps if all(other in better for other in gaps if other >= share)]
    if on:
        below = [f"{share:.0%}" for share in better if share < min(on)]
        also = f", and on {', '.join(below)}, with a share between where it is not" if below else ""
        where = f"from {min(on):.0%} of the labels on" if len(on) > 1 else f"on {last:.0%} of the labels"
        return [f"{lead} {where}{also}."]
    if better:
        return [f"{lead} on {', '.join(f'{share:.0%}' for share in better)} of the labels, no longer on {last:.0%}."]
    return [f"{EFFICIENCY}: {study.judged} is measurably better than {study.twin} on no share of the labels."]


Scores = Mapping[str, Sequence[Sequence[np.ndarray]]]
"""Encoder -> replicates -> draws -> (T, C) scores of the judged rows."""


class _Draws:
    """Rows, sentences and file tables of one question over draws."""

    def __init__(self, study: ImageStudy, question: str) -> None:
        self.study, self.truth = study, study.labels[study.test_rows]
        self.resamples = Resamples(study.groups[study.test_rows], seed=study.seed)
        self.comparison = Comparison(question, self.resamples, study.judged, study.twin, study.noun)
        self.measures = class_measures(self.truth, len(study.class_names))
        self.rows: list[Row] = []
        self.differences: list[Row] = []
        self.conclusions: list[str] = []
        self.summary: list[dict[str, Any]] = []
        self.each_draw: list[dict[str, Any]] = []

    def add(self, probe: str, scores: Scores, facts: Mapping[str, Any]) -> tuple[list[str], Estimate | None]:
        """The rows of one number of labels; gives its sentences, and the judged encoder minus its random twin."""
        main = auc_title(len(self.study.class_names))
        draws = len(next(iter(scores.values()))[0])
        shared = {**facts, "draws": draws}
        lines = {name: {"encoder": name, **shared, "replicates": len(each)} for name, each in scores.items()}
        for measure, key in ((main, "auc"), ("balanced accuracy", "balanced_accuracy")):
            found, notes = {}, {}
            for name, replicates in scores.items():
                each = [self.resamples.of([weighted(measure, self.truth, one) for one in draw]) for draw in replicates]
                found[name] = side_by_side([self.resamples.over_draws(one) for one in each])
                points = np.stack([one.point_R for one in each])
                if draws > 1:
                    notes[name] = f"deviation between the {draws} draws {points.std(axis=1, ddof=1).mean():.3f}"
                who = {"encoder": name, **facts, "measure": key}
                self.each_draw += [
                    {**who, "replicate": replicate, "draw": draw, "value": round(float(value), 6)}
                    for (replicate, draw), value in np.ndenumerate(points)
                ]
            rows = self.comparison.rows(self.measures[measure], probe, found, notes=notes)
            self.rows += rows
            for row in rows:
                spot = row.estimate
                lines[row.encoder] |= {key: spot.value, f"{key}_low": spot.low, f"{key}_high": spot.high}
        gaps, sentences = self.comparison.differences(self.measures[main], probe)
        self.differences += gaps
        self.summary += list(lines.values())
        said = [text for text in sentences if " pretraining " in text or SUPERVISED in text]
        beside = list(scores)[1:]
        gap = gaps[beside.index(self.study.twin)].estimate if self.study.twin in beside else None
        return said, gap

    def answer(self, notes: Sequence[str], unasked: tuple[Unasked, ...], file: str) -> ImageAnswer:
        return ImageAnswer(
            (*self.differences, *self.rows),
            tuple(self.conclusions),
            tuple(notes),
            unasked,
            {file: self.summary, f"{file}_draws": self.each_draw},
        )


def _n_shot(
    study: ImageStudy, scaled: Sequence[np.ndarray], drawn: Sequence[np.ndarray], strength: float
) -> np.ndarray:
    """(T, C) scores of the judged rows from fits on the drawn rows of each part."""
    found = []
    for ready, part, rows in zip(scaled, study.parts, drawn, strict=True):
        fits = LinearFits(ready[rows], study.labels[rows], len(study.class_names), study.probes, standardised=True)
        found.append(fits.scores(strength, ready[part.test]))
    return np.concatenate(found)


def _scaled(study: ImageStudy, features: np.ndarray) -> list[np.ndarray]:
    """The features standardised by all training rows of each part, which needs no labels."""
    return [standardise(features[part.train], features)[1] for part in study.parts]


def _on_share(study: ImageStudy, features: np.ndarray, parts: Sequence[Part]) -> np.ndarray:
    found = []
    for part in parts:
        strength = choose_strength(features, study.labels, study, part)
        fits = LinearFits(features[part.train], study.labels[part.train], len(study.class_names), study.probes)
        found.append(fits.scores(strength, features[part.test]))
    return np.concatenate(found)


def _shared(study: ImageStudy, part: Part, share: float, draw: int) -> Part:
    rows = share_rows(part.train, study.labels, study.groups, share, _rng(study, share, draw))
    return Part(rows, part.val, part.test)


def _lacking(study: ImageStudy, shots: int) -> str:
    """Which classes have fewer training rows, in the part that has fewest."""
    names = study.class_names
    counts = np.min([np.bincount(study.labels[part.train], minlength=len(names)) for part in study.parts], axis=0)
    few = [(name, count) for name, count in zip(names, counts, strict=True) if count < shots]
    return ", ".join(f"{count} {study.noun} of {name}" for name, count in few)


def _rng(study: ImageStudy, kind: float, draw: int) -> np.random.Generator:
    return np.random.default_rng([study.seed, round(kind * 1e6), draw])
