from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score
from tests.metrics.image_studies import several_labels, study

from lamella.metrics.ask_several import ask_several
from lamella.metrics.controls import exchange_rows
from lamella.metrics.report import Report, ReportError
from lamella.metrics.study import CannotAsk


def test_each_class_has_its_values_and_one_without_positives_is_named_and_in_no_mean() -> None:
    base = several_labels()
    answer = ask_several(base)
    found = {row.measure: row.estimate.value for row in answer.rows if row.encoder == "ours"}
    assert found["AUC, seen"] > 0.9
    assert found["AUC, unseen"] == pytest.approx(0.5, abs=0.2)
    assert found["macro AUC"] == pytest.approx((found["AUC, seen"] + found["AUC, unseen"]) / 2)
    assert found["mAP"] == pytest.approx((found["average precision, seen"] + found["average precision, unseen"]) / 2)
    assert not any("absent" in measure for measure in found)
    assert any("no judged item, or every one, is of it: absent" in note for note in answer.notes)
    lines = {line["class"]: line for line in answer.tables["per_class"] if line["encoder"] == "ours"}
    chances = [line for line in answer.tables["predictions"] if line["encoder"] == "ours"]
    truth = ["seen" in line["truth"].split("|") for line in chances]
    scores = [line["score_seen"] for line in chances]
    assert lines["seen"]["auc"] == pytest.approx(roc_auc_score(truth, scores), abs=1e-4)
    assert lines["seen"]["average_precision"] == pytest.approx(average_precision_score(truth, scores), abs=1e-4)


def test_exact_match_and_element_wise_accuracy_never_stand_alone() -> None:
    rows = ask_several(several_labels()).rows
    exact = {row.estimate.value for row in rows if (row.measure, row.encoder) == ("exact match", "ours")}
    elements = {row.estimate.value for row in rows if (row.measure, row.encoder) == ("element-wise accuracy", "ours")}
    assert exact.pop() < elements.pop()
    Report("t", rows)
    with pytest.raises(ReportError, match="exact match and element-wise accuracy must stand beside each other"):
        Report("t", [row for row in rows if row.measure != "exact match"])


def test_one_label_an_item_and_no_usable_class_are_said() -> None:
    with pytest.raises(CannotAsk, match="every item has one label"):
        ask_several(study())
    base = several_labels()
    with pytest.raises(CannotAsk, match="no judged item"):
        ask_several(replace(base, labels=np.zeros_like(base.labels)))


def test_exchanged_rows_keep_labels_of_an_item_together_and_their_number_of_groups() -> None:
    rng = np.random.default_rng(0)
    marks, groups = rng.random((40, 3)) > 0.5, np.repeat(np.arange(10), 4)
    exchanged = exchange_rows(marks, groups, 1)
    rows = {tuple(row) for row in marks.tolist()}
    assert all(tuple(row) in rows for row in exchanged.tolist())
    assert sorted(map(tuple, exchanged.tolist())) == sorted(map(tuple, marks.tolist()))
    assert (exchanged != marks).any()
