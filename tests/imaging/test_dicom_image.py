"""DICOM images: the values that stored numbers stand for, from formulas of the standard."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from tests.imaging.dicoms import header, image, save

from lamella.errors import ImageError
from lamella.imaging.measured import Window
from lamella.imaging.reading import kind_of, read_image

RAMP = np.arange(48, dtype=np.uint16).reshape(6, 8)


def test_slope_and_intercept_give_hounsfield_units(tmp_path):
    path = image(tmp_path / "a.dcm", RAMP, RescaleSlope=2, RescaleIntercept=-1024, RescaleType="HU",
                 PixelSpacing=[0.5, 0.25])  # fmt: skip
    found = read_image(path)
    assert found.unit == "HU"
    assert found.modality == "CT"
    assert found.spacing_mm == (0.5, 0.25)
    np.testing.assert_array_equal(found.values, RAMP * 2.0 - 1024)
    assert found.values.dtype == np.float32


@pytest.mark.parametrize(
    "elements",
    [
        {"RescaleSlope": None},
        {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
        {"RescaleType": "OD"},
        {"Modality": "MR"},
    ],
)
def test_what_is_not_rescaled_to_hounsfield_units_is_not_called_so(tmp_path, elements):
    data = header(RAMP, RescaleSlope=1, RescaleIntercept=-1024)
    for name, value in elements.items():
        delattr(data, name) if value is None else setattr(data, name, value)
    assert read_image(save(tmp_path / "a.dcm", data)).unit == "stored"


def test_a_slope_of_0_is_refused(tmp_path):
    with pytest.raises(ImageError, match="RescaleSlope is 0"):
        read_image(image(tmp_path / "a.dcm", RAMP, RescaleSlope=0, RescaleIntercept=0))


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16, np.uint16])
def test_signs_and_depths(tmp_path, kind):
    bounds = np.iinfo(kind)
    stored = np.array([[bounds.min, bounds.max], [0, 5]], kind)
    path = image(tmp_path / "a.dcm", stored, Modality="MR", WindowCenter=10, WindowWidth=20)
    np.testing.assert_array_equal(read_image(path).values, stored.astype(np.float32))


@pytest.mark.parametrize(("signed", "expected"), [(0, 0x0FFB), (1, -5)])
def test_bits_that_are_not_stored_do_not_count(tmp_path, signed, expected):
    """Old files keep a drawing in the high bits; -5 in 12 bits is FFB."""
    stored = np.array([[0xAFFB, 0x0001]], np.uint16)
    path = image(tmp_path / "a.dcm", stored, BitsStored=12, HighBit=11, PixelRepresentation=signed, Modality="MR")
    np.testing.assert_array_equal(read_image(path).values, [[expected, 1]])


def test_numbers_in_the_high_bits_are_shifted_down(tmp_path):
    """12 bits of 16 with HighBit 15, as the standard's second edition allowed."""
    stored = np.array([[0x1230, 0xFFF7]], np.uint16)
    path = image(tmp_path / "a.dcm", stored, BitsStored=12, HighBit=15, Modality="MR")
    np.testing.assert_array_equal(read_image(path).values, [[0x123, 0xFFF]])


def test_monochrome1_is_turned_round_with_its_windows(tmp_path):
    stored = np.array([[0, 1000, 4095]], np.uint16)
    path = image(tmp_path / "a.dcm", stored, PhotometricInterpretation="MONOCHROME1", Modality="DX", BitsStored=12,
                 HighBit=11, WindowCenter=1000, WindowWidth=501, VOILUTFunction="LINEAR")  # fmt: skip
    found = read_image(path)
    np.testing.assert_array_equal(found.values, [[4095, 3095, 0]])
    assert found.windows == (Window(4095 - 999.5, 500.0),)


def test_monochrome1_with_a_slope_mirrors_the_rescaled_range(tmp_path):
    stored = np.array([[0, 255]], np.uint8)
    path = image(tmp_path / "a.dcm", stored, PhotometricInterpretation="MONOCHROME1", Modality="DX",
                 RescaleSlope=2, RescaleIntercept=10)  # fmt: skip
    np.testing.assert_array_equal(read_image(path).values, [[520, 10]])


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (None, (Window(39.5, 399.0, "a"), Window(-600.5, 1499.0, "b"))),
        ("LINEAR_EXACT", (Window(40, 400, "a"), Window(-600, 1500, "b"))),
        ("SIGMOID", ()),
    ],
)
def test_windows_are_exact_ranges(tmp_path, function, expected):
    """LINEAR: x <= c - 0.5 - (w-1)/2 is black, x > c - 0.5 + (w-1)/2 white (PS3.3, C.11.2.1.2.1)."""
    elements = {"WindowCenter": [40, -600], "WindowWidth": [400, 1500], "WindowCenterWidthExplanation": ["a", "b"]}
    path = image(tmp_path / "a.dcm", RAMP, **elements, **({"VOILUTFunction": function} if function else {}))
    assert read_image(path).windows == expected


def test_a_modality_table_is_looked_up(tmp_path):
    lut = Dataset()
    lut.LUTDescriptor, lut.ModalityLUTType = [4, 10, 16], "US"
    lut.LUTData = np.array([7, 70, 700, 7000], np.uint16).tobytes()
    lut["LUTData"].VR = "OW"
    data = header(np.array([[9, 10, 11], [12, 13, 99]], np.uint16), ModalityLUTSequence=Items([lut]), Modality="DX")
    found = read_image(save(tmp_path / "a.dcm", data))
    np.testing.assert_array_equal(found.values, [[7, 7, 70], [700, 7000, 7000]])


def test_a_table_for_display_is_applied_where_no_window_is(tmp_path):
    lut = Dataset()
    lut.LUTDescriptor, lut.LUTData = [4, 0, 16], np.array([0, 5, 500, 65535], np.uint16).tobytes()
    lut["LUTData"].VR = "OW"
    data = header(np.array([[0, 1], [2, 3]], np.uint16), VOILUTSequence=Items([lut]), Modality="DX")
    found = read_image(save(tmp_path / "a.dcm", data))
    np.testing.assert_array_equal(found.values, [[0, 5], [500, 65535]])
    assert found.windows == (Window(32767.5, 65535.0, "VOI LUT"),)


def test_bytes_without_a_window_are_shown_as_they_are(tmp_path):
    stored = np.array([[0, 200]], np.uint8)
    found = read_image(image(tmp_path / "a.dcm", stored, Modality="US"))
    assert (found.unit, found.values.dtype) == ("byte", np.uint8)
    turned = read_image(image(tmp_path / "b.dcm", stored, Modality="US", PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(turned.values, [[255, 55]])


@pytest.mark.parametrize("planar", [0, 1])
def test_planes_of_colours(tmp_path, planar):
    pixels = np.random.default_rng(1).integers(0, 256, (4, 5, 3), np.uint8)
    data = header(pixels, SamplesPerPixel=3, Modality="XC")
    if planar:
        data.PlanarConfiguration, data.PixelData = 1, np.moveaxis(pixels, -1, 0).tobytes()
    found = read_image(save(tmp_path / "a.dcm", data))
    assert found.unit == "byte"
    np.testing.assert_array_equal(found.values, pixels)


def test_deep_colours_become_bytes(tmp_path):
    pixels = np.array([[[0, 65535, 257 * 100]]], np.uint16)
    found = read_image(image(tmp_path / "a.dcm", pixels, SamplesPerPixel=3))
    np.testing.assert_array_equal(found.values, [[[0, 255, 100]]])


@pytest.mark.parametrize("big_endian", [False, True])
def test_palette_colours(tmp_path, big_endian):
    """Entries of 16 bits: the high byte is what is shown; in a big-endian file the words are turned."""
    data = header(np.array([[0, 1, 2]], np.uint8), PhotometricInterpretation="PALETTE COLOR", Modality="US")
    for colour, table in (("Red", [0, 0x1100, 0x2200]), ("Green", [0, 0, 0xFF00]), ("Blue", [0x3300, 0, 0])):
        setattr(data, f"{colour}PaletteColorLookupTableDescriptor", [3, 0, 16])
        words = np.array(table, ">u2" if big_endian else "<u2").tobytes()
        setattr(data, f"{colour}PaletteColorLookupTableData", words)
        data[f"{colour}PaletteColorLookupTableData"].VR = "OW"
    if big_endian:
        data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRBigEndian
        data = _as_big_endian(data)
    found = read_image(save(tmp_path / "a.dcm", data))
    np.testing.assert_array_equal(found.values, [[[0, 0, 0x33], [0x11, 0, 0], [0x22, 0xFF, 0]]])


def _as_big_endian(data: Dataset) -> Dataset:
    data["PixelData"].VR = "OB"
    data.set_original_encoding(False, False)
    return data


# ---- spacing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({}, None),
        ({"PixelSpacing": [0.2, 0.1], "ImagerPixelSpacing": [9, 9]}, (0.2, 0.1)),
        ({"ImagerPixelSpacing": [0.2, 0.1]}, (0.2, 0.1)),
        ({"ImagerPixelSpacing": [0.3, 0.3], "EstimatedRadiographicMagnificationFactor": 1.5}, (0.2, 0.2)),
        ({"PixelSpacing": [0, 0]}, None),
    ],
)
def test_spacing(tmp_path, elements, expected):
    found = read_image(image(tmp_path / "a.dcm", RAMP, **elements)).spacing_mm
    assert found == (None if expected is None else pytest.approx(expected))


def _region(unit: int = 3, delta: float = 0.02) -> Dataset:
    region = Dataset()
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = unit
    region.RegionSpatialFormat, region.PhysicalDeltaX, region.PhysicalDeltaY = 1, delta, 2 * delta
    return region


@pytest.mark.parametrize(
    ("regions", "expected"), [([_region()], (0.4, 0.2)), ([_region(), _region()], None), ([_region(unit=4)], None)]
)
def test_ultrasound_states_centimetres(tmp_path, regions, expected):
    found = read_image(image(tmp_path / "a.dcm", RAMP, SequenceOfUltrasoundRegions=Items(regions))).spacing_mm
    assert found == (None if expected is None else pytest.approx(expected))


def test_an_error_quotes_no_value_of_the_file(tmp_path):
    """What stands where a number belongs may be a name."""
    path = image(tmp_path / "a.dcm", RAMP, SliceThickness=1, PixelSpacing=[0.125, 0.125])
    path.write_bytes(path.read_bytes().replace(rb"0.125\0.125", rb"0.125\Quux "))
    with pytest.raises(ImageError, match="damaged") as caught:
        read_image(path)
    assert "Quux" not in str(caught.value)


# ---- bad files ------------------------------------------------------------------------------------------------------


def test_a_truncated_file_is_an_error(tmp_path):
    path = image(tmp_path / "a.dcm", RAMP)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ImageError, match="truncated: 86 of 96 bytes") as caught:
        read_image(path)
    assert "a.dcm" in str(caught.value)
    assert "Fetch the file again" in str(caught.value)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7])
def test_a_file_cut_in_its_header_is_an_error(tmp_path, share):
    path = image(tmp_path / "a.dcm", RAMP)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError, match=r"a\.dcm"):
        read_image(path)


def test_missing_pixels_are_an_error(tmp_path):
    data = header(RAMP)
    del data.PixelData
    with pytest.raises(ImageError, match="PixelData is missing"):
        read_image(save(tmp_path / "a.dcm", data))


@pytest.mark.parametrize("name", ["Rows", "Columns", "BitsAllocated", "BitsStored"])
def test_a_missing_size_is_named(tmp_path, name):
    data = header(RAMP)
    delattr(data, name)
    with pytest.raises(ImageError, match=f"no {name}"):
        read_image(save(tmp_path / "a.dcm", data))


def test_an_unsupported_transfer_syntax_is_named_with_a_remedy(tmp_path):
    path = image(tmp_path / "a.dcm", RAMP)
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = pydicom.uid.MPEG2MPML
    data["PixelData"].is_undefined_length = True
    data.PixelData = pydicom.encaps.encapsulate([b"\x00\x00\x01\xb3" * 4])
    with pytest.raises(ImageError, match=r"nothing here decodes its transfer syntax, MPEG2.*gdcmconv"):
        read_image(save(path, data))


def test_several_frames_are_no_image(tmp_path):
    path = image(tmp_path / "a.dcm", np.zeros((3, 4, 4), np.uint8), Modality="US")
    assert kind_of(path) == "video"
    with pytest.raises(ImageError, match="3 frames, not one image"):
        read_image(path)


@pytest.mark.parametrize("content", [b"", b"hello", bytes(128) + b"DICM" + b"\xff" * 50, bytes(200)])
def test_what_is_no_dicom_is_an_error(tmp_path, content):
    path = tmp_path / "a.dcm"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"a\.dcm"):
        read_image(path)


def test_a_header_that_states_a_huge_size_takes_no_memory(tmp_path):
    path = image(tmp_path / "a.dcm", RAMP, Rows=60_000, Columns=60_000)
    with pytest.raises(ImageError, match="holds 96"):
        read_image(path)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(ImageError, match="does not exist"):
        read_image(tmp_path / "a.dcm")
