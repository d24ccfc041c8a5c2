"""Views read together: the pixels of `read`, each tile decoded once, any number of threads."""

import contextlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.conftest import textured, write_pyramid

from lamella.errors import DamagedSlideError, SlideError
from lamella.geometry import Box
from lamella.slides import views
from lamella.slides.readers.jpeg import JpegTiles
from lamella.slides.readers.protocol import Threads
from lamella.slides.readers.tiff import TiffReader
from lamella.slides.slide import SlideCache, open_slide

SIDE, TILE = 512, 64


@pytest.fixture(scope="module")
def jpeg(tmp_path_factory):
    """0.5 um per pixel, levels at 1 and 4; JPEG tiles."""
    path = tmp_path_factory.mktemp("slides") / "jpeg.tif"
    return write_pyramid(path, textured(SIDE, SIDE - 3), levels=3, tile_px=TILE, compression="jpeg")


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """One level only; JPEG tiles, so that coarse views come from level 0."""
    path = tmp_path_factory.mktemp("slides") / "single.tif"
    return write_pyramid(path, textured(SIDE, SIDE - 3), levels=1, tile_px=TILE, compression="jpeg")


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("slides") / "picture.png"
    Image.fromarray(textured(SIDE, SIDE - 3)).save(path)
    return path


corners = st.lists(
    st.tuples(st.floats(-60, SIDE + 20), st.floats(-60, SIDE + 20))
    | st.tuples(st.integers(-60, SIDE), st.integers(0, SIDE)),
    min_size=1,
    max_size=12,
)


@pytest.mark.parametrize("kind", ["jpeg", "single", "picture"])
@pytest.mark.parametrize("dct_scaling", [False, True])
@settings(max_examples=25, deadline=None)
@given(corners=corners, mpp=st.sampled_from([0.3, 0.5, 0.9, 1.0, 1.7, 2.0, 4.0]), threads=st.sampled_from([1, 3]))
def test_the_pixels_are_those_of_read(request, kind, dct_scaling, corners, mpp, threads):
    path = request.getfixturevalue(kind)
    boxes = [Box(x, y, x + 96, y + 80) for x, y in corners]
    with open_slide(path, mpp=0.5, dct_scaling=dct_scaling) as slide:
        together = slide.read_many(boxes, mpp, threads=threads)
        one_by_one = [slide.read(box, mpp).pixels for box in boxes]
    assert together.dtype == np.uint8
    assert (together == np.stack(one_by_one)).all()


@pytest.fixture
def decoded(monkeypatch):
    """(level, tile) of every tile that is decoded."""
    calls, real = [], TiffReader._decode

    def counting(self, level, index, *rest):
        calls.append((level, index))
        return real(self, level, index, *rest)

    monkeypatch.setattr(TiffReader, "_decode", counting)
    return calls


@pytest.mark.parametrize("mpp", [0.5, 0.75])
@pytest.mark.parametrize("threads", [1, 3])
def test_each_tile_is_decoded_once_in_file_order(jpeg, decoded, mpp, threads):
    boxes = [Box(x, y, x + 96, y + 96) for y in range(0, 360, 24) for x in range(0, 360, 24)]
    with open_slide(jpeg) as slide:
        decoded.clear()
        slide.read_many(boxes, mpp, threads=threads)
    assert len(decoded) == len(set(decoded))
    if threads == 1 and mpp == 0.5:
        assert decoded == sorted(decoded)


def test_overlap_with_the_batch_before_is_not_decoded_again(jpeg, decoded):
    rows = [[Box(x, y, x + 96, y + 96) for x in range(0, 400, 48)] for y in range(0, 400, 48)]
    with open_slide(jpeg) as slide:
        decoded.clear()
        for row in rows:
            slide.read_many(row, 0.5)
    assert len(decoded) == len(set(decoded)) == (SIDE // TILE) ** 2


def test_memory_can_be_given(jpeg):
    boxes = [Box(0, 0, 64, 64), Box(10, 10, 74, 74)]
    with open_slide(jpeg) as slide:
        out = np.zeros((2, 64, 64, 3), np.uint8)
        assert slide.read_many(boxes, 0.5, out=out) is out
        assert (out == slide.read_many(boxes, 0.5)).all()
        with pytest.raises(ValueError, match="out must be"):
            slide.read_many(boxes, 0.5, out=out[:1])


def test_boxes_of_several_sizes_are_refused(jpeg):
    with open_slide(jpeg) as slide:
        with pytest.raises(ValueError, match="one size"):
            slide.read_many([Box(0, 0, 64, 64), Box(0, 0, 32, 64)], 0.5)
        with pytest.raises(ValueError, match="none"):
            slide.read_many([], 0.5)


def test_small_windows_change_nothing(single, monkeypatch):
    boxes = [Box(x, y, x + 100, y + 90) for x, y in ((0, 0), (5.5, 3), (300, 200), (460, 470))]
    with open_slide(single) as slide:
        whole = slide.read_many(boxes, 1.1)
        monkeypatch.setattr(views, "_WINDOW_PX", 10_000)
        assert (slide.read_many(boxes, 1.1, threads=2) == whole).all()


def test_a_corrupt_tile_is_named_whatever_the_thread(jpeg, monkeypatch):
    real = JpegTiles.decode

    def corrupt(self, data, *rest):
        raise ValueError("Premature end of JPEG file")

    boxes = [Box(x, 0, x + 96, 96) for x in range(0, 300, 24)]
    with open_slide(jpeg) as slide:
        monkeypatch.setattr(JpegTiles, "decode", corrupt)
        with pytest.raises(SlideError, match=r"jpeg\.tif: level 0, tile \d+ .*Premature end"):
            slide.read_many(boxes, 0.5, threads=3)
        monkeypatch.setattr(JpegTiles, "decode", real)
        assert slide.read_many(boxes, 0.5, threads=3).any()


def test_many_threads_share_one_slide(single):
    boxes = [Box(x, y, x + 70, y + 70) for x in range(0, 400, 31) for y in range(0, 400, 29)]
    with open_slide(single) as slide, ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda box: slide.read(box, 0.7).pixels, boxes))
        assert (np.stack(found) == slide.read_many(boxes, 0.7)).all()


# ---- shrinking in the DCT domain ------------------------------------------------------------------------------------


def test_dct_scaling_is_recorded_and_near_the_exact_average(single):
    box = Box(64, 64, 448, 448)
    with open_slide(single) as exact, open_slide(single, dct_scaling=True) as fast:
        for mpp, shrink in ((0.5, 1), (0.9, 1), (1.0, 2), (1.6, 2), (2.0, 4), (5.0, 4)):
            expected, found = exact.read(box, mpp), fast.read(box, mpp)
            assert (expected.dct_shrink, found.dct_shrink) == (1, shrink)
            assert (found.level, found.source_mpp, found.output_mpp) == (0, 0.5, expected.output_mpp)
            assert np.abs(found.pixels.astype(int) - expected.pixels).mean() < 2.5


def test_a_view_that_reaches_the_last_odd_pixel_is_read_exactly(single):
    """509 px are 254 and a half at 1/2: the half pixel is not made up."""
    with open_slide(single) as exact, open_slide(single, dct_scaling=True) as fast:
        box = Box(SIDE - 3 - 64, 0, SIDE - 3, 64)
        assert fast.read(box, 1.0).dct_shrink == 1
        assert (fast.read(box, 1.0).pixels == exact.read(box, 1.0).pixels).all()


def test_readers_that_cannot_shrink_average(picture):
    with open_slide(picture, mpp=0.5, dct_scaling=True) as slide:
        assert slide.read(Box(0, 0, 128, 128), 1.0).dct_shrink == 1


# ---- what is shared -------------------------------------------------------------------------------------------------


def test_open_slides_share_one_bounded_cache(tmp_path):
    cache = SlideCache(2)
    for seed, name in enumerate("abc"):
        path = write_pyramid(tmp_path / f"{name}.tif", textured(256, 256, seed), levels=1, tile_px=TILE)
        slide = cache.get(path)
        expected = slide.read(Box(10, 10, 200, 200), 0.5).pixels
        assert (expected == textured(256, 256, seed)[10:200, 10:200]).all()
    assert 0 < cache._tiles.bytes <= 2 * 256 * 256 * 3  # the slide that was closed gave its tiles back
    cache.close()
    assert cache._tiles.bytes == 0


@pytest.mark.parametrize("count", [1, 3])
def test_threads_do_every_item_once_and_raise_the_first_error(count):
    done = []
    with contextlib.closing(Threads(count)) as threads:
        threads.each(done.append, list(range(100)))
        assert sorted(done) == list(range(100))
        with pytest.raises(ZeroDivisionError):
            threads.each(lambda item: 1 // (item - 50), list(range(100)))
        threads.each(done.append, [])
    assert len(done) == 100


def test_a_tiff_that_contradicts_itself_is_not_handed_to_readers_that_would_guess(tmp_path):
    import tifffile

    path = write_pyramid(tmp_path / "a.tif", textured(128, 128), levels=1, tile_px=TILE)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.pages[0].tags["ImageWidth"].overwrite(60_000)
    with pytest.raises(DamagedSlideError, match=r"a\.tif: it is a damaged TIFF: it lists 4 of \d+ tiles"):
        open_slide(path)
