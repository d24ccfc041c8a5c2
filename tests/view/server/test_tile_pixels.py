"""Tiles hold the right pixels at every level: against plain means of the slide's own array."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image

from lamella.errors import SlideError
from lamella.slides.readers.image import ArrayReader
from lamella.slides.readers.mpp import Resolution
from lamella.slides.slide import Slide, open_slide
from lamella.view.server.pyramid import Pyramid
from lamella.view.server.tile_pixels import thumbnail_jpeg, tile_jpeg, tile_pixels

# Sides that no power of two divides, with a column and a row of tiles at the edge that are hardly one pixel wide.
HEIGHT, WIDTH = 301, 517
NOISE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def slide_of(pixels, mpp=(0.5, 0.5)):
    return Slide("memory", ArrayReader(pixels), Resolution(*mpp, "stated"))


def level_of(pixels, down):
    """The level as it should be: means of down x down pixels, at the edge of those that there are."""
    height, width = pixels.shape[:2]
    sums = np.add.reduceat(np.add.reduceat(pixels.astype(float), range(0, height, down)), range(0, width, down), axis=1)
    ones = np.ones((height, width, 1))
    return sums / np.add.reduceat(np.add.reduceat(ones, range(0, height, down)), range(0, width, down), axis=1)


def shown(jpeg):
    image = Image.open(io.BytesIO(jpeg))
    assert image.format == "JPEG"
    return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize("mpp", [(0.5, 0.5), (0.5, 0.2), (0.25, 1.0)])
def test_every_tile_of_every_level_is_the_mean_of_its_pixels(mpp):
    """Unequal micrometres change nothing: the page's pixels are level-0 pixels."""
    slide = slide_of(NOISE, mpp)
    pyramid = Pyramid.over(slide.frame)
    for level in range(pyramid.max_level + 1):
        expected = level_of(NOISE, pyramid.downsample(level))
        columns, rows = pyramid.tiles(level)
        tiles = [[tile_pixels(slide, pyramid, level, c, r) for c in range(columns)] for r in range(rows)]
        whole = np.concatenate([np.concatenate(row, axis=1) for row in tiles])
        assert whole.shape == expected.shape
        assert np.abs(whole - expected).max() <= 1


def test_no_white_of_beyond_the_edge_is_mixed_into_the_last_pixels():
    slide = slide_of(np.full((HEIGHT, WIDTH, 3), 60, np.uint8))
    pyramid = Pyramid.over(slide.frame)
    for level in range(pyramid.max_level + 1):
        columns, rows = (count - 1 for count in pyramid.tiles(level))
        assert (tile_pixels(slide, pyramid, level, columns, rows) == 60).all()


def test_a_known_place_of_a_pyramid_file_is_where_it_should_be(tmp_path):
    """A dot of 32 px at (1040, 600), in levels whose sides were rounded down."""
    pixels = np.full((1211, 1803, 3), 240, np.uint8)
    pixels[600:632, 1040:1072] = (200, 0, 0)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for level, down in enumerate((1, 2, 4)):
            size = pixels.shape[1] // down, pixels.shape[0] // down
            image = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
            tiff.write(image, tile=(256, 256), photometric="rgb", metadata=None, subfiletype=int(level > 0))
    with open_slide(tmp_path / "a.tif", mpp=0.5, dct_scaling=True) as slide:
        pyramid = Pyramid.over(slide.frame)
        for level in (pyramid.max_level, pyramid.max_level - 1, pyramid.max_level - 2, pyramid.max_level - 3):
            side = 256 * pyramid.downsample(level)
            tile = tile_pixels(slide, pyramid, level, 1056 // side, 616 // side).astype(int)
            x, y = (round(v % side / pyramid.downsample(level) - 0.5) for v in (1056, 616))
            assert np.abs(tile[y, x] - (200, 0, 0)).max() <= 25
            assert (tile < 120).any(axis=2).sum() == pytest.approx((32 / pyramid.downsample(level)) ** 2, rel=0.6)


# ---- the file's own JPEG --------------------------------------------------------------------------------------------


def jpeg_slide(folder, pixels, colour="ycbcr"):
    path = folder / f"{colour}.tif"
    args = {"level": 95} if colour == "ycbcr" else {"level": 95, "outcolorspace": "rgb"}
    tifffile.imwrite(
        path, pixels, tile=(256, 256), photometric="rgb", compression="jpeg", compressionargs=args, metadata=None
    )
    if colour == "rgb":
        with tifffile.TiffFile(path, mode="r+b") as tiff:
            tiff.pages.first.tags["PhotometricInterpretation"].overwrite(2)
    return path


Y, X = np.mgrid[:600, :800]
SMOOTH = np.stack([X // 4, Y // 3, (X + Y) // 6], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("colour", ["ycbcr", "rgb"])
def test_a_tile_that_the_file_holds_is_sent_as_it_is(tmp_path, colour):
    path = jpeg_slide(tmp_path, SMOOTH, colour)
    with open_slide(path, mpp=0.5) as slide:
        level = Pyramid.over(slide.frame).max_level
        sent = tile_jpeg(slide, level, 1, 1)
        assert sent[-400:] in path.read_bytes()
        assert np.abs(shown(sent) - SMOOTH[256:512, 256:512]).max() <= 8
        # Tiles at the edge are filled up in the file, and not on the page.
        edge = tile_jpeg(slide, level, 3, 2)
        assert np.abs(shown(edge) - SMOOTH[512:, 768:]).mean() < 4
        assert shown(edge).shape == (88, 32, 3)


def test_a_very_large_stored_tile_is_coded_anew(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    tifffile.imwrite(
        tmp_path / "a.tif",
        noise,
        tile=(256, 256),
        photometric="rgb",
        compression="jpeg",
        compressionargs={"level": 100},
        metadata=None,
    )
    with open_slide(tmp_path / "a.tif", mpp=0.5) as slide:
        level = Pyramid.over(slide.frame).max_level
        assert len(slide.stored_jpeg(Pyramid.over(slide.frame).tile(level, 0, 0)[0], 256, 256, 0.5)) > 64 << 10
        assert len(tile_jpeg(slide, level, 0, 0)) < 80 << 10


@pytest.mark.parametrize("how", ["cut", "zeros"])
def test_a_damaged_stored_tile_is_an_error_that_names_it(tmp_path, how):
    path = jpeg_slide(tmp_path, SMOOTH)
    with tifffile.TiffFile(path) as tiff:
        at, count = tiff.pages.first.dataoffsets[1], tiff.pages.first.databytecounts[1]
    data = bytearray(path.read_bytes())
    data[at + count // 2 : at + count] = (
        b"\0" * (count - count // 2)
        if how == "zeros"
        else b"\xff\xd9" * ((count - count // 2) // 2) + b"\0" * ((count - count // 2) % 2)
    )
    path.write_bytes(data)
    with open_slide(path, mpp=0.5) as slide:
        level = Pyramid.over(slide.frame).max_level
        assert shown(tile_jpeg(slide, level, 0, 0)).shape == (256, 256, 3)
        with pytest.raises(SlideError, match="tile 1 "):
            tile_jpeg(slide, level, 1, 0)


def test_thumbnails_keep_the_proportions_of_level_0_pixels():
    slide = slide_of(SMOOTH, (0.5, 0.25))
    assert shown(thumbnail_jpeg(slide, 256)).shape == (192, 256, 3)
    assert shown(thumbnail_jpeg(slide, 5000)).shape == (600, 800, 3)  # never enlarged
    assert shown(thumbnail_jpeg(slide_of(SMOOTH[:2]), 256)).shape == (1, 256, 3)
