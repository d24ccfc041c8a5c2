from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.preprocessing import StandardScaler
from tests.metrics.image_studies import permuted, study

from lamella.metrics.ask_classes import ask_classes
from lamella.metrics.image_study import ImageAnswer, Part
from lamella.metrics.report import Report, Row
from lamella.metrics.study import CannotAsk


def row(answer: ImageAnswer, measure: str, encoder: str, probe: str = "linear") -> Row:
    (found,) = [r for r in answer.rows if (r.measure, r.encoder, r.probe) == (measure, encoder, probe)]
    return found


def value(answer: ImageAnswer, measure: str, encoder: str, probe: str = "linear") -> float:
    return row(answer, measure, encoder, probe).estimate.value


def test_what_the_encoder_sees_is_found_and_the_rest_sits_where_it_must() -> None:
    answer = ask_classes(study())
    assert value(answer, "AUC", "ours") > 0.9
    assert value(answer, "AUC", "ours", "kNN, k=5") > 0.85
    assert value(answer, "AUC", "pixel statistics") == pytest.approx(0.5, abs=0.15)
    assert value(answer, "AUC", "ours, labels exchanged") == pytest.approx(0.5, abs=0.2)
    assert row(answer, "AUC", "ours").baseline.value == 0.5
    assert row(answer, "accuracy", "ours").baseline.name == "majority class"
    helped, beaten = answer.conclusions
    assert "pretraining helped: ours is better than random init" in helped
    assert "better than 5 of 5 random initialisations" in helped
    assert "ours is better than pixel statistics" in beaten
    Report("t", answer.rows)  # no accuracy alone


def test_the_numbers_are_scikit_learns() -> None:
    base = study()
    base = replace(base, probes=base.probes.model_copy(update={"c_grid": (0.1,)}))
    answer = ask_classes(base)
    (part,) = base.parts
    scale = StandardScaler().fit(base.features["ours"][0][part.train])
    probe = LogisticRegression(C=0.1, class_weight="balanced", tol=1e-6)
    probe.fit(scale.transform(base.features["ours"][0][part.train]), base.labels[part.train])
    test = scale.transform(base.features["ours"][0][part.test])
    truth = base.labels[part.test]
    assert value(answer, "AUC", "ours") == pytest.approx(
        roc_auc_score(truth, probe.predict_proba(test)[:, 1]), abs=1e-3
    )
    found = balanced_accuracy_score(truth, probe.predict(test))
    assert value(answer, "balanced accuracy", "ours") == pytest.approx(found, abs=1e-3)


def test_several_classes_give_a_macro_auc_and_folds_judge_every_item_once() -> None:
    answer = ask_classes(study(classes=3, split=False))
    found = row(answer, "macro AUC (one against the rest)", "ours")
    assert found.estimate.value > 0.8
    assert found.estimate.n == 180
    assert found.estimate.groups == 90
    predictions = [
        line for line in answer.tables["predictions"] if (line["encoder"], line["probe"]) == ("ours", "linear")
    ]
    assert len({line["item_id"] for line in predictions}) == len(predictions) == 180


def test_the_order_of_the_items_changes_no_value() -> None:
    one, other = ask_classes(study()), ask_classes(permuted(study()))
    for encoder in ("ours", "random init", "pixel statistics"):
        assert value(one, "AUC", encoder) == pytest.approx(value(other, "AUC", encoder), abs=2e-3)


def test_a_network_that_is_one_more_random_one_is_not_said_to_have_been_helped() -> None:
    claimed = 0
    for seed in range(5):
        base = study(seed=seed, signal=0.3)
        (sentence, _) = ask_classes(base, ("linear",)).conclusions
        claimed += "pretraining helped" in sentence
    assert claimed <= 1


def test_regularisation_is_chosen_on_validation_and_test_labels_change_nothing_but_the_judgement() -> None:
    base = study()
    (part,) = base.parts
    flipped = base.labels.copy()
    flipped[part.test] = 1 - flipped[part.test]
    one, other = ask_classes(base, ("linear",)), ask_classes(replace(base, labels=flipped), ("linear",))
    assert value(one, "AUC", "ours") == pytest.approx(1 - value(other, "AUC", "ours"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"labelled": np.zeros(180, bool)}, "no item has a label"),
        ({"labels": np.zeros(180, np.int64)}, "all labelled images are of one class"),
    ],
)
def test_what_cannot_be_asked_says_why(change, reason) -> None:
    with pytest.raises(CannotAsk, match=reason):
        ask_classes(replace(study(), **change))


def test_one_class_in_training_is_named() -> None:
    base = study()
    (part,) = base.parts
    only = Part(part.train[base.labels[part.train] == 1], part.val, part.test)
    with pytest.raises(CannotAsk, match=r"training images of a part are of one class only \(class 1\)"):
        ask_classes(replace(base, parts=(only,)))


def test_pooling_by_a_trained_query_and_by_layers_stand_beside_the_mean() -> None:
    base = study()
    tokens = {
        "ours": (
            np.stack([base.features["ours"][0], np.zeros_like(base.features["ours"][0])], axis=1).astype(np.float16),
        )
    }
    layered = replace(
        base, tokens=tokens, features={"ours": base.features["ours"]}, last_layers={"ours": base.features["ours"]}
    )
    answer = ask_classes(replace(layered, twin=None), ("linear",))
    assert value(answer, "AUC", "ours", "attentive pooling") > 0.85
    assert value(answer, "AUC", "ours", "linear, last 4 layers") == value(answer, "AUC", "ours")
