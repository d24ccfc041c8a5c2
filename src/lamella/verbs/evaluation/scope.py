"""Which items of a collection fit, choose and judge; and that none of the judged ones was in pretraining."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lamella.data.splits import LeakageError, group_folds, refuse_shared_groups
from lamella.errors import LamellaError
from lamella.imaging.datasets.collection import Collection, Item
from lamella.metrics.image_study import Part
from lamella.models.pretraining_record import PretrainingRecord

Seen = Literal["refuse", "leave_out", "train"]
_SHOWN = 5


@dataclass(frozen=True)
class Scope:
    """Items with their part: `train`, `val`, `test`, or `fold` (judged once, by probes fitted on other groups)."""

    items: tuple[Item, ...]
    parts: tuple[str, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def judged(self) -> list[Item]:
        return [item for item, part in zip(self.items, self.parts, strict=True) if part in ("test", "fold")]

    def keep(self, failed: Mapping[str, str]) -> Scope:
        """Without some items.

        Args:
            failed: Item id -> why it is left out.

        Raises:
            LamellaError: None is left; the first reason is given.
        """
        kept = [(item, part) for item, part in zip(self.items, self.parts, strict=True) if item.item_id not in failed]
        if not kept:
            raise LamellaError("evaluate", f"no item is left ({next(iter(failed.values()))})", "See failed.csv.")
        items, parts = zip(*kept, strict=True)
        return Scope(items, parts, self.warnings, self.notes)


def scope_of(
    collection: Collection,
    record: PretrainingRecord | None,
    *,
    seen: Seen,
    digest: Callable[[Item], str],
    known: bool,
) -> Scope:
    """Split the items and guard the judged ones.

    Args:
        collection: Its own split is used if it has a test part; otherwise groups are dealt to folds.
        record: What the model was pretrained on.
        seen: What to do about judged items that were: refuse, leave their groups out, or fit on them only.
        digest: 16 hex digits of an item's content.
        known: Whether a missing record means that the model saw nothing (statistics), rather than that nobody knows.

    Raises:
        LeakageError: A group is in two parts of the data set's split, or judged items were in pretraining.
        LamellaError: Nothing is left to judge.
    """
    refuse_split_groups(collection)
    given = any(item.split == "test" for item in collection.items) and any(
        item.split == "train" for item in collection.items
    )
    notes = []
    if given:
        items = tuple(item for item in collection.items if item.split is not None)
        parts = [str(item.split) for item in items]
        if len(items) < len(collection):
            notes.append(f"{len(collection) - len(items)} items are in no part of the data set's split and left out")
        notes.append("The data set's own split: fitted on train, chosen on val where there is one, judged on test")
    else:
        items, parts = collection.items, ["fold"] * len(collection)
        notes.append(f"No test split in the data set: folds over {collection.group_noun}s, each judged once")
    if record is None:
        warnings = () if known else (
            "The model does not say what it was pretrained on: whether it saw the judged items is unknown.",
        )  # fmt: skip
        return Scope(items, tuple(parts), warnings, tuple(notes))
    return _guarded(collection, Scope(items, tuple(parts), (), tuple(notes)), record, seen, digest)


def refuse_split_groups(collection: Collection) -> None:
    """Refuse a data set whose own split tears groups apart.

    Raises:
        LeakageError: Names the groups.
    """
    split = [item for item in collection.items if item.split is not None]
    refuse_shared_groups(
        np.array([item.group for item in split]),
        np.array([item.split for item in split]),
        noun=collection.group_noun,
    )


def parts_of(scope: Scope, strata: np.ndarray, folds: int, seed: int) -> tuple[Part, ...]:
    """Row numbers of each part.

    Args:
        scope: Items with their part.
        strata: (N,) int labels to spread evenly over folds.
        folds: Where the data set has no test split.
        seed: Of the folds.

    Raises:
        SplitError: Fewer than two groups to fold.
        LeakageError: A group would be in two folds.
    """
    part = np.array(scope.parts)
    fixed = {name: np.flatnonzero(part == name) for name in ("train", "val", "test")}
    folded = np.flatnonzero(part == "fold")
    if not len(folded):
        return (Part(fixed["train"], fixed["val"], fixed["test"]),)
    groups = np.array([scope.items[row].group for row in folded])
    if len(fixed["train"]) and len(np.unique(groups)) == 1:  # one unseen group: judged by what the others teach
        return (Part(fixed["train"], fixed["val"], folded),)
    dealt = group_folds(groups, strata[folded] + 1, folds, seed=seed)
    refuse_shared_groups(groups, dealt)
    return tuple(
        Part(np.sort(np.r_[folded[dealt != fold], fixed["train"]]), fixed["val"], folded[dealt == fold])
        for fold in np.unique(dealt)
    )


def _guarded(
    collection: Collection, scope: Scope, record: PretrainingRecord, seen: Seen, digest: Callable[[Item], str]
) -> Scope:
    """The scope without judged items that were in pretraining, whose whole groups count."""
    known = known_items(collection, scope.judged, record, digest)
    if not known:
        return scope
    groups = {item.group for item in known}
    noun, what = collection.group_noun, f"{len(known)} of {len(scope.judged)} judged items"
    if seen == "refuse":
        reasons = "; ".join(
            f"{reason}: {_named([item.item_id for item in known if known[item] == reason])}"
            for reason in dict.fromkeys(known.values())
        )
        raise LeakageError(
            collection.name,
            f"{what} were in pretraining ({noun} {_named(sorted(groups))}). {reasons}",
            "Pretrain without them (data.exclude_split=test or data.exclude_groups), or set seen=leave_out to judge "
            f"the other {noun}s only, or seen=train to fit on them without judging them.",
        )
    moved = []
    for item, part in zip(scope.items, scope.parts, strict=True):
        barred = part in ("test", "fold") and item.group in groups
        if not (barred and seen == "leave_out"):
            moved.append((item, "train" if barred else part))
    if not any(part in ("test", "fold") for _, part in moved):
        raise LamellaError(
            collection.name,
            f"all judged {noun}s were in pretraining, so seen={seen} leaves none to judge",
            "Pretrain without some of them.",
        )
    items, parts = zip(*moved, strict=True)
    fate = "left out" if seen == "leave_out" else "fitted on and never judged"
    note = f"{what} were in pretraining; their {len(groups)} {noun}s are {fate} (seen={seen})"
    return Scope(items, parts, scope.warnings, (*scope.notes, note))


def known_items(
    collection: Collection, items: Sequence[Item], record: PretrainingRecord, digest: Callable[[Item], str]
) -> dict[Item, str]:
    """The items that the record holds, and by what they were recognised."""
    known: dict[Item, str] = {}
    for item in items:
        if f"{collection.name}/{item.item_id}" in record.items:
            known[item] = "by their id"
        elif f"{collection.name}/{item.group}" in record.groups:
            known[item] = f"by their {collection.group_noun}"
        elif record.digests and digest(item) in record.digests:
            known[item] = "by their content, under another name"
    return known


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
