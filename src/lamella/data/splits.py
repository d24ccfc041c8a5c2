"""Splits that keep groups whole. A group (a patient, or a slide) is in one fold only; anything else is refused."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lamella.errors import LamellaError

_SHOWN = 5  # groups named in an error; the rest are counted


class LeakageError(LamellaError):
    """A split shares a group between its parts."""


class SplitError(LamellaError):
    """There are too few groups to split."""


def group_folds(groups: np.ndarray, labels: np.ndarray, folds: int, *, seed: int = 0) -> np.ndarray:
    """Deal whole groups to folds so that each fold's labels come close to the overall mix.

    Largest groups first, each to the fold whose label counts then deviate least from an even share; the seed only
    orders equal groups. Fewer groups than folds: each group is a fold.

    Args:
        groups: (N,) group of each row, of any kind that sorts.
        labels: (N,) int labels to spread evenly, 0 or more.
        folds: Number of folds.
        seed: Another seed, another order among equals.

    Returns:
        (N,) int64 fold of each row, 0..min(folds, groups)-1, none empty.

    Raises:
        SplitError: Fewer than two groups.
    """
    names, position = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise SplitError(
            f"group {names[0]}" if len(names) else "split",
            f"{len(names)} group(s) cannot be split",
            "Give slides of at least two patients or two slides.",
        )
    folds = min(folds, len(names))
    _, classes = np.unique(labels, return_inverse=True)
    counts = np.zeros((len(names), classes.max() + 1))
    np.add.at(counts, (position, classes), 1)
    shuffled = np.random.default_rng(seed).permutation(len(names))
    order = shuffled[np.argsort(-counts.sum(axis=1)[shuffled], kind="stable")]
    share = counts.sum(axis=0) / folds
    held, fold_of = np.zeros((folds, counts.shape[1])), np.empty(len(names), np.int64)
    for rank, group in enumerate(order):
        left = len(order) - rank
        empty = np.flatnonzero(held.sum(axis=1) == 0)
        open_folds = empty if len(empty) >= left else np.arange(folds)  # keep one group for each empty fold
        before, after = held[open_folds], held[open_folds] + counts[group]
        # Each class counts alike, however rare: deviations are relative to its share.
        cost = (((after - share) / share) ** 2 - ((before - share) / share) ** 2).sum(axis=1)
        fold = open_folds[np.argmin(np.round(cost, 9))]
        held[fold] += counts[group]
        fold_of[group] = fold
    return fold_of[position]


def refuse_shared_groups(groups: np.ndarray, parts: np.ndarray, *, noun: str = "group") -> None:
    """Refuse a split in which a group is in two parts.

    Args:
        groups: (N,) group of each row.
        parts: (N,) part of each row (a fold number, "train" / "test", ...).
        noun: What a group is called in the error.

    Raises:
        LeakageError: Names the shared groups.
    """
    pairs = {(group, part) for group, part in zip(np.asarray(groups).tolist(), np.asarray(parts).tolist(), strict=True)}
    seen: dict[object, int] = {}
    for group, _ in pairs:
        seen[group] = seen.get(group, 0) + 1
    shared = sorted(str(group) for group, parts_held in seen.items() if parts_held > 1)
    if shared:
        more = f" and {len(shared) - _SHOWN} more" if len(shared) > _SHOWN else ""
        raise LeakageError(
            "split",
            f"{noun} {', '.join(shared[:_SHOWN])}{more} would be in more than one part",
            f"Put all rows of a {noun} into one part.",
        )


def groups_of(slides: Sequence[str], patients: Sequence[str | None]) -> tuple[list[str], str]:
    """What is held out together: the patient of each slide, or the slide itself where none is named.

    One slide without a patient must not tear the other slides of a patient apart.

    Args:
        slides: Slide ids.
        patients: Patient of each slide; None or "" where unknown.

    Returns:
        The group of each slide, and what to call one: patient, slide, or group where both occur.
    """
    groups = [str(patient or slide) for slide, patient in zip(slides, patients, strict=True)]
    named = sum(bool(patient) for patient in patients)
    return groups, "slide" if not named else "patient" if named == len(groups) else "group"
