from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.dense.tiny_models import CLASSES, ColourModel, PlaceInTileModel, ValueModel, array_slide, noise, patches

from lamella.dense import engine
from lamella.dense.bands import Bands, ClassEncoding
from lamella.dense.blending import BlendSettings, window
from lamella.dense.engine import DenseSettings, plan_slide, predict_slide
from lamella.dense.exports import ExportSettings
from lamella.dense.images import predict_image
from lamella.dense.mosaic import Mosaic
from lamella.dense.tiling import Tiling
from lamella.errors import EmptyTissueError, LamellaError, OutputConflictError, StorageError
from lamella.formats import ome_zarr
from lamella.formats.ome_zarr import open_raster
from lamella.geometry import Frame
from lamella.slides.tissue_map import TissueMap

EVERYWHERE = DenseSettings(everywhere=True)
FEW_FILES = ExportSettings(label_tiff=False, geojson=False)


@pytest.fixture(autouse=True)
def small_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slides of a few hundred pixels have several bands."""
    monkeypatch.setattr(engine, "BAND_PX", 48)


def rasters(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    labels, shares = open_raster(folder / "labels.zarr"), open_raster(folder / "probabilities.zarr")
    return np.asarray(labels.levels[0][:]), np.asarray(shares.levels[0][:])


def files(folder: Path) -> dict[str, bytes]:
    """Without the seconds that it took."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    told = json.loads(found.pop("prediction.json"))
    told.pop("seconds")
    return found | {"prediction.json": json.dumps(told).encode()}


@pytest.mark.parametrize("tta", ["none", "d4"])
@pytest.mark.parametrize(("height", "width"), [(200, 300), (64, 64), (33, 150), (145, 49)])
def test_a_slide_is_predicted_as_an_image_of_its_pixels(tmp_path, tta, height, width):
    model, pixels = PlaceInTileModel(), noise(height, width)
    given = DenseSettings(everywhere=True, blend=BlendSettings(tta=tta, overlap=0.4))
    facts = predict_slide(model, array_slide(pixels), tmp_path / "s", given, exports=FEW_FILES)
    wanted = predict_image(model, pixels, given.blend)
    labels, shares = rasters(tmp_path / "s")
    assert labels.shape == (height, width)
    assert (labels == wanted.argmax(0)).all(), "the same floats: not even ties may differ"
    assert (shares == np.floor(wanted * np.float32(255) + np.float32(0.5))).all()
    assert facts["raster_px"] == [width, height]
    assert sum(facts["areas_mm2"].values()) == pytest.approx(height * width * 0.25 / 1e6)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 170), st.integers(1, 170), st.sampled_from([0, 0.25, 0.5, 0.75]), st.integers(0, 1000))
def test_every_pixel_of_tissue_is_predicted_as_if_all_tiles_were_there(tmp_path_factory, height, width, overlap, seed):
    rng = np.random.default_rng(seed)
    model, pixels, out = PlaceInTileModel(32), noise(height, width, seed), tmp_path_factory.mktemp("slide")
    slide, mask = array_slide(pixels), rng.random((-(-height // 16), -(-width // 16))) < 0.15
    mask[rng.integers(len(mask)), rng.integers(len(mask[0]))] = True
    tissue = TissueMap(mask, slide.frame.resized(mask.shape[1], mask.shape[0]))
    given = DenseSettings(blend=BlendSettings(overlap=overlap))
    predict_slide(model, slide, out / "s", given, tissue=tissue, exports=FEW_FILES)
    labels, shares = rasters(out / "s")
    wanted = predict_image(model, pixels, given.blend)
    rows, columns = ((np.arange(n) + 0.5) * m // n for n, m in zip((height, width), mask.shape, strict=True))
    on_tissue = mask[rows.astype(int)[:, None], columns.astype(int)[None]]
    assert (labels[on_tissue] == wanted.argmax(0)[on_tissue]).all()
    skipped = labels == 255
    assert (shares[:, skipped] == 0).all()
    kept = plan_slide(model, slide, given, tissue).tiling
    covered = np.zeros_like(skipped)
    for tile in kept.tiles():
        covered[tile.y : tile.y + 32, tile.x : tile.x + 32] = True
    assert (covered == ~skipped).all()


def test_a_slide_at_another_spacing_is_read_at_the_models_own(tmp_path):
    """Anisotropic, twice as fine: the raster has the model's mpp, and places are micrometres from the corner."""
    model, pixels = ColourModel(mpp=0.5), noise(301, 402)
    slide = array_slide(pixels, (0.25, 0.5))
    predict_slide(model, slide, tmp_path / "s", EVERYWHERE, exports=FEW_FILES)
    raster = open_raster(tmp_path / "s" / "labels.zarr")
    assert (raster.frame.mpp_x, raster.frame.mpp_y) == (0.5, 0.5)
    assert raster.levels[0].shape == (301, 201)
    halved = (pixels.reshape(301, 201, 2, 3).astype(int).sum(2) + 1) // 2
    wanted = model.maps(torch.from_numpy(halved.astype(np.uint8)).permute(2, 0, 1)[None])[0].numpy()
    labels, _ = rasters(tmp_path / "s")
    top_two = np.sort(wanted, 0)[1:]
    clear = top_two[1] - top_two[0] > 0.05  # an average may be rounded the other way
    assert clear.mean() > 0.9
    assert (labels == wanted.argmax(0))[clear].all()


def test_maps_of_values_are_kept_as_they_are_and_nan_where_nobody_looked(tmp_path):
    model, pixels = ValueModel(stride=4), noise(128, 192)
    slide = array_slide(pixels)
    tissue = TissueMap(np.array([[True, False, False, False]]), slide.frame.resized(4, 1))
    facts = predict_slide(model, slide, tmp_path / "s", DenseSettings(blend=BlendSettings(overlap=0)), tissue=tissue)
    raster = open_raster(tmp_path / "s" / "values.zarr")
    assert raster.names == ("ACTB", "EPCAM")
    assert (raster.frame.mpp_x, raster.levels[0].shape) == (2.0, (2, 32, 48))
    values = np.asarray(raster.levels[0][:])
    means = pixels.reshape(32, 4, 48, 4, 3).mean((1, 3))
    assert np.isnan(values[:, :, 16:]).all()
    assert values[0, :, :16] == pytest.approx(means[:, :16, 0] - 100, abs=0.05)  # of half precision
    assert facts["channels"] == ["ACTB", "EPCAM"]
    assert not list((tmp_path / "s").glob("*.ome.tif"))


def test_what_is_no_tissue_can_be_left_out_though_a_tile_shows_it(tmp_path):
    model, slide = PlaceInTileModel(), array_slide(noise(150, 170))
    mask = np.zeros((15, 17), bool)
    mask[3:9, 2:7] = True  # 10 px each
    tissue, given = TissueMap(mask, slide.frame.resized(17, 15)), DenseSettings(within_tissue=True)
    facts = predict_slide(model, slide, tmp_path / "in", given, tissue=tissue, exports=FEW_FILES)
    predict_slide(model, slide, tmp_path / "all", DenseSettings(), tissue=tissue, exports=FEW_FILES)
    inside = mask.repeat(10, 0).repeat(10, 1)
    (labels, shares), (all_labels, all_shares) = rasters(tmp_path / "in"), rasters(tmp_path / "all")
    assert (all_labels[~inside] != 255).any()
    assert (labels == np.where(inside, all_labels, 255)).all()
    assert (shares == np.where(inside, all_shares, 0)).all()
    assert sum(facts["areas_mm2"].values()) == pytest.approx(inside.sum() * 0.25 / 1e6)


def test_where_that_is_a_result_a_slide_without_tissue_is_finished_with_nothing_looked_at(tmp_path):
    model, glass = ColourModel(), np.full((200, 300, 3), 243, np.uint8)
    facts = predict_slide(model, array_slide(glass), tmp_path / "s", exports=FEW_FILES, may_be_empty=True)
    labels, shares = rasters(tmp_path / "s")
    assert (labels == 255).all()
    assert not shares.any()
    assert (facts["tiles"], facts["tissue_share"], model.batches) == (0, 0.0, [])
    none = TissueMap(np.zeros((2, 3), bool), Frame(3, 2, 50.0, 50.0))
    facts = predict_slide(
        model, array_slide(noise(200, 300)), tmp_path / "t", tissue=none, exports=FEW_FILES, may_be_empty=True
    )
    assert facts["tiles"] == 0
    with pytest.raises(EmptyTissueError):
        predict_slide(model, array_slide(glass), tmp_path / "u", exports=FEW_FILES)


# ---- stopped and resumed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("writes", [0, 1, 2, 3, 5, 8])
def test_stopped_at_any_write_it_goes_on_to_the_same_bytes(tmp_path, monkeypatch, writes):
    model, slide = PlaceInTileModel(), array_slide(patches(230, 170))
    predict_slide(model, slide, tmp_path / "whole", EVERYWHERE)
    wanted, real, left = files(tmp_path / "whole"), ome_zarr._Store.write, [writes]

    def failing(self, y0, band):
        if not left[0]:
            raise StorageError(self.folder, "the disk is full", "Make room and run the same command.")
        left[0] -= 1
        real(self, y0, band)

    monkeypatch.setattr(ome_zarr._Store, "write", failing)
    with pytest.raises(StorageError):
        predict_slide(model, slide, tmp_path / "s", EVERYWHERE)
    assert not (tmp_path / "s" / "prediction.json").exists()
    monkeypatch.setattr(ome_zarr._Store, "write", real)
    model.batches.clear()
    predict_slide(model, slide, tmp_path / "s", EVERYWHERE)
    assert files(tmp_path / "s") == wanted
    whole = 5 * 4  # tiles of 64 px with a quarter of overlap on 230 x 170, in batches of 8
    assert sum(model.batches) <= whole
    if writes >= 6:
        assert sum(model.batches) < whole, "bands that stand need no tiles"


def test_a_finished_slide_costs_nothing_again(tmp_path):
    model, slide = ColourModel(), array_slide(patches(100, 90))
    first = predict_slide(model, slide, tmp_path / "s", EVERYWHERE)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    model.batches.clear()
    assert predict_slide(model, slide, tmp_path / "s", EVERYWHERE) == first
    assert model.batches == []
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == stamps


def test_other_exports_are_made_of_the_rasters_that_stand(tmp_path):
    model, slide = ColourModel(), array_slide(patches(100, 90))
    predict_slide(model, slide, tmp_path / "s", EVERYWHERE, exports=FEW_FILES)
    assert not (tmp_path / "s" / "labels.ome.tif").exists()
    model.batches.clear()
    facts = predict_slide(model, slide, tmp_path / "s", EVERYWHERE, exports=ExportSettings(probability_tiff=True))
    assert model.batches == []
    assert {"labels.ome.tif", "probabilities.ome.tif", "objects.geojson.gz"} <= {
        path.name for path in (tmp_path / "s").iterdir()
    }
    assert facts["exports"]["probability_tiff"]


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("change", "word"),
    [("model", "model"), ("slide", "slide"), ("overlap", "settings.blend.overlap"), ("tissue", "tissue")],
)
def test_a_folder_of_another_prediction_is_refused_and_left_alone(tmp_path, monkeypatch, finished, change, word):
    model, pixels = ColourModel(), patches(100, 90)
    slide, settings_, tissue = array_slide(pixels), DenseSettings(), TissueMap(np.ones((4, 4), bool), Frame(4, 4, 1, 1))
    tissue = replace(tissue, frame=slide.frame.resized(4, 4))
    if finished:
        predict_slide(model, slide, tmp_path / "s", settings_, tissue=tissue)
    else:
        with monkeypatch.context() as patch:
            patch.setattr(engine, "stream_rasters", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
            with pytest.raises(KeyboardInterrupt):
                predict_slide(model, slide, tmp_path / "s", settings_, tissue=tissue)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    if change == "model":
        model = PlaceInTileModel()
    elif change == "slide":
        slide = array_slide(patches(101, 90))
    elif change == "overlap":
        settings_ = DenseSettings(blend=BlendSettings(overlap=0.5))
    else:
        tissue = TissueMap(np.eye(4, dtype=bool), tissue.frame)
    with pytest.raises(OutputConflictError, match=word):
        predict_slide(model, slide, tmp_path / "s", settings_, tissue=tissue)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputConflictError, match=r"notes\.txt"):
        predict_slide(ColourModel(), array_slide(noise(70, 70)), tmp_path, EVERYWHERE)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


# ---- what cannot be done --------------------------------------------------------------------------------------------


def test_a_slide_without_tissue_is_told_so_and_nothing_is_written(tmp_path):
    glass = array_slide(np.full((3000, 3000, 3), 243, np.uint8))
    with pytest.raises(EmptyTissueError, match=r"no tissue was found.*everywhere=true"):
        predict_slide(ColourModel(256), glass, tmp_path / "s")
    empty = TissueMap(np.zeros((4, 4), bool), glass.frame.resized(4, 4))
    with pytest.raises(EmptyTissueError, match="mask is empty"):
        predict_slide(ColourModel(256), glass, tmp_path / "t", tissue=empty)
    assert not any(path.suffix == ".zarr" for path in tmp_path.rglob("*"))


def test_a_model_without_mpp_needs_to_be_told(tmp_path):
    model, slide = ColourModel(mpp=None), array_slide(noise(70, 70))
    with pytest.raises(LamellaError, match=r"does not state at how many micrometres.*Set mpp=0.5"):
        predict_slide(model, slide, tmp_path / "s", EVERYWHERE)
    facts = predict_slide(model, slide, tmp_path / "s", DenseSettings(everywhere=True, mpp=1.0))
    assert (facts["mpp"], facts["raster_px"]) == (1.0, [35, 35])


def test_maps_that_are_no_probabilities_stop_the_slide(tmp_path):
    class Logits(ColourModel):
        def maps(self, images):
            return images.float() - 100

    with pytest.raises(LamellaError, match="no probabilities"):
        predict_slide(Logits(), array_slide(noise(70, 70)), tmp_path / "s", EVERYWHERE)


def test_what_the_prediction_is_of_is_written_beside_it(tmp_path):
    predict_slide(ColourModel(), array_slide(patches(70, 90)), tmp_path / "s", EVERYWHERE, colours={"gland": (1, 2, 3)})
    told = json.loads((tmp_path / "s" / "prediction.json").read_text())
    assert told["classes"] == list(CLASSES)
    assert told["colours"] == {"gland": [1, 2, 3]}
    assert (told["fingerprint"], told["mpp"], told["kind"]) == ("c0c0c0c0c0c0c0c0", 0.5, "classes")
    assert told["settings"]["blend"] == {"window": "gaussian", "overlap": 0.25, "tta": "none"}
    assert set(told["areas_mm2"]) == set(CLASSES)
    assert told["tissue_share"] is None
    assert told["seconds"] >= 0
    assert not (tmp_path / "s" / ".begun.json").exists()


def test_what_is_held_does_not_grow_with_the_slides_height():
    """Peaks of whole runs are measured by benchmarks/predict_slide.py."""

    def held(height: int) -> int:
        tiling = Tiling.over(height, 3000, 64, 0.25)
        with Bands([None, None], ClassEncoding("m", 6), tiling, 48) as bands:
            mosaic = Mosaic(tiling, 6, window("hann", 64), bands)
            tensors = [value for value in vars(mosaic).values() if isinstance(value, torch.Tensor)]
            tensors += [part for slot in bands._slots for part in slot]
            return sum(tensor.nbytes for tensor in tensors)

    canvas = 3000 * 100_000 * 6 * 4
    assert held(100_000) <= held(1000) < canvas / 500
