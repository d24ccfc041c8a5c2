"""What is recognised below the given paths."""

from __future__ import annotations

import json
import shutil

import h5py
import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image
from tests.imaging import dicoms
from tests.slides.readers.test_dicom import write_dicom

from lamella.cli import main
from lamella.errors import LamellaError
from lamella.formats.annotation_folder import AnnotatedSlide, write_annotated_slides
from lamella.geometry import Frame
from lamella.view.server.catalogue.discover import discover


def _facts(path, **facts):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(facts))
    return path


def _sources(catalogue):
    return {(source.kind, source.slide, source.title) for source in catalogue.sources}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """An index, made by the verb, of one slide and one that is none."""
    from tests.conftest import textured, write_pyramid

    folder = tmp_path_factory.mktemp("study")
    (folder / "slides").mkdir()
    write_pyramid(folder / "slides" / "a.tif", textured(512, 768))
    (folder / "slides" / "broken.svs").write_bytes(b"no slide")
    assert main(["index", str(folder / "slides"), "-o", str(folder / "index")]) == 1
    return folder


def test_an_index_gives_slides_with_qc_and_refused_ones_with_the_reason(study):
    catalogue = discover([study / "index"])
    good, bad = catalogue.slides["a"], catalogue.slides["broken"]
    assert good.indexed is not None
    assert good.facts["size"] == "768 x 512 px, 0.384 x 0.256 mm"
    assert good.facts["tissue"].endswith("% of the slide")
    assert good.facts["spacing"].startswith("0.5 µm per px (")
    assert "no reader takes it" in bad.refused
    assert _sources(catalogue) == {("index", "a", "index")}
    assert [run.verb for run in catalogue.runs.values()] == ["index"]


def test_index_and_slides_together_are_the_same_slides(study):
    assert set(discover([study]).slides) == set(discover([study / "slides"]).slides) == {"a", "broken"}
    assert discover([study]).slides["a"].indexed is not None


def test_a_stated_spacing_wins_over_the_index(study):
    slide = discover([study], mpp=0.25).slides["a"]
    assert slide.mpp == (0.25, 0.25)
    assert slide.facts["spacing"] == "0.25 µm per px"
    assert "tissue" not in slide.facts


def test_not_every_tiff_or_picture_is_a_slide(make_slide, tmp_path):
    make_slide("a.tif", 256, 256)
    tifffile.imwrite(tmp_path / "mask.tif", np.ones((64, 64), np.uint8))
    Image.new("RGB", (32, 32)).save(tmp_path / "figure.png")
    (tmp_path / "broken.tif").write_bytes(b"II*\0 no more")
    catalogue = discover([tmp_path])
    assert set(catalogue.slides) == {"a", "broken"}
    assert catalogue.slides["broken"].refused
    assert any("mask.tif with one value a pixel" in sentence for sentence in catalogue.said)
    assert any("figure.png without spacing" in sentence for sentence in catalogue.said)
    assert "figure" in discover([tmp_path], mpp=0.5).slides
    assert set(discover([tmp_path / "figure.png"]).slides) == {"figure"}  # given by name: its card says what it lacks


def test_predictions_features_and_outlines_find_their_slide(make_slide, tmp_path):
    make_slide("a.tif", 256, 256)
    _facts(tmp_path / "predicted" / "a" / "prediction.json", slide="a.tif")
    (tmp_path / "predicted" / "a" / "labels.zarr").mkdir()
    tifffile.imwrite(tmp_path / "predicted" / "a" / "labels.ome.tif", np.ones((8, 8), np.uint8))
    _facts(tmp_path / "genes" / "renamed" / "prediction.json", slide_id="a", slide="a.tif")
    (tmp_path / "genes" / "renamed" / "genes.zarr").mkdir()
    _facts(tmp_path / "weak" / "a" / "metadata.json", wsi_name="a.tif")
    (tmp_path / "weak" / "a" / "tiles.parquet").touch()
    (tmp_path / "features").mkdir()
    for name, keys in (("a", ("features", "coords")), ("other", ("matrix",)), ("lost", ("features", "coords"))):
        with h5py.File(tmp_path / "features" / f"{name}.h5", "w") as file:
            for key in keys:
                file[key] = np.zeros((2, 2))
    (tmp_path / "a.geojson").write_text("[]")
    (tmp_path / "spots").mkdir()
    (tmp_path / "spots" / "a.h5ad").touch()
    catalogue = discover([tmp_path])
    assert _sources(catalogue) == {
        ("prediction", "a", "predicted"),
        ("expression", "a", "genes"),
        ("weak", "a", "weak"),
        ("features", "a", "features"),
        ("objects", "a", tmp_path.name),
        ("spots", "a", "spots"),
    }
    assert set(catalogue.slides) == {"a"}
    assert [sentence for sentence in catalogue.said if "lost" in sentence]
    assert not [sentence for sentence in catalogue.said if "other" in sentence]


def test_a_single_folder_of_a_prediction_may_be_given(make_slide, tmp_path):
    slide = make_slide("a.tif", 256, 256)
    made = _facts(tmp_path / "predicted" / "a" / "prediction.json", slide="a.tif")
    (made.parent / "labels.zarr").mkdir()
    assert _sources(discover([slide, made.parent])) == {("prediction", "a", "predicted")}


def test_outlines_of_segment_bring_the_slide_that_they_name(make_slide, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    slide = make_slide("a.tif", 256, 256, folder=tmp_path / "elsewhere")
    _facts(tmp_path / "out" / "answers.json", slide="a.tif")
    _facts(tmp_path / "out" / "run.json", verb="segment", inputs={"slide": str(slide)})
    (tmp_path / "out" / "config.yaml").touch()
    (tmp_path / "out" / "objects.geojson").write_text("[]")
    catalogue = discover([tmp_path / "out"])
    assert catalogue.slides["a"].path == slide
    assert _sources(catalogue) == {("objects", "a", "out")}


def test_what_lies_over_a_slide_that_is_not_given_is_said(make_slide, tmp_path):
    make_slide("b.tif", 256, 256)
    _facts(tmp_path / "predicted" / "a" / "prediction.json", slide="a.tif")
    (tmp_path / "predicted" / "a" / "labels.zarr").mkdir()
    catalogue = discover([tmp_path])
    assert catalogue.sources == []
    assert "predicted (prediction): not among the given paths is the slide a" in catalogue.said[0]


def test_damaged_files_are_said_and_the_rest_is_shown(make_slide, tmp_path):
    make_slide("a.tif", 256, 256)
    for name in ("anchors/catalogue.json", "predicted/x/prediction.json", "index/slides.parquet", "run/run.json"):
        _facts(tmp_path / name).write_text("{")
    (tmp_path / "anchors" / "shards").mkdir()
    (tmp_path / "run" / "config.yaml").touch()
    (tmp_path / "weak").mkdir()
    (tmp_path / "weak" / "uncertain_tiles.csv").write_text("slide_id,x_px0,y_px0,fov_um\na,1,2,nan\n")
    catalogue = discover([tmp_path])
    assert list(catalogue.slides) == ["a"]
    for name in ("catalogue.json", "prediction.json", "slides.parquet", "run.json", "uncertain_tiles.csv"):
        assert any(name in sentence for sentence in catalogue.said), name


def test_the_queue_is_in_level_0_pixels_of_each_axis(make_slide, tmp_path):
    slide = make_slide("a.tif", 256, 256)
    table = tmp_path / "weak" / "uncertain_tiles.csv"
    _facts(tmp_path / "weak" / "a" / "metadata.json", slide_mpp=[0.5, 0.25])
    table.write_text("slide_id,x_px0,y_px0,fov_um,margin,likeliest\na,10,20,50,0.1,gland\nlost,1,1,1,1,x\n")
    catalogue = discover([slide, table.parent])
    assert [item.box_px0 for item in catalogue.queue] == [(10, 20, 110, 220)]
    assert catalogue.queue[0].why == "likeliest gland, margin 0.1 to the next class"
    assert any("slide lost is not among" in sentence for sentence in catalogue.said)
    shutil.rmtree(tmp_path / "weak" / "a")  # the slide's own spacing then
    assert discover([slide, table.parent]).queue[0].box_px0 == (10, 20, 110, 120)


def test_volumes_find_the_masks_of_their_case_and_grid(tmp_path):
    affine = np.diag([1, 2, 3, 1])
    for name, shape in (("p1_flair", (4, 4, 4)), ("p1_seg", (4, 4, 4)), ("p2_flair", (5, 4, 4)), ("p2_seg", (4, 4, 4))):
        nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.uint8), affine), tmp_path / f"{name}.nii.gz")
    scans = discover([tmp_path]).scans
    assert set(scans) == {"p1_flair", "p2_flair"}
    assert [mask.name for mask in scans["p1_flair"].masks] == ["p1_seg.nii.gz"]
    assert scans["p2_flair"].masks == []


def test_dicom_series_are_scans_and_dicom_slides_are_slides(tmp_path):
    for number in range(2):
        place = {"ImagePositionPatient": [0, 0, number], "ImageOrientationPatient": list(dicoms.AXIAL)}
        dicoms.image(tmp_path / "ct" / f"{number}.dcm", np.zeros((4, 4), np.int16), PixelSpacing=[1, 1], **place)
    (tmp_path / "wsi").mkdir()
    write_dicom(tmp_path / "wsi" / "1.2.3.4.dcm")
    catalogue = discover([tmp_path])
    assert [(scan.id, scan.kind) for scan in catalogue.scans.values()] == [("ct", "volume")]
    assert list(catalogue.slides) == ["wsi"]


def test_moving_pictures_are_films_unless_a_verb_made_them(tmp_path):
    for folder in ("films", "previews"):
        (tmp_path / folder).mkdir()
        frames = [Image.new("L", (8, 8), level) for level in (0, 200)]
        frames[0].save(tmp_path / folder / "beat.gif", save_all=True, append_images=frames[1:])
    _facts(tmp_path / "previews" / "run.json", verb="preview")
    (tmp_path / "previews" / "config.yaml").touch()
    assert [(scan.id, scan.kind) for scan in discover([tmp_path]).scans.values()] == [("beat", "video")]


def test_slides_of_one_name_get_ids_and_names_of_their_own(make_slide, tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        make_slide("a.tif", 256, 256, folder=tmp_path / folder)
    catalogue = discover([tmp_path])
    assert len({slide.name for slide in catalogue.slides.values()}) == len(catalogue.slides) == 2
    assert any("Two slides are called a" in sentence for sentence in catalogue.said)


def test_a_manifest_states_spacing_metadata_and_expression(make_slide, tmp_path):
    make_slide("a.tif", 256, 256, mpp=None)
    (tmp_path / "a_spots.csv").write_text("x,y\n")
    table = tmp_path / "manifest.csv"
    table.write_text("slide_id,wsi_path,mpp,site,expression_path\nfirst,a.tif,0.5,north,a_spots.csv\n")
    catalogue = discover([table])
    assert catalogue.slides["first"].mpp == (0.5, 0.5)
    assert catalogue.slides["first"].facts["site"] == "north"
    assert _sources(catalogue) == {("spots", "first", tmp_path.name)}


def test_a_folder_of_annotations_brings_its_slides(make_slide, tmp_path):
    (tmp_path / "drawn").mkdir()
    slide = AnnotatedSlide("a", make_slide("a.tif", 256, 256), Frame(256, 256, 0.5, 0.5))
    write_annotated_slides(tmp_path / "drawn", {"a": slide})
    (tmp_path / "drawn" / "a").mkdir()
    (tmp_path / "drawn" / "a" / "eve.geojson").write_text("[]")
    catalogue = discover([tmp_path / "drawn"])
    assert list(catalogue.slides) == ["a"]
    assert catalogue.sources == []  # they are not a layer: the page draws them


def test_nothing_at_all_is_refused(tmp_path):
    with pytest.raises(LamellaError, match="nothing to look at"):
        discover([tmp_path])
    with pytest.raises(LamellaError, match="no such file"):
        discover([tmp_path / "gone"])


def test_a_prediction_with_a_link_out_is_left_out_until_its_target_is_given(make_slide, tmp_path):
    slide = make_slide("a.tif", 256, 256)
    made = _facts(tmp_path / "predicted" / "a" / "prediction.json", slide="a.tif")
    (tmp_path / "elsewhere" / "labels.zarr").mkdir(parents=True)
    (made.parent / "labels.zarr").symlink_to(tmp_path / "elsewhere" / "labels.zarr")
    catalogue = discover([slide, tmp_path / "predicted"])
    assert catalogue.sources == []
    assert any("leads out of the given paths, so it is not shown" in sentence for sentence in catalogue.said)
    assert len(discover([slide, tmp_path / "predicted", tmp_path / "elsewhere"]).sources) == 1


def test_when_time_is_up_slides_are_shown_unopened(make_slide, tmp_path, monkeypatch):
    from lamella.view.server.catalogue import slide_collection

    monkeypatch.setattr(slide_collection, "_OPENING_SECONDS", 0)
    catalogue = discover([make_slide("a.tif", 256, 256)])
    assert not catalogue.slides["a"].facts
    assert "1 of the slides were not opened beforehand" in catalogue.said[0]
