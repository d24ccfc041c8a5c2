"""The tissue of a slide being indexed: from a mask, from polygons, or found; and the files that are written."""

import gzip
import json

import numpy as np
import pytest
from PIL import Image

from lamella.errors import EmptyTissueError, MaskMismatchError
from lamella.formats.geojson import GeoObject, read_geojson, write_geojson
from lamella.slides.indexing import build_index
from lamella.slides.manifest import ManifestRow
from lamella.slides.masks import is_tissue, read_mask
from lamella.slides.polygons import fill_polygon
from lamella.slides.slide import open_slide
from lamella.slides.tissue import TissueSettings
from lamella.slides.tissue_files import given_mask, is_polygon_file, new_mask

SETTINGS = TissueSettings()


def square(x0, y0, side):
    return np.array([(x0, y0), (x0 + side, y0), (x0 + side, y0 + side), (x0, y0 + side)], float)


@pytest.fixture
def slide(make_slide):
    """1536 x 1024 px of 0.5 um: a mask of 96 x 64 px, each of 16 level-0 pixels."""
    with open_slide(make_slide()) as slide:
        yield slide


def given(slide, folder, path, settings=SETTINGS):
    return given_mask(path, ManifestRow("a", slide.path, path), slide, folder, settings)


def filled(path, mask, slide):
    found = np.zeros_like(mask)
    scale = np.array(mask.shape[::-1]) / (slide.frame.width_px, slide.frame.height_px)
    for item in read_geojson(path):
        assert (item.classification, item.object_type) == ("Tissue", "annotation")
        for rings in item.polygons:
            fill_polygon(found, [ring * scale for ring in rings])
    return found


def test_found_tissue_is_written_as_a_mask_and_as_the_same_outlines(slide, tmp_path):
    tissue, path = new_mask(ManifestRow("a", slide.path), slide, tmp_path, SETTINGS)
    assert path == tmp_path / "masks" / "a.png"
    np.testing.assert_array_equal(is_tissue(read_mask(path)), tissue.mask)
    np.testing.assert_array_equal(filled(tmp_path / "masks" / "a.geojson", tissue.mask, slide), tissue.mask)


def test_a_given_mask_is_left_alone_and_its_outlines_are_written(slide, tmp_path):
    values = np.zeros((64, 96), np.uint8)
    values[10:40, 20:70], values[20:30, 30:40] = 2, 1
    Image.fromarray(values).save(tmp_path / "given.png")
    tissue, path = given(slide, tmp_path, tmp_path / "given.png", TissueSettings(mask_values=(2,)))
    assert path == tmp_path / "given.png"
    outlines = tmp_path / "masks" / "a.geojson"
    np.testing.assert_array_equal(filled(outlines, tissue.mask, slide), values == 2)
    (item,) = read_geojson(outlines)
    assert len(item.polygons[0]) == 2  # the hole
    assert not (tmp_path / "masks" / "a.png").exists()


def test_the_outlines_of_a_mask_as_fine_as_the_slide_are_no_finer_than_the_setting(slide, tmp_path):
    rows = np.arange(1024)[:, None] > 500 + 100 * np.sin(np.arange(1536) / 90) + np.arange(1536) % 7
    Image.fromarray(rows.astype(np.uint8)).save(tmp_path / "fine.png")
    given(slide, tmp_path, tmp_path / "fine.png")
    (item,) = read_geojson(tmp_path / "masks" / "a.geojson")
    assert len(item.polygons[0][0]) < 120


@pytest.mark.parametrize("suffix", [".geojson", ".json", ".geojson.gz"])
def test_polygons_become_the_mask_of_their_area(slide, tmp_path, suffix):
    path = tmp_path / f"q{suffix}"
    outline, hole = square(160, 160, 640), square(320, 320, 160)
    objects = [
        GeoObject(polygons=((outline, hole),), classification="Tumor"),
        GeoObject(polygons=((square(1000, 800, 160),), (square(1200, 800, 160),))),
        GeoObject(polygons=((square(0, 0, 1000),),), object_type="detection"),
        GeoObject(points=np.array([[3.0, 4.0]])),
        GeoObject(polygons=((square(480, 480, 160),),), classification="Ignore*"),
    ]
    write_geojson(path if suffix != ".json" else tmp_path / "q.geojson", objects)
    if suffix == ".json":
        (tmp_path / "q.geojson").rename(path)
    tissue, mask_path = given(slide, tmp_path, path)
    assert mask_path == tmp_path / "masks" / "a.png"
    assert tissue.frame.mpp == pytest.approx(8.0)
    expected = np.zeros((64, 96), bool)
    expected[10:50, 10:50] = True
    expected[20:30, 20:30] = expected[30:40, 30:40] = False
    expected[50:60, 62:72] = expected[50:60, 75:85] = True  # 62.5 to 72.5: the pixel whose centre is the edge, left one
    assert np.array_equal(tissue.mask[:, :60], expected[:, :60])
    assert tissue.mask.sum() == expected.sum()
    np.testing.assert_array_equal(is_tissue(read_mask(mask_path)), tissue.mask)


def test_an_index_made_from_polygons_reads_back_whatever_the_mask_values_say(make_slide, tmp_path):
    write_geojson(tmp_path / "q.geojson", [GeoObject(polygons=((square(160, 160, 640),),))])
    row = ManifestRow("a", make_slide(), tmp_path / "q.geojson")
    (fate,) = build_index([row], tmp_path / "index", TissueSettings(mask_values=(7,)), {})
    assert fate.slide.tissue().mask.sum() == 40 * 40
    assert fate.slide.tissue_area_mm2 == pytest.approx(0.32**2)


@pytest.mark.parametrize(
    ("objects", "error", "cause"),
    [
        ([], EmptyTissueError, "no polygon"),
        ([GeoObject(points=np.array([[3.0, 4.0]]))], EmptyTissueError, "no polygon"),
        ([GeoObject(polygons=((square(0, 0, 9),),), object_type="cell")], EmptyTissueError, "no polygon"),
        ([GeoObject(polygons=((square(5000, 5000, 90),),))], MaskMismatchError, "outside the slide's 1536 x 1024"),
        ([GeoObject(polygons=((square(2, 2, 3),),))], EmptyTissueError, "smaller than a pixel"),
    ],
)
def test_polygons_without_tissue_are_refused(slide, tmp_path, objects, error, cause):
    write_geojson(tmp_path / "q.geojson", objects)
    with pytest.raises(error, match=cause):
        given(slide, tmp_path, tmp_path / "q.geojson")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("q.geojson", b'{"type": "FeatureCollection", "features": [{"type": "Fea'),
        ("q.geojson", b"not json"),
        ("q.geojson.gz", b"not gzip"),
        ("q.geojson.gz", gzip.compress(json.dumps({"type": "FeatureCollection"}).encode(), mtime=0)[:-12]),
    ],
)
def test_damaged_polygons_are_refused(slide, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MaskMismatchError):
        given(slide, tmp_path, tmp_path / name)


def test_missing_polygons_are_refused(slide, tmp_path):
    with pytest.raises(MaskMismatchError):
        given(slide, tmp_path, tmp_path / "gone.geojson")


def test_polygons_are_known_by_their_names(tmp_path):
    assert [is_polygon_file(tmp_path / name) for name in ("a.GeoJSON", "a.b.json", "a.geojson.gz")] == [True] * 3
    assert not any(is_polygon_file(tmp_path / name) for name in ("a.png", "geojson", "a.tif"))
