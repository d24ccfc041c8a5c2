from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lamella.cli import main
from lamella.config import Request
from lamella.errors import LamellaError, OutputConflictError
from lamella.formats.tables import read_csv, write_csv
from lamella.models.encoders import InputContract, ViTEncoder, fresh_vit
from lamella.models.hub import save_pretrained
from lamella.models.vit import ViTSettings
from lamella.verbs.evaluation import slides as evaluate_slides

QUICK = (
    "probes.c_grid=[0.1]", "probes.control_draws=1", "probes.knn_k=5", "robustness.correlations=[1.0]",
    "robustness.repeats=1", "max_tiles_per_slide=20", "labels.classes={fine: 1, coarse: 2}",
)  # fmt: skip


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, texture):
    monkeypatch.setattr(evaluate_slides, "load_encoder", lambda spec: texture)

    def run(index: Path, out: Path | None, *overrides: str, model: Path = Path("model"), dry_run: bool = False) -> int:
        return evaluate_slides.run(
            Request("evaluate", (model, index), out, overrides=(*QUICK, *overrides), dry_run=dry_run)
        )

    return run


def results(out: Path) -> dict:
    return json.loads((out / "results.json").read_text())


def value(read: dict, question: str, measure: str, encoder: str) -> float:
    (row,) = [
        row
        for row in read["rows"]
        if (row["question"], row["measure"], row["encoder"]) == (question, measure, encoder)
        and "kNN" not in row["probe"]
    ]
    return row["estimate"]["value"]


def model_folder(folder: Path, pretraining_slides: list[str] | None) -> Path:
    """Only what evaluate reads itself; the encoder is the stub."""
    folder.mkdir()
    facts = {} if pretraining_slides is None else {"facts": {"pretraining_slides": pretraining_slides}}
    (folder / "config.json").write_text(json.dumps(facts))
    return folder


def test_texture_passes_where_colour_fails(run, judged_index: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    assert run(judged_index, out) == 0
    read = results(out)
    assert value(read, "Tissue class", "balanced accuracy", "texture") > 0.95
    assert value(read, "Tissue class", "balanced accuracy", "colour statistics") < 0.7
    assert value(read, "Tissue class", "balanced accuracy", "majority class") == 0.5
    assert value(read, "Site shortcut", "balanced accuracy", "colour statistics") > 0.95
    assert value(read, "Robustness index", "robustness index", "texture") > 0.9
    assert value(read, "Robustness index", "robustness index", "colour statistics") < 0.2
    assert not read["unasked"]
    assert read["facts"]["tiles"] == 120
    assert read["facts"]["groups"] == "6 (by patient)"
    assert {row["estimate"]["n"] for row in read["rows"] if row["question"] == "Tissue class"} == {120}
    assert "texture is better than colour statistics" in (out / "results.html").read_text()
    text = (out / "results.md").read_text()
    assert "texture is better than colour statistics" in text
    assert f"lamella evaluate model {judged_index} -o {out}" in text
    assert "'labels.classes={fine: 1, coarse: 2}'" in text
    assert "texture is better than colour statistics" in capsys.readouterr().out


def test_an_identical_rerun_changes_nothing(run, judged_index: Path, tmp_path: Path, capsys, texture) -> None:
    out = tmp_path / "out"
    run(judged_index, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    texture.batches.clear()
    assert run(judged_index, out) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    with pytest.raises(OutputConflictError, match="seed: 0 there, 1 now"):
        run(judged_index, out, "seed=1")


def test_a_killed_run_keeps_what_was_embedded_and_gets_the_same_results(run, judged_index, tmp_path, texture) -> None:
    out = tmp_path / "out"
    run(judged_index, out)
    first = results(out)
    (out / "results.json").unlink()
    (out / "features" / "texture-0" / "s4.h5").unlink()
    texture.batches.clear()
    run(judged_index, out)
    assert texture.batches == [20]
    assert results(out) == first


def test_a_dry_run_counts_and_writes_nothing(run, judged_index: Path, tmp_path: Path, capsys, texture) -> None:
    assert run(judged_index, tmp_path / "out", dry_run=True) == 0
    assert "120 tiles of 6 slides; labels: label masks" in (printed := capsys.readouterr().out)
    assert "classes: coarse 60, fine 60" in printed
    assert texture.batches == []
    assert not (tmp_path / "out").exists()


def test_a_question_that_cannot_be_asked_is_listed_with_its_reason(run, judged_index: Path, tmp_path: Path) -> None:
    run(judged_index, tmp_path / "out", "site_column=centre", "labels.source=none")
    unasked = {skipped["question"]: skipped["reason"] for skipped in results(tmp_path / "out")["unasked"]}
    assert list(unasked) == ["Tissue class", "Site shortcut", "Robustness index", "Accuracy drop"]
    assert "no tile labels were given" in unasked["Tissue class"]
    assert "no site column" in unasked["Site shortcut"]
    assert "**Site shortcut**: the index has no site column" in (tmp_path / "out" / "results.md").read_text()


def test_labels_from_a_tile_table_and_from_the_manifest(run, judged_index: Path, tmp_path: Path) -> None:
    rows = [
        {"slide_id": f"s{slide}", "x_px0": x, "y_px0": y, "kind": "left" if x < 192 else "right"}
        for slide in range(6)
        for x in (0, 70, 200, 300)
        for y in (0, 99, 200)
    ]
    write_csv(tmp_path / "tiles.csv", rows, list(rows[0]))
    table = (f"labels.table={tmp_path / 'tiles.csv'}", "labels.column=kind")
    run(judged_index, tmp_path / "table", *table)
    read = results(tmp_path / "table")
    assert value(read, "Tissue class", "balanced accuracy", "texture") > 0.95
    assert "Tissue class, tiles: left 36, right 36" in read["notes"]
    run(judged_index, tmp_path / "manifest", "labels.column=site")
    read = results(tmp_path / "manifest")
    assert "Tissue class, tiles: north 60, south 60" in read["notes"]
    assert read["unasked"][0]["question"] == "Robustness index"  # class and site are one here


def test_a_slide_that_fails_is_listed_and_the_others_are_judged(run, own_index: Path, tmp_path: Path) -> None:
    (own_index.parent / "s0.tif").write_bytes(b"II*\0 broken")
    (own_index.parent / "s2_labels.png").unlink()
    out = tmp_path / "out"
    assert run(own_index, out) == 1
    assert {row["slide_id"]: row["error"] for row in read_csv(out / "failed.csv")}.keys() == {"s0", "s2"}
    assert results(out)["facts"]["slides"] == 1
    assert "tiles of 1 group" in results(out)["unasked"][0]["reason"]


def test_seen_slides_are_said_in_every_row_of_the_model(run, judged_index, tmp_path, capsys) -> None:
    model = model_folder(tmp_path / "model", ["s0", "s1", "elsewhere"])
    run(judged_index, tmp_path / "out", model=model)
    read = results(tmp_path / "out")
    assert read["warnings"][0].startswith("Labels unseen, pixels seen: 2 of 6 slides were in pretraining (by patient)")
    judged = {row["encoder"] for row in read["rows"] if row["encoder"].startswith("texture")}
    assert judged
    assert all("pixels seen on 2 of 6 slides" in encoder for encoder in judged)
    assert "pixels seen" in capsys.readouterr().out


def test_seen_slides_can_be_refused_or_left_out(run, judged_index: Path, tmp_path: Path) -> None:
    model = model_folder(tmp_path / "model", ["s0", "s1"])
    with pytest.raises(LamellaError, match=r"2 of its 6 slides were in pretraining \(by patient\): s0, s1"):
        run(judged_index, tmp_path / "out", "allow_seen=false", model=model)
    run(judged_index, tmp_path / "out", "leave_out_seen=true", model=model)
    read = results(tmp_path / "out")
    assert read["facts"]["slides"] == 4
    assert value(read, "Tissue class", "balanced accuracy", "texture") > 0.95
    everything = model_folder(tmp_path / "all", [f"s{number}" for number in range(6)])
    with pytest.raises(LamellaError, match="leave_out_seen=true leaves none"):
        run(judged_index, tmp_path / "o2", "leave_out_seen=true", model=everything)


def test_a_slide_of_a_patient_that_was_in_pretraining_counts_as_seen(run, judged_index, tmp_path) -> None:
    shutil.copytree(judged_index.parent, tmp_path / "study")
    study = tmp_path / "study"
    manifest = (study / "manifest.csv").read_text().replace(",p5,", ",p0,")
    (study / "manifest.csv").write_text(manifest)
    from lamella.slides.indexing import build_index
    from lamella.slides.manifest import find_slides
    from lamella.slides.tissue import TissueSettings

    build_index(find_slides([study / "manifest.csv"]), study / "again", TissueSettings(), {})
    model = model_folder(tmp_path / "model", ["s0"])
    with pytest.raises(LamellaError, match=r"2 of its 6 slides were in pretraining \(by patient\): s0, s5"):
        run(study / "again", tmp_path / "out", "allow_seen=false", model=model)


def test_a_model_that_does_not_say_is_said(run, judged_index: Path, tmp_path: Path, capsys) -> None:
    run(judged_index, None, model=model_folder(tmp_path / "model", None), dry_run=True)
    assert "does not say which slides it was pretrained on" in capsys.readouterr().out


def test_a_real_model_stands_beside_random_weights(judged_index: Path, tmp_path: Path) -> None:
    settings = ViTSettings(dim=16, depth=1, heads=2)
    contract = InputContract(0.5, 64, (0.5,) * 3, (0.25,) * 3, patch_px=16, dim=16)
    save_pretrained(ViTEncoder(fresh_vit(settings, 7), contract, "mine"), tmp_path / "model", "card")
    command = ["evaluate", str(tmp_path / "model"), str(judged_index), "-o", str(tmp_path / "out"), *QUICK]
    assert main([*command, "random_inits=2"]) == 0
    read = results(tmp_path / "out")
    encoders = {row["encoder"] for row in read["rows"]}
    assert {"mine", "random init", "colour statistics", "mine minus random init"} <= encoders
    assert any("Tissue class: pretraining" in line for line in read["conclusions"])
    folders = sorted(path.name for path in (tmp_path / "out" / "features").iterdir())
    assert folders == ["colour-statistics-0", "mine-0", "random-init-0", "random-init-1"]
    assert "effective rank of mine" in read["facts"]


def test_colour_statistics_can_be_judged_alone(judged_index: Path, tmp_path: Path) -> None:
    command = ["evaluate", "colour-stats", str(judged_index), "-o", str(tmp_path / "out"), "tile_px=64", *QUICK]
    assert main(command) == 0
    assert results(tmp_path / "out")["conclusions"] == []
