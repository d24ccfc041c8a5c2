from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import tifffile
from tests.conftest import textured, write_pyramid
from tests.dense.tiny_models import CLASSES, ColourModel
from tests.models.tiny_segmenters import tiny_segmenter

from lamella.cli import main
from lamella.config import Request
from lamella.dense.ensemble import Ensemble
from lamella.errors import CheckpointError, LamellaError, ManifestError, OutputConflictError
from lamella.formats.ome_zarr import open_raster
from lamella.formats.tables import read_csv, write_csv
from lamella.models.segmenter_hub import save_segmenter
from lamella.slides.slide import open_slide
from lamella.verbs import predict
from lamella.verbs.prediction import PredictSlide, load_dense

GLASS = np.full((600, 700, 3), 243, np.uint8)


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    folder = tmp_path / "slides"
    folder.mkdir()
    for number in range(2):
        write_pyramid(folder / f"s{number}.tif", textured(500, 620, number), levels=2)
    return folder


@pytest.fixture
def colour(monkeypatch: pytest.MonkeyPatch) -> ColourModel:
    """A model whose answers are known, in place of whatever is loaded."""
    model = ColourModel(128)
    monkeypatch.setattr(predict, "load_dense", lambda spec: model)
    return model


@pytest.fixture
def segmenter(tmp_path: Path) -> Path:
    save_segmenter(tiny_segmenter(), tmp_path / "run" / "model", "# card", record=None)
    return tmp_path / "run" / "model"


def run(out: Path | None, *paths: Path, dry_run: bool = False, overrides: tuple[str, ...] = (), **options) -> int:
    paths = (Path("model"), *paths)
    return predict.run(Request("predict", paths, out, overrides=overrides, dry_run=dry_run, options=options))


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_every_slide_gets_a_folder_of_rasters_outlines_and_facts(colour, slides, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(out, slides) == 0
    for name in ("s0", "s1"):
        folder = out / name
        assert {path.name for path in folder.iterdir()} >= {
            "labels.zarr",
            "probabilities.zarr",
            "labels.ome.tif",
            "objects.geojson.gz",
            "objects.outlines",
            "overlay.png",
            "prediction.json",
        }
    labels = np.asarray(open_raster(out / "s0" / "labels.zarr").levels[0][:])
    assert labels.shape == (500, 620)
    with open_slide(out / "s0" / "labels.ome.tif") as written:
        assert written.mpp == pytest.approx(0.5, abs=1e-4)
    assert (tifffile.imread(out / "s0" / "labels.ome.tif") == labels).all()
    told = json.loads((out / "s0" / "prediction.json").read_text())
    for value, name in enumerate(CLASSES):
        assert told["areas_mm2"][name] == pytest.approx((labels == value).sum() * 0.25 / 1e6)
    assert 0 < told["tissue_share"] < 1
    assert set(told["colours"]) == set(CLASSES)
    features = json.loads(gzip.decompress((out / "s0" / "objects.geojson.gz").read_bytes()))["features"]
    assert {one["properties"]["classification"]["name"] for one in features} <= set(CLASSES) - {"background"}
    assert len(features) == told["objects"]
    assert not (out / "failed.csv").exists()
    printed = capsys.readouterr().out
    assert "128 px at 0.5 um per pixel" in printed
    assert "slides: 2 ok, 0 failed" in printed
    assert f"{out}/s0/overlay.png" in printed


def test_an_identical_rerun_changes_nothing_and_a_missing_slide_is_done_again(colour, slides, tmp_path):
    out = tmp_path / "out"
    run(out, slides)
    before, tiles = snapshot(out), sum(colour.batches)
    assert run(out, slides, overrides=("batch_size=3", "threads=1")) == 0
    after = snapshot(out)
    assert {name: after[name] for name in after if "/" in name} == {
        name: before[name] for name in before if "/" in name
    }
    assert sum(colour.batches) == tiles
    (out / "s1" / "overlay.png").unlink()
    run(out, slides)
    assert (out / "s1" / "overlay.png").is_file()
    assert sum(colour.batches) == tiles


def test_an_index_gives_the_tissue(colour, slides, tmp_path):
    assert main(["index", str(slides), "-o", str(tmp_path / "index")]) == 0
    assert run(tmp_path / "of_index", tmp_path / "index") == 0
    assert run(tmp_path / "of_files", slides) == 0
    of_index, of_files = (
        np.asarray(open_raster(tmp_path / name / "s0" / "labels.zarr").levels[0][:])
        for name in ("of_index", "of_files")
    )
    assert (of_index == of_files).all(), "the index's tissue is what is found without it"
    with pytest.raises(LamellaError, match="an index knows the mpp"):
        run(tmp_path / "x", tmp_path / "index", mpp=0.5)


def test_a_stated_mpp_wins_over_the_file(colour, slides, tmp_path):
    assert run(tmp_path / "out", slides / "s0.tif", mpp=1.0) == 0
    assert open_raster(tmp_path / "out" / "s0" / "labels.zarr").levels[0].shape == (1000, 1240)


# ---- what goes wrong ------------------------------------------------------------------------------------------------


def test_slides_that_fail_fail_alone_and_are_tried_again(colour, slides, tmp_path, capsys):
    """No tissue, and a file that is none: both are listed with their reasons."""
    out = tmp_path / "out"
    write_pyramid(slides / "glass.tif", GLASS, levels=1)
    (slides / "torn.tif").write_bytes(b"II*\0torn")
    assert run(out, slides) == 1
    rows = {row["slide_id"]: row["error"] for row in read_csv(out / "failed.csv")}
    assert set(rows) == {"glass", "torn"}
    assert "no tissue was found" in rows["glass"]
    assert "everywhere=true" in rows["glass"]
    assert "slides: 2 ok, 2 failed" in capsys.readouterr().out
    assert not (out / "glass").exists()
    write_pyramid(slides / "torn.tif", textured(400, 400, 3), levels=1)
    tiles = sum(colour.batches)
    assert run(out, slides, retry_failed=True) == 1
    assert (out / "torn" / "prediction.json").is_file()
    assert sum(colour.batches) > tiles
    assert [row["slide_id"] for row in read_csv(out / "failed.csv")] == ["glass"]


def test_a_slide_without_tissue_can_be_looked_at_all_over(colour, slides, tmp_path):
    write_pyramid(slides / "glass.tif", GLASS, levels=1)
    assert run(tmp_path / "out", slides / "glass.tif", overrides=("everywhere=true",)) == 0
    labels = np.asarray(open_raster(tmp_path / "out" / "glass" / "labels.zarr").levels[0][:])
    assert (labels != 255).all()


def test_other_settings_and_another_model_are_refused(colour, slides, tmp_path, monkeypatch):
    out = tmp_path / "out"
    run(out, slides)
    before = snapshot(out)
    with pytest.raises(OutputConflictError, match=r"blend.window: \"gaussian\" there, \"hann\" now"):
        run(out, slides, overrides=("blend.window=hann",))
    other = ColourModel(128)
    other.fingerprint = "1111111111111111"
    monkeypatch.setattr(predict, "load_dense", lambda spec: other)
    with pytest.raises(OutputConflictError, match="model_fingerprint"):
        run(out, slides)
    assert snapshot(out) == before


def test_another_slide_of_the_same_name_ends_the_run(colour, slides, tmp_path):
    out, other = tmp_path / "out", tmp_path / "other"
    run(out, slides)
    other.mkdir()
    write_pyramid(other / "s0.tif", textured(500, 620, 9), levels=2)
    with pytest.raises(OutputConflictError, match="slide: "):
        run(out, other)


def test_a_model_without_mpp_is_refused_before_anything_is_written(colour, slides, tmp_path):
    colour.contract = ColourModel(128, mpp=None).contract
    with pytest.raises(LamellaError, match=r"Set mpp=0\.5"):
        run(tmp_path / "out", slides)
    assert not (tmp_path / "out").exists()
    assert run(tmp_path / "out", slides, overrides=("mpp=1.0",)) == 0


@pytest.mark.parametrize(
    ("paths", "error", "words"),
    [
        ((), LamellaError, "a model and slides"),
        (("nowhere.tif",), ManifestError, "no such file"),
        (("s0.tif", "s0.tif"), ManifestError, "two of the slides have this name"),
        (("manifest.csv",), ManifestError, "Predict on its index"),
    ],
)
def test_slides_that_make_no_sense_are_refused(colour, slides, tmp_path, paths, error, words):
    rows = [{"slide_id": "s0", "wsi_path": "s0.tif", "mask_path": "s0.png"}]
    write_csv(slides / "manifest.csv", rows, list(rows[0]))
    with pytest.raises(error, match=words):
        run(tmp_path / "out", *(slides / path for path in paths))
    assert not (tmp_path / "out").exists()


def test_the_folder_of_something_that_is_no_model(slides, tmp_path, capsys):
    assert main(["predict", str(slides), str(slides), "-o", str(tmp_path / "out")]) == 2
    assert "config.json" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# ---- models ---------------------------------------------------------------------------------------------------------


def test_a_saved_segmenter_through_the_command_line_and_shards(segmenter, slides, tmp_path):
    command = ["predict", str(segmenter), str(slides), "-o", str(tmp_path / "out"), "device=cpu", "overlay=false"]
    assert main([*command, "--dry-run"]) == 0
    assert not (tmp_path / "out").exists()
    assert [main([*command, "--shard", f"{part}/2"]) for part in (2, 1)] == [0, 0]
    before = snapshot(tmp_path / "out")
    assert main(command) == 0
    assert snapshot(tmp_path / "out") == before


def test_a_run_with_folds_is_predicted_with_the_mean_of_its_models(tmp_path):
    """A run's own folder is given instead of a model: all of its folds speak."""
    first, second = tiny_segmenter("segformer", "fpn"), tiny_segmenter("segformer", "linear")
    for number, model in enumerate((first, second)):
        save_segmenter(model, tmp_path / "run" / f"fold{number}" / "model", "# card", record=None)
    both = load_dense(str(tmp_path / "run"))
    assert isinstance(both, Ensemble)
    assert both.name == "run (2 folds)"
    assert load_dense(str(tmp_path / "run" / "fold1")).fingerprint == second.fingerprint
    assert load_dense(str(tmp_path / "run" / "fold1" / "model")).fingerprint == second.fingerprint
    assert both.fingerprint not in (first.fingerprint, second.fingerprint)


def test_a_worker_that_loads_other_weights_stops(segmenter, tmp_path):
    model = load_dense(str(segmenter))
    request = Request("predict", (segmenter,))
    config = request.resolve(predict.Config).config
    work = predict._Work(str(segmenter), model, (), config)
    job = work.job(tmp_path / "out")
    sent = pickle.loads(pickle.dumps(job))  # noqa: S301 - as Dask sends it
    assert isinstance(sent, PredictSlide)
    assert sent.model is None
    assert sent._ready()[0].fingerprint == model.fingerprint
    wrong = pickle.loads(pickle.dumps(PredictSlide(**{**vars(job), "fingerprint": "f" * 16})))  # noqa: S301
    with pytest.raises(CheckpointError, match="other weights"):
        wrong._ready()
