from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from lamella.dense import exports
from lamella.dense.exports import ExportSettings, export_prediction
from lamella.errors import LamellaError
from lamella.formats.geojson import read_geojson
from lamella.formats.ome_zarr import LabelStore, ProbabilityStore
from lamella.formats.outline_file import open_outlines
from lamella.geometry import Frame
from lamella.slides.polygons import fill_polygon

NAMES = ["background", "tumour", "stroma"]
HEIGHT, WIDTH, MPP = 150, 200, 0.5
SLIDE = Frame(401, 300, 0.25, 0.25)  # the raster ends half a raster pixel before the slide's edge


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Path, Path, np.ndarray, np.ndarray]:
    """Blocks of classes, a strip that was not looked at; probabilities whose largest is the class's."""
    random = np.random.default_rng(0)
    labels = np.kron(random.integers(0, 3, (HEIGHT // 10, WIDTH // 10), np.uint8), np.ones((10, 10), np.uint8))
    values = random.integers(0, 80, (3, HEIGHT, WIDTH), np.uint8)
    np.put_along_axis(values, labels[None].astype(np.int64), random.integers(90, 256, (1, HEIGHT, WIDTH)), axis=0)
    labels[:, :30], values[:, :, :30] = 255, 0
    folders = tmp_path / "labels.zarr", tmp_path / "probabilities.zarr"
    for store, raster in (
        (LabelStore(folders[0], NAMES, HEIGHT, WIDTH, MPP, chunk_px=64), labels),
        (ProbabilityStore(folders[1], NAMES, HEIGHT, WIDTH, MPP, chunk_px=64), values),
    ):
        for y in range(0, HEIGHT, 64):
            store.write(y, raster[..., y : y + 64, :])
        store.finish()
    return *folders, labels, values


def test_outlines_are_in_level_0_pixels_with_class_colour_area_and_probability(
    stored: tuple[Path, Path, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    folder, probabilities, labels, values = stored
    exported = export_prediction(
        folder,
        tmp_path / "out",
        SLIDE,
        probabilities=probabilities,
        background="background",
        colours={"tumour": (1, 2, 3), "stroma": (4, 5, 6)},
    )
    painted = np.zeros(labels.shape, np.uint8)
    objects = list(read_geojson(tmp_path / "out" / "objects.geojson.gz"))
    assert len(objects) == exported.objects > 10
    for item in objects:
        mask = np.zeros(labels.shape, bool)
        (polygon,) = item.polygons
        fill_polygon(mask, [ring / 2 for ring in polygon])  # 0.5 um against 0.25
        value = NAMES.index(item.classification)
        assert item.colour == ((1, 2, 3) if value == 1 else (4, 5, 6))
        assert item.measurements["Area µm^2"] == mask.sum() * MPP**2
        assert item.measurements["Mean probability"] == pytest.approx(values[value][mask].mean() / 255)
        painted[mask] = value
    expected = np.where((labels == 0) | (labels == 255), 0, labels)
    np.testing.assert_array_equal(painted, expected)


def test_areas_are_counted_in_the_label_map(stored: tuple[Path, Path, np.ndarray, np.ndarray], tmp_path: Path) -> None:
    folder, _, labels, _ = stored
    exported = export_prediction(folder, tmp_path / "out", SLIDE, settings=ExportSettings(geojson=False))
    facts = json.loads((tmp_path / "out" / "areas.json").read_text())
    for value, name in enumerate(NAMES):
        pixels = int((labels == value).sum())
        assert facts["classes"][name]["pixels"] == pixels
        assert exported.areas_mm2[name] == facts["classes"][name]["area_mm2"] == pytest.approx(pixels * 0.25e-6)
        assert facts["classes"][name]["share"] == pytest.approx(pixels / (labels != 255).sum())
    assert facts["looked_at_mm2"] == pytest.approx((labels != 255).sum() * 0.25e-6)
    assert exported.objects is None


def test_the_asked_files_are_written_and_no_others(
    stored: tuple[Path, Path, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    folder, probabilities, labels, values = stored
    everything = ExportSettings(probability_tiff=True)
    exported = export_prediction(folder, tmp_path / "all", SLIDE, probabilities=probabilities, settings=everything)
    names = {"labels.ome.tif", "probabilities.ome.tif", "objects.geojson.gz", "objects.outlines", "areas.json"}
    assert {path.name for path in exported.files} == {path.name for path in (tmp_path / "all").iterdir()} == names
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "all" / "labels.ome.tif"), labels)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "all" / "probabilities.ome.tif"), values)
    few = ExportSettings(label_tiff=False, geojson=False)
    export_prediction(folder, tmp_path / "few", SLIDE, settings=few)
    assert [path.name for path in (tmp_path / "few").iterdir()] == ["areas.json"]


def test_the_outlines_for_the_viewer_are_those_of_the_geojson(
    stored: tuple[Path, Path, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    export_prediction(stored[0], tmp_path / "out", SLIDE, background="background", colours={"tumour": (1, 2, 3)})
    path = tmp_path / "out" / "objects.geojson.gz"
    objects, found = list(read_geojson(path)), open_outlines(path)
    assert found is not None
    assert len(found) == len(objects) > 10
    assert dict(zip(found.names, found.colours, strict=True)) == {"tumour": (1, 2, 3), "stroma": None}
    for number, item in enumerate(objects):
        assert found.names[found.classes[number]] == item.classification
        assert tuple(found.bounds[number]) == item.bounds_px0()
        for ring, mapped in zip(item.polygons[0], found.parts(number), strict=True):
            np.testing.assert_array_equal(ring, mapped)


def test_small_pieces_are_left_out_of_the_outlines_but_not_of_the_areas(
    stored: tuple[Path, Path, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    folder = stored[0]
    whole = export_prediction(folder, tmp_path / "a", SLIDE)
    large = export_prediction(
        folder, tmp_path / "b", SLIDE, settings=ExportSettings(min_area_um2=25.01, object_type="detection")
    )
    assert whole.objects is not None
    assert large.objects is not None
    assert 0 < large.objects < whole.objects  # a block of 10 x 10 pixels is 25 um2
    assert large.areas_mm2 == whole.areas_mm2
    kept = list(read_geojson(tmp_path / "b" / "objects.geojson.gz"))
    assert min(item.measurements["Area µm^2"] for item in kept) > 25.01
    assert {item.object_type for item in kept} == {"detection"}


def test_the_tolerance_is_in_micrometres(
    stored: tuple[Path, Path, np.ndarray, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    original = exports.OutlineTracer
    monkeypatch.setattr(
        exports,
        "OutlineTracer",
        lambda *args, **options: seen.append(options["simplify_px"]) or original(*args, **options),
    )
    for simplify_um in (None, 0, 1):
        export_prediction(stored[0], tmp_path / "a", SLIDE, settings=ExportSettings(simplify_um=simplify_um))
    assert seen == [None, 0, 2]


def test_outlines_do_not_leave_the_slide(tmp_path: Path) -> None:
    """The raster's last row and column reach over the slide's edge by a part of a pixel."""
    store = LabelStore(tmp_path / "l", NAMES, HEIGHT, WIDTH, MPP, chunk_px=64)
    for y in range(0, HEIGHT, 64):
        store.write(y, np.ones((min(64, HEIGHT - y), WIDTH), np.uint8))
    store.finish()
    export_prediction(tmp_path / "l", tmp_path / "out", Frame(399, 299, 0.25, 0.25))
    (item,) = read_geojson(tmp_path / "out" / "objects.geojson.gz")
    assert item.bounds_px0() == (0, 0, 399, 299)


def test_an_unfinished_prediction_is_not_exported(tmp_path: Path) -> None:
    LabelStore(tmp_path / "l", NAMES, HEIGHT, WIDTH, MPP, chunk_px=64)
    with pytest.raises(LamellaError, match="unfinished"):
        export_prediction(tmp_path / "l", tmp_path / "out", SLIDE)
    assert not (tmp_path / "out").exists()


def test_the_same_prediction_gives_the_same_files(
    stored: tuple[Path, Path, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    for name in ("a", "b"):
        export_prediction(stored[0], tmp_path / name, SLIDE)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
