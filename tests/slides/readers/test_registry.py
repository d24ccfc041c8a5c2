"""Which reader takes a file, what a refusal says, and which files of a folder are slides."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from lamella.errors import LamellaError, ResolutionError, SlideError
from lamella.slides.readers.registry import READERS, content, open_reader, slide_files
from lamella.slides.slide import open_slide

NOISE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


def test_the_order_is_own_reader_vendor_formats_dicom_plain_image():
    assert list(READERS) == ["tiff", "openslide", "dicom", "image"]


def test_content_decides_not_the_suffix(make_slide, tmp_path):
    tiled = make_slide("tiled.svs", height=300, width=400, levels=1)
    assert open_reader(tiled).name == "tiff"
    assert open_reader(tiled, ("openslide",)).name == "openslide"
    tifffile.imwrite(tmp_path / "strips.tif", NOISE, photometric="rgb")
    assert open_reader(tmp_path / "strips.tif").name == "image"
    Image.fromarray(NOISE).save(tmp_path / "a.png")
    assert open_reader(tmp_path / "a.png").name == "image"


def test_what_the_own_reader_refuses_goes_to_openslide(tmp_path):
    pixels = np.dstack([NOISE, np.full((60, 80), 255, np.uint8)])
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(16, 16), photometric="rgb", extrasamples=["unassalpha"])
    reader = open_reader(tmp_path / "a.tif")
    assert reader.name == "openslide"
    assert (reader.read_level(0, 0, 0, 80, 60) == NOISE).all()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "empty (0 bytes)"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "a PNG image"),
        (b"%PDF-1.7 something", "a PDF document"),
        (b"PK\x03\x04" + bytes(50), "a ZIP archive"),
        (b"<!doctype html><html>not found</html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer"),
        (b"IJrEstuff", "of an unknown format (starts with b'IJrE')"),
        (bytes(128) + b"DICM", "a DICOM file"),
    ],
)
def test_a_refused_file_is_named_with_what_it_really_is_and_what_each_reader_said(tmp_path, data, kind):
    path = tmp_path / "slide.svs"
    path.write_bytes(data)
    with pytest.raises(SlideError) as caught:
        open_slide(path, mpp=0.5)
    message = str(caught.value)
    assert kind in content(path)
    for words in ("slide.svs: it is", kind, *(f"{name}: " for name in READERS)):
        assert words in message
    assert len(message) < 700


def test_a_png_named_svs_is_refused_even_with_a_stated_mpp(tmp_path):
    Image.fromarray(NOISE).save(tmp_path / "slide.svs", format="PNG")
    with pytest.raises(SlideError, match="it is a PNG image") as caught:
        open_slide(tmp_path / "slide.svs", mpp=0.5)
    assert "slide.svs" in str(caught.value)


def test_a_missing_file_missing_mpp_and_absurd_mpp(make_slide, tmp_path):
    with pytest.raises(SlideError, match="does not exist"):
        open_slide(tmp_path / "gone.svs")
    with pytest.raises(ResolutionError, match="--mpp"):
        open_slide(make_slide("no_mpp.tif", height=80, width=80, levels=1, mpp=None))
    absurd = make_slide("absurd.tif", height=80, width=80, levels=1, mpp=896.0)
    with pytest.raises(ResolutionError, match="896"):
        open_slide(absurd)
    with open_slide(absurd, mpp=0.5) as slide:
        assert slide.mpp == 0.5
        assert "896" in slide.resolution.note


def test_an_unknown_reader_name_lists_the_known_ones(tmp_path):
    with pytest.raises(LamellaError, match="tiff, openslide, dicom, image"):
        open_reader(tmp_path, ("cucim",))


def test_the_slides_of_a_folder(tmp_path):
    for name in ("b.svs", "a.TIF", "c.png", "notes.txt", "table.csv", ".hidden.svs", "d.ndpi"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "a.png").write_bytes(b"x")
    (tmp_path / "e.mrxs").write_bytes(b"x")
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "Data0000.dat").write_bytes(b"x")
    assert [path.name for path in slide_files(tmp_path)] == ["a.TIF", "b.svs", "c.png", "d.ndpi", "e.mrxs"]
    assert slide_files(tmp_path / "masks") == [tmp_path / "masks" / "a.png"]
