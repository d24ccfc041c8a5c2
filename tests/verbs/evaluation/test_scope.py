from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lamella.data.splits import LeakageError
from lamella.errors import LamellaError
from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.measured import MedicalImage
from lamella.models.pretraining_record import PretrainingRecord
from lamella.verbs.evaluation.scope import parts_of, scope_of

NOTHING = PretrainingRecord.of((), (), (), ())


def collection(*, split: bool = True) -> Collection:
    """Twelve images of six patients: four of train, two of val, six of test."""
    splits = ["train"] * 4 + ["val"] * 2 + ["test"] * 6
    items = tuple(
        Item(
            f"i{n}",
            (Path(f"{n}.png"),),
            labels=("a" if n % 2 else "b",),
            group=f"p{n // 2}",
            split=splits[n] if split else None,
        )
        for n in range(12)
    )
    return Collection(
        "toys", "image", items, lambda item: MedicalImage(np.zeros((2, 2)), "byte"), ("a", "b"), group_noun="patient"
    )


def scope(record: PretrainingRecord | None, seen: str = "refuse", *, split: bool = True):
    return scope_of(
        collection(split=split), record, seen=seen, digest=lambda item: f"digest of {item.item_id}", known=False
    )


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (replace(NOTHING, groups=frozenset({"toys/p3"})), r"2 of 6 .* \(patient p3\).*by their patient: i6, i7"),
        (replace(NOTHING, items=frozenset({"toys/i9"})), r"1 of 6 judged items .*\(patient p4\).*by their id: i9"),
        (replace(NOTHING, digests=frozenset({"digest of i11"})), r"by their content, under another name: i11"),
    ],
    ids=["group", "item", "content"],
)  # fmt: skip
def test_judged_items_that_were_in_pretraining_are_refused_by_name(record: PretrainingRecord, reason: str) -> None:
    with pytest.raises(LeakageError, match=reason) as caught:
        scope(record)
    assert "exclude_split=test" in caught.value.remedy
    assert "seen=leave_out" in caught.value.remedy


def test_pretraining_on_the_train_split_is_fine_and_so_is_another_data_set_of_the_same_names() -> None:
    train = replace(
        NOTHING,
        groups=frozenset({"toys/p0", "toys/p1", "toys/p2", "others/p4"}),
        items=frozenset({"toys/i0", "others/i9"}),
        digests=frozenset({"digest of i1"}),
    )
    assert len(scope(train).judged) == 6
    assert scope(train).warnings == ()


def test_seen_groups_can_be_left_out_or_only_fitted_on() -> None:
    record = replace(NOTHING, items=frozenset({"toys/i6"}))
    left = scope(record, "leave_out")
    assert [item.item_id for item in left.judged] == ["i8", "i9", "i10", "i11"]
    assert len(left.items) == 10
    taught = scope(record, "train")
    (part,) = parts_of(taught, np.zeros(12, int), 5, 0)
    assert {taught.items[row].item_id for row in part.train} == {"i0", "i1", "i2", "i3", "i6", "i7"}
    assert len(part.test) == 4
    folds = scope(record, "train", split=False)
    for part in parts_of(folds, np.zeros(12, int), 5, 0):
        assert {6, 7} <= set(part.train.tolist())
        assert not {6, 7} & set(part.test.tolist())
    everything = replace(NOTHING, groups=frozenset(f"toys/p{n}" for n in range(6)))
    with pytest.raises(LamellaError, match="leaves none to judge"):
        scope(everything, "leave_out")


def test_folds_judge_each_item_once_and_never_tear_a_group() -> None:
    whole = scope(NOTHING, split=False)
    parts = parts_of(whole, np.arange(12) % 2, 3, 0)
    assert sorted(np.concatenate([part.test for part in parts]).tolist()) == list(range(12))
    for part in parts:
        judged = {whole.items[row].group for row in part.test}
        assert not judged & {whole.items[row].group for row in part.train}


def test_a_group_in_train_and_test_is_named() -> None:
    torn = collection()
    items = (replace(torn.items[0], group="p5"), *torn.items[1:])
    with pytest.raises(LeakageError, match="patient p5 would be in more than one part"):
        scope_of(torn.only(items), None, seen="refuse", digest=str, known=False)


def test_a_model_that_does_not_say_is_said() -> None:
    assert "does not say what it was pretrained on" in scope(None).warnings[0]
