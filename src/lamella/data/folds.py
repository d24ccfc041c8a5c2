"""Which items are trained on and which are held out: by folds of whole groups, or as the data set states."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lamella.data.splits import SplitError, group_folds, refuse_shared_groups
from lamella.errors import DatasetError
from lamella.imaging.datasets.collection import Collection, Item


def held_out(
    collection: Collection, folds: int, fold: int, seed: int = 0, *, masked: bool = True
) -> tuple[list[Item], list[Item]]:
    """Deal the groups of a collection to folds, each with about the same mix of labels and number of images.

    Args:
        collection: Its own split is not looked at.
        folds: How many; no more than groups.
        fold: Which one is held out, from 0.
        seed: Another seed, another order among equal groups.
        masked: Only items with a mask.

    Returns:
        The items to train on and those held out, both in the collection's order; no group is in both.

    Raises:
        SplitError: There are fewer groups than folds, or no such fold.
    """
    items = [item for item in collection.items if item.mask is not None or not masked]
    groups = np.array([item.group for item in items])
    found = len(set(groups.tolist()))
    if not 2 <= folds <= found:
        raise SplitError(
            collection.name,
            f"{found} {collection.group_noun}(s) cannot make {folds} folds",
            f"Set folds to 2 to {found}." if found > 1 else "Give images of at least two patients.",
        )
    if not 0 <= fold < folds:
        raise SplitError(collection.name, f"there is no fold {fold} of {folds}", f"Give 0 to {folds - 1}.")
    names = {labels: number for number, labels in enumerate(sorted({item.labels or () for item in items}))}
    labels = np.array([names[item.labels or ()] for item in items])
    fold_of = group_folds(groups, labels, folds, seed=seed)
    refuse_shared_groups(groups, fold_of, noun=collection.group_noun)
    return _parted(items, (fold_of == fold).tolist())


def stated_parts(collection: Collection, *, masked: bool = True) -> tuple[list[Item], list[Item]]:
    """The train and val items of the split that a data set states; its test items are in neither.

    Raises:
        DatasetError: It states no train items.
        LeakageError: A group is in two parts.
    """
    items = [item for item in collection.items if item.split and (item.mask is not None or not masked)]
    refuse_shared_groups(
        np.array([item.group for item in items]),
        np.array([item.split for item in items]),
        noun=collection.group_noun,
    )
    train = [item for item in items if item.split == "train"]
    if not train:
        raise DatasetError(collection.name, "it states no split with train items", "Set data.folds=5.")
    return train, [item for item in items if item.split == "val"]


def _parted(items: Sequence[Item], is_held: Sequence[bool]) -> tuple[list[Item], list[Item]]:
    pairs = list(zip(items, is_held, strict=True))
    return [item for item, held in pairs if not held], [item for item, held in pairs if held]
