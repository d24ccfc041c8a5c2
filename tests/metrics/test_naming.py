from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, recall_score

from lamella.data.splits import group_folds
from lamella.metrics.ask_few_labels import NShotSettings, ask_few_labels
from lamella.metrics.image_study import ImageStudy, Part
from lamella.metrics.naming import (
    EACH_WAY,
    HEAD,
    ZERO_SHOT,
    Ways,
    ask_zero_shot,
    choose_way,
    class_embeddings,
    headed,
    named_class,
    probabilities,
    ties,
)
from lamella.metrics.report import MAJORITY, Report
from lamella.metrics.study import CannotAsk

NAMES = ("tumor", "stroma", "vessel")


def study_of(labels: np.ndarray, groups: np.ndarray, parts: tuple[Part, ...] | None = None, dim: int = 4) -> ImageStudy:
    rng = np.random.default_rng(0)
    if parts is None:
        folds = group_folds(groups, labels, 3)
        parts = tuple(
            Part(np.flatnonzero(folds != fold), np.array([], np.int64), np.flatnonzero(folds == fold))
            for fold in np.unique(folds)
        )
    features = rng.normal(size=(len(labels), dim)) + 3 * np.eye(3, dim)[labels]
    return ImageStudy(
        features={"clip": (features,), "random init": (rng.normal(size=features.shape),)},
        items=np.array([f"i#{row}" for row in range(len(labels))]),
        groups=groups,
        parts=parts,
        make_folds=group_folds,
        labels=labels,
        class_names=NAMES,
        labelled=np.ones(len(labels), bool),
        twin="random init",
        noun="regions",
        group_noun="patient",
    )


def planted(labels: np.ndarray, right: float, seed: int) -> np.ndarray:
    """(N, C) cosines whose highest is the true class in this share of the rows, else the next class."""
    rng = np.random.default_rng(seed)
    said = np.where(rng.random(len(labels)) < right, labels, (labels + 1) % 3)
    return 0.2 * np.eye(3)[said] + rng.uniform(0, 0.1, (len(labels), 3))


@pytest.fixture
def many() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return rng.choice(3, 240, p=(0.5, 0.3, 0.2)), np.repeat(np.arange(12), 20)


def ways_of(*scores: np.ndarray) -> Ways:
    twins = np.stack([planted(np.zeros(len(scores[0]), int), 0.3, 9) for _ in scores])
    names = tuple(f"wording / {number}" for number in range(len(scores)))
    return Ways(names, {"clip": (np.stack(scores),), "random init": (twins,)}, {"clip": 100.0, "random init": 14.0})


def test_a_class_is_the_mean_of_its_texts_brought_to_length_one() -> None:
    texts = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, -1], [0, 0.6, 0.8]])
    found = class_embeddings(texts, [0, 0, 1, 2, 1], 3)
    half = np.sqrt(0.5)
    assert np.allclose(found[0], [half, half, 0])
    mean = np.array([0, 0.3, 0.9])
    assert np.allclose(found[1], mean / np.linalg.norm(mean))
    assert np.allclose(found[2], [0, 0, -1])


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.lists(st.floats(-1, 1), min_size=3, max_size=3), min_size=1, max_size=6), scale=st.floats(0.1, 100)
)
def test_probabilities_add_up_to_one_and_keep_the_order(rows: list[list[float]], scale: float) -> None:
    cosines = np.array(rows)
    chances = probabilities(cosines, scale)
    assert np.allclose(chances.sum(1), 1)
    highest = np.take_along_axis(chances, named_class(cosines)[:, None], 1)[:, 0]
    assert np.allclose(highest, chances.max(1))


def test_of_equal_scores_the_first_class_wins_and_ties_are_counted() -> None:
    scores = np.array([[0.2, 0.5, 0.5], [0.3, 0.3, 0.3], [0.1, 0.0, 0.9]])
    assert named_class(scores).tolist() == [1, 0, 2]
    assert ties(scores) == 2


def test_the_way_is_chosen_without_the_judged_rows() -> None:
    """The second way is right on the judged rows and wrong on all others: whoever looks would take it."""
    labels, groups = np.tile(np.arange(3), 20), np.repeat(np.arange(6), 10)
    test = np.flatnonzero(groups >= 4)
    right, wrong = np.eye(3)[labels], np.eye(3)[(labels + 1) % 3]
    first, second = right.copy(), wrong.copy()
    first[test], second[test] = wrong[test], right[test]
    part = Part(np.flatnonzero(groups < 4), np.array([], np.int64), test)
    assert choose_way(np.stack([first, second]), labels, part) == 0
    answer = ask_zero_shot(study_of(labels, groups, (part,)), ways_of(first, second))
    value = {(row.question, row.measure, row.probe, row.encoder): row.estimate.value for row in answer.rows}
    assert value[ZERO_SHOT, "balanced accuracy", "zero-shot", "clip"] == 0
    assert value[EACH_WAY, "balanced accuracy", "wording / 1", "clip"] == 1
    assert any("wording / 0 (1 of 1)" in note for note in answer.notes)


def test_validation_rows_choose_where_there_are_some_and_equal_ways_go_to_the_first() -> None:
    labels = np.array([0, 1, 2, 0, 1, 2])
    right, wrong = np.eye(3)[labels], np.eye(3)[(labels + 1) % 3]
    first, second = right.copy(), wrong.copy()
    first[3:], second[3:] = wrong[3:], right[3:]
    train, val = np.arange(3), np.arange(3, 6)
    assert choose_way(np.stack([first, second]), labels, Part(train, val, np.array([]))) == 1
    assert choose_way(np.stack([first, second]), labels, Part(train, val[:0], np.array([]))) == 0
    assert choose_way(np.stack([second, second]), labels, Part(train, val, np.array([]))) == 0


def test_numbers_are_those_of_scikit_learn_and_each_stands_beside_its_baseline(
    many: tuple[np.ndarray, np.ndarray],
) -> None:
    labels, groups = many
    study, ways = study_of(labels, groups), ways_of(planted(labels, 0.8, 1))
    answer = ask_zero_shot(study, ways)
    rows = {row.measure: row for row in answer.rows if row.encoder == "clip" and row.question == ZERO_SHOT}
    said = ways.scores["clip"][0][0].argmax(1)
    assert rows["balanced accuracy"].estimate.value == pytest.approx(balanced_accuracy_score(labels, said))
    recalls = recall_score(labels, said, average=None)
    for name, recall in zip(NAMES, recalls, strict=True):
        row = rows[f"recall, {name}"]
        assert row.estimate.value == pytest.approx(recall)
        assert row.estimate.low < recall < row.estimate.high
        assert row.baseline.name == MAJORITY
    assert rows["accuracy"].estimate.value == pytest.approx((said == labels).mean())
    assert rows["accuracy"].baseline.value == pytest.approx(np.bincount(labels).max() / len(labels))
    assert {row.estimate.n for row in rows.values()} == {240}
    assert {row.estimate.groups for row in rows.values()} == {12}
    # Exchanged labels are chance; the random twin stands in the same table, and the difference is asked.
    assert abs(rows["balanced accuracy"].control.value - 1 / 3) < 0.12
    encoders = {row.encoder for row in answer.rows}
    assert {"clip", "random init", "clip, labels exchanged", "clip minus random init"} <= encoders
    assert any("is better than random init" in text for text in answer.conclusions)
    assert "above the 0.33 of always saying the most frequent class" in answer.conclusions[0]
    Report("t", answer.rows)  # accuracy stands beside balanced accuracy and the majority rate


def test_every_table_says_oracle(many: tuple[np.ndarray, np.ndarray]) -> None:
    study = study_of(*many)
    zero = ask_zero_shot(study, ways_of(planted(many[0], 0.8, 1), planted(many[0], 0.7, 2)))
    few = headed(ask_few_labels(study, NShotSettings(shots=(3, 500), draws=2)), "Few labels")
    assert few.unasked
    for question in [row.question for answer in (zero, few) for row in answer.rows] + [few.unasked[0].question]:
        assert question.startswith(HEAD)
        assert "oracle" in question


def test_a_class_that_was_never_judged_is_named_and_has_no_recall(many: tuple[np.ndarray, np.ndarray]) -> None:
    labels, groups = many
    answer = ask_zero_shot(study_of(labels % 2, groups), ways_of(planted(labels % 2, 0.8, 1)))
    assert "recall, vessel" not in {row.measure for row in answer.rows}
    assert any("no judged region is of vessel" in note for note in answer.notes)


def test_one_class_cannot_be_asked(many: tuple[np.ndarray, np.ndarray]) -> None:
    labels, groups = many
    with pytest.raises(CannotAsk, match="one class only"):
        ask_zero_shot(study_of(labels * 0, groups), ways_of(planted(labels, 0.8, 1)))
