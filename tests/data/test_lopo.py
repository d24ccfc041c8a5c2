"""Folds of nested leave-one-patient-out."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamella.data.expression import ExpressionSlide, ExpressionStudy, Fold
from lamella.data.lopo import check_folds, choosing_slides, folds, inner_note, patient_problems, training_slides
from lamella.data.splits import LeakageError, SplitError
from lamella.geometry import Frame


def study(**slides_of: int) -> ExpressionStudy:
    def never() -> None:
        raise AssertionError("no counts are read to deal folds")

    slides = tuple(
        ExpressionSlide(f"{patient}{number}", Path("x"), Frame(9, 9, 1, 1), patient, never)  # type: ignore[arg-type]
        for patient, count in slides_of.items()
        for number in range(count)
    )
    return ExpressionStudy(slides, "bin", 2.0, 128)


def test_every_patient_is_judged_once_and_never_chooses() -> None:
    """mistake: selection on the test patient."""
    made = folds(study(A=2, B=1, C=1, D=3))
    assert [fold.test for fold in made] == ["A", "B", "C", "D"]
    assert [fold.inner for fold in made] == ["B", "C", "D", "A"]
    assert [fold.train for fold in made] == [("C", "D"), ("A", "D"), ("A", "B"), ("B", "C")]
    assert made[0].name == "without_A"
    of = study(A=2, B=1, C=1, D=3)
    for fold in made:
        sides = [{slide.patient for slide in side} for side in (training_slides(of, fold), choosing_slides(of, fold))]
        assert fold.test not in sides[0] | sides[1]
        assert not sides[0] & sides[1]


def test_two_patients_leave_slides_of_the_training_patient_to_choose() -> None:
    of = study(A=2, C=9)
    first, second = folds(of)
    assert (first.inner, first.train, first.inner_slides) == (None, ("C",), ("C7", "C8"))
    assert (second.train, second.inner_slides) == (("A",), ("A1",))
    assert [slide.slide_id for slide in training_slides(of, second)] == ["A0"]
    assert [slide.slide_id for slide in choosing_slides(of, second)] == ["A1"]
    assert "of a patient that is trained on too" in inner_note(second)


def test_one_training_slide_has_a_fixed_budget() -> None:
    of = study(A=1, C=1)
    (fold, _) = folds(of)
    assert choosing_slides(of, fold) == ()
    assert len(training_slides(of, fold)) == 1
    assert "fixed number of steps" in inner_note(fold)


def test_one_patient_is_refused() -> None:
    with pytest.raises(SplitError, match="one patient"):
        folds(study(A=5))


@pytest.mark.parametrize(
    ("fold", "says"),
    [
        (Fold(0, "A", "B", ("A", "C")), "patient A is in test and train"),
        (Fold(0, "A", "B", ("B", "C")), "patient B is in inner and train"),
        (Fold(0, "A", None, ("C",), ("B0",)), "slide B0 chooses"),
    ],
)
def test_a_patient_on_two_sides_is_refused(fold: Fold, says: str) -> None:
    with pytest.raises(LeakageError, match=says):
        check_folds([fold], study(A=1, B=1, C=1))


def test_a_patient_judged_twice_is_refused() -> None:
    with pytest.raises(LeakageError, match="judged in two folds"):
        check_folds([Fold(0, "A", None, ("B",)), Fold(1, "A", None, ("B",))], study(A=1, B=1))


def test_what_manifests_say_of_patients() -> None:
    assert patient_problems({"1": "A", "2": "B"}, {"1": "x", "2": "y"}) == []
    (spelt,) = patient_problems({"1": "P1", "2": "p 1"}, {})
    assert "seem to be one" in spelt
    two = patient_problems({"1": "A", "2": "A", "3": "B"}, {"1": "x", "2": "y", "3": "y"})
    assert ["patient A is in folds x, y" in two[0], "fold y of the column fold holds patients A, B" in two[1]] == [
        True
    ] * 2
