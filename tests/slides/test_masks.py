"""Masks in files."""

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lamella.errors import MaskMismatchError
from lamella.slides.masks import is_tissue, open_mask, read_mask, write_mask

CHECKS = (np.indices((40, 60)).sum(axis=0) // 10 % 3).astype(np.uint8)


def test_a_written_mask_is_0_and_255_and_reads_back(tmp_path):
    mask = CHECKS > 0
    write_mask(tmp_path / "m" / "a.png", mask)
    values = np.asarray(Image.open(tmp_path / "m" / "a.png"))
    assert (values.dtype, set(np.unique(values))) == (np.uint8, {0, 255})
    np.testing.assert_array_equal(is_tissue(read_mask(tmp_path / "m" / "a.png")), mask)


@pytest.mark.parametrize("kind", ["L", "1", "P", "RGB", "LA", "tiff", "tiff16"])
def test_any_image_with_one_channel_worth_of_values(tmp_path, kind):
    expected = CHECKS if kind not in ("1",) else (CHECKS > 0) * np.uint8(1)
    if kind.startswith("tiff"):
        path = tmp_path / "m.tif"
        tifffile.imwrite(path, CHECKS.astype(np.uint16) if kind == "tiff16" else CHECKS)
    else:
        path = tmp_path / "m.png"
        image = Image.fromarray(CHECKS * np.uint8(255 if kind == "1" else 1))
        if kind == "P":
            image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
        (image if kind == "P" else image.convert(kind)).save(path)
    np.testing.assert_array_equal(read_mask(path), expected)


def test_which_values_are_tissue_is_a_choice():
    values = np.array([[0, 1, 2, 3]])
    assert is_tissue(values).tolist() == [[False, True, True, True]]
    assert is_tissue(values, (2, 3)).tolist() == [[False, False, True, True]]
    assert is_tissue(values, (0,)).tolist() == [[True, False, False, False]]


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: path.write_text("not an image"), "cannot be read"),
        (lambda path: Image.fromarray(np.dstack([CHECKS * 80, CHECKS * 40, CHECKS])).save(path), "in colour"),
    ],
)
def test_what_is_no_mask_is_refused(tmp_path, make, cause):
    make(tmp_path / "m.png")
    with pytest.raises(MaskMismatchError, match=cause):
        read_mask(tmp_path / "m.png")


def test_fractions_of_one_are_no_class_numbers(tmp_path):
    tifffile.imwrite(tmp_path / "m.tif", CHECKS.astype(np.float32) / 3)
    with pytest.raises(MaskMismatchError, match="whole numbers"):
        read_mask(tmp_path / "m.tif")


def test_a_truncated_tiff_is_refused(tmp_path):
    path = tmp_path / "m.tif"
    tifffile.imwrite(path, np.zeros((512, 512), np.uint8), compression="zlib", tile=(64, 64))
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(MaskMismatchError):
        read_mask(path)


@pytest.mark.parametrize(
    ("resolution", "unit", "expected"),
    [
        ((1250.0, 1250.0), "CENTIMETER", (8.0, 8.0)),
        ((1250.0, 2500.0), "CENTIMETER", (8.0, 4.0)),
        ((300.0, 300.0), "INCH", None),  # a print resolution: 85 um per pixel
        ((72.0, 72.0), "INCH", None),
        ((1.0, 1.0), "NONE", None),
        ((1e9, 1e9), "CENTIMETER", None),
    ],
)
def test_only_a_sane_tiff_spacing_is_believed(tmp_path, resolution, unit, expected):
    tifffile.imwrite(tmp_path / "m.tif", CHECKS, resolution=resolution, resolutionunit=unit)
    mpp = open_mask(tmp_path / "m.tif").mpp
    assert mpp == (None if expected is None else pytest.approx(expected))


def test_the_dots_per_inch_of_a_png_are_no_spacing(tmp_path):
    Image.fromarray(CHECKS).save(tmp_path / "m.png", dpi=(3175, 3175))  # 8 um, if it were one
    assert open_mask(tmp_path / "m.png").mpp is None


def test_of_a_pyramid_the_finest_level_that_fits_is_read_with_its_own_spacing(tmp_path):
    path = tmp_path / "m.tif"
    fine = np.kron(CHECKS, np.ones((4, 4), np.uint8))
    with tifffile.TiffWriter(path) as writer:
        writer.write(fine, tile=(64, 64), subifds=1, resolution=(5000, 5000), resolutionunit="CENTIMETER")
        writer.write(CHECKS, tile=(64, 64), subfiletype=1)
    assert open_mask(path).values.shape == fine.shape
    small = open_mask(path, max_px=3000)
    np.testing.assert_array_equal(small.values, CHECKS)
    assert small.mpp == pytest.approx((8.0, 8.0))


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(20, 200),
    width=st.integers(20, 200),
    max_px=st.integers(50, 5000),
    layout=st.sampled_from([{"tile": (16, 32)}, {"rowsperstrip": 7}, {"compression": "zlib", "tile": (64, 64)}]),
)
def test_a_mask_too_large_for_memory_is_thinned_by_nearest(tmp_path_factory, height, width, max_px, layout):
    values = np.random.default_rng(height * width).integers(0, 5, (height, width), dtype=np.uint8)
    path = tmp_path_factory.mktemp("m") / "m.tif"
    tifffile.imwrite(path, values, **layout)
    step = int(np.ceil(np.sqrt(height * width / max_px)))
    thinned = open_mask(path, max_px=max_px).values
    np.testing.assert_array_equal(thinned, values[step // 2 :: step, step // 2 :: step] if step > 1 else values)


def test_a_large_png_is_refused_with_a_remedy(tmp_path):
    Image.fromarray(CHECKS).save(tmp_path / "m.png")
    with pytest.raises(MaskMismatchError, match="tiled TIFF"):
        open_mask(tmp_path / "m.png", max_px=1000)
