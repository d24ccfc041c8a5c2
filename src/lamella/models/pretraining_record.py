"""What an encoder has seen: `pretraining.json` in its model folder. An evaluation must know it, or it would flatter."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

from lamella.errors import CheckpointError, first_line
from lamella.formats.atomic import write_json

RECORD_FILE = "pretraining.json"


@dataclass(frozen=True)
class PretrainingRecord:
    """The items that were learned from.

    Attributes:
        datasets: Names of the collections.
        groups: `<dataset>/<group>` of every item.
        items: `<dataset>/<item id>`.
        digests: 16 hex digits of every item's content: finds it under another name, too.
    """

    datasets: frozenset[str]
    groups: frozenset[str]
    items: frozenset[str]
    digests: frozenset[str]

    @classmethod
    def of(
        cls, datasets: Iterable[str], groups: Iterable[str], items: Iterable[str], digests: Iterable[str]
    ) -> PretrainingRecord:
        return cls(frozenset(datasets), frozenset(groups), frozenset(items), frozenset(digests))

    def write(self, folder: Path) -> None:
        """Write it into a model folder."""
        write_json(folder / RECORD_FILE, {field.name: sorted(getattr(self, field.name)) for field in fields(self)})


def pretraining_record(folder: str | Path) -> PretrainingRecord | None:
    """The record in a model folder; None where there is none: what the model has seen is then unknown.

    Raises:
        CheckpointError: The file is there and cannot be understood.
    """
    path = Path(folder) / RECORD_FILE
    if not path.is_file():
        return None
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        return PretrainingRecord.of(*(map(str, tree[field.name]) for field in fields(PretrainingRecord)))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            path, f"it cannot be read ({first_line(error)})", "Export the model again; it says what the model saw."
        ) from error
