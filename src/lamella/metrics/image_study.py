"""What is asked about labelled images or volumes: plain arrays, and which rows fit, choose and judge.

Letters: N items, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from lamella.config import Settings
from lamella.metrics.probes import FoldMaker
from lamella.metrics.report import Row, Unasked
from lamella.metrics.study import NO_CLASS, CannotAsk, renumbered

Count = Annotated[int, Field(ge=1)]
Strength = Annotated[float, Field(gt=0)]


class ImageProbeSettings(Settings):
    """How the probes are fitted."""

    folds: Annotated[int, Field(ge=2)] = 5
    """Folds over the groups where the data set states no test split; with fewer groups, one is left out at a time."""
    c_grid: tuple[Strength, ...] = (0.0001, 0.001, 0.01, 0.1, 1.0)
    """Inverse regularisation strengths to choose from: on the validation split, else on inner folds of the training
    groups."""
    inner_folds: Annotated[int, Field(ge=2)] = 3
    """Inner folds for that choice, where there is no validation split."""
    knn_k: Count = 20
    """Neighbours that vote in the kNN probe."""
    max_iterations: Count = 500
    """Most steps of the linear probe's solver; a probe that needs more is named in the table."""
    control_draws: Count = 3
    """Exchanges of labels behind each negative control."""


@dataclass(frozen=True)
class Part:
    """Row numbers of one split: probes are fitted on `train`, choices are made on `val`, `test` is judged.

    `val` is empty where the data set has none; choices are then made on inner folds of `train`.
    """

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class ImageStudy:
    """Items of a collection, seen by several encoders. All arrays have N rows, in the same order."""

    features: Mapping[str, tuple[np.ndarray, ...]]
    """Encoder name -> replicates (random initialisations, say), each (N, D). The first, of one replicate, is judged."""
    items: np.ndarray
    """(N,) item ids."""
    groups: np.ndarray
    """What is held out together."""
    parts: tuple[Part, ...]
    """One part of a data set's own split, or the folds; no row is judged twice."""
    make_folds: FoldMaker
    labels: np.ndarray
    """(N,) int class, -1 = unlabelled; of multi-label data (N, C) bool."""
    class_names: tuple[str, ...]
    labelled: np.ndarray
    """(N,) bool."""
    last_layers: Mapping[str, tuple[np.ndarray, ...]] = field(default_factory=dict)
    """As `features`: the last four layers' mean tokens side by side, of encoders that show them."""
    tokens: Mapping[str, tuple[np.ndarray, ...]] = field(default_factory=dict)
    """As `features`, each (N, T, D) tokens, where attentive pooling was asked for."""
    sites: np.ndarray | None = None
    """(N,) int, -1 = unknown."""
    site_names: tuple[str, ...] = ()
    probes: ImageProbeSettings = field(default_factory=ImageProbeSettings)
    seed: int = 0
    twin: str | None = None
    """Which encoder is the judged one with random weights."""
    noun: str = "images"
    group_noun: str = "image"

    @property
    def judged(self) -> str:
        return next(iter(self.features))

    @property
    def multi_label(self) -> bool:
        return self.labels.ndim == 2

    @property
    def test_rows(self) -> np.ndarray:
        """Rows that are judged, part after part."""
        return np.concatenate([part.test for part in self.parts])


@dataclass(frozen=True)
class ImageAnswer:
    """Rows of one question, the sentences that follow, what was left out, and tables for files: name -> rows."""

    rows: tuple[Row, ...]
    conclusions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unasked: tuple[Unasked, ...] = ()
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)


def with_classes(study: ImageStudy) -> ImageStudy:
    """The study of its labelled rows, with the classes that can be fitted and judged.

    Raises:
        CannotAsk: No labels, one class only, or a part that has one class only to learn from.
    """
    if study.multi_label:
        raise CannotAsk("the data set is multi-label; see the question on several labels")
    if not study.labelled.any():
        raise CannotAsk("no item has a label")
    study = labelled_only(study)
    present = np.unique(study.labels)
    if len(present) < 2:
        raise CannotAsk(f"all labelled {study.noun} are of one class ({study.class_names[present[0]]}); it needs two")
    labels, names = renumbered(study.labels, study.class_names)
    study = replace(study, labels=labels, class_names=names)
    for part in study.parts:
        learnt, judged = np.unique(study.labels[part.train]), np.unique(study.labels[part.test])
        if len(learnt) < 2:
            raise CannotAsk(f"the training {study.noun} of a part are of one class only ({_named(study, learnt)})")
        if len(study.parts) == 1 and len(judged) < 2:
            raise CannotAsk(f"the test {study.noun} are of one class only ({_named(study, judged)})")
    return study


def labelled_only(study: ImageStudy) -> ImageStudy:
    """The same study, its parts without unlabelled rows.

    Raises:
        CannotAsk: Nothing labelled is left to fit on, or to judge.
    """
    parts = tuple(
        Part(*(rows[study.labelled[rows]] for rows in (part.train, part.val, part.test))) for part in study.parts
    )
    parts = tuple(part for part in parts if len(part.test))
    if not parts or any(not len(part.train) for part in parts):
        raise CannotAsk(f"no labelled {study.noun} are left to {'fit on' if parts else 'judge'}")
    labels = study.labels
    if not study.multi_label and (labels[study.labelled] == NO_CLASS).any():
        raise ValueError("a labelled row has no class")
    used = np.zeros(len(labels), bool)
    for part in parts:
        for rows in (part.train, part.val, part.test):
            used[rows] = True
    return _rows(replace(study, parts=parts), used)


def _rows(study: ImageStudy, keep: np.ndarray) -> ImageStudy:
    """The study of some of its rows; parts are renumbered."""
    if keep.all():
        return study
    number = np.cumsum(keep) - 1

    def cut(features: Mapping[str, tuple[np.ndarray, ...]]) -> dict[str, tuple[np.ndarray, ...]]:
        return {name: tuple(each[keep] for each in replicates) for name, replicates in features.items()}

    return replace(
        study,
        features=cut(study.features),
        last_layers=cut(study.last_layers),
        tokens=cut(study.tokens),
        items=study.items[keep],
        groups=study.groups[keep],
        labels=study.labels[keep],
        labelled=study.labelled[keep],
        sites=None if study.sites is None else study.sites[keep],
        parts=tuple(Part(*(number[rows] for rows in (part.train, part.val, part.test))) for part in study.parts),
    )


def _named(study: ImageStudy, classes: np.ndarray) -> str:
    return ", ".join(study.class_names[label] for label in classes)
