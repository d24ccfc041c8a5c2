"""What pretraining on collections of images, volumes or video shares: opening them, and remembering what was seen."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Sequence

from lamella.config import Request
from lamella.errors import LamellaError
from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.datasets.identity import item_digest
from lamella.imaging.datasets.opening import DatasetSettings, open_collection
from lamella.models.pretraining_record import PretrainingRecord
from lamella.verbs.progress import progress

Seen = Sequence[tuple[Collection, Item]]


def open_collections(request: Request, settings: DatasetSettings) -> list[Collection]:
    """The data sets of the command line.

    Raises:
        LamellaError: None was given, or two have one name: what was seen could not be told apart.
        DatasetError: One cannot be used.
    """
    if not request.paths:
        raise LamellaError(
            "lamella pretrain",
            "no data set is given",
            "Example: `lamella pretrain pneumoniamnist.npz method.name=lejepa -o runs/first`.",
        )
    collections = [open_collection(path, settings, under="data.dataset.") for path in request.paths]
    names = [collection.name for collection in collections]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise LamellaError(
            f"data set {repeated[0]}", "two of the paths given go by this name", "Rename one of the folders or files."
        )
    return collections


def summary(collections: Sequence[Collection], seen: Seen) -> tuple[tuple[str, str], ...]:
    """Lines that say what is learned from."""
    lines = []
    for collection in collections:
        items = [item for owner, item in seen if owner is collection]
        groups = len({item.group for item in items})
        told = f"{groups:,} {collection.group_noun}{'' if groups == 1 else 's'}"
        lines.append((f"{collection.kind}s", f"{len(items):,} of {len(collection):,} of {collection.name}, {told}"))
    return tuple(lines)


def next_command(request: Request, seen: Seen) -> str:
    """What to type next, with {model} for the model folder; the first data set is read as it was here.

    Without labels and masks there is nothing to evaluate, and what the model looks at can be drawn.
    """
    judged = any(item.labels is not None or item.mask is not None for item in seen[0][0].items)
    verb, out = ("evaluate", "results") if judged else ("explain", "pictures")
    read_as = [setting.removeprefix("data.") for setting in request.overrides if setting.startswith("data.dataset.")]
    words = shlex.join([str(request.paths[0]), "-o", out, *read_as])
    return f"lamella {verb} {{model}} {words.replace('{', '{{').replace('}', '}}')}"


def collection_inputs(seen: Seen) -> dict[str, str]:
    """A digest of which items are learned from and how large their files are: a rerun on other data is refused."""
    digest = hashlib.sha256()
    for collection, item in seen:
        sizes = [source.stat().st_size for source in item.sources if source.is_file()]
        digest.update(repr((collection.name, item.item_id, item.row, sizes)).encode())
    return {"items": digest.hexdigest()[:16]}


def pretraining_record_of(seen: Seen) -> PretrainingRecord:
    """What the model has seen, for every later evaluation; reads each file once more for its digest."""
    digests = [item_digest(collection, item) for collection, item in progress(list(seen), "digests")]
    return PretrainingRecord.of(
        {collection.name for collection, _ in seen},
        {f"{collection.name}/{item.group}" for collection, item in seen},
        {f"{collection.name}/{item.item_id}" for collection, item in seen},
        digests,
    )
