from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import openslide
import pytest
import tifffile

from lamella.errors import StorageError
from lamella.formats import ome_tiff
from lamella.formats.halving import majority_halved, mean_halved
from lamella.formats.ome_tiff import write_labels, write_probabilities
from lamella.geometry import Frame
from lamella.slides.readers.tiff import TiffReader
from lamella.slides.slide import open_slide

HEIGHT, WIDTH = 1100, 1500
FRAME = Frame(WIDTH, HEIGHT, 0.5, 0.25)
NAMES = ["background", "tumour & <stroma>"]
OME = "{http://www.openmicroscopy.org/Schemas/OME/2016-06}"


def some_labels() -> np.ndarray:
    blocks = np.random.default_rng(0).integers(0, 2, (HEIGHT // 50, WIDTH // 50), np.uint8)
    labels = np.kron(blocks, np.ones((50, 50), np.uint8))
    labels[:520, :600] = 255
    return labels


@pytest.fixture(scope="module")
def label_tiff(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiff") / "labels.ome.tif"
    write_labels(path, some_labels(), FRAME, NAMES)
    return path


@pytest.fixture(scope="module")
def probability_tiff(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiff") / "probabilities.ome.tif"
    write_probabilities(path, some_probabilities(), FRAME, ["a", "b", "c"])
    return path


def some_probabilities() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, HEIGHT, WIDTH), np.uint8)


def test_labels_come_back_and_coarser_levels_hold_labels_only(label_tiff: Path) -> None:
    labels = some_labels()
    with tifffile.TiffFile(label_tiff) as tiff:
        (series,) = tiff.series
        assert [level.shape for level in series.levels] == [(1100, 1500), (550, 750), (275, 375)]
        for level in series.levels:
            np.testing.assert_array_equal(level.asarray(), labels)
            labels = majority_halved(labels)


def test_every_channel_of_probabilities_has_its_pyramid(probability_tiff: Path) -> None:
    values = some_probabilities()
    with tifffile.TiffFile(probability_tiff) as tiff:
        (series,) = tiff.series
        assert series.axes == "CYX"
        np.testing.assert_array_equal(series.levels[0].asarray(), values)
        np.testing.assert_array_equal(series.levels[1].asarray(), mean_halved(values))
        assert [len(page.subifds) for page in tiff.pages] == [2, 2, 2]


def test_our_reader_opens_it_at_the_right_scale(label_tiff: Path) -> None:
    with open_slide(label_tiff) as slide:
        assert slide.frame == FRAME
        assert [(frame.width_px, frame.height_px) for frame in slide.levels] == [(1500, 1100), (750, 550), (375, 275)]
    pixels = TiffReader(label_tiff).read_level(0, 0, 0, WIDTH, HEIGHT)
    np.testing.assert_array_equal(pixels[..., 0], some_labels())


@pytest.mark.parametrize("fixture", ["label_tiff", "probability_tiff"])
def test_openslide_opens_the_finest_level_at_the_right_scale(fixture: str, request: pytest.FixtureRequest) -> None:
    with openslide.OpenSlide(request.getfixturevalue(fixture)) as slide:
        assert slide.dimensions == (WIDTH, HEIGHT)
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5)
        assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(0.25)
        if fixture == "label_tiff":
            region = np.asarray(slide.read_region((400, 400), 0, (300, 200)))
            np.testing.assert_array_equal(region[..., 1], some_labels()[400:600, 400:700])


@pytest.mark.parametrize(("fixture", "channels"), [("label_tiff", 1), ("probability_tiff", 3)])
def test_the_ome_xml_keeps_the_rules_bio_formats_asks_for(
    fixture: str, channels: int, request: pytest.FixtureRequest
) -> None:
    """Schema 2016-06: order of elements, required attributes, IDs, as many planes as pages, sizes as stored."""
    with tifffile.TiffFile(request.getfixturevalue(fixture)) as tiff:
        text, pages = tiff.ome_metadata, len(tiff.pages)
    assert text is not None
    assert text.isascii()  # TIFF's ImageDescription
    root = ElementTree.fromstring(text)
    assert root.tag == f"{OME}OME"
    assert re.fullmatch(r"urn:uuid:[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", root.attrib["UUID"])
    (image,) = root.findall(f"{OME}Image")
    (pixels,) = image.findall(f"{OME}Pixels")
    assert pixels.attrib["DimensionOrder"] == "XYCZT"
    assert pixels.attrib["Type"] == "uint8"
    sizes = [int(pixels.attrib[f"Size{axis}"]) for axis in "XYCZT"]
    assert sizes == [WIDTH, HEIGHT, channels, 1, 1]
    assert (float(pixels.attrib["PhysicalSizeX"]), float(pixels.attrib["PhysicalSizeY"])) == (0.5, 0.25)
    assert "PhysicalSizeXUnit" not in pixels.attrib  # the schema's default is the micrometre
    tags = [child.tag.removeprefix(OME) for child in pixels]
    assert tags == ["Channel"] * channels + ["TiffData"]
    assert {child.attrib["SamplesPerPixel"] for child in pixels.findall(f"{OME}Channel")} == {"1"}
    assert int(pixels.findall(f"{OME}TiffData")[0].attrib["PlaneCount"]) == pages == channels
    ids = [element.attrib["ID"] for element in root.iter() if "ID" in element.attrib and "Ref" not in element.tag]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"(Image|Pixels|Channel|Annotation):\S+", name) for name in ids)


def test_labels_carry_the_names_of_their_values(label_tiff: Path) -> None:
    with tifffile.TiffFile(label_tiff) as tiff:
        root = ElementTree.fromstring(tiff.ome_metadata or "")
    found = {entry.attrib["K"]: entry.text for entry in root.iter(f"{OME}M")}
    assert found == {"0": "background", "1": "tumour & <stroma>", "255": "not looked at"}
    reference = {element.attrib["ID"] for element in root.iter(f"{OME}AnnotationRef")}
    assert reference == {element.attrib["ID"] for element in root.iter(f"{OME}MapAnnotation")}


def test_a_large_raster_becomes_a_big_tiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ome_tiff, "_CLASSIC_BYTES", 2_000_000)
    write_labels(tmp_path / "a.ome.tif", some_labels(), FRAME, NAMES)
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tiff:
        assert tiff.is_bigtiff
        np.testing.assert_array_equal(tiff.asarray(), some_labels())


def test_the_same_raster_gives_the_same_bytes(tmp_path: Path, label_tiff: Path) -> None:
    write_labels(tmp_path / "labels.ome.tif", some_labels(), FRAME, NAMES)
    assert (tmp_path / "labels.ome.tif").read_bytes() == label_tiff.read_bytes()


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(tile: np.ndarray) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ome_tiff, "_packed", refuse)
    with pytest.raises(StorageError, match="the disk is full"):
        write_labels(tmp_path / "a.ome.tif", some_labels(), FRAME, NAMES)
    assert list(tmp_path.iterdir()) == []
