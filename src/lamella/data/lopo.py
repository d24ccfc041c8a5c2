"""Folds of nested leave-one-patient-out: one patient is judged, another says when to stop, the others teach.

Mistake of the source: epochs and settings were chosen on the patient that was then reported.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from lamella.data.expression import ExpressionSlide, ExpressionStudy, Fold
from lamella.data.splits import LeakageError, SplitError

# Of a single training patient's slides, this share chooses when to stop: one in four, and one at least.
_INNER_SHARE = 4


def folds(study: ExpressionStudy) -> tuple[Fold, ...]:
    """One fold for each patient, in the order of their names.

    The inner patient is the next in that order. With two patients none is left for it: the last slides of the training
    patient choose then; with a single slide nothing does, and training has a fixed budget.

    Raises:
        SplitError: There is one patient only.
        LeakageError: A patient stands on two sides of a fold.
    """
    patients = study.patients
    if len(patients) < 2:
        raise SplitError(
            "patients",
            f"all {len(study.slides)} slide(s) are of one patient ({', '.join(patients)}); nobody is left to be judged "
            "by",
            "Give slides of at least two patients, three for an inner patient that says when to stop.",
        )
    made = tuple(_fold(study, patients, number) for number in range(len(patients)))
    check_folds(made, study)
    return made


def training_slides(study: ExpressionStudy, fold: Fold) -> tuple[ExpressionSlide, ...]:
    """The slides that a fold's models learn from: none of the test patient, none that says when to stop."""
    return tuple(slide for slide in study.of(fold.train) if slide.slide_id not in fold.inner_slides)


def choosing_slides(study: ExpressionStudy, fold: Fold) -> tuple[ExpressionSlide, ...]:
    """The slides that say when to stop; none where the budget is fixed."""
    if fold.inner is not None:
        return study.of((fold.inner,))
    return tuple(slide for slide in study.slides if slide.slide_id in fold.inner_slides)


def inner_note(fold: Fold) -> str:
    """What reports must say of how a fold's models were chosen."""
    if fold.inner is not None:
        return f"stopped by patient {fold.inner}"
    if fold.inner_slides:
        return (
            f"stopped by {', '.join(fold.inner_slides)}, of a patient that is trained on too (no other patient is left)"
        )
    return "a fixed number of steps: nothing is left that could say when to stop"


def check_folds(made: Sequence[Fold], study: ExpressionStudy) -> None:
    """Refuse a patient, or a slide, on two sides of a fold, and a patient that is judged twice.

    Raises:
        LeakageError: Which, and where.
    """
    problems = []
    for fold in made:
        roles: dict[str, list[str]] = defaultdict(list)
        for role, names in (("test", (fold.test,)), ("inner", (fold.inner,)), ("train", fold.train)):
            for name in names:
                if name is not None:
                    roles[name].append(role)
        problems += [f"patient {name} is in {' and '.join(of)} of {fold.name}" for name, of in roles.items() if of[1:]]
        strange = [one for one in fold.inner_slides if study.by_id[one].patient not in fold.train]
        problems += [f"slide {one} chooses in {fold.name}, and is of no training patient" for one in strange]
    tested = [fold.test for fold in made]
    problems += [f"patient {name} is judged in two folds" for name in sorted(set(tested)) if tested.count(name) > 1]
    if problems:
        raise LeakageError("folds", "; ".join(problems), "Give each patient one place in every fold.")


def patient_problems(patient_of: Mapping[str, str], fold_of: Mapping[str, str]) -> list[str]:
    """What is wrong with patients, by slide_id: names that differ by case or blanks, one patient in two stated folds.

    Args:
        patient_of: Slide -> patient.
        fold_of: Slide -> what a manifest's column `fold` says. Patients are left out one at a time, so it can only say
            the same in other words.
    """
    spelt, stated, held = defaultdict(set), defaultdict(set), defaultdict(set)
    for slide_id, patient in patient_of.items():
        spelt["".join(patient.split()).casefold()].add(patient)
        if slide_id in fold_of:
            stated[patient].add(fold_of[slide_id])
            held[fold_of[slide_id]].add(patient)
    problems = [
        f"{' and '.join(sorted(names))} are written as different patients, and seem to be one"
        for names in spelt.values()
        if len(names) > 1
    ]
    problems += [
        f"patient {patient} is in folds {', '.join(sorted(folds_of))} of the column fold"
        for patient, folds_of in sorted(stated.items())
        if len(folds_of) > 1
    ]
    problems += [
        f"fold {fold} of the column fold holds patients {', '.join(sorted(patients))}; one is left out at a time"
        for fold, patients in sorted(held.items())
        if len(patients) > 1
    ]
    return problems


def _fold(study: ExpressionStudy, patients: Sequence[str], number: int) -> Fold:
    test = patients[number]
    others = [*patients[number + 1 :], *patients[:number]]
    if len(others) > 1:
        return Fold(number, test, others[0], tuple(sorted(others[1:])))
    own = study.of((others[0],))
    choosing = max(1, len(own) // _INNER_SHARE) if len(own) > 1 else 0
    inner = tuple(slide.slide_id for slide in own[len(own) - choosing :])
    return Fold(number, test, None, (others[0],), inner)
