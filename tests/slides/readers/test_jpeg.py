"""JPEG tiles against an independent decoder, with every way in which colours are stated."""

import io

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from lamella.slides.readers.jpeg import JpegTiles

Y, X = np.mgrid[:64, :48]
SMOOTH = np.stack([X * 4, Y * 3, (X + Y) * 2], axis=-1).astype(np.uint8)


def encoded(colours, subsampling="444"):
    if colours == "Gray":
        return imagecodecs.jpeg8_encode(SMOOTH[..., 0].copy(), level=95)
    spaces = {"YCbCr": ("rgb", "ycbcr"), "RGB": ("rgb", "rgb")}[colours]
    return imagecodecs.jpeg8_encode(
        SMOOTH, level=95, colorspace=spaces[0], outcolorspace=spaces[1], subsampling=subsampling
    )


def without(stream, *markers):
    """The stream without its APPn segments of these numbers."""
    out, at = stream[:2], 2
    while stream[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
        if stream[at + 1] not in markers:
            out += stream[at:end]
        at = end
    return out + stream[at:]


@pytest.mark.parametrize("subsampling", ["444", "422", "420"])
@pytest.mark.parametrize("strip", [(), (0xE0, 0xEE)])
def test_ycbcr_equals_the_independent_decoder(subsampling, strip):
    stream = without(encoded("YCbCr", subsampling), *strip)
    expected = imagecodecs.jpeg8_decode(stream, colorspace="YCBCR", outcolorspace="RGB")
    assert (JpegTiles(48, 64, "YCbCr", None).decode(stream) == expected).all()


@pytest.mark.parametrize("strip", [(), (0xE0, 0xEE)])
def test_rgb_is_not_turned_into_rgb_again(strip):
    stream = without(encoded("RGB"), *strip)
    pixels = JpegTiles(48, 64, "RGB", None).decode(stream)
    assert np.abs(pixels.astype(int) - SMOOTH).max() <= 6


@pytest.mark.parametrize(("stated", "coded"), [("RGB", "YCbCr"), ("YCbCr", "RGB")])
def test_the_page_wins_over_what_the_stream_says(stated, coded):
    """As for libtiff: the tag says what the channels are, whatever the markers in the tile."""
    stream = encoded(coded)
    pixels = JpegTiles(48, 64, stated, None).decode(stream)
    expected = imagecodecs.jpeg8_decode(stream, colorspace=stated.upper(), outcolorspace="RGB")
    assert (pixels == expected).all()
    assert np.abs(pixels.astype(int) - SMOOTH).max() > 40


def test_grey_has_one_channel():
    stream = encoded("Gray")
    pixels = JpegTiles(48, 64, "Gray", None).decode(stream)
    assert pixels.shape == (64, 48, 1)
    assert (pixels[..., 0] == imagecodecs.jpeg8_decode(stream)).all()


@pytest.mark.parametrize("shrink", [2, 4])
def test_shrinking_is_near_the_area_average(shrink):
    stream = encoded("YCbCr")
    pixels = JpegTiles(48, 64, "YCbCr", None).decode(stream, shrink)
    average = np.asarray(Image.fromarray(SMOOTH).reduce(shrink)).astype(int)
    assert pixels.shape == average.shape
    assert np.abs(pixels - average).mean() < 2


def test_sides_that_are_no_whole_blocks_are_not_shrunk():
    assert JpegTiles(48, 64, "RGB", None).shrinks == (1, 2, 4)
    assert JpegTiles(50, 64, "RGB", None).shrinks == (1,)


def test_it_decodes_into_the_given_memory():
    out = np.zeros((64, 48, 3), np.uint8)
    tiles = JpegTiles(48, 64, "YCbCr", None)
    assert tiles.decode(encoded("YCbCr"), out=out) is out
    assert (out == tiles.decode(encoded("YCbCr"))).all()


@pytest.mark.parametrize(
    "damage",
    [
        lambda stream: stream[: len(stream) // 2],
        lambda stream: stream[:-2],
        lambda stream: b"",
        lambda stream: b"\xff\xd8",
        lambda stream: stream[:2] + b"\0" * 40 + stream[42:],
        lambda stream: stream[: len(stream) // 2] + bytes(len(stream) - len(stream) // 2),
    ],
)
def test_damage_is_an_error(damage):
    with pytest.raises(ValueError, match=r"."):
        JpegTiles(48, 64, "YCbCr", None).decode(damage(encoded("YCbCr")))


def test_another_size_than_the_tiles_is_an_error_before_memory_is_taken():
    with pytest.raises(ValueError, match="48 x 64 pixels instead of 32 x 32"):
        JpegTiles(32, 32, "YCbCr", None).decode(encoded("YCbCr"))


def test_tables_that_are_no_stream_are_refused():
    with pytest.raises(ValueError, match="tables are damaged"):
        JpegTiles(32, 32, "YCbCr", b"\0\0\0\0")


# ---- tiles as files of their own ------------------------------------------------------------------------------------


def browser(stream):
    """What a browser makes of it: Pillow reads markers as libjpeg does, and nothing tells it of the TIFF."""
    image = Image.open(io.BytesIO(stream))
    assert image.format == "JPEG"
    return np.asarray(image.convert("RGB")).astype(int)


def split_tables(stream):
    """(the tables as a TIFF page keeps them, the stream without them)."""
    tables, own, at = stream[:2], stream[:2], 2
    while stream[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
        if stream[at + 1] in (0xC4, 0xDB):
            tables += stream[at:end]
        else:
            own += stream[at:end]
        at = end
    return tables + b"\xff\xd9", own + stream[at:]


@pytest.mark.parametrize("strip", [(), (0xE0, 0xEE)])
@pytest.mark.parametrize("colours", ["RGB", "YCbCr", "Gray"])
def test_a_tile_becomes_a_file_of_the_same_colours(colours, strip):
    stream = without(encoded(colours), *strip)
    tiles = JpegTiles(48, 64, colours, None)
    assert np.abs(browser(tiles.as_file(stream)) - tiles.decode(stream)).max() <= 2


@pytest.mark.parametrize("colours", ["RGB", "YCbCr"])
def test_tables_that_the_page_keeps_go_into_the_file(colours):
    stream = encoded(colours)
    tables, own = split_tables(without(stream, 0xE0, 0xEE))
    tiles = JpegTiles(48, 64, colours, tables)
    assert np.abs(browser(tiles.as_file(own)) - tiles.decode(own)).max() <= 2


@pytest.mark.parametrize(("stated", "coded"), [("RGB", "YCbCr"), ("YCbCr", "RGB")])
def test_a_tile_that_says_other_colours_than_its_page_is_no_file(stated, coded):
    assert JpegTiles(48, 64, stated, None).as_file(encoded(coded)) is None


@pytest.mark.parametrize(("code", "data"), [(0xE1, b"Exif\0\0"), (0xE2, b"ICC_PROFILE\0")])
def test_a_tile_that_a_browser_would_turn_or_tint_is_no_file(code, data):
    stream = encoded("YCbCr")
    segment = bytes([0xFF, code]) + (len(data) + 2).to_bytes(2, "big") + data
    assert JpegTiles(48, 64, "YCbCr", None).as_file(stream[:2] + segment + stream[2:]) is None


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_damaged_tile_is_no_file_but_an_error(share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    stream = imagecodecs.jpeg8_encode(noise, level=95)
    with pytest.raises(ValueError, match=r"\w"):
        JpegTiles(48, 64, "YCbCr", None).as_file(stream[: int(len(stream) * share)])
    with pytest.raises(ValueError, match="pixels instead of"):
        JpegTiles(64, 64, "YCbCr", None).as_file(stream)
