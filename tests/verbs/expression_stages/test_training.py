"""Stage `train` over three patients with spots: the grid with one command, resumed, blind to the test patient."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.data.tiny_expression import write_spot_study

from lamella.config import Request, resolve
from lamella.data.expression import ExpressionSlide
from lamella.data.expression_study import open_expression
from lamella.data.lopo import folds
from lamella.engine.world import start_world
from lamella.errors import ConfigError, LamellaError, OutputConflictError
from lamella.formats.spatial_counts import SpatialCounts
from lamella.models.expression.folder import expression_facts, load_expression
from lamella.verbs.expression_stages.features import slide_views
from lamella.verbs.expression_stages.grid import cells_of
from lamella.verbs.expression_stages.settings import ExpressionConfig
from lamella.verbs.expression_stages.stage import Stage
from lamella.verbs.expression_stages.training import run_training
from lamella.verbs.expression_stages.training_inputs import TrainingInputs, training_facts
from lamella.verbs.expression_stages.training_part import train_part
from lamella.verbs.expression_stages.training_plan import planned, trained_models

GENES = 3


def written(folder: Path, patients: tuple[str, ...] = ("P1", "P2", "P3")) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    tables = {
        f"s{number}": (patient, rng.poisson(2.0, (16, GENES)).astype(np.int32))
        for number, patient in enumerate(patients)
    }
    return write_spot_study(folder, tables).manifest


def settings_of(manifest: Path, **changes: Any) -> dict[str, Any]:
    tissue = {"min_object_um2": 1, "max_hole_um2": 1, "closing_um": 4}
    tree: dict[str, Any] = {
        "data": {"slides": str(manifest), "bin_um": 50, "tissue": tissue},
        "panel": {"choose": "all"},
        "features": {"encoder": "colour", "views": [{"token_um": 16}], "device": "cpu"},
        "train": {
            "model": {"width": 4, "fusion": {"name": "none"}, "decoder": {"name": "linear"}, "dropout": 0},
            "budget": {"epochs": 2},
            "batches": {"batch_size": 8},
            "device": "cpu",
        },
    }
    for key, value in changes.items():
        block, last = tree, key.split("__")
        for part in last[:-1]:
            block = block.setdefault(part, {})
        block[last[-1]] = value
    return tree


def stage_of(out: Path, tree: dict[str, Any]) -> Stage:
    out.mkdir(parents=True, exist_ok=True)
    path = out.parent / f"{out.name}.yaml"
    path.write_text(json.dumps(tree))
    resolved = resolve(ExpressionConfig, run=path)
    study = open_expression(resolved.config.data, resolved.config.seed)
    return Stage(Request("expression"), resolved, study, out)


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Stage, Path]:
    """A study with a grid of two losses and a control, trained once for all tests that only look at it."""
    folder = tmp_path_factory.mktemp("grown")
    tree = settings_of(
        written(folder / "data"),
        features__cache=str(folder / "cache"),
        grid={"loss": ["zinb"], "controls": ["shuffled_labels"]},
    )
    stage = stage_of(folder / "out", tree)
    assert run_training(stage) == 0
    return stage, folder


def test_one_command_trains_cells_folds_and_seeds(grown: tuple[Stage, Path]) -> None:
    stage, folder = grown
    for cell in cells_of(stage.config):
        for fold in folds(stage.study):
            (model,) = trained_models(stage, cell, fold)
            assert model == folder / "out" / "models" / cell.name / fold.name / "seed0" / "model"
            facts = expression_facts(model)["facts"]
            assert facts["test_patient"] == fold.test
            assert fold.test not in facts["train_patients"]
            assert facts["inner_patient"] not in (*facts["train_patients"], fold.test)
            assert facts["shuffle_labels"] == (cell.name == "control=shuffled_labels")
            loaded = load_expression(model)
            assert loaded.loss["name"] == ("zinb" if cell.name == "loss=zinb" else "poisson")
            # Features of slides in other studies are made with the same spacing and the same encoder, or refused.
            assert [view["mpp"] for view in loaded.features["views"]] == [4.0]
            assert [len(each) for each in loaded.features["fingerprints"]] == [16]
            assert not (model.parent / "checkpoints").exists()
    with (folder / "out" / "models" / "models.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["cell"], row["fold"]) for row in rows] == [
        (cell, f"without_P{number}")
        for cell in ("base", "loss=zinb", "control=shuffled_labels")
        for number in (1, 2, 3)
    ]
    assert {row["chosen_by"] for row in rows} == {
        "stopped by patient P1",
        "stopped by patient P2",
        "stopped by patient P3",
    }


def test_a_fresh_study_trains_the_very_same_weights(grown: tuple[Stage, Path], tmp_path: Path) -> None:
    stage, folder = grown
    tree = settings_of(folder / "data" / "manifest.csv", features__cache=str(folder / "cache"))
    again = stage_of(tmp_path / "out", tree)
    run_training(again)
    (base, *_), fold = cells_of(stage.config), folds(stage.study)[1]
    one, two = (load_expression(trained_models(each, base, fold)[0]) for each in (stage, again))
    assert one.fingerprint == two.fingerprint


def test_what_is_done_is_left_alone_and_the_rest_made(
    grown: tuple[Stage, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, folder = grown
    shutil.copytree(folder / "out", tmp_path / "out")
    lost = tmp_path / "out" / "models" / "base" / "without_P2" / "seed0"
    kept = tmp_path / "out" / "models" / "base" / "without_P1" / "seed0" / "model" / "config.json"
    before, changed = expression_facts(lost / "model"), kept.stat().st_mtime_ns
    shutil.rmtree(lost)
    tree = settings_of(
        folder / "data" / "manifest.csv",
        features__cache=str(folder / "cache"),
        # The grid may grow and shrink; cells that are there stay.
        grid={"loss": ["zinb", "mse"], "only": ["base", "loss=mse"]},
    )
    capsys.readouterr()
    assert run_training(stage_of(tmp_path / "out", tree)) == 0
    assert "6 models: 2 cells x 3 folds x seeds, 2 of them done already" in capsys.readouterr().out
    assert expression_facts(lost / "model") == before
    assert kept.stat().st_mtime_ns == changed
    with (tmp_path / "out" / "models" / "models.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 12


def test_other_settings_are_refused_before_anything_is_trained(grown: tuple[Stage, Path], tmp_path: Path) -> None:
    _, folder = grown
    shutil.copytree(folder / "out", tmp_path / "out")
    tree = settings_of(folder / "data" / "manifest.csv", features__cache=str(folder / "cache"), train__model__width=8)
    with pytest.raises(OutputConflictError, match="width"):
        run_training(stage_of(tmp_path / "out", tree))


class _Opened(Exception):
    pass


def closed(slide: ExpressionSlide) -> ExpressionSlide:
    """The same slide, whose expression must not be read."""

    def load() -> SpatialCounts:
        raise _Opened(slide.slide_id)

    return replace(slide, load=load)


def test_the_test_patients_slides_are_never_opened(grown: tuple[Stage, Path], tmp_path: Path) -> None:
    # mistakes: selection on the test patient; genes chosen on test patients.
    _, folder = grown
    tree = settings_of(folder / "data" / "manifest.csv", features__cache=str(folder / "cache"))
    stage = stage_of(tmp_path / "out", tree)
    slides = tuple(closed(slide) if slide.patient == "P2" else replace(slide) for slide in stage.study.slides)
    stage = replace(stage, study=replace(stage.study, slides=slides))
    with start_world("cpu") as world:
        by_test = {part.fold.test: part for part in planned(stage)}
        assert train_part(stage, by_test["P2"], TrainingInputs(stage, 16), world, bar=False)
        with pytest.raises(_Opened, match="s1"):  # as inner or training patient it is
            train_part(stage, by_test["P1"], TrainingInputs(stage, 16), world, bar=False)


def test_a_fixed_budget_learns_from_all_other_patients(grown: tuple[Stage, Path], tmp_path: Path) -> None:
    _, folder = grown
    tree = settings_of(
        folder / "data" / "manifest.csv", features__cache=str(folder / "cache"), train__validation={"criterion": "none"}
    )
    stage = stage_of(tmp_path / "out", tree)
    run_training(stage)
    for fold in folds(stage.study):
        (model,) = trained_models(stage, cells_of(stage.config)[0], fold)
        facts = expression_facts(model)["facts"]
        assert facts["train_patients"] == sorted({"P1", "P2", "P3"} - {fold.test})
        assert facts["inner_slides"] == []
        assert facts["monitor"] is None
        assert "fixed budget" in facts["chosen_by"]


@pytest.mark.slow
def test_processes_train_the_same(grown: tuple[Stage, Path], tmp_path: Path) -> None:
    stage, folder = grown
    tree = settings_of(folder / "data" / "manifest.csv", features__cache=str(folder / "cache"), train__jobs=2)
    again = stage_of(tmp_path / "out", tree)
    run_training(again)
    for fold in folds(stage.study):
        one, two = (
            load_expression(trained_models(each, cells_of(stage.config)[0], fold)[0]) for each in (stage, again)
        )
        # One thread or two add up in another order.
        for mine, other in zip(one.parameters(), two.parameters(), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4)


# ---- what is learned from -------------------------------------------------------------------------------------------


def test_kept_views_are_the_rasters_own(grown: tuple[Stage, Path]) -> None:
    stage, _ = grown
    inputs, slide = TrainingInputs(stage, 16), stage.study.slides[0]
    samples = inputs.samples(slide, ("G0", "G1"))
    row, col = samples.centres_rc[3]
    own = slide_views(stage, slide).at(samples.grid, row, col, samples.bins)
    for _ in range(2):  # made, then kept
        kept = inputs.views(slide, stage.config.features, again=True).at(samples.grid, row, col, samples.bins)
        for mine, other in zip(kept[0], own[0], strict=True):
            assert mine.dtype == np.float32
            np.testing.assert_allclose(mine, other, rtol=1e-3, atol=1e-4)
        for mine, other in zip(kept[1], own[1], strict=True):
            np.testing.assert_array_equal(mine, other)
    kept[0][0][:] = 7  # a batch may turn and change what it was given
    again = inputs.views(slide, stage.config.features, again=True).at(samples.grid, row, col, samples.bins)
    assert not (again[0][0] == 7).any()


def test_training_facts_are_means_over_the_training_places(grown: tuple[Stage, Path]) -> None:
    stage, _ = grown
    inputs = TrainingInputs(stage, 16)
    samples = tuple(inputs.samples(slide, ("G0", "G1", "G2")) for slide in stage.study.slides[:2])
    truth = np.concatenate([one.judged_truth() for one in samples])
    facts = training_facts(samples, "rate", "counts")
    # A spot's mean count is shared out over the bins under its disk.
    np.testing.assert_allclose(facts.mean_G * samples[0].disk.sum(), truth.mean(0), rtol=1e-5)
    np.testing.assert_allclose(training_facts(samples, "value", "values").mean_G, truth.mean(0), rtol=1e-5)
    assert facts.places == 32
    assert facts.library == np.median(np.concatenate([one.judged_total() for one in samples]))
    assert facts.silent == ()


def test_a_gene_without_counts_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    tables = {f"s{number}": (f"P{number}", rng.poisson(2.0, (16, GENES))) for number in (1, 2)}
    for _, table in tables.values():
        table[:, 1] = 0
    manifest = write_spot_study(tmp_path, tables).manifest
    stage = stage_of(tmp_path / "out", settings_of(manifest, panel={"genes": ["G0", "G1"]}))
    assert run_training(stage) == 0
    assert "without a count on the training slides: G1" in capsys.readouterr().out
    (model,) = trained_models(stage, cells_of(stage.config)[0], folds(stage.study)[0])
    facts = expression_facts(model)["facts"]
    assert facts["genes_without_counts"] == ["G1"]
    # Two patients with a slide each: nothing is left to choose by, and it is said.
    assert "a fixed number of steps" in facts["chosen_by"]


# ---- bad input ------------------------------------------------------------------------------------------------------


def test_losses_that_do_not_fit_are_all_told_at_once(grown: tuple[Stage, Path], tmp_path: Path) -> None:
    _, folder = grown
    tree = settings_of(
        folder / "data" / "manifest.csv",
        data__target="log_cpm",
        train__loss={"name": "mse"},
        grid={"loss": ["zinb", "multi_resolution"]},
    )
    with pytest.raises(ConfigError) as caught:
        run_training(stage_of(tmp_path / "out", tree))
    assert "cell loss=zinb" in str(caught.value)
    assert "cell loss=multi_resolution" in str(caught.value)
    assert not (tmp_path / "out" / "models").exists()


def test_one_patient_is_refused(tmp_path: Path) -> None:
    stage = stage_of(tmp_path / "out", settings_of(written(tmp_path / "data", ("P1", "P1"))))
    with pytest.raises(LamellaError, match="of one patient"):
        run_training(stage)


@pytest.mark.parametrize("value", [0.5, -1.0])
def test_fractional_and_negative_counts_are_refused(tmp_path: Path, value: float) -> None:
    rng = np.random.default_rng(0)
    tables = {f"s{number}": (f"P{number}", rng.poisson(2.0, (16, GENES)).astype(np.float32)) for number in (1, 2)}
    tables["s2"][1][3, 1] = value
    with pytest.raises(LamellaError, match=r"fraction|negative|below 0|whole"):
        run_training(stage_of(tmp_path / "out", settings_of(write_spot_study(tmp_path, tables).manifest)))


def test_a_gene_that_a_slide_lacks_is_named(grown: tuple[Stage, Path], tmp_path: Path) -> None:
    _, folder = grown
    tree = settings_of(folder / "data" / "manifest.csv", panel={"genes": ["G0", "NOT_THERE"]})
    with pytest.raises(LamellaError, match="NOT_THERE"):
        run_training(stage_of(tmp_path / "out", tree))


def test_names_of_patients_are_made_names_of_folders(tmp_path: Path) -> None:
    stage = stage_of(tmp_path / "out", settings_of(written(tmp_path / "data", ("P/1", "P 1x", "P2"))))
    folders = {part.folder.relative_to(tmp_path / "out" / "models" / "base").parts[0] for part in planned(stage)}
    assert len(folders) == 3
    assert "without_P2" in folders
    assert all(part.folder.parent.parent.name == "base" for part in planned(stage))


def test_an_encoder_that_is_not_to_be_had_ends_the_run_before_it_begins(
    grown: tuple[Stage, Path], tmp_path: Path
) -> None:
    _, folder = grown
    tree = settings_of(folder / "data" / "manifest.csv", grid={"controls": ["random_encoder"]})
    with pytest.raises(LamellaError, match="no weights to draw"):
        run_training(stage_of(tmp_path / "out", tree))
    assert not (tmp_path / "out" / "models").exists()
