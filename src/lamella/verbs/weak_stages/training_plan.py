"""Which slides each model of stage 3 learns from, which choose its best weights, and which it must never see."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lamella.data.bags import Bag, WeakStudy
from lamella.data.splits import SplitError, group_folds, refuse_shared_groups
from lamella.errors import DatasetError
from lamella.models.weak_hub import is_weak
from lamella.verbs.weak_stages.training_settings import TrainingSettings

Bags = tuple[Bag, ...]
BEST, LATEST, MODEL = "best", "latest", "model"
# Another dealing than that of the folds: the groups that validate are drawn among those that train.
_VALIDATION_SEED = 1


@dataclass(frozen=True)
class TrainingPart:
    """One model of a study.

    Attributes:
        folder: Where it is trained.
        seed: Of its weights and draws.
        fold: Number of the fold that it does without; None without folds.
        train: Slides that it learns from.
        validate: Slides that choose its best weights; none where the last ones are kept.
        held: Slides of its fold.
    """

    folder: Path
    seed: int
    fold: int | None
    train: Bags
    validate: Bags
    held: Bags

    @property
    def model(self) -> Path:
        """The folder of the weights to use."""
        return self.folder / MODEL

    @property
    def is_done(self) -> bool:
        """Whether the model is there; it is written last."""
        return is_weak(self.model)

    @property
    def title(self) -> str:
        return "" if self.folder.name == "training" else f"{self.folder.name}: "

    def has_seen(self, group: str) -> bool:
        """Whether a group was trained on or chose the weights; such a slide must not judge this model."""
        return any(bag.group == group for bag in (*self.train, *self.validate))


def planned(study: WeakStudy, settings: TrainingSettings, seed: int, folder: Path) -> list[TrainingPart]:
    """The models of a study, in order: fold by fold, seed by seed.

    Args:
        study: The bags.
        settings: Folds, seeds, share that validates.
        seed: The study's: it deals groups, and is the one model's where no seeds are named.
        folder: Of stage 3.

    Raises:
        DatasetError: Nothing is left to learn from, or there are too few groups to validate by.
        SplitError: There are fewer groups than folds.
        LeakageError: A group is in two parts.
    """
    parts = []
    for fold, (train, validate, held) in _dealt(study, settings, seed):
        known = [*((bag.group, "train") for bag in train), *((bag.group, "val") for bag in validate)]
        known += [(bag.group, "held out") for bag in held]
        refuse_shared_groups(
            np.array([group for group, _ in known]), np.array([part for _, part in known]), noun=study.group_noun
        )
        for number in settings.seeds or (None,):
            names = [] if fold is None else [f"fold{fold}"]
            names += [] if number is None else [f"seed{number}"]
            own = folder / "_".join(names) if names else folder
            parts.append(TrainingPart(own, seed if number is None else number, fold, train, validate, held))
    return parts


def _dealt(
    study: WeakStudy, settings: TrainingSettings, seed: int
) -> Iterator[tuple[int | None, tuple[Bags, Bags, Bags]]]:
    """Number of the fold, and its slides to train on, to validate by, and held out."""
    train, stated = _open_bags(study)
    if settings.folds is None:
        if stated and settings.validation.share > 0:
            yield None, (train, stated, ())
        else:
            yield None, (*_validation(train, study, settings, seed), ())
        return
    bags = tuple(sorted((*train, *stated), key=lambda bag: bag.slide_id))
    found = len({bag.group for bag in bags})
    if found < settings.folds:
        raise SplitError(
            "train.folds", f"{found} {study.group_noun}(s) cannot make {settings.folds} folds", f"Set 2 to {found}."
        )
    fold_of = _folds(bags, settings.folds, seed)
    for fold in range(settings.folds) if settings.fold is None else [settings.fold]:
        held = tuple(bag for bag, of in zip(bags, fold_of, strict=True) if of == fold)
        rest = tuple(bag for bag, of in zip(bags, fold_of, strict=True) if of != fold)
        yield fold, (*_validation(rest, study, settings, seed), held)


def _open_bags(study: WeakStudy) -> tuple[Bags, Bags]:
    """Labelled slides to train on, and those that the split says validate. Without any split all train."""
    labelled = [bag for bag in study.bags if len(bag) and (bag.labels is not None or bag.tile_labels is not None)]
    split = any(bag.part is not None for bag in study.bags)
    train = tuple(bag for bag in labelled if bag.part == "train" or not split)
    validate = tuple(bag for bag in labelled if bag.part == "val")
    if not train:
        raise DatasetError("split", "no slide with a label and tiles is left to train on", "Check labels and split.")
    return train, validate


def _validation(bags: Bags, study: WeakStudy, settings: TrainingSettings, seed: int) -> tuple[Bags, Bags]:
    """Slides to train on, and those that validate: whole groups."""
    share = settings.validation.share
    if share == 0:
        return bags, ()
    groups = {bag.group for bag in bags}
    parts = min(round(1 / share), len(groups))
    if parts < 2:
        raise DatasetError(
            "train.validation.share",
            f"{len(groups)} {study.group_noun}(s) cannot be parted into training and validation",
            "Set it to 0 to train on all, or give slides of more patients.",
        )
    fold_of = _folds(bags, parts, seed + _VALIDATION_SEED)
    pairs = list(zip(bags, fold_of.tolist(), strict=True))
    return tuple(bag for bag, of in pairs if of != 0), tuple(bag for bag, of in pairs if of == 0)


def _folds(bags: Sequence[Bag], folds: int, seed: int) -> np.ndarray:
    """(N,) fold of each slide: whole groups, with about the same mix of labels."""
    labels = [_summary(bag) for bag in bags]
    names = {each: number for number, each in enumerate(sorted(set(labels)))}
    groups = np.array([bag.group for bag in bags])
    return group_folds(groups, np.array([names[each] for each in labels]), folds, seed=seed)


def _summary(bag: Bag) -> tuple[int, ...]:
    """Its labels; where only tiles have some, which occur."""
    if bag.labels is not None:
        return tuple(bag.labels)
    assert bag.tile_labels is not None
    return tuple(int(value) for value in bag.tile_labels.max(0))
