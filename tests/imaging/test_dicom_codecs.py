"""Compressed frames: against SimpleITK (GDCM) on pydicom's own files, bit for bit; damage and wrong sizes refused."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.encaps import encapsulate
from tests.imaging.dicoms import header, pydicom_files, save

from lamella.errors import ImageError
from lamella.imaging.dicom_header import file_faults, read_dataset
from lamella.imaging.dicom_pixels import measured_pixels
from lamella.imaging.reading import read_image, read_video

FILES = pydicom_files()
# Small files of each transfer syntax and colour that GDCM decodes to the values that the header means.
COMPARED = (
    "693_J2KI.dcm", "CT_small.dcm", "ExplVR_BigEnd.dcm", "GDCMJ2K_TextGBR.dcm", "J2K_pixelrep_mismatch.dcm",
    "JPEG-lossy.dcm", "JPEG2000.dcm", "JPEGLSNearLossless_08.dcm", "JPEGLSNearLossless_16.dcm", "JPGExtended.dcm",
    "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm", "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm", "MR_small_padded.dcm", "SC_jpeg_no_color_transform.dcm",
    "SC_jpeg_no_color_transform_2.dcm", "SC_rgb_dcmtk_+eb+cr.dcm", "SC_rgb_dcmtk_+eb+cy+n1.dcm",
    "SC_rgb_dcmtk_+eb+cy+n2.dcm", "SC_rgb_dcmtk_+eb+cy+np.dcm", "SC_rgb_dcmtk_+eb+cy+s2.dcm",
    "SC_rgb_dcmtk_+eb+cy+s4.dcm", "SC_rgb_gdcm_KY.dcm", "SC_rgb_jls_lossy_line.dcm", "SC_rgb_jls_lossy_sample.dcm",
    "SC_rgb_jpeg.dcm",
    "SC_rgb_jpeg_app14_dcmd.dcm", "SC_rgb_jpeg_dcmd.dcm", "SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_jpeg_gdcm.dcm",
    "SC_rgb_jpeg_lossy_gdcm.dcm", "SC_rgb_rle.dcm", "SC_rgb_rle_2frame.dcm", "SC_rgb_small_odd_jpeg.dcm",
    "SC_ybr_full_422_uncompressed.dcm", "SC_ybr_full_uncompressed.dcm", "bad_sequence.dcm", "color-pl.dcm",
    "emri_small_RLE.dcm", "emri_small_jpeg_2k_lossless.dcm", "emri_small_jpeg_ls_lossless.dcm", "JPEG-LL.dcm",
    "examples_palette.dcm", "examples_jpeg2k.dcm", "image_dfl.dcm", "OBXXXX1A_rle.dcm", "examples_ybr_color.dcm",
    "explicit_VR-UN.dcm", "US1_J2KI.dcm",
)  # fmt: skip


def measured(name: str) -> np.ndarray:
    data = read_dataset(FILES[name])
    with file_faults(FILES[name]):
        return measured_pixels(FILES[name], data).values


@pytest.mark.parametrize("name", COMPARED)
def test_values_are_those_of_gdcm(name):
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    theirs = sitk.GetArrayFromImage(sitk.ReadImage(str(FILES[name])))
    ours = measured(name)
    np.testing.assert_array_equal(ours, theirs.reshape(ours.shape))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SC_rgb_rle_16bit.dcm", "SC_rgb_16bit.dcm"),
        ("SC_rgb_rle_32bit_2frame.dcm", "SC_rgb_32bit_2frame.dcm"),
        ("rtdose_rle.dcm", "rtdose.dcm"),
        ("OBXXXX1A_expb.dcm", "OBXXXX1A.dcm"),
        ("gdcm-US-ALOKA-16_big.dcm", "gdcm-US-ALOKA-16.dcm"),
        ("liver_expb.dcm", "liver.dcm"),
        ("RG3_J2KR.dcm", "RG3_UNCR.dcm"),
    ],
)
def test_one_picture_in_two_encodings(one, other):
    """Where GDCM gives stored numbers of another depth: pydicom-data has the same pixels uncompressed."""
    np.testing.assert_array_equal(measured(one), measured(other))


def test_the_echocardiogram_is_a_video():
    video = read_video(FILES["color3d_jpeg_baseline.dcm"])
    assert video.frames_TYXC.shape == (120, 480, 640, 3)
    assert video.frame_ms == pytest.approx(33.333)
    assert video.modality == "US"
    assert video.spacing_mm == pytest.approx((0.5105, 0.5105), abs=1e-4)


# ---- written and damaged --------------------------------------------------------------------------------------------

GREY = (np.add.outer(np.arange(40), np.arange(56)) * 2 % 256).astype(np.uint8)
SYNTAXES = {
    pydicom.uid.JPEGBaseline8Bit: lambda pixels: imagecodecs.jpeg8_encode(pixels, level=95),
    pydicom.uid.JPEGLosslessSV1: lambda pixels: imagecodecs.jpeg8_encode(pixels, lossless=True),
    pydicom.uid.JPEGLSLossless: imagecodecs.jpegls_encode,
    pydicom.uid.JPEG2000Lossless: lambda pixels: imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="J2K"),
    pydicom.uid.HTJ2KLossless: imagecodecs.htj2k_encode,
}


def written(path, syntax, frames, **elements):
    data = header(GREY, Modality="US", **elements)
    data.file_meta.TransferSyntaxUID = syntax
    data.PixelData = encapsulate(frames)
    data["PixelData"].is_undefined_length = True
    return save(path, data)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
def test_a_frame_written_here_is_read_back(tmp_path, syntax):
    path = written(tmp_path / "a.dcm", syntax, [SYNTAXES[syntax](GREY)])
    difference = np.abs(read_image(path).values.astype(int) - GREY)
    assert difference.max() <= (12 if "Baseline" in syntax.keyword else 0)


@pytest.mark.parametrize("colour", ["RGB", "YBR_FULL"])
@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
def test_colours_are_what_the_header_says(tmp_path, syntax, colour):
    """The samples are written as they are; YBR_FULL ones must come out through the formula of ITU-R BT.601."""
    smooth = np.stack([GREY // 2 + 40, np.flipud(GREY) // 2 + 60, np.full_like(GREY, 120)], axis=-1)
    options = {"colorspace": "RGB", "outcolorspace": "RGB"} if "JPEGBaseline" in syntax.keyword else {}
    if "JPEG2000" in syntax.keyword:
        coded = imagecodecs.jpeg2k_encode(smooth, level=0, codecformat="J2K", mct=False)
    elif "HTJ2K" in syntax.keyword:
        coded = imagecodecs.htj2k_encode(smooth, rgb=False)
    elif options:
        coded = imagecodecs.jpeg8_encode(smooth, level=100, subsampling="444", **options)
    else:
        coded = SYNTAXES[syntax](smooth)
    path = tmp_path / "a.dcm"
    data = header(smooth, SamplesPerPixel=3, PhotometricInterpretation=colour, Modality="XC")
    data.file_meta.TransferSyntaxUID, data.PixelData = syntax, encapsulate([coded])
    data["PixelData"].is_undefined_length = True
    if options and colour != "RGB":
        pytest.skip("a stream that names its components RGB is RGB, whatever the header says")
    y, cb, cr = np.moveaxis(smooth.astype(float), -1, 0) - np.array([0, 128, 128]).reshape(3, 1, 1)
    turned = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], axis=-1).clip(0, 255)
    expected = smooth if colour == "RGB" else turned
    assert np.abs(read_image(save(path, data)).values - expected).max() <= (6 if options else 1)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
def test_a_frame_cut_short_is_an_error(tmp_path, syntax):
    coded = SYNTAXES[syntax](GREY)
    path = written(tmp_path / "a.dcm", syntax, [coded[: len(coded) // 2]])
    with pytest.raises(ImageError, match=r"a\.dcm"):
        read_image(path)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
def test_a_frame_of_another_size_is_an_error(tmp_path, syntax):
    path = written(tmp_path / "a.dcm", syntax, [SYNTAXES[syntax](GREY[:-8])])
    with pytest.raises(ImageError, match="32 x 56 x 1 where the header states 40 x 56 x 1"):
        read_image(path)


@pytest.mark.parametrize("stated", [1, 3])
def test_a_wrong_number_of_compressed_frames_is_an_error(tmp_path, stated):
    frames = [SYNTAXES[pydicom.uid.JPEGBaseline8Bit](GREY)] * 2
    path = written(tmp_path / "a.dcm", pydicom.uid.JPEGBaseline8Bit, frames, NumberOfFrames=stated)
    with pytest.raises(ImageError, match=f"frames where NumberOfFrames is {stated}"):
        (read_image if stated == 1 else read_video)(path)


@pytest.mark.parametrize(("frames", "stated"), [(2, 3), (3, 2)])
def test_a_wrong_number_of_plain_frames_is_an_error(tmp_path, frames, stated):
    data = header(np.zeros((frames, 4, 4), np.uint8), Modality="US", NumberOfFrames=stated)
    with pytest.raises(ImageError, match="truncated" if frames < stated else "3 frames where NumberOfFrames is 2"):
        read_video(save(tmp_path / "a.dcm", data))
