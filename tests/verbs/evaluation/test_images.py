from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lamella.cli import main
from lamella.config import Request
from lamella.data.splits import LeakageError
from lamella.errors import LamellaError
from lamella.formats.tables import read_csv
from lamella.imaging.datasets.identity import item_digest
from lamella.imaging.datasets.opening import open_collection
from lamella.models.encoders import InputContract, ViTEncoder, fresh_vit
from lamella.models.hub import save_pretrained
from lamella.models.pretraining_record import PretrainingRecord
from lamella.models.vit import ViTSettings
from lamella.verbs import evaluate as evaluate_verb
from lamella.verbs.evaluation import images as evaluate_images

QUICK = (
    "imagenet=none", "random_inits=2", "probes.c_grid=[0.01,1.0]", "probes.control_draws=1", "probes.knn_k=3",
    "nshot.draws=2", "nshot.shots=[2]", "efficiency.draws=2", "efficiency.shares=[0.5,1.0]", "finetune.steps=4",
    "finetune.checks=2", "finetune.batch_size=4", "segmentation.epochs=3", "segmentation.random_inits=1", "cache_mb=8",
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    settings = ViTSettings(dim=16, depth=2, heads=2, patch_px=8, wave_min=8, wave_max=64)
    contract = InputContract(None, 32, (0.5,) * 3, (0.25,) * 3, patch_px=8, dim=16)
    save_pretrained(ViTEncoder(fresh_vit(settings, 7), contract, "tiny"), folder, "card")
    return folder


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MedMNIST npz of two classes: dark and bright squares."""
    path = tmp_path_factory.mktemp("data") / "pneumoniamnist.npz"
    arrays = {}
    for number, (split, count) in enumerate((("train", 24), ("val", 10), ("test", 16))):
        rng = np.random.default_rng(number)
        labels = np.arange(count) % 2
        images = rng.integers(0, 120, (count, 28, 28))
        images[:, 8:20, 8:20] += 120 * labels[:, None, None]
        arrays |= {f"{split}_images": images.astype(np.uint8), f"{split}_labels": labels[:, None].astype(np.uint8)}
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six patients with two coloured images each, a bright gland on dark ground, its mask, and two sites."""
    folder = tmp_path_factory.mktemp("glands")
    rows = ["image_id,image_path,mask_path,patient,site,label"]
    for number in range(12):
        rng = np.random.default_rng(number)
        pixels = rng.integers(0, 60, (30, 40, 3), dtype=np.uint8)
        y, x = rng.integers(2, 14, 2)
        mask = np.zeros((30, 40), np.uint8)
        mask[y : y + 12, x : x + 16] = 255
        pixels[mask > 0] += 150
        Image.fromarray(pixels).save(folder / f"{number}.png")
        Image.fromarray(mask).save(folder / f"{number}_mask.png")
        patient = number // 2
        rows.append(f"i{number},{number}.png,{number}_mask.png,p{patient},s{patient // 3},{'ab'[patient % 2]}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder / "manifest.csv"


def evaluate(model: Path, data: Path, out: Path, *overrides: str) -> int:
    return main(["evaluate", str(model), str(data), "-o", str(out), *QUICK, *overrides])


def results(out: Path) -> dict:
    return json.loads((out / "results.json").read_text())


def test_a_data_set_of_images_gets_a_table_with_everything_beside_the_model(model, archive, tmp_path, capsys) -> None:
    assert evaluate(model, archive, tmp_path / "out", "pooling=[mean,last4,attentive]") == 0
    read = results(tmp_path / "out")
    encoders = {row["encoder"] for row in read["rows"]}
    assert {"tiny", "random init", "pixel statistics", "tiny, labels exchanged", "tiny minus random init"} <= encoders
    assert not any("colour" in name for name in encoders)  # the images are grey
    assert {row["question"] for row in read["rows"]} == {"Classification", "Few labels"}
    probes = {row["probe"] for row in read["rows"]}
    assert {"linear", "linear, last 4 layers", "attentive pooling", "kNN, k=3", "linear, 2 a class"} <= probes
    assert {row["estimate"]["n"] for row in read["rows"]} == {16}
    pixels = [
        r for r in read["rows"] if (r["encoder"], r["measure"], r["probe"]) == ("pixel statistics", "AUC", "linear")
    ]
    assert pixels[0]["estimate"]["value"] > 0.95
    assert any("pretraining" in line for line in read["conclusions"])
    assert f"lamella evaluate {model} {archive} -o {tmp_path / 'out'}" in read["command"]
    assert "does not say what it was pretrained on" in read["warnings"][0]
    predictions = read_csv(tmp_path / "out" / "predictions.csv")
    assert len({row["item_id"] for row in predictions}) == 16
    with np.load(tmp_path / "out" / "embedding.npz", allow_pickle=False) as stored:
        assert stored["features"].shape == stored["random_init"].shape == (16, 16)
        assert set(stored["labels"]) == {"normal", "pneumonia"}
    assert "next: read" in capsys.readouterr().out
    assert "<h2>What the numbers say</h2>" in (tmp_path / "out" / "results.html").read_text()


def test_an_identical_rerun_changes_nothing_and_a_cut_one_reads_its_features(
    model, archive, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "out"
    evaluate(model, archive, out, "tasks=[linear]")
    first = results(out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert evaluate(model, archive, out, "tasks=[linear]") == 0
    assert "nothing to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    (out / "results.json").unlink()
    monkeypatch.setattr(ViTEncoder, "pooled", None)  # nothing is embedded again
    evaluate(model, archive, out, "tasks=[linear]")
    assert results(out) == first


def test_training_whole_networks_stands_beside_the_probes(model, archive, tmp_path) -> None:
    evaluate(model, archive, tmp_path / "out", "tasks=[efficiency,finetune]", "efficiency.supervised=true")
    read = results(tmp_path / "out")
    asked = {(row["question"], row["encoder"]) for row in read["rows"]}
    assert {
        ("Data efficiency", "supervised from scratch"),
        ("Fine-tuning", "tiny"),
        ("Fine-tuning", "random init (supervised from scratch)"),
    } <= asked
    assert any("4 steps of 4 images" in note for note in read["notes"])
    lines = read_csv(tmp_path / "out" / "efficiency.csv")
    assert {(line["encoder"], line["share"]) for line in lines} >= {("tiny", "0.5"), ("supervised from scratch", "1.0")}


def test_masks_sites_and_lesions_with_patients_left_out(model, masked, tmp_path) -> None:
    evaluate(model, masked, tmp_path / "out", "tasks=[linear,sites,segmentation,detection]", "probes.folds=3")
    read = results(tmp_path / "out")
    assert not read["unasked"]
    assert {row["question"] for row in read["rows"]} == {
        "Classification",
        "Sites left out",
        "Segmentation",
        "Detection",
    }
    assert {row["estimate"]["groups"] for row in read["rows"] if row["question"] == "Segmentation"} == {6}
    heads = {row["encoder"] for row in read["rows"] if row["question"] == "Segmentation"}
    assert {"tiny", "random init", "raw pixels", "tiny minus raw pixels"} <= heads
    assert "colour statistics" in {row["encoder"] for row in read["rows"]}
    assert {row["baseline"]["name"] for row in read["rows"] if row["measure"].startswith("Dice")} == {"best constant"}
    assert len(read_csv(tmp_path / "out" / "dice.csv")) == 12 * 3
    assert len(read_csv(tmp_path / "out" / "froc.csv")) == 4 * 3


def test_a_test_image_that_was_in_pretraining_is_refused(model, archive, tmp_path) -> None:
    collection = open_collection(archive)
    item = next(item for item in collection.items if item.split == "test")
    own = tmp_path / "own"
    own.mkdir()
    for path in model.iterdir():
        (own / path.name).write_bytes(path.read_bytes())
    record = PretrainingRecord.of(["other"], ["other/x"], ["other/x"], [item_digest(collection, item)])
    record.write(own)
    with pytest.raises(LeakageError, match=f"by their content, under another name: {item.item_id}"):
        evaluate_images.run(Request("evaluate", (own, archive), tmp_path / "out", overrides=QUICK), collection)
    assert evaluate(own, archive, tmp_path / "left", "tasks=[knn]", "seen=leave_out") == 0
    assert results(tmp_path / "left")["facts"]["images"] == "49 (15 judged)"


def test_an_image_that_cannot_be_read_is_listed_and_the_others_are_judged(model, masked, tmp_path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for path in masked.parent.iterdir():
        (data / path.name).write_bytes(path.read_bytes())
    (data / "3.png").write_bytes((data / "3.png").read_bytes()[:60])  # its header says what it is, its pixels are gone
    assert evaluate(model, data / "manifest.csv", tmp_path / "out", "tasks=[linear]") == 1
    assert [row["item_id"] for row in read_csv(tmp_path / "out" / "failed.csv")] == ["i3"]
    assert results(tmp_path / "out")["facts"]["images"].startswith("11 ")


def test_what_the_data_cannot_answer_is_said(model, archive, tmp_path) -> None:
    evaluate(model, archive, tmp_path / "out", "tasks=[nshot,multilabel,segmentation,sites]", "nshot.shots=[2,100]")
    unasked = {skipped["question"]: skipped["reason"] for skipped in results(tmp_path / "out")["unasked"]}
    assert "12 images of normal" in unasked["Few labels, n = 100"]
    assert "every item has one label" in unasked["Several labels"]
    assert "no image has a mask" in unasked["Segmentation"]
    assert "no item states its site" in unasked["Sites left out"]


def test_a_dry_run_counts_and_writes_nothing_and_unknown_keys_are_refused(model, archive, tmp_path, capsys) -> None:
    assert main(["evaluate", str(model), str(archive), "-o", str(tmp_path / "out"), "--dry-run"]) == 0
    assert "train 24, val 10, test 16" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert main(["evaluate", str(model), str(archive), "-o", str(tmp_path / "out"), "nshot.shot=[5]"]) == 2
    assert "did you mean nshot.shots" in capsys.readouterr().err


def test_every_schema_is_printed(capsys) -> None:
    assert main(["config", "evaluate"]) == 0
    printed = capsys.readouterr().out
    for key in ("labels.column", "nshot.shots", "overlap", "of slides", "of images", "of volumes"):
        assert key in printed


def test_a_path_that_is_not_there_is_said(model, tmp_path) -> None:
    with pytest.raises(LamellaError, match="there is no such file or folder"):
        evaluate_verb.run(Request("evaluate", (model, tmp_path / "nowhere"), tmp_path / "out"))
