"""What an adapter is: one known layout of a data set on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lamella.imaging.datasets.collection import Collection
from lamella.imaging.datasets.settings import DatasetSettings

# Settings that every layout honours.
ALWAYS_USED = frozenset({"name", "splits"})


@dataclass(frozen=True)
class Adapter:
    """One layout.

    Attributes:
        name: As in `DatasetSettings.name`.
        title: The data set's own name.
        kind: What its items are.
        labels: Its classes, in words.
        group: What is never torn apart, in words.
        layout: Files and folders, in words.
        origin: Where to get it.
        licence: Under which terms.
        uses: Settings that it honours beside `name` and `splits`; another one is refused.
        fits: Whether a path has this layout. Cheap: looks at names only.
        open: Path and settings to the collection.
    """

    name: str
    title: str
    kind: str
    labels: str
    group: str
    layout: str
    origin: str
    licence: str
    uses: frozenset[str]
    fits: Callable[[Path], bool]
    open: Callable[[Path, DatasetSettings], Collection]
