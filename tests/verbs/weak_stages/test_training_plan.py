"""Who trains on what, and who must never see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from tests.data.tiny_bags import study_of

from lamella.data.bags import Bag, WeakStudy
from lamella.data.splits import SplitError
from lamella.errors import DatasetError
from lamella.geometry import Frame
from lamella.verbs.weak_stages.training_plan import TrainingPart, planned
from lamella.verbs.weak_stages.training_settings import TrainingSettings


def bag(number: int, part: str | None = "train", group: str | None = None, labels: Any = "own") -> Bag:
    own = (number % 2, 1 - number % 2) if labels == "own" else labels
    frame, corners = Frame(64, 64, 0.5, 0.5), np.zeros((1, 2))
    return Bag(f"s{number:02d}", Path("x.png"), frame, corners, own, None, group or f"p{number}", part)  # type: ignore[arg-type]


def study(bags: Sequence[Bag]) -> WeakStudy:
    return study_of(bags)


def parts(bags: Sequence[Bag], **settings: Any) -> list[TrainingPart]:
    return planned(study(bags), TrainingSettings(**settings), 0, Path("training"))


def ids(bags: Sequence[Bag]) -> set[str]:
    return {bag.slide_id for bag in bags}


def test_the_split_says_who_validates_and_the_test_part_is_never_touched() -> None:
    (part,) = parts([bag(0), bag(1), bag(2, "val"), bag(3, "test"), bag(4, None)])
    assert (ids(part.train), ids(part.validate), part.held) == ({"s00", "s01"}, {"s02"}, ())
    assert (part.folder, part.model, part.seed, part.fold) == (Path("training"), Path("training/model"), 0, None)


def test_without_val_slides_whole_groups_of_the_training_slides_validate() -> None:
    (part,) = parts([bag(n, group=f"p{n // 2}") for n in range(20)], validation={"share": 0.2})
    assert len(part.validate) == 4
    assert {each.group for each in part.train}.isdisjoint({each.group for each in part.validate})
    assert len(part.train) == 16


def test_a_share_of_0_trains_on_all_and_nothing_validates() -> None:
    (part,) = parts([bag(0), bag(1), bag(2, "val")], validation={"share": 0})
    assert (ids(part.train), part.validate) == ({"s00", "s01"}, ())


def test_slides_without_labels_or_tiles_are_left_out() -> None:
    empty = replace(bag(3), corners_px0=np.zeros((0, 2)))
    (part,) = parts([bag(0), bag(1), bag(2, labels=None), empty], validation={"share": 0})
    assert ids(part.train) == {"s00", "s01"}


def test_nothing_to_train_on_is_an_error() -> None:
    with pytest.raises(DatasetError, match="left to train on"):
        parts([bag(0, "test"), bag(1, "val")])


def test_one_patient_cannot_both_train_and_validate() -> None:
    with pytest.raises(DatasetError, match=r"validation\.share"):
        parts([bag(0, group="p"), bag(1, group="p")])


def test_folds_hold_every_group_out_once_and_leave_the_test_part_alone() -> None:
    bags = [bag(n, "val" if n == 5 else "train", f"p{n // 2}") for n in range(12)] + [bag(20, "test")]
    found = parts(bags, folds=3)
    assert [part.folder.name for part in found] == ["fold0", "fold1", "fold2"]
    held = [each.slide_id for part in found for each in part.held]
    assert sorted(held) == sorted(ids(bags[:12]))
    for part in found:
        groups = [{each.group for each in bags} for bags in (part.train, part.validate, part.held)]
        assert all(one.isdisjoint(other) for one in groups for other in groups if one is not other)
        assert all(groups)
        assert not any(part.has_seen(each.group) for each in part.held)


def test_without_a_split_all_slides_take_part_in_folds() -> None:
    found = parts([bag(n, None) for n in range(8)], folds=4, validation={"share": 0})
    assert all((len(part.train), len(part.held)) == (6, 2) for part in found)


def test_one_fold_is_the_same_as_among_all() -> None:
    bags = [bag(n) for n in range(8)]
    (alone,) = parts(bags, folds=4, fold=2)
    assert alone == parts(bags, folds=4)[2]


def test_seeds_train_on_the_same_slides() -> None:
    found = parts([bag(n) for n in range(8)], folds=2, seeds=(3, 5))
    assert [(part.folder.name, part.seed, part.fold) for part in found] == [
        ("fold0_seed3", 3, 0),
        ("fold0_seed5", 5, 0),
        ("fold1_seed3", 3, 1),
        ("fold1_seed5", 5, 1),
    ]
    assert found[0].train == found[1].train
    assert [part.folder.name for part in parts([bag(n) for n in range(8)], seeds=(0,))] == ["seed0"]


def test_too_few_groups_for_the_folds() -> None:
    with pytest.raises(SplitError, match="2 patient"):
        parts([bag(0), bag(1)], folds=3)


@pytest.mark.parametrize("wrong", [{"fold": 0}, {"folds": 2, "fold": 2}, {"seeds": (1, 1)}])
def test_folds_and_seeds_that_do_not_exist(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TrainingSettings(**wrong)
