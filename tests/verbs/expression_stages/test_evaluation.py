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
from lamella.data.splits import LeakageError
from lamella.errors import LamellaError
from lamella.verbs.expression_stages import evaluation, evaluation_models, evaluation_predictors
from lamella.verbs.expression_stages.evaluation import run_evaluation
from lamella.verbs.expression_stages.evaluation_models import Trained, trained_cells
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


def told(fold: Fold, fingerprint: str = "0" * 16) -> dict[str, Any]:
    """What the config.json of a model says."""
    facts = {"test_patient": fold.test, "train_patients": list(fold.train), "inner_patient": fold.inner}
    facts |= {"train_slides": ["t"], "chosen_by": f"stopped by patient {fold.inner}", "parameters": 1234}
    return {"fingerprint": fingerprint, "facts": facts}


def trained(folder: Path, names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Models of cells: name of a cell -> seeds, `without_B` in a name leaves the fold out."""

    def models(_: Stage, cell: Any, fold: Fold) -> list[Path]:
        seeds = [seed for seed in names.get(cell.name, []) if fold.name not in seed]
        return [folder / cell.name / fold.name / seed.split()[0] / "model" for seed in seeds]

    def facts(path: Path) -> dict[str, Any]:
        test = path.parents[1].name.removeprefix("without_")
        others = sorted({"A", "B", "C"} - {test})
        return told(Fold(0, test, others[0], (others[1],)), f"{path.parent.name} of {path.parents[2].name}")

    monkeypatch.setattr(evaluation_models, "trained_models", models)
    monkeypatch.setattr(evaluation_models, "expression_facts", facts)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """A study with a model of one cell."""
    monkeypatch.setattr(evaluation, "cell_predictors", noisy_truth)
    trained(tmp_path, {"base": ["seed0"]}, monkeypatch)
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
    table = json.loads((results / "results.json").read_text())
    assert list(table["predictors"].items()) == [
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
    assert "no claim of significance" in (results / "results.html").read_text()
    assert "without_C: base learned from t; stopped by patient A" in text
    assert "alpha" in text, "notes of kept predictors are kept"
    assert "neighbours of" in text
    pictures = sorted(path.name for path in (results / "pictures").iterdir())
    assert pictures == ["base_a1.png", "base_b1.png"]
    assert (results / "per_gene.csv").stat().st_size > 0
    # Again: nothing is done.
    capsys.readouterr()
    assert run_evaluation(stage) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_models_that_were_added_are_scored_and_the_others_not_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def predictors(truths: Truths, one: Trained, _: object) -> Iterator[Predictor]:
        (found,) = noisy_truth(truths)
        yield Predictor(one.cell.name, "model", found.fit, evaluation_models.asked_for(truths.stage, [one])["seeds"])

    def scored(slides: Any, _: object) -> Any:
        asked.append(slides[0].slide_id)
        return SimpleNamespace(slides=())

    monkeypatch.setattr(evaluation, "cell_predictors", predictors)
    for name in ("baseline_predictors", "control_predictors"):
        monkeypatch.setattr(evaluation, name, lambda _: [])
    monkeypatch.setattr(evaluation, "score", scored)
    monkeypatch.setattr(evaluation, "write_expression_report", lambda folder, *_, **__: [_written(folder)])
    monkeypatch.setattr(evaluation, "noise_ceilings", lambda *_: SimpleNamespace(slides=()))
    grid = {"loss": ["mse"]}
    pictures = {"evaluate": {"pictures": {"number": 0}}}
    trained(tmp_path, {"base": ["seed0"]}, monkeypatch)
    assert run_evaluation(made_stage(tmp_path, grid=grid, **pictures)) == 1
    assert len(asked) == 4
    trained(tmp_path, {"base": ["seed0"], "loss=mse": ["seed0"]}, monkeypatch)
    assert run_evaluation(made_stage(tmp_path, grid=grid, **pictures)) == 0
    assert len(asked) == 8


def _written(folder: Path) -> Path:
    (folder / "results.json").write_text("{}")
    return folder / "results.json"


def _found(stage: Stage) -> tuple[list[Trained], list[str]]:
    return trained_cells(stage, Truths.of(stage))


def test_cells_without_models_are_left_out_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = made_stage(tmp_path, grid={"loss": ["zinb", "mse"]})
    trained(tmp_path, {"base": ["seed0"], "loss=zinb": ["seed0 without_B"], "loss=mse": ["seed0"]}, monkeypatch)
    found, missing = _found(stage)
    assert [one.cell.name for one in found] == ["base", "loss=mse"]
    assert missing == ["loss=zinb is not trained in without_B and has no row"]
    trained(tmp_path, {}, monkeypatch)
    with pytest.raises(LamellaError, match="no cell is trained in every fold"):
        _found(stage)


def test_only_seeds_of_every_fold_are_judged_and_what_is_missing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = made_stage(tmp_path, train={"seeds": [0, 1, 2]})
    trained(tmp_path, {"base": ["seed0 without_A", "seed1", "seed2 without_C"]}, monkeypatch)
    (one,), missing = _found(stage)
    assert {tuple(folder.parent.name for folder in folders) for folders in one.folders.values()} == {("seed1",)}
    assert missing == ["base: 1 of its 3 seeds are trained in every fold"]


def test_only_the_cells_that_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained(tmp_path, {"base": ["seed0"], "loss=mse": ["seed0"]}, monkeypatch)
    asked = made_stage(tmp_path / "one", grid={"loss": ["zinb", "mse"]}, evaluate={"cells": ["loss=mse", "base"]})
    assert [one.cell.name for one in _found(asked)[0]] == ["loss=mse", "base"]
    wrong = made_stage(tmp_path / "two", evaluate={"cells": ["loss=nb"]})
    with pytest.raises(LamellaError, match=r"there is no loss=nb.*Cells: base"):
        _found(wrong)


@pytest.mark.parametrize("role", ["train_patients", "inner_patient", "test_patient"])
def test_a_model_that_has_seen_the_judged_patient_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    """Mistake of the source: selection on the test patient."""
    stage = made_stage(tmp_path)
    trained(tmp_path, {"base": ["seed0"]}, monkeypatch)
    right = evaluation_models.expression_facts

    def wrong(path: Path) -> dict[str, Any]:
        found = right(path)
        if path.parents[1].name == "without_B":
            found["facts"] |= {role: {"train_patients": ["A", "B"], "inner_patient": "B", "test_patient": "A"}[role]}
        return found

    monkeypatch.setattr(evaluation_models, "expression_facts", wrong)
    with pytest.raises(LeakageError, match="would be judged on B"):
        _found(stage)


# ---- networks -------------------------------------------------------------------------------------------------------


def networks(monkeypatch: pytest.MonkeyPatch, genes: tuple[str, ...]) -> None:
    """Models that say the number of their seed everywhere."""

    def load(folder: Path) -> Any:
        return SimpleNamespace(genes=genes, name=folder.name, value=float(folder.parent.name[-1]))

    def expected(model: Any, samples: Any, views: object, device: torch.device) -> np.ndarray:
        return np.full((samples.judged, len(genes)), model.value, np.float32)

    monkeypatch.setattr(evaluation_predictors, "load_expression", load)
    monkeypatch.setattr(evaluation_predictors, "expected_at", expected)
    monkeypatch.setattr(evaluation_predictors, "slide_views", lambda *_: None)


def of_seeds(truths: Truths, *seeds: str) -> Trained:
    return Trained(
        cells_of(truths.stage.config)[0],
        {fold.name: [Path(fold.name) / seed / "model" for seed in seeds] for fold in truths.folds},
        {fold.name: [told(fold, seed) for seed in seeds] for fold in truths.folds},
    )


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
    found = list(cell_predictors(truths, of_seeds(truths, "seed1", "seed4"), CPU))
    assert len({each.digest for each in found}) == len(rows)
    said = {
        each.name: {float(value) for slide in each.judged(truths) for value in slide.predicted.ravel()}
        for each in found
    }
    assert said == {name: {value} for name, value in rows.items()}


def test_models_of_other_genes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truths = Truths.of(made_stage(tmp_path, panel={"genes": ["G1", "G3"]}))
    networks(monkeypatch, ("G3", "G1"))
    (predictor,) = cell_predictors(truths, of_seeds(truths, "seed1"), CPU)
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
