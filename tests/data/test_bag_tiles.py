"""Pixels and truth of tiles: the right place, the right size, nothing made up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lamella.data import bag_truth
from lamella.data.bag_tiles import read_tiles, read_truth, truth_of, truth_rows
from lamella.data.bags import Bag, WeakStudy
from lamella.errors import LamellaError, SlideError
from lamella.formats.label_values import NOT_LABELLED
from lamella.geometry import Frame
from lamella.slides.slide import SlideCache

HEIGHT, WIDTH, SIDE = 48, 80, 16
VALUES = np.random.default_rng(0).integers(0, 5, (HEIGHT, WIDTH)).astype(np.uint8)
PIXELS = np.random.default_rng(1).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
# Values 0 to 4 of the masks: background, benign, tumor, nothing said of 3, tumor.
CHANNEL = np.array([2, 0, 1, NOT_LABELLED, 1], np.uint8)


@pytest.fixture
def study(tmp_path: Path) -> WeakStudy:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    Image.fromarray(VALUES).save(tmp_path / "a_mask.png")
    bag = Bag(
        "a",
        tmp_path / "a.png",
        Frame(WIDTH, HEIGHT, 0.5, 0.5),
        np.array([[0.0, 0.0], [30.0, 20.0], [70.0, 40.0]]),
        (1, 0),
        None,
        "a",
        "train",
        tmp_path / "a_mask.png",
    )
    values = {"benign": (1,), "tumor": (2, 4), "background": (0,)}
    return WeakStudy(("benign", "tumor"), "background", (bag,), 0.5, SIDE, values)


def test_tiles_are_the_slides_pixels_in_the_asked_order(study: WeakStudy) -> None:
    tiles = read_tiles(study, study.bags[0], [1, 0, 1])
    np.testing.assert_array_equal(tiles, np.stack([PIXELS[20:36, 30:46], PIXELS[:16, :16], PIXELS[20:36, 30:46]]))
    slides = SlideCache()
    np.testing.assert_array_equal(read_tiles(study, study.bags[0], np.array([1, 0, 1]), slides=slides), tiles)
    assert len(slides) == 1
    slides.close()
    assert read_tiles(study, study.bags[0], []).shape == (0, SIDE, SIDE, 3)


def test_another_spacing_keeps_the_centre_and_the_number_of_pixels(study: WeakStudy) -> None:
    """Twice as coarse: a field of twice the side, each pixel the mean of four."""
    tile = read_tiles(study, study.bags[0], [1], mpp=1.0)[0]
    field = PIXELS[12:44, 22:54].astype(float)
    assert np.abs(tile - field.reshape(SIDE, 2, SIDE, 2, 3).mean(axis=(1, 3))).max() <= 0.5


def test_a_slide_that_cannot_be_read_is_an_error_and_never_blank(study: WeakStudy) -> None:
    """Spec, mistakes of the source: blank pixels for what could not be read."""
    study.bags[0].wsi_path.write_bytes(study.bags[0].wsi_path.read_bytes()[:2000])
    with pytest.raises(SlideError):
        read_tiles(study, study.bags[0], [0])


def test_truth_of_tiles_is_channels_and_nothing_beyond_the_slide(study: WeakStudy) -> None:
    truth = read_truth(study, study.bags[0], [1, 2])
    np.testing.assert_array_equal(truth[0], CHANNEL[VALUES[20:36, 30:46]])
    np.testing.assert_array_equal(truth[1, :8, :10], CHANNEL[VALUES[40:48, 70:80]])
    assert (truth[1, 8:] == NOT_LABELLED).all()
    assert (truth[1, :, 10:] == NOT_LABELLED).all()
    assert truth.dtype == np.uint8


def test_truth_on_the_masks_own_raster_is_the_mask(study: WeakStudy) -> None:
    np.testing.assert_array_equal(truth_of(study, study.bags[0], study.bags[0].frame), CHANNEL[VALUES])


def test_a_coarser_mask_is_laid_over_the_whole_slide(study: WeakStudy) -> None:
    Image.fromarray(VALUES[::2, ::2]).save(study.bags[0].mask_path)
    whole = truth_of(study, study.bags[0], study.bags[0].frame)
    np.testing.assert_array_equal(whole, CHANNEL[VALUES[::2, ::2].repeat(2, 0).repeat(2, 1)])


def test_a_replaced_mask_is_read_anew(study: WeakStudy) -> None:
    bag = study.bags[0]
    before = truth_of(study, bag, bag.frame)
    Image.fromarray(np.zeros_like(VALUES)).save(bag.mask_path)
    assert (truth_of(study, bag, bag.frame) == 2).all()
    assert not (before == 2).all()


def test_without_truth_nothing_is_made_up(study: WeakStudy) -> None:
    with pytest.raises(LamellaError, match="it has no mask"):
        read_truth(study, replace(study.bags[0], mask_path=None), [0])
    with pytest.raises(LamellaError, match="does not exist"):
        read_truth(study, replace(study.bags[0], mask_path=Path("nowhere.png")), [0])


def test_a_lossy_mask_is_refused(study: WeakStudy) -> None:
    jpeg, tiff = study.bags[0].wsi_path.with_name("m.jpg"), study.bags[0].wsi_path.with_name("m.tif")
    Image.fromarray(VALUES).save(jpeg)
    tifffile.imwrite(tiff, VALUES, tile=(16, 16), compression="jpeg")
    for path in (jpeg, tiff):
        with pytest.raises(LamellaError, match="it is a JPEG"):
            read_truth(study, replace(study.bags[0], mask_path=path), [0])


def _tiled(path: Path) -> None:
    tifffile.imwrite(path, VALUES, tile=(16, 32), compression="deflate")


def _stripped(path: Path) -> None:
    tifffile.imwrite(path, VALUES, rowsperstrip=7, compression="deflate")


def _sparse(path: Path) -> None:
    """Tiles of zeros that the file leaves out."""
    tiles = (
        VALUES[y : y + 16, x : x + 32] if x != 32 else None for y in range(0, HEIGHT, 16) for x in range(0, WIDTH, 32)
    )
    padded = (None if tile is None else np.pad(tile, ((0, 0), (0, 32 - tile.shape[1]))) for tile in tiles)
    tifffile.imwrite(path, padded, shape=VALUES.shape, dtype=np.uint8, tile=(16, 32))


@pytest.mark.parametrize("write", [_tiled, _stripped, _sparse])
def test_a_mask_too_large_to_hold_is_read_in_tiles(
    study: WeakStudy, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], None]
) -> None:
    """The same as of a mask that is held, band by band; only the tiles in a band are decoded."""
    path = study.bags[0].wsi_path.with_name("large.tif")
    write(path)
    bag = replace(study.bags[0], mask_path=path)
    frame = bag.frame.resized(37, 23)
    held = truth_of(study, bag, frame)
    monkeypatch.setattr(bag_truth, "MAX_PX", 100)
    np.testing.assert_array_equal(truth_of(study, bag, frame), held)
    np.testing.assert_array_equal(truth_rows(study, bag, frame, 9, 15), held[9:15])
    expected = VALUES.copy()
    if write is _sparse:
        expected[:, 32:64] = 0
    np.testing.assert_array_equal(truth_of(study, bag, bag.frame), CHANNEL[expected])
    with pytest.raises(LamellaError, match="Save it as a tiled TIFF"):
        truth_of(study, study.bags[0], frame)


@given(width=st.integers(1, 120), height=st.integers(1, 90), cut=st.floats(0, 1))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_are_the_whole(study: WeakStudy, width: int, height: int, cut: float) -> None:
    """Any raster over the slide, cut into bands anywhere: every pixel is the mask's at its centre."""
    bag = study.bags[0]
    frame, row = bag.frame.resized(width, height), round(cut * height)
    whole = truth_of(study, bag, frame)
    bands = [truth_rows(study, bag, frame, *rows) for rows in ((0, row), (row, height))]
    np.testing.assert_array_equal(np.concatenate(bands), whole)
    y, x = np.indices((height, width))
    # In whole numbers: the mask's pixel under the centre of pixel i of n is (2 i + 1) size / (2 n).
    np.testing.assert_array_equal(
        whole, CHANNEL[VALUES[(2 * y + 1) * HEIGHT // (2 * height), (2 * x + 1) * WIDTH // (2 * width)]]
    )
