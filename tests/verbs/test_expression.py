"""`lamella expression`: all stages with one command on a tiny generated cohort, and what a second run does."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from tests.tiny_expression import tiny_expression, write_study

from lamella.cli import main
from lamella.models.expression.folder import load_expression

STAGES = ("checked", "features", "models", "results", "predictions")
# The study's own settings, and a control that is trained anew.
GRID = {"grid": {"controls": ["shuffled_labels"]}}
CELLS = ("base", "control=shuffled_labels")
FOLDS = ("without_P1", "without_P2", "without_P3")


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    return tiny_expression(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def done(manifest, tmp_path_factory) -> Path:
    """A study's folder after all stages."""
    folder = tmp_path_factory.mktemp("study")
    study = write_study(folder / "study.yaml", manifest, GRID)
    assert main(["expression", "run", str(study), "-o", str(folder / "out")]) == 0
    return folder / "out"


@pytest.fixture
def copy(done, tmp_path) -> tuple[str, Path]:
    """The study and a copy of its folder, to be changed."""
    shutil.copytree(done, tmp_path / "out")
    return str(done.parent / "study.yaml"), tmp_path / "out"


def test_one_command_makes_the_outputs_of_all_stages(done) -> None:
    for stage in STAGES:
        assert list((done / stage).iterdir()), stage
    assert {row["slide_id"] for row in rows_of(done / "checked" / "slides.csv")} == {"p1s1", "p2s1", "p3s1"}
    for cell in CELLS:
        assert {path.name for path in (done / "models" / cell).iterdir() if path.is_dir()} == set(FOLDS)
    assert {path.name for path in (done / "results").iterdir()} >= {"results.md", "results.json", "per_gene.csv"}


def test_every_row_has_its_number_interval_baseline_and_control(done) -> None:
    found = json.loads((done / "results" / "results.json").read_text(encoding="utf-8"))
    assert {row["predictor"] for row in found["rows"]} >= {*CELLS, "ridge on colour", "total count", "darkness"}
    assert {row["resolution_um"] for row in found["rows"]} == {4.0, 16.0}
    for row in found["rows"]:
        assert {"n", "low", "high", "value", "baseline", "baseline_note", "control"} <= set(row)
        assert row["n"] > 0
    models = [row for row in found["rows"] if row["kind"] == "model" and row["measure"] == "pearson"]
    assert models
    assert all(row["control"]["shuffles"] >= 20 for row in models)
    assert "no claim of significance" in " ".join(found["warnings"])


def test_the_ceiling_of_the_generator_stands_in_the_table(done) -> None:
    found = json.loads((done / "results" / "results.json").read_text(encoding="utf-8"))
    kinds = {name: kind for name, kind in found["predictors"].items() if name.startswith("true rate")}
    assert list(kinds.values()) == ["ceiling"]


def test_a_model_says_whom_it_has_seen_and_what_stopped_it(done) -> None:
    for fold in FOLDS:
        model = load_expression(str(done / "models" / "base" / fold / "seed0" / "model"))
        judged = fold.removeprefix("without_")
        assert model.facts["test_patient"] == judged
        seen = [*model.facts["train_slides"], *model.facts["inner_slides"]]
        assert len(seen) == 2
        assert not any(name.startswith(judged.lower()) for name in seen)


def test_slides_of_the_study_are_predicted_by_models_that_have_not_seen_the_patient(done) -> None:
    for number in (1, 2, 3):
        facts = json.loads((done / "predictions" / f"p{number}s1" / "prediction.json").read_text(encoding="utf-8"))
        assert f"P{number}" in facts["unseen"]
        with h5py.File(done / "predictions" / f"p{number}s1" / "expression.h5ad") as file:
            values, spatial = file["layers/predicted"][:], file["obsm/spatial"][:]
            assert len(values) == len(spatial) == facts["bins_on_tissue"] > 0
            # Expected counts, never logarithms of rates.
            assert np.isfinite(values).all()
            assert values.min() >= 0


def test_a_second_run_does_nothing(done, capsys) -> None:
    before = times(done)
    assert main(["expression", "run", str(done.parent / "study.yaml"), "-o", str(done)]) == 0
    assert times(done) == before
    assert "Traceback" not in capsys.readouterr().err


def test_a_killed_ablation_goes_on_where_it_stopped(copy) -> None:
    study, out = copy
    shutil.rmtree(out / "models" / "control=shuffled_labels" / "without_P2")
    before = times(out / "models")
    assert main(["expression", "train", study, "-o", str(out)]) == 0
    assert (out / "models" / "control=shuffled_labels" / "without_P2" / "seed0" / "model").is_dir()
    weights = {path: time for path, time in before.items() if path.suffix == ".safetensors"}
    assert weights
    assert {path: path.stat().st_mtime_ns for path in weights} == weights


def test_another_setting_is_refused_and_says_which(copy, capsys) -> None:
    study, out = copy
    before = times(out)
    assert main(["expression", "train", study, "-o", str(out), "train.model.width=16"]) == 2
    assert "train.model.width" in capsys.readouterr().err
    assert times(out) == before


def test_redo_forgets_a_stage_and_what_is_made_from_it(copy) -> None:
    study, out = copy
    assert main(["expression", "features", study, "-o", str(out), "--redo", "train"]) == 0
    assert not list((out / "models").glob("*/*/seed0/model"))
    assert not list((out / "predictions").glob("*/prediction.json"))
    assert list((out / "features").glob("*/*/features.npy"))


def test_a_dry_run_writes_nothing(manifest, tmp_path, capsys) -> None:
    study = write_study(tmp_path / "study.yaml", manifest)
    assert main(["expression", "run", str(study), "-o", str(tmp_path / "out"), "--dry-run"]) == 0
    assert "3 slides of 3 patients" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
