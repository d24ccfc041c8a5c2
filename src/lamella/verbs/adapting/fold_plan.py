"""Which images a run trains on, which choose its best weights, and which it must never see: one part of it per fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from lamella.data.folds import held_out, stated_parts
from lamella.data.labelled_tiles import LabelledTileSettings
from lamella.data.training_items import trained_items
from lamella.errors import ConfigError, DatasetError
from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.datasets.requirements import masked
from lamella.models.segmenter_hub import is_segmenter

Items = list[Item]
# Another dealing than that of the folds: the groups that validate are drawn among those that train.
_VALIDATION_SEED = 1


class FoldSettings(LabelledTileSettings):
    """What is learned from, and what is held out."""

    folds: Annotated[int, Field(ge=2)] | None = None
    """Train one model per fold, each without the groups (patients) of that fold, into <out>/fold0/model, ...; null
    trains one model on all that `exclude_split` leaves, into <out>/model."""
    fold: Annotated[int, Field(ge=0)] | None = None
    """Train this fold only; the others can be trained into the same folder later, or at the same time."""
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.15
    """Share of the training groups that are not trained on and say which weights are the best. Where the data set
    states val items (and there are no folds), they are taken instead. 0: no validation; the last weights are kept."""


@dataclass(frozen=True)
class Part:
    """One model of a run.

    Attributes:
        folder: Where it is trained; `model` in it is the model.
        fold: Number of the fold that is held out; None of a run without folds.
        train: Items that it learns from.
        validate: Items that choose its best weights; none where the last ones are kept.
        held: Items of the fold; it never sees them.
    """

    folder: Path
    fold: int | None
    train: Items
    validate: Items
    held: Items

    @property
    def model(self) -> Path:
        """The model's folder."""
        return self.folder / "model"

    @property
    def is_done(self) -> bool:
        """Whether the model is there; its configuration is written last."""
        return is_segmenter(self.model)

    @property
    def title(self) -> str:
        return "" if self.fold is None else f"fold {self.fold}: "


def planned(collections: Sequence[Collection], settings: FoldSettings, seed: int, out: Path) -> list[Part]:
    """The parts of a run, in order.

    Raises:
        DatasetError: No item has a mask, or none is left to train on.
        SplitError: There are too few groups for the folds.
        ConfigError: A fold is asked for that does not exist.
    """
    owned = [masked(_allowed(collection, settings)) for collection in collections]
    if settings.folds is None:
        if settings.fold is not None:
            raise ConfigError(["data.fold: there are no folds; set data.folds too"], "adapt")
        return [_part(owned, settings, seed, out, None)]
    if settings.fold is not None and settings.fold >= settings.folds:
        raise ConfigError([f"data.fold: there is no fold {settings.fold} of {settings.folds}"], "adapt")
    numbers = range(settings.folds) if settings.fold is None else [settings.fold]
    return [_part(owned, settings, seed, out / f"fold{number}", number) for number in numbers]


def _allowed(collection: Collection, settings: FoldSettings) -> Collection:
    """Without what is excluded by its split or group."""
    items = trained_items(collection, settings.excluded_splits, settings.exclude_groups)
    if not items:
        raise DatasetError(
            collection.name, "no image is left to learn from", "Check data.exclude_split and data.exclude_groups."
        )
    return collection.only(items)


def _part(owned: Sequence[Collection], settings: FoldSettings, seed: int, folder: Path, fold: int | None) -> Part:
    train: Items = []
    validate: Items = []
    held: Items = []
    for collection in owned:
        items = list(collection.items)
        if fold is not None and settings.folds is not None:
            items, out_of_reach = held_out(collection, settings.folds, fold, seed)
            held += out_of_reach
        learn, choose = _validation(collection.only(items), settings, seed, folds=fold is not None)
        train += learn
        validate += choose
    return Part(folder, fold, train, validate, held)


def _validation(collection: Collection, settings: FoldSettings, seed: int, *, folds: bool) -> tuple[Items, Items]:
    """The items to train on and those that validate."""
    if settings.validation == 0:
        return list(collection.items), []
    if not folds and any(item.split == "val" for item in collection.items):
        return stated_parts(collection)
    groups = {item.group for item in collection.items}
    parts = min(round(1 / settings.validation), len(groups))
    if parts < 2:
        raise DatasetError(
            collection.name,
            f"its {len(groups)} {collection.group_noun}(s) cannot be parted into training and validation",
            "Set data.validation=0 to train on all of it, or give images of more patients.",
        )
    return held_out(collection, parts, 0, seed + _VALIDATION_SEED)
