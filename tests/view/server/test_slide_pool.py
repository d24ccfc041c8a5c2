"""Open slides shared by threads: lent ones stay open, few files are open, a broken one is tried once."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from lamella.errors import SlideError
from lamella.geometry import Box
from lamella.view.server import slide_pool
from lamella.view.server.catalogue.items import SlideItem
from lamella.view.server.slide_pool import SlidePool

BOX = Box(0, 0, 64, 64)


@pytest.fixture
def opened(monkeypatch):
    """Paths in the order in which they were opened; slower than a thread needs to come by."""
    paths = []

    def slow(path, **options):
        paths.append(path)
        time.sleep(0.02)
        return real(path, **options)

    real = slide_pool.open_slide
    monkeypatch.setattr(slide_pool, "open_slide", slow)
    return paths


def items_of(*paths):
    return {path.stem: SlideItem(path.stem, path.stem, path) for path in paths}


def small(make_slide, *names):
    return items_of(*(make_slide(f"{name}.tif", height=64, width=64, levels=1) for name in names))


def test_the_least_recently_used_is_closed_and_a_lent_one_never(make_slide, opened):
    pool = SlidePool(small(make_slide, *"abc"), max_slides=1)
    with pool.slide("a") as a, pool.slide("b") as b, pool.slide("c"):
        assert (a.read(BOX, a.mpp).pixels.shape, b.read(BOX, b.mpp).pixels.shape) == ((64, 64, 3),) * 2
    with pool.slide("a") as again:  # it came back last
        assert again is a
    with pytest.raises(OSError, match="descriptor"):  # os.pread of a file that is closed
        os.pread(b.reader._file, 1, 0)
    with pool.slide("b"):
        pass
    assert [path.stem for path in opened] == ["a", "b", "c", "b"]


def test_many_threads_open_a_slide_once_and_wait_for_no_other(make_slide, opened):
    pool = SlidePool(small(make_slide, "a", "b"))
    start = threading.Barrier(8)

    def read(number):
        start.wait()
        with pool.slide("ab"[number % 2]) as slide:
            return slide.read(BOX, slide.mpp).pixels.sum()

    with ThreadPoolExecutor(8) as threads:
        sums = list(threads.map(read, range(8)))
    assert len(opened) == 2
    assert len(set(sums)) == 1


def test_a_slide_that_cannot_be_opened_is_tried_once_until_it_changes(make_slide, tmp_path, opened):
    path = tmp_path / "a.tif"
    path.write_bytes(b"II*\0" + b"x" * 100)
    pool = SlidePool(items_of(path))
    errors = []
    for _ in range(5):
        with pytest.raises(SlideError, match=r"a\.tif") as caught, pool.slide("a"):
            pass
        errors.append(caught.value)
    assert len(opened) == 1
    assert len({id(error) for error in errors}) == 5
    make_slide("a.tif", height=64, width=64, levels=1)
    with pool.slide("a") as slide:
        assert slide.frame.width_px == 64


def test_after_a_while_it_is_tried_again(tmp_path, opened, monkeypatch):
    pool = SlidePool(items_of(tmp_path / "absent.tif"))
    monkeypatch.setattr(slide_pool, "_RETRY_S", 0.0)
    for _ in range(2):
        with pytest.raises(SlideError, match="does not exist"), pool.slide("absent"):
            pass
    assert len(opened) == 2


def test_a_file_that_was_replaced_is_opened_anew(make_slide):
    items = small(make_slide, "a")
    pool = SlidePool(items)
    first = pool.stamp("a")
    with pool.slide("a") as before:
        make_slide("b.tif", height=96, width=64, levels=1).replace(items["a"].path)
        assert pool.stamp("a") != first
        with pool.slide("a") as after:
            assert (before.frame.height_px, after.frame.height_px) == (64, 96)
        assert before.read(BOX, before.mpp).pixels.any()


def test_decoded_plain_images_are_bounded_too(tmp_path, monkeypatch):
    paths = [tmp_path / f"{name}.png" for name in "abc"]
    for path in paths:
        Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(path)
    items = {path.stem: SlideItem(path.stem, path.stem, path, mpp=(0.5, 0.5)) for path in paths}
    monkeypatch.setattr(slide_pool, "_MAX_IMAGE_BYTES", 2 * 3 * 64 * 64)
    pool = SlidePool(items)
    held = []
    for name in "abc":
        with pool.slide(name) as slide:
            slide.read(BOX, slide.mpp)
            held.append(slide)
    assert [slide.reader._decoded is None for slide in held] == [True, False, False]


def test_what_is_lent_while_the_pool_closes_is_closed_when_it_comes_back(make_slide):
    pool = SlidePool(small(make_slide, "a"))
    with pool.slide("a") as slide:
        pool.close()
        assert slide.read(BOX, slide.mpp).pixels.any()
    assert slide.reader._file == -1


def test_unknown_slides_are_said():
    with pytest.raises(KeyError), SlidePool({}).slide("a"):
        pass
