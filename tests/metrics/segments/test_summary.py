from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from lamella.formats.label_values import NOT_LABELLED
from lamella.metrics.segments.confusion import confusion_of, precision_per_class, recall_per_class
from lamella.metrics.segments.summary import summary

CLASSES = ("tumour", "stroma", "necrosis", "glass")
SKLEARN = {"iou": jaccard_score, "precision": precision_score, "recall": recall_score, "f1": f1_score, "dice": f1_score}


def counted(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.choice(4, 500, p=[0.5, 0.2, 0.1, 0.2]).astype(np.uint8)
    called = np.where(rng.random(500) < 0.6, truth, rng.integers(0, 4, 500)).astype(np.uint8)
    return truth, called, confusion_of(truth, called, 4)


@pytest.mark.parametrize("measure", SKLEARN)
def test_every_number_is_that_of_scikit_learn(measure):
    truth, called, matrix = counted()
    found = summary(matrix, CLASSES, 3)
    ask = SKLEARN[measure]
    for number, name in enumerate(CLASSES):
        assert found["per_class"][name][measure] == pytest.approx(ask(truth == number, called == number), abs=1e-6)
    for key, average, labels in (
        ("macro", "macro", [0, 1, 2]),
        ("weighted", "weighted", [0, 1, 2]),
        ("macro_with_background", "macro", [0, 1, 2, 3]),
        ("weighted_with_background", "weighted", [0, 1, 2, 3]),
    ):
        assert found[key][measure] == pytest.approx(ask(truth, called, labels=labels, average=average), abs=1e-6)


def test_a_class_in_neither_is_null_and_in_no_mean_and_one_falsely_called_counts_nothing():
    """Mistake: the NaN of an absent class poisoned the mean."""
    truth = np.array([0, 0, 3, 3], np.uint8)
    found = summary(confusion_of(truth, np.array([0, 0, 3, 3]), 4), CLASSES, 3)
    assert found["per_class"]["stroma"]["iou"] is None
    assert found["macro"] == dict.fromkeys(SKLEARN, 1.0)
    assert (found["n_present"], found["n_classes"]) == (1, 3)
    false = summary(confusion_of(truth, np.array([0, 1, 3, 3]), 4), CLASSES, 3)
    assert false["per_class"]["stroma"]["precision"] == false["per_class"]["stroma"]["recall"] == 0
    assert false["macro"]["iou"] == 0.25
    assert false["weighted"]["iou"] == 0.5  # stroma has no true pixel: it weighs nothing
    json.dumps(false, allow_nan=False)


def test_nothing_but_background_has_no_number_of_tissue():
    found = summary(confusion_of(np.full(4, 3), np.full(4, 3), 4), CLASSES, 3)
    assert found["macro"]["iou"] is None
    assert found["weighted"]["iou"] is None
    assert found["macro_with_background"]["iou"] == 1


def test_what_was_not_looked_at_is_missed():
    matrix = confusion_of(np.array([0, 0]), np.array([0, NOT_LABELLED]), 2)
    assert recall_per_class(matrix)[0] == 0.5
    assert precision_per_class(matrix)[0] == 1
    assert np.isnan(precision_per_class(matrix)[1])
