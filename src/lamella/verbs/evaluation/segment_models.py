"""The models of a segmenter's run, and which of them may judge an image: none that has seen anything of its group."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lamella.data.splits import LeakageError
from lamella.errors import LamellaError
from lamella.imaging.datasets.collection import Collection, Item
from lamella.models.pretraining_record import PretrainingRecord, pretraining_record
from lamella.models.segmenter_hub import is_segmenter
from lamella.verbs.evaluation.scope import known_items

_SHOWN = 5


@dataclass(frozen=True)
class Judges:
    """Who judges what.

    Attributes:
        folders: The models.
        judged: Item -> numbers of the models that predict it; several are averaged.
        trained_on: Each item of the collection -> numbers of the models that have seen its group.
        warnings: What must be read before the numbers.
        notes: How it was decided.
    """

    folders: tuple[Path, ...]
    judged: dict[Item, tuple[int, ...]]
    trained_on: dict[Item, tuple[int, ...]]
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def segmenters_in(path: Path) -> tuple[Path, ...]:
    """Folders of the segmenters that a path holds; see `models_in`."""
    return models_in(path, is_segmenter)


def models_in(path: Path, is_model: Callable[[Path], bool]) -> tuple[Path, ...]:
    """Model folders of a path: itself, or `fold0/model`, `fold1/model`, ... of a run with folds, or `model` in it.

    Args:
        path: What the user gave.
        is_model: Whether a folder is a model of the wanted kind.
    """
    if is_model(path):
        return (path,)
    folds = [model for model in path.glob("fold*/model") if re.fullmatch(r"fold\d+", model.parent.name)]
    found = sorted((model for model in folds if is_model(model)), key=lambda model: int(model.parent.name[4:]))
    return tuple(found) or ((path / "model",) if is_model(path / "model") else ())


def judges_of(
    folders: Sequence[Path],
    collection: Collection,
    items: Sequence[Item],
    *,
    seen: str,
    ensemble: bool,
    digest: Callable[[Item], str],
) -> Judges:
    """Decide by the models' records which of them predicts each item.

    Args:
        folders: The models.
        collection: Of the items, all with masks.
        items: To judge.
        seen: refuse or leave_out items that every model has seen.
        ensemble: Average several models that have not seen an item; otherwise exactly one must be left.
        digest: 16 hex digits of an item's content.

    Raises:
        LeakageError: Items were seen by every model, or one of several models does not say what it saw.
        LamellaError: Several models could judge an item, or no item is left.
    """
    records = [pretraining_record(folder) for folder in folders]
    if len(folders) == 1 and records[0] is None:
        unknown = "The model does not say what it was trained on: whether it saw the judged images is unknown."
        return Judges(tuple(folders), dict.fromkeys(items, (0,)), dict.fromkeys(collection.items, ()), (unknown,))
    silent = [folder for folder, record in zip(folders, records, strict=True) if record is None]
    if silent:
        raise LeakageError(
            silent[0], "it does not say what it was trained on, so no image can be given to it", "Train it again."
        )
    # Content is read once, however many models ask for it; groups are found among all items, judged or not.
    once = functools.cache(digest)
    groups = [_seen_groups(collection, record, once) for record in records if record is not None]
    numbers = range(len(folders))
    knowing = {item: tuple(number for number in numbers if item.group in groups[number]) for item in collection.items}
    unseen = {item: tuple(number for number in numbers if number not in knowing[item]) for item in items}
    notes = _without_judge(collection, unseen, seen, len(folders))
    judged = {item: found for item, found in unseen.items() if found}
    if not judged:
        raise LamellaError(collection.name, "every image was seen in training, none is left to judge", "Give others.")
    several = [item for item, found in judged.items() if len(found) > 1]
    if several and not ensemble:
        raise LamellaError(
            collection.name,
            f"{len(several)} of {len(items)} images were seen by none of several models "
            f"({_named([item.item_id for item in several])}), so which of them judges is unclear",
            "Give one model's folder, or set ensemble=true to average those that have not seen an image.",
        )
    if len(folders) > 1:
        many = f"the mean of those of {len(folders)} models" if several else f"the one of {len(folders)} models"
        notes.append(f"Each image is judged by {many} that has seen nothing of its {collection.group_noun}")
    return Judges(tuple(folders), judged, knowing, (), tuple(notes))


def _seen_groups(collection: Collection, record: PretrainingRecord, digest: Callable[[Item], str]) -> frozenset[str]:
    """Groups of which the record holds anything: an item's name, its group's, or its content under another name."""
    return frozenset(item.group for item in known_items(collection, collection.items, record, digest))


def _without_judge(collection: Collection, unseen: dict[Item, tuple[int, ...]], seen: str, models: int) -> list[str]:
    """What is said of the items that every model has seen.

    Raises:
        LeakageError: They are refused.
    """
    lost = [item for item, found in unseen.items() if not found]
    if not lost:
        return []
    groups = sorted({item.group for item in lost})
    who = "the model" if models == 1 else f"each of the {models} models"
    what = f"{len(lost)} of {len(unseen)} images are of {collection.group_noun}s that {who} has seen in training"
    if seen == "refuse":
        raise LeakageError(
            collection.name,
            f"{what} ({collection.group_noun} {_named(groups)}: {_named([item.item_id for item in lost])})",
            f"Give images of other {collection.group_noun}s, a run with data.folds, or set seen=leave_out.",
        )
    return [f"{what} and left out (seen=leave_out)"]


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
