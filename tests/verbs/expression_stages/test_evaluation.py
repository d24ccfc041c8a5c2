"""The stage `evaluate`: every row in one table, judged on the same places, resumed where it was cut short."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.verbs.expression_stages.made_evaluation import made_stage

from lamella.data.expression import ExpressionSlide, Fold
from lamella.errors import LamellaError, OutputConflictError
from lamella.verbs.expression_stages import evaluation, evaluation_predictors
from lamella.verbs.expression_stages.evaluation import Trained, run_evaluation, trained_cells
from lamella.verbs.expression_stages.evaluation_pictures import chosen_genes, chosen_slides
from lamella.verbs.expression_stages.evaluation_predictors import Predictor, cell_predictors
from lamella.verbs.expression_stages.evaluation_settings import PictureSettings
from lamella.verbs.expression_stages.evaluation_truth import Truths
from lamella.verbs.expression_stages.grid import cells_of
from lamella.verbs.expression_stages.stage import Stage

CPU = torch.device("cpu")


def noisy_truth(truths: Truths, *_: object) -> Iterator[Predictor]:
    """In place of a network."""

    def fit(fold: Fold) -> Any:
        return lambda slide: np.sqrt(truths.judged(fold, slide).truth + 1)

    yield Predictor("base", "model", fit)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """A study with a model of one cell."""
    monkeypatch.setattr(evaluation, "cell_predictors", noisy_truth)
    monkeypatch.setattr(evaluation, "trained_models", lambda *_: [tmp_path / "model"])
    monkeypatch.setattr(evaluation, "expression_facts", lambda _: {"fingerprint": "0" * 16})
    return made_stage(tmp_path, evaluate={"pictures": {"number": 3, "slides": 2}})


def test_one_table_holds_all_even_after_a_run_that_was_cut_short(
    stage: Stage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "write_expression_report", cut)
        with pytest.raises(KeyboardInterrupt):
            run_evaluation(stage)
    monkeypatch.setattr(evaluation, "score", None)  # all that was scored is kept
    assert run_evaluation(stage) == 0
    results = stage.folder("results")
    told = json.loads((results / "results.json").read_text())
    assert list(told["predictors"].items()) == [
        ("base", "model"),
        ("ridge on colour", "baseline"),
        ("retrieval (kNN) on colour", "baseline"),
        ("training mean map", "control"),
        ("total count", "control"),
        ("darkness", "control"),
        ("blurred truth", "ceiling"),
        ("neighbours' truth", "ceiling"),
        ("count-thinning ceiling", "ceiling"),
    ]
    text = (results / "results.md").read_text()
    assert "no claim of significance" in text
    assert "without_C: judged c1, c2; networks learned from B, stopped by patient A" in text
    assert "alpha" in text, "notes of kept predictors are kept"
    assert "neighbours of" in text
    pictures = sorted(path.name for path in (results / "pictures").iterdir())
    assert pictures == ["base_a1.png", "base_b1.png"]
    assert (results / "per_gene.csv").stat().st_size > 0
    # Again: nothing is done.
    capsys.readouterr()
    assert run_evaluation(stage) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_results_of_other_models_are_refused(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.claim("results", evaluation._BLOCKS, evaluation._inputs(stage, _trained(stage)), ignore=evaluation._IGNORED)
    monkeypatch.setattr(evaluation, "expression_facts", lambda _: {"fingerprint": "1" * 16})
    with pytest.raises(OutputConflictError, match=r"models\.base"):
        run_evaluation(stage)


def _trained(stage: Stage) -> list[Trained]:
    return trained_cells(stage, Truths.of(stage))[0]


def test_cells_without_models_are_left_out_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = made_stage(tmp_path, grid={"loss": ["zinb", "mse"]})

    def models(_: Stage, cell: Any, fold: Fold) -> list[Path]:
        return [] if cell.name == "loss=zinb" and fold.test == "B" else [tmp_path]

    monkeypatch.setattr(evaluation, "trained_models", models)
    found, missing = trained_cells(stage, Truths.of(stage))
    assert [one.cell.name for one in found] == ["base", "loss=mse"]
    assert missing == ["loss=zinb is not trained in without_B and has no row"]
    monkeypatch.setattr(evaluation, "trained_models", lambda *_: [])
    with pytest.raises(LamellaError, match="no cell is trained in every fold"):
        trained_cells(stage, Truths.of(stage))


def test_only_the_cells_that_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "trained_models", lambda *_: [tmp_path])
    asked = made_stage(tmp_path / "one", grid={"loss": ["zinb", "mse"]}, evaluate={"cells": ["loss=mse", "base"]})
    assert [one.cell.name for one in _trained(asked)] == ["loss=mse", "base"]
    wrong = made_stage(tmp_path / "two", evaluate={"cells": ["loss=nb"]})
    with pytest.raises(LamellaError, match=r"there is no loss=nb.*Cells: base"):
        _trained(wrong)


# ---- networks -------------------------------------------------------------------------------------------------------


def networks(monkeypatch: pytest.MonkeyPatch, genes: tuple[str, ...]) -> None:
    """Models that say the number of their seed everywhere."""

    def load(folder: Path) -> Any:
        return SimpleNamespace(genes=genes, name=folder.name, value=float(folder.name[-1]))

    def expected(model: Any, samples: Any, views: object, device: torch.device) -> np.ndarray:
        return np.full((samples.judged, len(genes)), model.value, np.float32)

    monkeypatch.setattr(evaluation_predictors, "load_expression", load)
    monkeypatch.setattr(evaluation_predictors, "expected_at", expected)
    monkeypatch.setattr(evaluation_predictors, "slide_views", lambda *_: None)


@pytest.mark.parametrize(
    ("seeds", "rows"),
    [
        ("together", {"base (mean of 2 seeds)": 2.5}),
        ("each", {"base, seed1": 1.0, "base, seed4": 4.0}),
        ("both", {"base (mean of 2 seeds)": 2.5, "base, seed1": 1.0, "base, seed4": 4.0}),
    ],
)
def test_seeds_are_averaged_as_expected_counts_or_stand_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seeds: str, rows: dict[str, float]
) -> None:
    truths = Truths.of(made_stage(tmp_path, panel={"genes": ["G1", "G3"]}, evaluate={"seeds": seeds}))
    networks(monkeypatch, ("G1", "G3"))
    folders = {fold.name: [tmp_path / "seed1", tmp_path / "seed4"] for fold in truths.folds}
    found = list(cell_predictors(truths, cells_of(truths.stage.config)[0], folders, CPU))
    said = {
        each.name: {float(value) for slide in each.judged(truths) for value in slide.predicted.ravel()}
        for each in found
    }
    assert said == {name: {value} for name, value in rows.items()}


def test_models_of_other_genes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truths = Truths.of(made_stage(tmp_path, panel={"genes": ["G1", "G3"]}))
    networks(monkeypatch, ("G3", "G1"))
    (predictor,) = cell_predictors(
        truths, cells_of(truths.stage.config)[0], {fold.name: [tmp_path / "seed1"] for fold in truths.folds}, CPU
    )
    with pytest.raises(LamellaError, match="in another order"):
        next(predictor.judged(truths))


def test_predictions_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    truths = Truths.of(made_stage(tmp_path))

    def broken(fold: Fold) -> Any:
        def predict(slide: ExpressionSlide) -> np.ndarray:
            found = np.array(truths.judged(fold, slide).truth)
            found[3, 1] = np.inf
            return found

        return predict

    with pytest.raises(LamellaError, match="no number for 1 of 16 places"):
        list(Predictor("broken", "model", broken).judged(truths))


# ---- pictures -------------------------------------------------------------------------------------------------------


def test_pictures_are_of_one_slide_of_each_patient_first(tmp_path: Path) -> None:
    truths = Truths.of(made_stage(tmp_path))
    assert [slide.slide_id for _, slide in chosen_slides(truths, 9)] == ["a1", "b1", "c1", "c2"]
    assert [slide.slide_id for _, slide in chosen_slides(truths, 2)] == ["a1", "b1"]


def test_pictures_are_of_the_best_the_median_and_the_worst_genes() -> None:
    values = np.array([0.1, np.nan, 0.5, -0.2, 0.3])
    scores: Any = SimpleNamespace(
        values={"pearson": values},
        genes=tuple("ABCDE"),
        reasons=("", "all zero", "", "", ""),
        n=10,
        zero_share=np.array([0.5, 1, 0.5, 0.5, 0.5]),
    )
    picked = chosen_genes(scores, PictureSettings(number=3))
    assert [(gene, said.split(";")[0]) for gene, said in picked] == [
        ("C", "best, rank 1 of 4"),
        ("E", "median, rank 2 of 4"),
        ("D", "worst, rank 4 of 4"),
    ]
    asked = dict(chosen_genes(scores, PictureSettings(genes=("B", "Z"))))
    assert list(asked) == ["B"]
    assert "no Pearson (all zero)" in asked["B"]
