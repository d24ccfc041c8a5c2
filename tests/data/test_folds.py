from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.made_labels import made_labels

from lamella.data.folds import held_out, stated_parts
from lamella.data.splits import LeakageError, SplitError
from lamella.errors import DatasetError

BLANK = np.zeros((2, 2))


def collection_of(groups: list[str], **more):
    ids = [f"i{number}" for number in range(len(groups))]
    return made_labels(dict.fromkeys(ids, BLANK), groups=dict(zip(ids, groups, strict=True)), **more)


@given(st.lists(st.sampled_from("abcdefg"), min_size=4, max_size=30), st.integers(0, 3))
def test_every_item_is_held_out_once_and_no_group_is_torn(groups, seed):
    collection = collection_of(groups)
    folds = min(3, len(set(groups)))
    if folds < 2:
        return
    seen = Counter()
    for fold in range(folds):
        train, held = held_out(collection, folds, fold, seed)
        assert {item.group for item in train}.isdisjoint(item.group for item in held)
        assert sorted(item.item_id for item in (*train, *held)) == sorted(item.item_id for item in collection.items)
        assert held
        seen.update(item.item_id for item in held)
    assert set(seen.values()) == {1}


def test_folds_hold_about_as_many_of_each_label():
    groups = [f"p{number // 2}" for number in range(20)]
    labels = {f"i{number}": "malignant" if number % 4 < 2 else "benign" for number in range(20)}
    collection = collection_of(groups, labels=labels)
    for fold in range(5):
        _, held = held_out(collection, 5, fold, 0)
        assert Counter(item.labels for item in held) == {("malignant",): 2, ("benign",): 2}


def test_the_same_seed_deals_the_same_folds():
    collection = collection_of(list("aabbccddee"))
    assert held_out(collection, 5, 1, 3) == held_out(collection, 5, 1, 3)


@pytest.mark.parametrize(
    ("folds", "fold", "told"), [(4, 0, "3 patient.s. cannot make 4 folds"), (3, 3, "no fold 3 of 3"), (1, 0, "1 folds")]
)
def test_folds_that_do_not_exist(folds, fold, told):
    with pytest.raises(SplitError, match=told):
        held_out(collection_of(list("abc")), folds, fold)


def test_the_split_that_the_data_set_states():
    splits = {"i0": "train", "i1": "val", "i2": "test"}
    train, val = stated_parts(collection_of(list("abc"), splits=splits))
    assert ([item.item_id for item in train], [item.item_id for item in val]) == (["i0"], ["i1"])
    with pytest.raises(LeakageError, match="patient a would be in more than one part"):
        stated_parts(collection_of(list("aac"), splits=splits))
    with pytest.raises(DatasetError, match="states no split"):
        stated_parts(collection_of(list("abc")))
