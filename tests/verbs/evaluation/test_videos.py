from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from tests.verbs.tiny_space_time import QUICK, film_model, moving_films

from lamella.cli import main
from lamella.formats.tables import read_csv
from lamella.imaging.datasets.opening import open_collection
from lamella.models.pretraining_record import PretrainingRecord


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return film_model(tmp_path_factory.mktemp("models") / "tinyfilm", {"frame_stride": 1})


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return moving_films(tmp_path_factory.mktemp("films") / "squares")


def evaluate(model: Path, data: Path, out: Path, *overrides: str) -> int:
    return main(["evaluate", str(model), str(data), "-o", str(out), *QUICK, *overrides])


def test_labels_of_films_are_probed_beside_random_weights_and_statistics(model, films, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    assert evaluate(model, films, out) == 0
    assert "frame_stride=1 as in the model's pretraining" in capsys.readouterr().out
    read = json.loads((out / "results.json").read_text())
    assert {row["question"] for row in read["rows"]} == {"Classification", "Few labels"}
    encoders = {row["encoder"] for row in read["rows"]}
    assert {"tinyfilm", "random init", "voxel statistics", "tinyfilm minus random init"} <= encoders
    assert read["facts"]["videos"] == "12 (12 judged)"
    found = {(row["measure"], row["probe"], row["encoder"]): row["estimate"]["value"] for row in read["rows"]}
    assert found["AUC", "linear", "voxel statistics"] > 0.9  # where it is bright over time tells rest from motion
    assert len({row["item_id"] for row in read_csv(out / "predictions.csv")}) == 12
    assert evaluate(model, films, out) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_what_cannot_be_asked_is_an_error_with_its_reason(model, films, tmp_path, capsys) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    for path in films.rglob("*.gif"):
        (plain / path.name).write_bytes(path.read_bytes())
    assert evaluate(model, plain, tmp_path / "a") == 2
    assert "no film has a label" in capsys.readouterr().err
    assert evaluate(Path("colour-stats"), films, tmp_path / "b") == 2
    assert "no encoder of films" in capsys.readouterr().err
    assert evaluate(model, films, tmp_path / "c", "efficiency.supervised=true") == 2
    assert "trained on images only" in capsys.readouterr().err


def test_a_film_of_the_pretraining_is_refused(model, films, tmp_path, capsys) -> None:
    own = tmp_path / "own"
    own.mkdir()
    for path in model.iterdir():
        (own / path.name).write_bytes(path.read_bytes())
    collection = open_collection(films)
    PretrainingRecord.of([], [], [f"{collection.name}/{collection.items[1].item_id}"], []).write(own)
    assert evaluate(own, films, tmp_path / "out") == 2
    assert "1 of 12 judged items were in pretraining" in capsys.readouterr().err


def test_a_film_that_cannot_be_read_is_listed_and_the_others_are_judged(model, films, tmp_path) -> None:
    data = tmp_path / "squares"
    for path in films.rglob("*.gif"):
        (data / path.parent.name).mkdir(parents=True, exist_ok=True)
        (data / path.parent.name / path.name).write_bytes(path.read_bytes())
    bad = data / "rest" / "rest2.gif"
    bad.write_bytes(bad.read_bytes()[:400])
    assert evaluate(model, data, tmp_path / "out", "tasks=[linear]") == 1
    assert [Path(row["item_id"]).stem for row in read_csv(tmp_path / "out" / "failed.csv")] == ["rest2"]
    assert json.loads((tmp_path / "out" / "results.json").read_text())["facts"]["videos"].startswith("11 ")


def test_volumes_in_time_are_films_to_an_encoder_of_films(model, tmp_path) -> None:
    rows = ["case_id,image,label"]
    for number in range(8):
        values = np.random.default_rng(number).normal(100, 10, (20, 20, 3, 8)).astype(np.float32)
        values[:10] += 100 * (number % 2)
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / f"{number}.nii.gz")
        rows.append(f"c{number},{number}.nii.gz,{'ab'[number % 2]}")
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    out = tmp_path / "out"
    assert evaluate(model, tmp_path / "manifest.csv", out, "tasks=[linear]", "dataset.fourth=time", "clips=2") == 0
    assert json.loads((out / "results.json").read_text())["facts"]["volumes"] == "8 (8 judged)"
