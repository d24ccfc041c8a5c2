from __future__ import annotations

import json
from pathlib import Path

import pytest

import lamella
from lamella import cli
from lamella.formats.atomic import write_json
from lamella.models.contract import InputContract
from lamella.models.encoders import ViTEncoder, fresh_vit
from lamella.models.hub import model_card, save_pretrained
from lamella.models.pretraining_record import PretrainingRecord, pretraining_record
from lamella.models.vit import ViTSettings

CONTRACT = InputContract(None, 16, (0.5,) * 3, (0.2,) * 3, 8, 16)
RECORD = PretrainingRecord.of(["chest"], ["chest/p1"], ["chest/1.png"], ["0123456789abcdef"])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    encoder = ViTEncoder(fresh_vit(ViTSettings(patch_px=8, dim=16, depth=1, heads=2), seed=0), CONTRACT, "lejepa")
    facts = {"name": "run", "licence": "unknown", "data": "4 images", "limits": ["few"], "contract": CONTRACT}
    save_pretrained(encoder, tmp_path / "model", model_card(facts))
    RECORD.write(tmp_path / "model")
    return tmp_path / "model"


def results(folder: Path, model: Path, measure: str = "AUC") -> Path:
    row = {
        "question": "Which class?",
        "measure": measure,
        "probe": "linear",
        "encoder": "lejepa",
        "estimate": {"value": 0.75, "low": 0.7, "high": 0.8, "n": 200, "groups": 50, "note": ""},
        "baseline": {"name": "majority class", "value": 0.5},
    }
    tree = {"title": "Classes of chest", "rows": [row], "warnings": [], "command": "lamella evaluate model chest"}
    write_json(folder / "results.json", tree)
    write_json(folder / "run.json", {"inputs": {"encoder_fingerprint": lamella.from_pretrained(model).fingerprint}})
    return folder


def test_a_release_holds_the_model_its_record_and_its_numbers(model: Path, tmp_path: Path) -> None:
    found = results(tmp_path / "results", model)
    out = tmp_path / "release"
    settings = ["licence=apache-2.0", "name=chest encoder"]
    assert cli.main(["release", str(model), str(found), "-o", str(out), *settings]) == 0
    card = (out / "model" / "README.md").read_text()
    assert "license: apache-2.0" in card
    assert "# chest encoder" in card
    assert "| Which class? | AUC | linear | lejepa | 0.75 [0.70, 0.80] | 0.50 majority class | 200 | 50 |" in card
    assert "Repeat: `lamella evaluate model chest`" in card
    assert "Not measured" not in card
    assert card.count("## Limits") == 1
    released, own = lamella.from_pretrained(out / "model"), lamella.from_pretrained(model)
    assert released.fingerprint == own.fingerprint
    assert pretraining_record(out / "model") == RECORD


def test_results_of_another_model_or_without_the_measures_are_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = results(tmp_path / "results", model)
    arguments = ["release", str(model), str(found), "-o", str(tmp_path / "release")]
    assert cli.main([*arguments, "measures=[speed]"]) == 2
    assert "measures=[...]: AUC" in capsys.readouterr().err
    (found / "run.json").write_text(json.dumps({"inputs": {"encoder_fingerprint": "of another"}}))
    assert cli.main(arguments) == 2
    assert "results of another model (of another" in capsys.readouterr().err
    assert not (tmp_path / "release").exists()


def test_what_is_missing_is_named(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["release", str(model), "-o", str(tmp_path / "release")]) == 2
    assert "at least one results folder" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert cli.main(["release", str(model), str(tmp_path / "empty"), "-o", str(tmp_path / "release")]) == 2
    assert "it holds no results.json" in capsys.readouterr().err


def test_a_record_that_is_damaged_is_an_error(model: Path) -> None:
    (model / "pretraining.json").write_text('{"datasets": []}')
    with pytest.raises(lamella.errors.CheckpointError, match="Export the model again"):
        pretraining_record(model)
    (model / "pretraining.json").unlink()
    assert pretraining_record(model) is None
