"""What must hold for every collection: unique ids, known labels, whole groups, no image twice."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.datasets.problems import named, refuse

_REMEDY = "Correct the data set; nothing is left out in silence."


def sound(
    path: Path,
    collection: Collection,
    problems: Sequence[str] = (),
    *,
    splits: str = "given",
    remedy: str = _REMEDY,
) -> Collection:
    """The collection if nothing is wrong with it.

    Args:
        path: Named in the error.
        collection: As read.
        problems: What the adapter found already.
        splits: `none` forgets the data set's own split.
        remedy: What to do about problems.

    Raises:
        DatasetError: All problems: the adapter's, an id or an image that stands twice, an unknown label, a group or
            an image in two splits; or there is no item at all.
    """
    if splits == "none":
        collection = collection.only([replace(item, split=None) for item in collection.items])
    found = [
        *problems,
        *_repeated_ids(collection.items),
        *_repeated_images(collection.items),
        *_unknown_labels(collection),
    ]
    if not collection.items and not found:
        found = ["there is no item in it"]
    refuse(path, found, remedy)
    refuse(path, list(_torn_groups(collection)), "Its own split leaks: set splits=none, and split by group instead.")
    return collection


def _repeated_ids(items: Sequence[Item]) -> Iterator[str]:
    for item_id, count in Counter(item.item_id for item in items).items():
        if count > 1:
            yield f"{item_id} stands {count} times"


def _repeated_images(items: Sequence[Item]) -> Iterator[str]:
    first: dict[tuple[tuple[Path, ...], int | None], Item] = {}
    for item in items:
        other = first.setdefault((item.sources, item.row), item)
        if other is not item and other.item_id != item.item_id:
            both = [f"{each.item_id} ({each.split})" if each.split else each.item_id for each in (other, item)]
            yield f"{item.sources[0].name} is the image of {both[0]} and of {both[1]}"


def _unknown_labels(collection: Collection) -> Iterator[str]:
    known = set(collection.classes)
    for item in collection.items:
        unknown = [label for label in item.labels or () if label not in known]
        if unknown:
            known_ones = named(collection.classes, 20)
            yield f"{item.item_id}: unknown label {', '.join(map(repr, unknown))} (known: {known_ones})"
        if not collection.multi_label and item.labels is not None and len(item.labels) != 1:
            yield f"{item.item_id}: {len(item.labels)} labels, where each item has one"


def _torn_groups(collection: Collection) -> Iterator[str]:
    splits: dict[str, set[str]] = defaultdict(set)
    for item in collection.items:
        if item.split is not None:
            splits[item.group].add(item.split)
    for group, held in sorted(splits.items()):
        if len(held) > 1:
            yield f"{collection.group_noun} {group} is in {' and '.join(sorted(held))}"
