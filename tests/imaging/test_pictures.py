"""Ordinary images: what Pillow's modes become; damage and pages refused."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

from lamella.errors import ImageError
from lamella.imaging.reading import kind_of, read_image, read_volume

COLOURS = np.random.default_rng(3).integers(0, 256, (6, 9, 3), np.uint8)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.ppm"])
def test_colours_are_bytes(tmp_path, name):
    Image.fromarray(COLOURS).save(tmp_path / name)
    found = read_image(tmp_path / name)
    assert (kind_of(tmp_path / name), found.unit, found.spacing_mm) == ("image", "byte", None)
    np.testing.assert_array_equal(found.values, COLOURS)


def test_jpeg(tmp_path):
    smooth = np.repeat(np.arange(64, dtype=np.uint8)[:, None] * 4, 64, axis=1)
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    found = read_image(tmp_path / "a.jpg").values
    assert found.shape == (64, 64)
    assert np.abs(found.astype(int) - smooth).max() <= 3


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_deep_grey_is_kept_as_stored(tmp_path, name):
    deep = np.array([[0, 1000], [40_000, 65_535]], np.uint16)
    Image.fromarray(deep).save(tmp_path / name)
    found = read_image(tmp_path / name)
    assert (found.unit, found.values.dtype) == ("stored", np.float32)
    np.testing.assert_array_equal(found.values, deep)


def test_float_grey_is_kept_and_checked(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.array([[0.5, -3]], np.float32))
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").values, [[0.5, -3]])
    tifffile.imwrite(tmp_path / "b.tif", np.array([[0.5, np.nan]], np.float32))
    with pytest.raises(ImageError, match="NaN"):
        read_image(tmp_path / "b.tif")


def test_palettes_are_looked_up(tmp_path):
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putpixel((1, 0), 1)
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").values, [[[10, 20, 30], [40, 50, 60]]])


@pytest.mark.parametrize(("mode", "colour", "expected"), [
    ("RGBA", (0, 100, 200, 0), [255, 255, 255]),
    ("RGBA", (0, 100, 200, 255), [0, 100, 200]),
    ("LA", (50, 0), 255),
    ("LA", (50, 255), 50),
    ("1", 1, 255),
    ("CMYK", (0, 0, 0, 0), [255, 255, 255]),
])  # fmt: skip
def test_other_modes(tmp_path, mode, colour, expected):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.new(mode, (3, 2), colour).save(path)
    np.testing.assert_array_equal(read_image(path).values[0, 0], expected)


def test_the_cameras_orientation_is_applied(tmp_path):
    picture = Image.fromarray(COLOURS)
    exif = picture.getexif()
    exif[0x0112] = 6  # turned by 90 degrees clockwise to be seen
    picture.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").values, np.rot90(COLOURS, -1))


def test_several_pages_are_an_error(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((3, 8, 8), np.uint8), photometric="minisblack")
    with pytest.raises(ImageError, match="it holds 3 pages"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.bmp"])
def test_a_file_cut_short_is_an_error(tmp_path, name):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match="damaged image"):
        read_image(tmp_path / name)


@pytest.mark.parametrize("content", [b"label,value\n", b"\x89PNG\r\n\x1a\n", bytes(1000)])
def test_what_is_no_image_is_an_error(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageError, match=r"a\.png: it is (no image|a damaged image)"):
        read_image(tmp_path / "a.png")


def test_an_image_given_as_a_volume_is_an_error(tmp_path):
    Image.fromarray(COLOURS).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match="it is a 2-D image, not a volume"):
        read_volume(tmp_path / "a.png")
