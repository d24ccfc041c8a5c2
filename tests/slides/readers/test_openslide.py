"""OpenSlide behind the protocol: exact pixels, white glass, errors that leave the rest readable."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from lamella.errors import SlideError
from lamella.slides.readers.openslide import OpenSlideReader, on_white

NOISE = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)


def write(path, **options):
    with tifffile.TiffWriter(path) as tiff:
        for level, pixels in enumerate((NOISE, NOISE[::2, ::2].copy())):
            tiff.write(
                pixels, tile=(128, 128), photometric="rgb", subfiletype=int(level > 0), metadata=None,
                resolution=(20000, 40000), resolutionunit="CENTIMETER", compression="deflate", **options,
            )  # fmt: skip
    return path


def test_whole_pixels_of_every_level_come_back_exactly(tmp_path):
    reader = OpenSlideReader(write(tmp_path / "a.tif"))
    assert reader.level_sizes == [(400, 300), (200, 150)]
    assert (reader.read_level(0, 37, 101, 200, 150) == NOISE[101:251, 37:237]).all()
    assert (reader.read_level(1, 37, 11, 150, 120) == NOISE[::2, ::2][11:131, 37:187]).all()
    assert float(reader.properties["openslide.mpp-x"]) == pytest.approx(0.5)
    assert float(reader.properties["openslide.mpp-y"]) == pytest.approx(0.25)
    reader.close()


def test_transparent_pixels_are_white_and_half_transparent_ones_half_white():
    image = np.full((2, 3, 4), 255, np.uint8)
    image[..., :3] = (200, 40, 90)
    image[0, 0, 3], image[0, 1, 3] = 0, 128
    expected = np.full((2, 3, 3), (200, 40, 90), np.uint8)
    expected[0, 0] = 255
    expected[0, 1] = np.round(np.array([200, 40, 90]) * 128 / 255 + 127)
    assert np.abs(on_white(Image.fromarray(image)).astype(int) - expected).max() <= 1
    assert (on_white(Image.fromarray(image))[1] == expected[1]).all()


def test_a_place_it_cannot_decode_is_named_and_the_rest_stays_readable(tmp_path):
    path = write(tmp_path / "bad.tif")
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages[0].dataoffsets[5]
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(bytes(5000))
    reader = OpenSlideReader(path)
    with pytest.raises(SlideError) as caught:
        reader.read_level(0, 140, 140, 50, 60)
    for words in ("bad.tif", "level 0", "x=140, y=140"):
        assert words in str(caught.value)
    assert (reader.read_level(0, 0, 0, 128, 128) == NOISE[:128, :128]).all()


def test_what_it_does_not_know_is_refused(tmp_path):
    (tmp_path / "a.svs").write_bytes(b"nothing")
    with pytest.raises(SlideError, match="does not know this format"):
        OpenSlideReader(tmp_path / "a.svs")
