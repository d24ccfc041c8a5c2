"""Plain images and arrays as slides of one level."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from lamella.errors import ResolutionError, SlideError
from lamella.slides.readers import image as image_module
from lamella.slides.readers.image import ArrayReader, ImageReader
from lamella.slides.readers.mpp import resolve_mpp

NOISE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp", "wrong_but_an_image.jpg"])
def test_pixels_come_back_exactly(tmp_path, name):
    Image.fromarray(NOISE).save(tmp_path / name, format="PNG" if name.endswith("jpg") else None)
    reader = ImageReader(tmp_path / name)
    assert reader.level_sizes == [(80, 60)]
    assert (reader.read_level(0, 5, 7, 30, 20) == NOISE[7:27, 5:35]).all()


def test_a_tiff_in_strips_states_its_resolution_and_a_png_does_not(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", NOISE, photometric="rgb", resolution=(20000, 40000), resolutionunit="CENTIMETER"
    )
    found = resolve_mpp("a.tif", ImageReader(tmp_path / "a.tif").properties)
    assert (found.mpp_x, found.mpp_y) == pytest.approx((0.5, 0.25))
    Image.fromarray(NOISE).save(tmp_path / "a.png", dpi=(50800, 50800))
    with pytest.raises(ResolutionError):
        resolve_mpp("a.png", ImageReader(tmp_path / "a.png").properties)


def test_grey_palette_and_transparency(tmp_path):
    grey = NOISE[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert (ImageReader(tmp_path / "grey.png").read_level(0, 0, 0, 80, 60) == grey[..., None]).all()
    palette = Image.fromarray(NOISE).quantize(16)
    palette.save(tmp_path / "palette.png")
    expected = np.asarray(palette.convert("RGB"))
    assert (ImageReader(tmp_path / "palette.png").read_level(0, 0, 0, 80, 60) == expected).all()
    clear = np.dstack([NOISE, np.where(np.arange(80) < 40, 0, 255) * np.ones((60, 1))]).astype(np.uint8)
    Image.fromarray(clear).save(tmp_path / "clear.png")
    seen = ImageReader(tmp_path / "clear.png").read_level(0, 0, 0, 80, 60)
    assert (seen[:, :40] == 255).all()
    assert (seen[:, 40:] == NOISE[:, 40:]).all()


def test_exif_orientation_is_ignored_as_the_docstring_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    Image.fromarray(NOISE).save(tmp_path / "a.png", exif=exif)
    assert ImageReader(tmp_path / "a.png").level_sizes == [(80, 60)]


@pytest.mark.parametrize("cut", [0.3, 0.9])
def test_a_truncated_image_is_an_error_not_a_grey_area(tmp_path, cut):
    Image.fromarray(NOISE).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[: int(len(data) * cut)])
    reader = ImageReader(tmp_path / "a.png")
    with pytest.raises(SlideError, match=r"a\.png: the image is damaged"):
        reader.read_level(0, 0, 0, 80, 60)


def test_a_picture_too_large_to_hold_is_refused_with_a_remedy(tmp_path, monkeypatch):
    Image.fromarray(NOISE).save(tmp_path / "a.png")
    monkeypatch.setattr(image_module, "MAX_IMAGE_PX", 4000)
    with pytest.raises(SlideError, match="vips tiffsave"):
        ImageReader(tmp_path / "a.png")


@pytest.mark.parametrize("limit", [3000, 2000])  # Pillow warns above its limit and raises above twice of it
def test_pillows_own_bomb_limit_becomes_the_same_plain_error(tmp_path, monkeypatch, limit):
    Image.fromarray(NOISE).save(tmp_path / "a.png")
    monkeypatch.setattr(image_module, "MAX_IMAGE_PX", 4000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(SlideError, match="million pixels"):
        ImageReader(tmp_path / "a.png")


def test_refusals(tmp_path):
    tifffile.imwrite(tmp_path / "tiled.tif", NOISE, tile=(16, 16), photometric="rgb")
    with pytest.raises(SlideError, match="tiled"):
        ImageReader(tmp_path / "tiled.tif")
    Image.fromarray(NOISE[..., 0].astype(np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(SlideError, match="I;16"):
        ImageReader(tmp_path / "deep.png")
    Image.fromarray(NOISE).save(tmp_path / "a.svs", format="PNG")
    with pytest.raises(SlideError, match="PNG image, whatever its name says"):
        ImageReader(tmp_path / "a.svs")


def test_an_array_is_a_slide_and_other_shapes_are_not():
    reader = ArrayReader(NOISE)
    assert reader.level_sizes == [(80, 60)]
    region = reader.read_level(0, 1, 2, 3, 4)
    assert (region == NOISE[2:6, 1:4]).all()
    region[:] = 0
    assert (reader.read_level(0, 1, 2, 3, 4) == NOISE[2:6, 1:4]).all()
    assert ArrayReader(NOISE[..., 0]).read_level(0, 0, 0, 2, 2).shape == (2, 2, 3)
    for wrong in (NOISE.astype(float), NOISE[..., :2], NOISE[0, 0]):
        with pytest.raises(ValueError, match="expected"):
            ArrayReader(wrong)
