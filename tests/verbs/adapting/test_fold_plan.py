"""Who trains, who validates and who is never seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.data.made_labels import made_labels

from lamella.data.splits import SplitError
from lamella.errors import ConfigError, DatasetError
from lamella.imaging.datasets.collection import Collection
from lamella.verbs.adapting.fold_plan import FoldSettings, Part, planned


def patients(count: int, *, splits: dict[int, str] | None = None) -> Collection:
    """Two images of each patient."""
    names = [f"{patient}{image}" for patient in range(count) for image in "ab"]
    stated = {name: splits[int(name[0])] for name in names if splits and int(name[0]) in splits}
    mask = np.array([[0, 1], [2, 255]], np.uint8)
    return made_labels(dict.fromkeys(names, mask), groups={name: name[0] for name in names}, splits=stated)


def plan(collection: Collection, **settings: object) -> list[Part]:
    return planned([collection], FoldSettings(**settings), 0, Path("out"))


def groups(items: list) -> set[str]:
    return {item.group for item in items}


def test_every_patient_is_held_out_once_and_never_beside_itself() -> None:
    parts = plan(patients(6), folds=3, validation=0.25)
    assert [part.folder for part in parts] == [Path("out/fold0"), Path("out/fold1"), Path("out/fold2")]
    assert sorted(group for part in parts for group in groups(part.held)) == list("012345")
    for part in parts:
        sets = [groups(items) for items in (part.train, part.validate, part.held)]
        assert [len(each) for each in sets] == [3, 1, 2]
        assert len(set.union(*sets)) == 6


def test_one_fold_alone_is_that_fold_of_all() -> None:
    alone, all_of_them = plan(patients(6), folds=3, fold=1), plan(patients(6), folds=3)
    assert alone == [all_of_them[1]]


def test_without_folds_the_stated_parts_are_kept() -> None:
    collection = patients(5, splits={0: "train", 1: "train", 2: "train", 3: "val", 4: "test"})
    [part] = plan(collection)
    assert (groups(part.train), groups(part.validate), part.held) == ({"0", "1", "2"}, {"3"}, [])
    assert part.model == Path("out/model")


def test_test_items_take_no_part_in_folds() -> None:
    collection = patients(5, splits={0: "train", 1: "train", 2: "train", 3: "val", 4: "test"})
    seen = set.union(*(groups([*part.train, *part.validate, *part.held]) for part in plan(collection, folds=2)))
    assert seen == {"0", "1", "2", "3"}


def test_without_a_validation_all_is_trained_on() -> None:
    [part] = plan(patients(3), validation=0)
    assert (len(part.train), part.validate) == (6, [])


def test_what_cannot_be_parted_is_refused() -> None:
    with pytest.raises(SplitError, match=r"2 patient\(s\) cannot make 3 folds"):
        plan(patients(2), folds=3)
    with pytest.raises(ConfigError, match="no fold 3 of 3"):
        plan(patients(6), folds=3, fold=3)
    with pytest.raises(ConfigError, match=r"data\.folds"):
        plan(patients(6), fold=0)
    with pytest.raises(DatasetError, match=r"1 patient\(s\) cannot be parted into training and validation"):
        plan(patients(1))
    with pytest.raises(DatasetError, match="no image is left"):
        plan(patients(2, splits={0: "test", 1: "test"}))
