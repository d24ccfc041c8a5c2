"""From features of a collection's items to the study that questions are asked of, and from the answers to a report."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from lamella import __version__
from lamella.data.splits import group_folds, refuse_shared_groups
from lamella.imaging.datasets.collection import Collection, Item
from lamella.metrics.image_study import ImageAnswer, ImageProbeSettings, ImageStudy
from lamella.metrics.report import Report, Unasked
from lamella.metrics.representation import per_dimension_std, rankme
from lamella.verbs.evaluation.image_features import Embedded
from lamella.verbs.evaluation.report import cautions
from lamella.verbs.evaluation.rival_encoders import RANDOM
from lamella.verbs.evaluation.scope import Scope, parts_of


def study_of(
    found: Mapping[str, Sequence[Embedded]],
    scope: Scope,
    collection: Collection,
    probes: ImageProbeSettings,
    seed: int,
) -> ImageStudy:
    """The plain arrays that the questions work on.

    Args:
        found: Encoder name -> replicates; the judged one first. All hold every item of the scope.
        scope: Items and their parts.
        collection: Classes and nouns.
        probes: How probes are fitted.
        seed: Of folds, draws, controls and intervals.
    """
    ids = [item.item_id for item in scope.items]

    def arrays(name: str) -> dict[str, tuple[np.ndarray, ...]]:
        kept = {encoder: tuple(getattr(one, name) for one in each) for encoder, each in found.items()}
        return {
            encoder: tuple(np.stack([one[item_id] for item_id in ids]) for one in each)
            for encoder, each in kept.items()
            if all(each)
        }

    labels, labelled = labels_of(scope.items, collection)
    strata = labels if labels.ndim == 1 else np.where(labels.any(1), labels.argmax(1), -1)
    sites = sorted({item.site for item in scope.items if item.site is not None})
    number = {site: index for index, site in enumerate(sites)}
    return ImageStudy(
        features=arrays("pooled"),
        last_layers=arrays("last"),
        tokens=arrays("tokens"),
        items=np.array(ids),
        groups=np.array([item.group for item in scope.items]),
        parts=parts_of(scope, strata, probes.folds, seed),
        make_folds=partial(_folds, noun=collection.group_noun, seed=seed),
        labels=labels,
        class_names=collection.classes,
        labelled=labelled,
        sites=np.array([number.get(item.site or "", -1) for item in scope.items]) if sites else None,
        site_names=tuple(sites),
        probes=probes,
        seed=seed,
        twin=RANDOM if RANDOM in found else None,
        noun=f"{collection.kind}s",
        group_noun=collection.group_noun,
    )


def labels_of(items: Sequence[Item], collection: Collection) -> tuple[np.ndarray, np.ndarray]:
    """((N,) class numbers or (N, C) bool, (N,) whether an item is labelled)."""
    labelled = np.array([item.labels is not None for item in items])
    number = {name: index for index, name in enumerate(collection.classes)}
    if collection.multi_label:
        marks = np.zeros((len(items), len(number)), bool)
        for row, item in enumerate(items):
            for label in item.labels or ():
                marks[row, number[label]] = True
        return marks, labelled
    return np.array([number[item.labels[0]] if item.labels else -1 for item in items], np.int64), labelled


def study_report(
    study: ImageStudy,
    scope: Scope,
    answers: Sequence[ImageAnswer],
    unasked: Sequence[Unasked],
    notes: Sequence[str],
    command: str,
    collection: Collection,
    meanings: dict[str, str],
) -> Report:
    """What was found, with the facts of the data and of the features."""
    rows = study.test_rows
    groups = len(np.unique(study.groups[rows]))
    facts: dict[str, Any] = {
        "data set": collection.name,
        study.noun: f"{len(study.items)} ({len(rows)} judged)",
        "groups": f"{len(np.unique(study.groups))} (by {study.group_noun}); {groups} judged",
        "licence of the data": collection.licence or "not stated",
        "version": __version__,
    }
    for name, (features, *_) in study.features.items():
        spread = per_dimension_std(features[rows])
        facts[f"effective rank of {name}"] = (
            f"{rankme(features[rows]):.1f} of {features.shape[1]} (RankMe on {len(rows)} judged {study.noun}); "
            f"standard deviation of a dimension: median {np.median(spread):.3g}, smallest {spread.min():.3g}"
        )
    said = [note for answer in answers for note in answer.notes]
    return Report(
        title=f"What did {study.judged} learn from {collection.name}?",
        rows=[row for answer in answers for row in answer.rows],
        meanings=meanings,
        warnings=scope.warnings,
        conclusions=[text for answer in answers for text in answer.conclusions],
        unasked=unasked,
        notes=[*scope.notes, *dict.fromkeys(said), *notes, *cautions(groups, study.group_noun)],
        facts=facts,
        command=command,
    )


def counts_of(collection: Collection, scope: Scope) -> str:
    """Items, groups, parts and classes in one line."""
    parts = ", ".join(f"{part} {count}" for part, count in Counter(scope.parts).items())
    labels = Counter(label for item in scope.items for label in item.labels or ())
    classes = ", ".join(f"{name} {labels[name]}" for name in collection.classes) or "none"
    groups = len({item.group for item in scope.items})
    return f"{len(scope.items)} {collection.kind}s of {groups} {collection.group_noun}s ({parts}); classes: {classes}"


def items_digest(scope: Scope) -> str:
    """16 hex digits that change with the items, their labels, groups, sites and parts."""
    facts = [
        (item.item_id, part, item.labels, item.group, item.site)
        for item, part in zip(scope.items, scope.parts, strict=True)
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _folds(groups: np.ndarray, labels: np.ndarray, folds: int, *, noun: str, seed: int) -> np.ndarray:
    dealt = group_folds(groups, labels, folds, seed=seed)
    refuse_shared_groups(groups, dealt, noun=noun)
    return dealt
