"""The truth of every fold, and that nothing of the test patient reaches what is fitted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.verbs.expression_stages.made_evaluation import made_stage, tables

from lamella.data.expression_targets import target_values
from lamella.verbs.expression_stages.evaluation_predictors import baseline_predictors
from lamella.verbs.expression_stages.evaluation_truth import Truths, panel_note


def test_each_slide_is_judged_once_by_a_fold_without_its_patient(tmp_path: Path) -> None:
    truths = Truths.of(made_stage(tmp_path))
    assert [(fold.test, slide.slide_id) for fold, slide in truths.each()] == [
        ("A", "a1"),
        ("B", "b1"),
        ("C", "c1"),
        ("C", "c2"),
    ]
    for fold, slide in truths.each():
        judged = truths.judged(fold, slide)
        assert slide.patient == fold.test
        assert fold.test not in {each.patient for each in truths.learned_from(fold)}
        counts = slide.counts.of_genes(truths.panels[fold.number]).counts.toarray()
        np.testing.assert_array_equal(judged.truth, counts)
        np.testing.assert_array_equal(judged.total, slide.counts.counts.sum(axis=1))
        learned = [each.counts.of_genes(judged.genes).counts.toarray() for each in truths.learned_from(fold)]
        np.testing.assert_allclose(judged.training_mean, np.concatenate(learned).mean(0), rtol=1e-6)


def test_the_test_patient_has_no_say(tmp_path: Path) -> None:
    """Mistakes of the source: genes chosen on test patients, selection on the test patient."""
    usual, other = tables(), tables()
    rng = np.random.default_rng(5)
    other["a1"] = ("A", rng.permutation(other["a1"][1], axis=1)[:, ::-1] * 7)
    found = []
    for name, written in (("usual", usual), ("other", other)):
        truths = Truths.of(made_stage(tmp_path / name, written))
        fold = truths.folds[0]
        assert fold.test == "A"
        # The images of other slides are the same; the test slide's own is drawn from its counts.
        learnt = [predictor.fit(fold)(truths.stage.study.by_id["b1"]) for predictor in baseline_predictors(truths)]
        found.append((truths.panels[0], truths.training_mean(fold), *learnt))
    assert found[0][0] == found[1][0]
    for one, two in zip(found[0][1:], found[1][1:], strict=True):
        np.testing.assert_array_equal(one, two)


def test_learning_from_training_slides_alone_leaves_the_inner_patient_out(tmp_path: Path) -> None:
    both = Truths.of(made_stage(tmp_path / "both"))
    alone = Truths.of(made_stage(tmp_path / "alone", evaluate={"baselines": {"learn_from": "train"}}))
    for truths, expected in ((both, [["c1", "c2", "b1"], ["a1", "c1", "c2"]]), (alone, [["c1", "c2"], ["a1"]])):
        for fold, names in zip(truths.folds, expected, strict=False):
            assert sorted(slide.slide_id for slide in truths.learned_from(fold)) == sorted(names)


@pytest.mark.parametrize("target", ["counts", "log1p", "log10_library", "log_cpm", "log_cpm_smoothed"])
def test_thinned_counts_go_the_way_of_the_target(tmp_path: Path, target: str) -> None:
    truths = Truths.of(made_stage(tmp_path, data={"target": target}))
    for fold, slide in truths.each():
        judged = truths.judged(fold, slide)
        assert judged.scale == ("counts" if target == "counts" else "log")
        found = truths.transformed(slide.slide_id, truths.raw_counts(fold, slide), judged.total)
        expected = target_values(slide.counts, judged.genes, target).toarray()  # type: ignore[arg-type]
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        np.testing.assert_allclose(judged.truth, expected, rtol=1e-5)


def test_panels_that_differ_are_told() -> None:
    assert panel_note([("A", "B"), ("B", "A")]) == "2 genes, the same in all folds"
    assert "3 genes in all, 1 of them in every fold" in panel_note([("A", "B"), ("B", "C")])
