"""The tiles that a question is asked of: plain arrays, and the choice of those that can answer it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lamella.metrics.probes import FoldMaker, ProbeSettings
from lamella.metrics.report import Row
from lamella.metrics.robustness import RobustnessSettings

NO_CLASS = -1


class CannotAsk(Exception):
    """The data does not allow a question; the text says why."""


@dataclass(frozen=True)
class Study:
    """Tiles of several slides, seen by several encoders. All arrays have N rows, in the same order."""

    features: Mapping[str, tuple[np.ndarray, ...]]
    """Encoder name -> replicates (random initialisations, say), each (N, D). The first, of one replicate, is judged."""
    slides: np.ndarray
    groups: np.ndarray
    """What is held out together: patients, or slides where patients are unknown."""
    make_folds: FoldMaker
    labels: np.ndarray | None = None
    """(N,) int tissue class, -1 = unlabelled."""
    class_names: tuple[str, ...] = ()
    sites: np.ndarray | None = None
    """(N,) int, -1 = unknown."""
    site_names: tuple[str, ...] = ()
    probes: ProbeSettings = field(default_factory=ProbeSettings)
    robustness: RobustnessSettings = field(default_factory=RobustnessSettings)
    seed: int = 0
    twin: str | None = None
    """Which encoder is the judged one with random weights."""

    @property
    def judged(self) -> str:
        return next(iter(self.features))

    @property
    def judged_features(self) -> np.ndarray:
        return self.features[self.judged][0]

    def rows(self, keep: np.ndarray) -> Study:
        """The study of some of the tiles."""
        return replace(
            self,
            features={name: tuple(each[keep] for each in replicates) for name, replicates in self.features.items()},
            slides=self.slides[keep],
            groups=self.groups[keep],
            labels=None if self.labels is None else self.labels[keep],
            sites=None if self.sites is None else self.sites[keep],
        )


@dataclass(frozen=True)
class Answer:
    """Rows of one question, the sentences that follow from them, and what was left out."""

    rows: tuple[Row, ...]
    conclusions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def folds_of(study: Study, labels: np.ndarray) -> np.ndarray:
    """(N,) fold of each tile; groups stay whole and labels are spread over the folds."""
    return study.make_folds(study.groups, labels, study.probes.folds)


def need_groups(study: Study) -> None:
    """Refuse a study of a single group."""
    count = len(np.unique(study.groups))
    if count < 2:
        raise CannotAsk(f"tiles of {count} group(s) only; held-out groups need at least two slides or patients")


def with_sites(study: Study) -> tuple[Study, list[str]]:
    """Only tiles of known sites that have two groups each, and notes on what was left out."""
    if study.sites is None:
        raise CannotAsk("the index has no site column (name one with site_column=...)")
    study = study.rows(study.sites >= 0)
    if len(np.unique(study.sites)) < 2:
        raise CannotAsk(f"{len(np.unique(study.sites))} site(s) only; a shortcut needs two to tell apart")
    keep, notes = in_two_groups(study.sites, study.groups, study.site_names, "site")
    study = study.rows(keep)
    if len(np.unique(study.sites)) < 2:
        raise CannotAsk("fewer than two sites have two groups each: a held-out group would be the only one of its site")
    return study, notes


def crossed_study(study: Study) -> tuple[Study, list[str]]:
    """Only classes that occur at every site, the same number of tiles of each class at each site, renumbered."""
    if study.labels is None:
        raise CannotAsk("it needs tile labels beside sites")
    study, notes = with_sites(study.rows(study.labels != NO_CLASS))
    crossed = fully_crossed(study.labels, study.sites)
    left_out = [study.class_names[label] for label in np.setdiff1d(study.labels, study.labels[crossed])]
    if left_out:
        notes.append(f"classes that do not occur at every site are left out: {', '.join(left_out)}")
    study = study.rows(crossed)
    if len(np.unique(study.labels)) < 2:
        raise CannotAsk("fewer than two classes occur at every site, so class and site cannot be told apart")
    labels, names = renumbered(study.labels, study.class_names)
    sites, site_names = renumbered(study.sites, study.site_names)
    study = replace(study, labels=labels, class_names=names, sites=sites, site_names=site_names)
    return study.rows(balanced_rows(labels * len(site_names) + sites, study.seed)), notes


def in_two_groups(
    values: np.ndarray, groups: np.ndarray, names: Sequence[str], noun: str
) -> tuple[np.ndarray, list[str]]:
    """Rows whose value occurs in at least two groups, and a note for every value that does not."""
    lonely = [value for value in np.unique(values) if len(np.unique(groups[values == value])) < 2]
    notes = [f"{noun} {names[value]} occurs in one group only and is left out" for value in lonely]
    return ~np.isin(values, lonely), notes


def fully_crossed(labels: np.ndarray, sites: np.ndarray) -> np.ndarray:
    """Rows of the classes that occur at every site."""
    every = set(np.unique(sites))
    full = [label for label in np.unique(labels) if label >= 0 and set(np.unique(sites[labels == label])) == every]
    return np.isin(labels, full)


def balanced_rows(keys: np.ndarray, seed: int) -> np.ndarray:
    """Sorted row numbers: the same number of rows of each key, drawn by the seed."""
    rng = np.random.default_rng(seed)
    values, counts = np.unique(keys, return_counts=True)
    drawn = [rng.permutation(np.flatnonzero(keys == value))[: counts.min()] for value in values]
    return np.sort(np.concatenate(drawn))


def renumbered(values: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Values that occur become 0, 1, 2..., with their names."""
    present, renumbered = np.unique(values, return_inverse=True)
    return renumbered, tuple(names[value] for value in present)
