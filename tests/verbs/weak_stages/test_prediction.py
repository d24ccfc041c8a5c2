from __future__ import annotations

import csv
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from tests.conftest import textured, write_pyramid
from tests.models.tiny_weak import prototypes, tiny_weak
from tests.verbs.weak_stages.tiny_prediction import CLASSES, MPP, SIDES, TILE_PX, ColourWeak, tiny_stage, write_slides

from lamella.dense.blending import BlendSettings
from lamella.dense.images import predict_image
from lamella.dense.refining.bands import refine_maps
from lamella.errors import CheckpointError, DatasetError, OutputConflictError, StorageError
from lamella.formats import ome_zarr
from lamella.formats.ome_zarr import open_raster
from lamella.formats.tables import read_csv
from lamella.models.weak_hub import save_weak
from lamella.slides.slide import open_slide
from lamella.verbs import prediction as verb_of_one_model
from lamella.verbs.prediction import loaded_dense
from lamella.verbs.weak_stages import prediction, prediction_job
from lamella.verbs.weak_stages.prediction_job import SegmentSlide
from lamella.verbs.weak_stages.prediction_settings import PredictionSettings

BACKGROUND = 2
NOT_LOOKED_AT = 255
PLAIN = (
    "predict.refine.morphological_op=none",
    "predict.refine.min_component_size=0",
    "predict.refine.edge_refinement=false",
)
EVERYWHERE = "predict.everywhere=true"
SEED_FIELDS = (
    "wsi_name", "model_version", "num_patches", "processing_time_sec", "class_order", "segmentation_mask",
    "confidence_maps", "post_processing", "timestamp",
)  # fmt: skip


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    return write_slides(tmp_path / "slides", 1)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> ColourWeak:
    """In place of whatever is loaded."""
    found = ColourWeak()
    monkeypatch.setattr(prediction, "load_dense", lambda spec: found)
    return found


def predict(tmp_path: Path, slides: Path, *more: Path, overrides: tuple[str, ...] = (), name="study", **options) -> int:
    return prediction.run_prediction(tiny_stage(tmp_path / name, slides, *more, overrides=overrides, **options))


def out_of(tmp_path: Path, slide_id: str = "s0", name: str = "study") -> Path:
    return tmp_path / name / "out" / "predictions" / slide_id


def mask_of(folder: Path) -> np.ndarray:
    return np.asarray(Image.open(folder / "segmentation_mask.png"))


def told(folder: Path) -> dict:
    return json.loads((folder / "metadata.json").read_text())


def pixels_of(path: Path, mpp: float = MPP) -> np.ndarray:
    with open_slide(path) as slide:
        return slide.read(slide.frame.bounds_px, mpp).pixels


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# ---- the files of the contract --------------------------------------------------------------------------------------


def test_a_slide_gets_every_file_of_the_source(model, slides, tmp_path, capsys):
    assert predict(tmp_path, slides, overrides=(EVERYWHERE,)) == 0
    folder = out_of(tmp_path)
    tiles = sum(model.batches)
    wanted = predict_image(model, pixels_of(slides / "s0.tif"), BlendSettings(overlap=0.5), batch_size=32)
    stored = np.floor(wanted * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    refine = PredictionSettings().refine
    assert (refine.morphological_op, refine.kernel_size, refine.min_component_size) == ("closing", 3, 100)
    mask = mask_of(folder)
    assert mask.dtype == np.uint8
    assert (mask == refine_maps(stored, None, refine, BACKGROUND)).all()
    with np.load(folder / "confidence_maps.npz", allow_pickle=False) as maps:
        assert maps.files == ["class_0", "class_1", "class_2"], "the background is the last channel, never dropped"
        for channel in range(3):
            assert maps[f"class_{channel}"].dtype == np.float32
            assert maps[f"class_{channel}"] == pytest.approx(stored[channel] / 255)
    metadata = told(folder)
    assert tuple(metadata)[: len(SEED_FIELDS)] == SEED_FIELDS
    assert metadata["wsi_name"] == "s0.tif"
    assert metadata["model_version"] == "best_step_3_seed0-c0ffee00"
    assert metadata["num_patches"] == tiles
    assert metadata["class_order"] == list(CLASSES)
    assert metadata["mask_values"] == {"0": "tumour", "1": "stroma", "2": "background", "255": "not looked at"}
    assert metadata["segmentation_mask"] == "segmentation_mask.png"
    assert metadata["confidence_maps"] == "confidence_maps.npz"
    assert metadata["post_processing"] == {
        "morphological_op": "closing",
        "kernel_size": 3,
        "min_component_size": 100,
        "use_crf": False,
        "edge_refinement": True,
    }
    assert metadata["areas_mm2"]["tumour"] == pytest.approx((mask == 0).sum() / 1e6)
    with Image.open(folder / "visualization.png") as picture:
        assert picture.mode == "RGB"
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    rows = read_csv(folder.parent / "batch_results.csv")
    assert list(rows[0]) == ["wsi_name", "num_patches", "processing_time", "model_version"]
    assert rows[0]["num_patches"] == str(metadata["num_patches"])
    assert "visualization.png" in capsys.readouterr().out


def test_large_masks_are_pyramids_of_the_same_values(model, slides, tmp_path):
    assert predict(tmp_path, slides, name="small") == 0
    assert predict(tmp_path, slides, name="large", overrides=("predict.small_mpx=0.01",)) == 0
    small, large = out_of(tmp_path, name="small"), out_of(tmp_path, name="large")
    assert not (large / "segmentation_mask.png").exists()
    assert (tifffile.imread(large / "segmentation_mask.ome.tif") == mask_of(small)).all()
    raster = open_raster(large / "confidence_maps.zarr")
    assert raster.names == (*CLASSES, "background")
    with np.load(small / "confidence_maps.npz") as maps:
        wanted = np.stack([maps[f"class_{channel}"] for channel in range(3)])
    assert np.asarray(raster.levels[0][:]) / 255 == pytest.approx(wanted)
    files = {told(folder)["segmentation_mask"]: told(folder)["confidence_maps"] for folder in (small, large)}
    assert files == {
        "segmentation_mask.png": "confidence_maps.npz",
        "segmentation_mask.ome.tif": "confidence_maps.zarr",
    }
    assert not list(large.glob(".*"))


def test_what_is_no_tissue_is_not_looked_at_and_has_no_confidence(model, slides, tmp_path):
    predict(tmp_path, slides)
    mask = mask_of(out_of(tmp_path))
    unseen = mask == NOT_LOOKED_AT
    assert 0 < unseen.mean() < 0.5
    with np.load(out_of(tmp_path) / "confidence_maps.npz") as maps:
        total = sum(maps[name] for name in maps.files)
    assert (total[unseen] == 0).all()
    assert total[~unseen] == pytest.approx(1, abs=0.01)


def test_votes_are_whole_and_the_window_weighs_them(model, slides, tmp_path):
    """With a model that knows each pixel by its colour all tiles agree: every vote is won by 1 to 0."""
    predict(tmp_path, slides, overrides=("predict.fusion=voting", *PLAIN))
    predict(tmp_path, slides, overrides=PLAIN, name="mean")
    assert (mask_of(out_of(tmp_path)) == mask_of(out_of(tmp_path, name="mean"))).all()
    with np.load(out_of(tmp_path) / "confidence_maps.npz") as maps:
        assert set(np.unique(maps["class_0"])) == {0, 1}


@pytest.mark.parametrize(("asked", "copies"), [("true", 8), ("flips", 4), ("false", 1)])
def test_turned_copies_are_shown_too(model, slides, tmp_path, asked, copies):
    predict(tmp_path, slides, overrides=(f"predict.use_tta={asked}",))
    assert sum(model.batches) == copies * told(out_of(tmp_path))["num_patches"]


def test_several_scales_are_averaged_on_the_finest(model, slides, tmp_path):
    predict(tmp_path, slides, overrides=("predict.scales=[0.5, 1]", EVERYWHERE))
    metadata = told(out_of(tmp_path))
    assert (metadata["mask_mpp"], metadata["mask_px"]) == (0.5, [420, 300])
    assert metadata["tile_px"] == 2 * TILE_PX
    assert mask_of(out_of(tmp_path)).shape == (300, 420)


def test_classes_that_the_slide_does_not_hold_are_gated_away_and_said(model, slides, tmp_path):
    model._present = model._present.new_tensor([-5.0, 5.0])
    predict(tmp_path, slides, overrides=("predict.gate=predicted",))
    metadata = told(out_of(tmp_path))
    assert metadata["image_labels"]["tumour"] < 0.01 < 0.99 < metadata["image_labels"]["stroma"]
    assert set(np.unique(mask_of(out_of(tmp_path)))) <= {1, BACKGROUND, NOT_LOOKED_AT}
    predict(tmp_path, slides, name="free")
    assert 0 in mask_of(out_of(tmp_path, name="free"))
    assert told(out_of(tmp_path, name="free"))["image_labels"] is None


def test_a_model_without_labels_of_images_cannot_gate(model, slides, tmp_path):
    class Plain:
        name, contract, fingerprint, maps, to = model.name, model.contract, "0" * 16, model.maps, model.to

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prediction, "load_dense", lambda spec: Plain())
        assert predict(tmp_path, slides, overrides=("predict.gate=predicted",)) == 1
    assert "predict.gate=none" in read_csv(out_of(tmp_path, "failed.csv"))[0]["error"]


def test_patches_are_gated_one_by_one(model, slides, tmp_path, monkeypatch):
    """The model says "no tumour" of tiles that are darker than grey; a slide's own answer is never asked for."""

    def answers(images):
        bright = images.float().mean((1, 2, 3)) - 120
        return torch.stack([bright, torch.full_like(bright, 9.0)], dim=1), images.float().mean((2, 3))

    monkeypatch.setattr(model, "tile_answers", answers)
    monkeypatch.setattr(model, "bag_logits", lambda *given: pytest.fail("a slide was asked"))
    predict(tmp_path, slides, overrides=("predict.gate=predicted", *PLAIN), labels_are="patch")
    predict(tmp_path, slides, overrides=PLAIN, name="free", labels_are="patch")
    gated, free = (mask_of(out_of(tmp_path, name=name)) == 0 for name in ("study", "free"))
    assert 0 < gated.sum() < free.sum()
    assert told(out_of(tmp_path))["image_labels"] == {}


@pytest.mark.parametrize("pooling", ["topk", "attention"])
def test_the_models_of_all_folds_and_seeds_are_averaged(slides, tmp_path, pooling):
    """Loaded from the training's folder, as stage 3 leaves them; they gate together, too."""
    members = []
    for number, part in enumerate(("fold0_seed0", "fold1_seed0")):
        member = tiny_weak(prototypes(dim=20 + number), pooling=pooling)
        save_weak(member, tmp_path / "study" / "out" / "training" / part / "model", "# card", record=None)
        members.append(member)
    wide = (EVERYWHERE, *PLAIN, "predict.overlap_ratio=0")
    assert predict(tmp_path, slides, overrides=wide) == 0
    metadata = told(out_of(tmp_path))
    assert metadata["model"] == "training (2 models)"
    maps = [predict_image(one, pixels_of(slides / "s0.tif", 0.5), BlendSettings(overlap=0)) for one in members]
    mean = (maps[0] + maps[1]) / 2
    sure = np.sort(mean, 0)[-1] - np.sort(mean, 0)[-2] > 0.01  # batches of another size may round otherwise
    assert sure.mean() > 0.5
    assert (mask_of(out_of(tmp_path)) == mean.argmax(0))[sure].all()
    asked = ("predict.gate=predicted", f"predict.model={tmp_path / 'study' / 'out' / 'training'}")
    predict(tmp_path, slides, overrides=(*wide, *asked), name="gated")
    assert set(told(out_of(tmp_path, name="gated"))["image_labels"]) == set(CLASSES)


# ---- defined results ------------------------------------------------------------------------------------------------


def test_a_slide_without_tissue_is_a_defined_result(model, slides, tmp_path, capsys):
    """Nothing was looked at, and the files say so; it is no failure, and nothing is made up."""
    write_pyramid(slides / "glass.tif", np.full((*SIDES, 3), 243, np.uint8), mpp=MPP, levels=1)
    assert predict(tmp_path, slides) == 0
    folder = out_of(tmp_path, "glass")
    assert (mask_of(folder) == NOT_LOOKED_AT).all()
    with np.load(folder / "confidence_maps.npz") as maps:
        assert not any(maps[name].any() for name in maps.files)
    metadata = told(folder)
    assert metadata["num_patches"] == 0
    assert metadata["areas_mm2"] == {"tumour": 0.0, "stroma": 0.0, "background": 0.0}
    assert {row["wsi_name"] for row in read_csv(folder.parent / "batch_results.csv")} == {"glass.tif", "s0.tif"}
    assert "glass: no tissue was found" in capsys.readouterr().out


def test_a_slide_that_is_all_background_has_a_mask_of_background(model, tmp_path):
    (tmp_path / "slides").mkdir()
    green = np.full((*SIDES, 3), (40, 200, 40), np.uint8)
    write_pyramid(tmp_path / "slides" / "s0.tif", green, mpp=MPP, levels=1)
    assert predict(tmp_path, tmp_path / "slides", overrides=(EVERYWHERE,)) == 0
    assert (mask_of(out_of(tmp_path)) == BACKGROUND).all()
    assert told(out_of(tmp_path))["objects"] == 0


def test_small_pieces_go_and_the_labels_around_them_stay(model, slides, tmp_path):
    predict(tmp_path, slides, overrides=(EVERYWHERE, *PLAIN), name="plain")
    predict(tmp_path, slides, overrides=(EVERYWHERE, "predict.refine.min_component_size=2000"))
    assert len(np.unique(mask_of(out_of(tmp_path, name="plain")))) > 1
    assert told(out_of(tmp_path))["post_processing"]["min_component_size"] == 2000
    assert (mask_of(out_of(tmp_path, name="plain")) != mask_of(out_of(tmp_path))).any()


# ---- which slides ---------------------------------------------------------------------------------------------------


def test_new_slides_join_those_of_earlier_runs(model, slides, tmp_path):
    new = tmp_path / "new"
    new.mkdir()
    write_pyramid(new / "n.tif", textured(*SIDES, 5), mpp=MPP, levels=2)
    assert predict(tmp_path, slides) == 0
    assert predict(tmp_path, slides, new) == 0
    assert predict(tmp_path, slides, overrides=(f"predict.slides=[{new}]",)) == 0
    names = [row["wsi_name"] for row in read_csv(out_of(tmp_path, "batch_results.csv"))]
    assert names == ["n.tif", "s0.tif"]


def test_without_slides_nothing_is_done(model, tmp_path, capsys):
    (tmp_path / "none").mkdir()
    assert predict(tmp_path, tmp_path / "none") == 0
    assert "nothing to predict" in capsys.readouterr().out
    assert not (tmp_path / "study" / "out").exists()


def test_a_model_of_other_classes_is_refused_before_anything_is_written(model, slides, tmp_path):
    model.contract = ColourWeak().contract.__class__(("stroma", "tumour", "background"), MPP, TILE_PX)
    with pytest.raises(DatasetError, match="its channels are stroma, tumour, background, the study's tumour, stroma"):
        predict(tmp_path, slides)
    assert not (tmp_path / "study" / "out" / "predictions").exists()


def test_slides_that_fail_fail_alone_and_are_tried_again(model, slides, tmp_path, capsys):
    (slides / "torn.tif").write_bytes(b"II*\0torn")
    assert predict(tmp_path, slides) == 1
    failed = out_of(tmp_path, "failed.csv")
    assert [row["slide_id"] for row in read_csv(failed)] == ["torn"]
    assert "slides: 1 ok, 1 failed" in capsys.readouterr().out
    assert (out_of(tmp_path) / "metadata.json").is_file()
    write_pyramid(slides / "torn.tif", textured(*SIDES, 3), mpp=MPP, levels=1)
    tiles = sum(model.batches)
    assert predict(tmp_path, slides, retry_failed=True) == 0
    assert sum(model.batches) - tiles == told(out_of(tmp_path, "torn"))["num_patches"]
    assert not failed.exists()


def test_shards_make_the_same_as_one_run(model, slides, tmp_path):
    write_pyramid(slides / "s1.tif", textured(*SIDES, 1), mpp=MPP, levels=2)
    predict(tmp_path, slides, name="alone")
    assert [predict(tmp_path, slides, shard=f"{part}/2") for part in (2, 1)] == [0, 0]
    assert not out_of(tmp_path, "batch_results.csv").exists()
    tiles = sum(model.batches)
    assert predict(tmp_path, slides) == 0
    assert sum(model.batches) == tiles
    assert contents(out_of(tmp_path, "")) == contents(out_of(tmp_path, "", "alone"))


# ---- stopped, resumed, refused --------------------------------------------------------------------------------------


_OF_THE_RUN = ("run.json", "config.yaml", "origins.json")


def contents(folder: Path) -> dict[str, bytes]:
    """Without the time."""
    found = {name: text for name, (text, _) in snapshot(folder).items() if name not in _OF_THE_RUN}
    for name in found:
        if name.endswith("metadata.json"):
            metadata = json.loads(found[name])
            found[name] = json.dumps({**metadata, "processing_time_sec": 0, "timestamp": ""}).encode()
        if name == "batch_results.csv":
            rows = list(csv.reader(found[name].decode().splitlines()))
            found[name] = repr([row[:2] + row[3:] for row in rows]).encode()
    return found


def test_an_identical_rerun_changes_nothing(model, slides, tmp_path):
    predict(tmp_path, slides)
    before, tiles = snapshot(out_of(tmp_path)), sum(model.batches)
    assert predict(tmp_path, slides, overrides=("predict.batch_size=3", "predict.threads=1")) == 0
    assert snapshot(out_of(tmp_path)) == before
    assert sum(model.batches) == tiles


def test_other_settings_another_model_and_another_slide_are_refused(model, slides, tmp_path):
    predict(tmp_path, slides)
    before = snapshot(out_of(tmp_path))
    with pytest.raises(OutputConflictError, match=r"predict.refine.use_crf: false there, true now"):
        predict(tmp_path, slides, overrides=("predict.refine.use_crf=true",))
    model.fingerprint = "1" * 16
    with pytest.raises(OutputConflictError, match="model_fingerprint"):
        predict(tmp_path, slides)
    model.fingerprint = ColourWeak().fingerprint
    write_pyramid(slides / "s0.tif", textured(*SIDES, 9), mpp=MPP, levels=2)
    with pytest.raises(OutputConflictError, match="slide: "):
        predict(tmp_path, slides)
    assert snapshot(out_of(tmp_path)) == before


@pytest.mark.parametrize("writes", [0, 1, 4, 7])
def test_stopped_at_any_band_it_goes_on_to_the_same_bytes(model, slides, tmp_path, monkeypatch, writes):
    monkeypatch.setattr("lamella.dense.engine.BAND_PX", 64)
    predict(tmp_path, slides, name="whole")
    real, left = ome_zarr._Store.write, [writes]

    def failing(self, y0, band):
        if not left[0]:
            raise StorageError(self.folder, "the disk is full", "Make room and run the same command.")
        left[0] -= 1
        real(self, y0, band)

    with monkeypatch.context() as patch:
        patch.setattr(ome_zarr._Store, "write", failing)
        with pytest.raises(StorageError):
            predict(tmp_path, slides)
    assert not (out_of(tmp_path) / "metadata.json").exists()
    assert predict(tmp_path, slides) == 0
    assert contents(out_of(tmp_path, "")) == contents(out_of(tmp_path, "", "whole"))


@pytest.mark.parametrize("step", ["write_mask", "draw_prediction", "export_prediction", "finish"])
def test_stopped_at_any_file_it_goes_on_to_the_same_bytes(model, slides, tmp_path, monkeypatch, step):
    """With the large files: after the last step but metadata.json the maps have left the hidden folder already."""
    large = ("predict.small_mpx=0.01",)
    predict(tmp_path, slides, overrides=large, name="whole")

    def failing(*given, **named):
        raise StorageError("disk", "the disk is full", "Make room and run the same command.")

    with monkeypatch.context() as patch:
        if step == "finish":
            patch.setattr(prediction_job.SlideFolder, "finish", failing_for_metadata(failing))
        else:
            patch.setattr(f"lamella.verbs.weak_stages.prediction_outputs.{step}", failing)
        with pytest.raises(StorageError):
            predict(tmp_path, slides, overrides=large)
    tiles = sum(model.batches)
    assert predict(tmp_path, slides, overrides=large) == 0
    assert sum(model.batches) == tiles, "the rasters were whole"
    assert contents(out_of(tmp_path, "")) == contents(out_of(tmp_path, "", "whole"))


def failing_for_metadata(failing):
    real = prediction_job.SlideFolder.finish

    def finish(self, facts):
        return failing() if "wsi_name" in facts else real(self, facts)

    return finish


# ---- on workers -----------------------------------------------------------------------------------------------------


def test_the_work_travels_without_weights_and_a_worker_with_others_stops(model, tmp_path, monkeypatch):
    settings = PredictionSettings(device="cpu")
    job = SegmentSlide("spec", model.fingerprint, tmp_path, CLASSES, "slide", settings, False, model)
    sent = pickle.loads(pickle.dumps(job))  # noqa: S301 - as Dask sends it
    assert (sent.model, sent.settings) == (None, settings)
    monkeypatch.setattr(verb_of_one_model, "load_dense", lambda spec: model)
    loaded_dense.cache_clear()
    assert sent._ready()[0] is model
    loaded_dense.cache_clear()
    model.fingerprint = "2" * 16
    with pytest.raises(CheckpointError, match="other weights"):
        sent._ready()


def test_what_is_said_of_a_model_names_its_weights():
    model = ColourWeak()
    model.facts = {"weights": "latest", "best_step": 3, "steps": 9, "fold": 2, "seed": 0}
    assert prediction_job.model_version(model) == "latest_step_9_fold2_seed0-c0ffee00"
    model.facts = {}
    assert prediction_job.model_version(model) == "colour-c0ffee00"
