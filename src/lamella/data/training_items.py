"""Which items of one or several collections are learned from, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from lamella.config import Settings
from lamella.data.order import Order
from lamella.errors import DatasetError
from lamella.imaging.datasets.collection import Collection, Item, Kind
from lamella.imaging.datasets.opening import DatasetSettings
from lamella.imaging.intensity import IntensitySettings

Count = Annotated[int, Field(ge=1)]


class DrawSettings(Settings):
    """What images, volumes and films have in common: which are learned from, and how many at once."""

    dataset: DatasetSettings = DatasetSettings()
    """How the folders or files are read as data sets."""
    intensity: IntensitySettings = IntensitySettings()
    """How measured values become what the network sees."""
    batch_size: Count = 8
    """Images, crops or clips of one optimiser step, over all ranks together."""
    workers: Annotated[int, Field(ge=0)] = 2
    """Processes that read ahead; 0 reads in the training process. The samples are the same either way."""
    samples_per_epoch: Count | None = None
    """Length of an epoch; null is one pass: one view of each image, one crop of each volume, one clip of each film."""
    exclude_split: str | tuple[str, ...] | None = "test"
    """Items with this `split` (or one of these), and all items of their groups, are never drawn."""
    exclude_groups: tuple[str, ...] = ()
    """Groups (patients, lesions, slides) that are never drawn."""
    cache_mb: Annotated[int, Field(ge=0)] = 2048
    """Prepared images, volumes or films kept in memory by each process."""

    @property
    def excluded_splits(self) -> tuple[str, ...]:
        """The splits of `exclude_split`."""
        if self.exclude_split is None:
            return ()
        return (self.exclude_split,) if isinstance(self.exclude_split, str) else self.exclude_split

    @property
    def left_out(self) -> str:
        """What is never drawn, as sentences for a reader; nothing where all is drawn."""
        splits, groups = (", ".join(names) for names in (self.excluded_splits, self.exclude_groups))
        said = f" Split {splits} and its groups were left out." if splits else ""
        return said + (f" Groups left out: {groups}." if groups else "")


class TrainingItems:
    """The items that may be learned from, in an order that is a pure function of the seed.

    Args:
        collections: Where they are.
        kinds: What the items may be.
        settings: Which take part.
        seed: Of the order.

    Raises:
        DatasetError: A collection holds something else, or nothing is left to learn from.
    """

    def __init__(
        self, collections: Sequence[Collection], kinds: Sequence[Kind], settings: DrawSettings, seed: int
    ) -> None:
        for collection in collections:
            if collection.kind not in kinds:
                raise DatasetError(
                    collection.name,
                    f"it holds {collection.kind}s, and this method learns from {kinds[0]}s",
                    f"Set method.name={'lejepa' if collection.kind == 'image' else collection.kind}.",
                )
        self.settings = settings
        self.items: list[tuple[int, Item]] = [
            (number, item)
            for number, collection in enumerate(collections)
            for item in trained_items(collection, settings.excluded_splits, settings.exclude_groups)
        ]
        if not self.items:
            raise DatasetError(
                ", ".join(collection.name for collection in collections),
                f"no {kinds[0]} is left to learn from",
                "Check data.exclude_split and data.exclude_groups.",
            )
        self.order = Order(len(self.items), seed)

    def __len__(self) -> int:
        return len(self.items)

    def at(self, position: int) -> tuple[int, Item]:
        """(number of the collection, item) at a position of training."""
        return self.items[self.order.at(position)[1]]

    @property
    def samples_per_epoch(self) -> int:
        return self.settings.samples_per_epoch or len(self)

    def positions(self, step: int, rank: int = 0, world_size: int = 1) -> range:
        """Positions of a rank's share of a step; the ranks' shares follow each other."""
        batch = self.settings.batch_size
        return range(step * batch + rank * batch // world_size, step * batch + (rank + 1) * batch // world_size)


def trained_items(collection: Collection, exclude_splits: Sequence[str], exclude_groups: Sequence[str]) -> list[Item]:
    """The items that may be learned from: not of the excluded splits or groups, nor of a group of such a split."""
    barred = {str(group) for group in exclude_groups}
    barred |= {item.group for item in collection.items if item.split in exclude_splits}
    return [item for item in collection.items if item.group not in barred]
