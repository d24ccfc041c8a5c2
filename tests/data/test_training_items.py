import pytest
from tests.data.made_collections import made_collection, made_volume

from lamella.data.training_items import DrawSettings, TrainingItems
from lamella.errors import DatasetError


def collection(name: str = "", **settings):
    return made_collection("volume", {f"{name}{number}": made_volume() for number in range(4)}, **settings)


def test_groups_of_the_excluded_split_are_left_out_whole():
    held = collection(splits={"0": "test", "1": "train"}, groups={"0": "p", "1": "p", "2": "q", "3": "r"})
    items = TrainingItems([held], ("volume",), DrawSettings(exclude_groups=("q",)), seed=0)
    assert [item.item_id for _, item in items.items] == ["3"]


def test_every_item_of_every_collection_comes_once_per_pass():
    items = TrainingItems([collection("a"), collection("b")], ("volume",), DrawSettings(), seed=1)
    for first in (0, 8):
        seen = {(number, item.item_id) for number, item in map(items.at, range(first, first + 8))}
        assert seen == {(0, f"a{number}") for number in range(4)} | {(1, f"b{number}") for number in range(4)}
    assert items.samples_per_epoch == len(items) == 8


def test_the_ranks_share_a_step():
    items = TrainingItems([collection()], ("volume",), DrawSettings(batch_size=6), seed=0)
    assert [list(items.positions(2, rank, 3)) for rank in range(3)] == [[12, 13], [14, 15], [16, 17]]


def test_other_kinds_and_nothing_at_all_are_refused():
    with pytest.raises(DatasetError, match="it holds volumes, and this method learns from videos"):
        TrainingItems([collection()], ("video",), DrawSettings(), seed=0)
    with pytest.raises(DatasetError, match="no volume is left"):
        TrainingItems([collection()], ("volume",), DrawSettings(exclude_groups=("0", "1", "2", "3")), seed=0)
