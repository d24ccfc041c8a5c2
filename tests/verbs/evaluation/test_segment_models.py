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
from lamella.verbs.evaluation.segment_models import judges_of, models_in

NOTHING = PretrainingRecord.of((), (), (), ())


def collection() -> Collection:
    """Six images of three patients."""
    items = tuple(Item(f"i{n}", (Path(f"{n}.png"),), group=f"p{n // 2}", mask=Path(f"{n}m.png")) for n in range(6))
    return Collection("toys", "image", items, lambda item: MedicalImage(np.zeros((2, 2)), "byte"), group_noun="patient")


def folders(tmp_path: Path, *records: PretrainingRecord | None) -> list[Path]:
    found = []
    for number, record in enumerate(records):
        found.append(tmp_path / f"fold{number}" / "model")
        found[-1].mkdir(parents=True)
        if record is not None:
            record.write(found[-1])
    return found


def seen(*patients: int) -> PretrainingRecord:
    return replace(NOTHING, groups=frozenset(f"toys/p{patient}" for patient in patients))


def judged(where, *, seen="refuse", ensemble=False, items=None):
    toys = collection()
    return judges_of(
        where,
        toys,
        toys.items if items is None else items,
        seen=seen,
        ensemble=ensemble,
        digest=lambda item: f"digest of {item.item_id}",
    )


def test_each_image_is_judged_by_the_one_model_that_has_not_seen_its_group(tmp_path):
    found = judged(folders(tmp_path, seen(1, 2), seen(0, 2), seen(0, 1)))
    assert {item.item_id: numbers for item, numbers in found.judged.items()} == {f"i{n}": (n // 2,) for n in range(6)}
    assert {item.item_id: numbers for item, numbers in found.trained_on.items()} == {
        f"i{n}": tuple(number for number in range(3) if number != n // 2) for n in range(6)
    }
    assert "the one of 3 models that has seen nothing of its patient" in found.notes[0]


@pytest.mark.parametrize(
    "record",
    [
        replace(NOTHING, groups=frozenset({"toys/p1"})),
        replace(NOTHING, items=frozenset({"toys/i3"})),
        replace(NOTHING, digests=frozenset({"digest of i2"})),
    ],
    ids=["group", "item", "content"],
)
def test_one_image_seen_is_its_whole_group_seen_however_it_is_recognised(tmp_path, record):
    where = folders(tmp_path, record)
    with pytest.raises(LeakageError, match=r"2 of 6 images .* the model has seen .*\(patient p1: i2, i3\)"):
        judged(where)
    found = judged(where, seen="leave_out")
    assert [item.item_id for item in found.judged] == ["i0", "i1", "i4", "i5"]
    assert "2 of 6 images" in found.notes[0]


def test_a_seen_image_that_is_not_judged_bars_the_rest_of_its_group(tmp_path):
    """The record names i2 only; judged is i3 of the same patient."""
    where = folders(tmp_path, replace(NOTHING, items=frozenset({"toys/i2"})))
    with pytest.raises(LeakageError, match=r"p1: i3"):
        judged(where, items=collection().items[3:4])


def test_a_group_that_every_fold_has_seen_is_refused(tmp_path):
    with pytest.raises(LeakageError, match="each of the 2 models has seen in training"):
        judged(folders(tmp_path, seen(0, 1), seen(0, 2)))


def test_what_several_models_could_judge_is_unclear_unless_they_are_averaged(tmp_path):
    where = folders(tmp_path, seen(0), seen(1))
    with pytest.raises(LamellaError, match=r"2 of 6 images .* none of several models \(i4, i5\)") as caught:
        judged(where)
    assert "ensemble=true" in caught.value.remedy
    found = judged(where, ensemble=True)
    assert list(found.judged.values()) == [(1,), (1,), (0,), (0,), (0, 1), (0, 1)]


def test_a_model_that_does_not_say_what_it_saw_is_a_warning_and_among_several_an_error(tmp_path):
    alone = judged(folders(tmp_path / "one", None))
    assert len(alone.judged) == 6
    assert "does not say what it was trained on" in alone.warnings[0]
    with pytest.raises(LeakageError, match="does not say what it was trained on"):
        judged(folders(tmp_path / "two", seen(0, 1, 2), None))


def test_another_data_set_of_the_same_names_is_no_leak(tmp_path):
    found = judged(folders(tmp_path, replace(NOTHING, groups=frozenset({"others/p0"}))))
    assert len(found.judged) == 6


def test_nothing_left_to_judge_is_said(tmp_path):
    with pytest.raises(LamellaError, match="none is left to judge"):
        judged(folders(tmp_path, seen(0, 1, 2)), seen="leave_out")


def test_models_are_found_in_their_folder_in_a_run_and_in_a_run_with_folds(tmp_path):
    def is_model(folder: Path) -> bool:
        return (folder / "it").is_file()

    for name in ("alone", "run/model", "folds/fold10/model", "folds/fold2/model", "folds/fold_old/model"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "it").touch()
    (tmp_path / "folds" / "fold3" / "model").mkdir(parents=True)  # unfinished
    assert models_in(tmp_path / "alone", is_model) == (tmp_path / "alone",)
    assert models_in(tmp_path / "run", is_model) == (tmp_path / "run" / "model",)
    assert [path.parent.name for path in models_in(tmp_path / "folds", is_model)] == ["fold2", "fold10"]
    assert models_in(tmp_path, is_model) == ()
