"""`lamella datasets [PATH]`: which data set layouts are known, or what one data set holds."""

from __future__ import annotations

import shlex
from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np

from lamella.config import Request
from lamella.errors import ImageError, LamellaError
from lamella.formats.label_values import NOT_LABELLED
from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.datasets.identity import item_digest
from lamella.imaging.datasets.layouts import Adapter
from lamella.imaging.datasets.mask_channels import as_channels, channels_of
from lamella.imaging.datasets.opening import ADAPTERS, open_collection
from lamella.imaging.datasets.problems import named
from lamella.imaging.datasets.settings import DatasetSettings
from lamella.imaging.intensity import refuse_blank
from lamella.imaging.measured import MedicalImage
from lamella.verbs.progress import progress

_SHOWN = 10  # unreadable items printed; the rest are counted
_CLASSES_SHOWN = 20


class Config(DatasetSettings):
    """Settings of `lamella datasets`."""

    check: bool = False
    """Decode every image and every mask; list what cannot be read or is of one value, and content in two splits."""


def run(request: Request) -> int:
    """Print the layouts, or one data set; 1 if some of its items cannot be read. Writes nothing."""
    config = request.resolve(Config).config
    if len(request.paths) > 1:
        raise LamellaError("lamella datasets", "it takes one path at most", "Give one folder, archive or CSV.")
    if not request.paths:
        print("\n\n".join(_layout(adapter) for adapter in ADAPTERS.values()))
        print("\nNothing is downloaded: get a data set where its origin says; then `lamella datasets PATH`.")
        return 0
    settings = DatasetSettings(**{key: getattr(config, key) for key in DatasetSettings.model_fields})
    collection = open_collection(request.paths[0], settings)
    print("\n".join(_contents(collection)))
    failed = _check(collection) if config.check else 0
    if not failed:
        print(f"next: {shlex.join(['lamella', *_next(request, collection, checked=config.check)])}")
    return failed


def _next(request: Request, collection: Collection, *, checked: bool) -> list[str]:
    path = str(request.paths[0])
    if not checked:
        return ["datasets", path, *request.overrides, "check=true"]
    method = "lejepa" if collection.kind == "image" else collection.kind
    read_as = [f"data.dataset.{setting}" for setting in request.overrides if not setting.startswith("check=")]
    return ["preview", path, "-o", "previews", f"method.name={method}", *read_as]


def _layout(adapter: Adapter) -> str:
    facts = {
        "kind": adapter.kind,
        "labels": adapter.labels,
        "group": adapter.group,
        "layout": adapter.layout,
        "origin": adapter.origin,
        "licence": adapter.licence,
        "settings": ", ".join(sorted(adapter.uses)) or "splits only",
    }
    return "\n".join([f"{adapter.name}: {adapter.title}", *_aligned(facts)])


def _contents(collection: Collection) -> Iterator[str]:
    items = collection.items
    yield f"{collection.name}: {_count(len(items), collection.kind)}"
    yield from _aligned({fact: text for fact, text in _facts(collection).items() if text})
    yield from (f"  note: {note}" for note in collection.notes)


def _facts(collection: Collection) -> dict[str, str]:
    items = collection.items
    labelled = sum(item.labels is not None for item in items)
    masks, boxes = sum(item.mask is not None for item in items), sum(len(item.boxes) for item in items)
    background = {} if collection.mask_background is None else {collection.mask_background: 0}
    values = {**background, **collection.mask_classes}
    classes = ", ".join(f"{name} {value}" for name, value in values.items())
    return {
        "labels": _labels(collection) if labelled else "none",
        "labelled": f"{labelled} of {len(items)}" if 0 < labelled < len(items) else "",
        "groups": _groups(collection),
        "sites": _counts(Counter(item.site for item in items if item.site)),
        "splits": _counts(Counter(item.split or "no split" for item in items)) if any(i.split for i in items) else "",
        "masks": f"{masks} of {len(items)} ({classes})" if masks else "",
        "spacing": ", ".join(f"{mpp:g} um per pixel" for mpp in sorted({item.mpp for item in items if item.mpp})),
        "boxes": f"{boxes} on {sum(bool(item.boxes) for item in items)} {collection.kind}s" if boxes else "",
        "origin": collection.origin,
        "licence": collection.licence,
    }


def _groups(collection: Collection) -> str:
    sizes = Counter(item.group for item in collection.items)
    if len(sizes) == len(collection):
        return f"every {collection.kind} is its own"
    least, most = min(sizes.values()), max(sizes.values())
    return f"{_count(len(sizes), collection.group_noun)} with {least} to {most} {collection.kind}s each"


def _labels(collection: Collection) -> str:
    counts = Counter(label for item in collection.items for label in item.labels or ())
    told = _counts({name: counts[name] for name in collection.classes[:_CLASSES_SHOWN]})
    more = len(collection.classes) - _CLASSES_SHOWN
    if more > 0:
        told += f" and {more} more classes"
    if collection.multi_label:
        told = f"multi-label: {told}; none of them {sum(item.labels == () for item in collection.items)}"
    return told


def _counts(counts: Counter[str] | dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _check(collection: Collection) -> int:
    """Read everything; print what fails, and images that stand in two splits or under two labels."""
    bad: list[str] = []
    labelled = np.zeros(NOT_LABELLED + 1, np.int64)  # pixels of the masks by channel
    same: dict[str, list[Item]] = defaultdict(list)
    for item in progress(collection.items, "check"):
        problems = list(_unreadable(collection, item, labelled))
        bad += problems
        if not problems:
            same[item_digest(collection, item)].append(item)
    bad += _contradictions(same)
    for problem in bad[:_SHOWN]:
        print(f"problem: {problem}")
    if len(bad) > _SHOWN:
        print(f"... and {len(bad) - _SHOWN} more")
    if labelled.any():
        print(f"masks: {_shares(collection, labelled)}")
    repeated = sum(len(items) - 1 for items in same.values())
    print(
        f"checked {_count(len(collection), collection.kind)}: {_count(len(bad), 'problem') if bad else 'no problems'}, "
        f"{repeated or 'none'} a repetition of another"
    )
    return 1 if bad else 0


def _shares(collection: Collection, pixels: np.ndarray) -> str:
    """Each class's share of what is labelled, and how much is not."""
    names, ignored = channels_of(collection), int(pixels[NOT_LABELLED])
    seen = max(1, int(pixels.sum()) - ignored)
    shares = ", ".join(f"{name} {pixels[channel] / seen:.2%}" for channel, name in enumerate(names))
    return f"{shares}; {ignored / pixels.sum():.2%} of all is not labelled" if ignored else shares


def _contradictions(same: dict[str, list[Item]]) -> Iterator[str]:
    """What items of one content disagree about."""
    for items in same.values():
        names = named([f"{item.item_id} ({item.split})" if item.split else item.item_id for item in items])
        if len({item.split for item in items}) > 1:
            yield f"the same content in two splits: {names}"
        elif len({item.labels for item in items}) > 1:
            yield f"the same content under different labels: {names}"


def _unreadable(collection: Collection, item: Item, labelled: np.ndarray) -> Iterator[str]:
    try:
        measured = collection.read(item)
        refuse_blank(measured)
        if item.boxes and isinstance(measured, MedicalImage):
            rows, columns = measured.values.shape[:2]
            outside = sum(x1 > columns or y1 > rows for _, _, x1, y1, _ in item.boxes)
            if outside:
                yield f"{item.item_id}: {outside} box(es) reach beyond its {rows} x {columns} pixels (rows, columns)"
        if item.mask is not None and collection.read_mask is not None:
            channels = as_channels(collection.read_mask(item), collection)
            labelled += np.bincount(channels.ravel(), minlength=len(labelled))
            if (channels == NOT_LABELLED).all():
                yield f"{item.mask}: every pixel of the mask is ignored: leave the {collection.kind} out"
    except ImageError as error:
        yield str(error)


def _aligned(facts: dict[str, str]) -> list[str]:
    width = max(map(len, facts))
    return [f"  {fact:<{width}}  {text}" for fact, text in facts.items()]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
