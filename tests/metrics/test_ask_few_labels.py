from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from tests.metrics.image_studies import study

from lamella.metrics.ask_few_labels import (
    SUPERVISED,
    EfficiencySettings,
    NShotSettings,
    _from_which_share,
    ask_efficiency,
    ask_few_labels,
)
from lamella.metrics.bootstrap import Estimate
from lamella.metrics.study import CannotAsk


def test_more_shots_read_the_class_better_and_the_draws_are_in_the_files() -> None:
    answer = ask_few_labels(study(signal=1.0), NShotSettings(shots=(2, 20), draws=4))
    found = {row.probe: row.estimate.value for row in answer.rows if (row.measure, row.encoder) == ("AUC", "ours")}
    assert found["linear, 20 a class"] > found["linear, 2 a class"] > 0.5
    lines = [line for line in answer.tables["nshot"] if line["encoder"] == "random init"]
    assert [(line["shots"], line["labels"], line["draws"], line["replicates"]) for line in lines] == [
        (2, 4, 4, 5),
        (20, 40, 4, 5),
    ]
    each = [line["value"] for line in answer.tables["nshot_draws"] if line["encoder"] == "ours" and line["shots"] == 2]
    assert len(each) == 2 * 4  # two measures
    assert all(" pretraining " in text for text in answer.conclusions)


def test_an_n_larger_than_a_class_names_the_class() -> None:
    answer = ask_few_labels(study(), NShotSettings(shots=(2, 1000), draws=2))
    (skipped,) = answer.unasked
    assert skipped.question == "Few labels, n = 1000"
    assert "38 images of class 0, 22 images of class 1" in skipped.reason
    with pytest.raises(CannotAsk, match=r"n = 1000: the training part has .* images of class 1"):
        ask_few_labels(study(), NShotSettings(shots=(1000,), draws=2))


def test_efficiency_rises_with_the_share_and_stands_beside_training_from_scratch() -> None:
    base = study(signal=1.0)
    asked: list[tuple[int, int]] = []

    def supervised(of, parts, seed: int) -> np.ndarray:
        asked.append((len(parts[0].train), seed))
        return np.tile([0.5, 0.5], (len(of.test_rows), 1))

    settings = EfficiencySettings(shares=(0.1, 1.0), draws=2, supervised=True)
    answer = ask_efficiency(base, settings, supervised, "one step")
    lines = {(line["encoder"], line["share"]): line for line in answer.tables["efficiency"]}
    assert lines["ours", 1.0]["auc"] >= lines["ours", 0.1]["auc"] > 0.5
    assert lines[SUPERVISED, 1.0]["auc"] == 0.5
    assert lines["ours", 1.0]["draws"] == 1
    assert [seed for _, seed in asked] == [0, 1, 0]
    assert any("supervised from scratch: one step" in note for note in answer.notes)


def test_conclusions_of_efficiency_are_the_ends_and_from_which_share_on_it_helps() -> None:
    settings = EfficiencySettings(shares=(1.0, 0.1, 0.3, 0.6), draws=2)
    clear, *blind = (study(signal=signal) for signal in (3.0, 0.3))
    texts = ask_efficiency(clear, settings).conclusions
    assert len(texts) == 3
    assert "10% of the labels" in texts[0]
    assert "100% of the labels" in texts[1]
    assert texts[2] == "Data efficiency: ours is measurably better than random init from 10% of the labels on."
    last = ask_efficiency(blind[0], settings).conclusions[-1]
    assert last == "Data efficiency: ours is measurably better than random init on no share of the labels."


def test_a_share_between_where_pretraining_does_not_help_is_not_passed_over() -> None:
    def gap(low: float) -> Estimate:
        return Estimate(low + 0.1, low, low + 0.2, 60, 30)

    say = partial(_from_which_share, study())
    assert say({0.1: gap(0.1), 0.5: gap(-0.1), 1.0: gap(0.1)}) == [
        "Data efficiency: ours is measurably better than random init on 100% of the labels, and on 10%, with a share "
        "between where it is not."
    ]
    assert say({0.1: gap(0.1), 0.5: gap(-0.1), 1.0: gap(-0.1)}) == [
        "Data efficiency: ours is measurably better than random init on 10% of the labels, no longer on 100%."
    ]
    assert say({}) == []
