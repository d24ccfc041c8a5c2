"""A folder of slices: the volume they make, and every way in which they make none."""

from __future__ import annotations

import shutil

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.imaging.dicoms import AXIAL, ct_slice, header, image, save, series

from lamella.errors import ImageError
from lamella.imaging.dicom_stack import Plane, stack
from lamella.imaging.reading import kind_of, read_volume


@pytest.fixture
def folder(tmp_path):
    series(tmp_path / "ct")
    return tmp_path / "ct"


def rewrite(path, **elements):
    data = pydicom.dcmread(path)
    for name, value in elements.items():
        delattr(data, name) if value is None else setattr(data, name, value)
    return save(path, data)


def test_slices_are_sorted_by_place_and_turned_to_ras(tmp_path):
    stored = series(tmp_path / "ct")
    volume = read_volume(tmp_path / "ct")
    # DICOM's x and y grow to the left and the back, RAS to the right and the front: both are mirrored.
    np.testing.assert_array_equal(volume.values_CZYX[0], stored[:, ::-1, ::-1] - 1024.0)
    assert volume.values_CZYX.dtype == np.float32
    assert volume.spacing_mm == pytest.approx((2, 0.5, 0.25))
    assert (volume.unit, volume.modality, volume.fourth) == ("HU", "CT", "channel")
    assert [(window.level, window.width) for window in volume.windows] == [(39.5, 399), (-600.5, 1499)]
    # The first voxel in RAS order is the last of the first slice: (10 + 7 * .25, 20 + 5 * .5, 30) in LPS.
    np.testing.assert_allclose(volume.affine @ [0, 0, 0, 1], [-11.75, -22.5, 30, 1])
    np.testing.assert_allclose(volume.affine @ [1, 1, 1, 1], [-11.5, -22, 32, 1])


def test_values_and_places_are_those_of_simpleitk(folder):
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    theirs = reader.Execute()
    ours = read_volume(folder)
    for index in ((0, 0, 0), (7, 5, 4), (3, 2, 1)):
        lps = np.array(theirs.TransformIndexToPhysicalPoint(index))
        x, y, z = np.rint(np.linalg.inv(ours.affine) @ [-lps[0], -lps[1], lps[2], 1])[:3].astype(int)
        assert ours.values_CZYX[0, z, y, x] == theirs[index]


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(3)), st.tuples(*[st.sampled_from([-1, 1])] * 3), st.integers(0, 2**16))
def test_any_orientation_gives_the_same_volume(axes, signs, seed):
    """Slices cut in any of the 48 directions through one block come out as one and the same block."""
    from lamella.imaging.orientation import LPS_TO_RAS, to_ras

    block_XYZ = np.random.default_rng(seed).normal(size=(4, 5, 6, 1)).astype(np.float32)
    affine = LPS_TO_RAS @ np.diag([0.5, 0.75, 2, 1.0])
    plain = to_ras(block_XYZ, affine)
    turned = block_XYZ.transpose(*axes, 3)[tuple(slice(None, None, sign) for sign in signs)]
    moved = np.zeros((4, 4))
    moved[3, 3] = 1
    for new, (old, sign) in enumerate(zip(axes, signs, strict=True)):
        moved[old, new] = sign
        moved[old, 3] += 0 if sign > 0 else block_XYZ.shape[old] - 1
    again = to_ras(turned, affine @ moved)
    np.testing.assert_array_equal(again.values_CZYX, plain.values_CZYX)
    np.testing.assert_allclose(again.affine, plain.affine)
    assert again.spacing_mm == pytest.approx((2, 0.75, 0.5))


def test_each_slice_has_its_own_slope(folder):
    plain = read_volume(folder).values_CZYX
    rewrite(folder / "s5.dcm", RescaleSlope=3, RescaleIntercept=0)  # the lowest one
    again = read_volume(folder).values_CZYX
    np.testing.assert_array_equal(again[:, 0], (plain[:, 0] + 1024) * 3)
    np.testing.assert_array_equal(again[:, 1:], plain[:, 1:])


def test_files_that_are_no_slices_are_passed_over(folder):
    (folder / "LICENCE.txt").write_text("free")
    report = header(np.zeros((1, 2), np.uint8), SeriesInstanceUID="1.2.9", Modality="SR")
    for name in ("Rows", "Columns", "PixelData"):
        delattr(report, name)
    save(folder / "report.dcm", report)
    assert read_volume(folder).values_CZYX.shape == (1, 5, 6, 8)


def test_one_of_two_series_can_be_named(folder):
    for place in range(2):
        ct_slice(folder / f"other{place}.dcm", np.full((6, 8), place, np.int16), (0, 0, 5 * place),
                 SeriesInstanceUID="1.2.77")  # fmt: skip
    with pytest.raises(
        ImageError, match=r"2 series \(1\.2\.77: 2 files such as other0\.dcm; 1\.2\.3\.4: 5 files"
    ) as caught:
        read_volume(folder)
    assert "own folder" in str(caught.value)
    assert read_volume(folder, series="1.2.77").spacing_mm[0] == pytest.approx(5)
    with pytest.raises(ImageError, match=r"no series 9.*Series that it holds: 1\.2\.77, 1\.2\.3\.4"):
        read_volume(folder, series="9")


# ---- slices that make no volume -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("removed", "said"),
    [
        (["s3"], r"1 slice is missing between s4\.dcm and s2\.dcm"),
        (["s3", "s2"], r"2 slices are missing between s4\.dcm and s1\.dcm"),
    ],
)
def test_a_missing_slice_is_named(folder, removed, said):
    for place in range(6, 9):  # more slices, so that the usual gap is the usual one
        ct_slice(folder / f"t{place}.dcm", np.full((6, 8), 9, np.int16), (10, 20, 30 + 2 * (place - 1)))
    for name in removed:
        (folder / f"{name}.dcm").unlink()
    with pytest.raises(ImageError, match=said):
        read_volume(folder)


def test_uneven_spacing_is_an_error(folder):
    rewrite(folder / "s1.dcm", ImagePositionPatient=[10, 20, 38.7])
    with pytest.raises(ImageError, match=r"unevenly spaced: usually 2 mm apart, 2\.7 mm between s2\.dcm and s1\.dcm"):
        read_volume(folder)


def test_rounded_places_are_not_uneven(folder):
    rewrite(folder / "s2.dcm", ImagePositionPatient=[10, 20, 36.05])
    assert read_volume(folder).spacing_mm[0] == pytest.approx(2)


def test_two_orientations_are_an_error(folder):
    rewrite(folder / "s1.dcm", ImageOrientationPatient=[0, 1, 0, 0, 0, -1])
    with pytest.raises(ImageError, match=r"2 orientations \(1 like s1\.dcm; 4 like s2\.dcm\)"):
        read_volume(folder)


def test_mixed_sizes_are_an_error(folder):
    ct_slice(folder / "s9.dcm", np.zeros((8, 8), np.int16), (10, 20, 40))
    with pytest.raises(ImageError, match=r"2 sizes \(5 of 6 x 8 such as s1\.dcm; 1 of 8 x 8 such as s9\.dcm\)"):
        read_volume(folder)


def test_mixed_spacings_are_an_error(folder):
    rewrite(folder / "s2.dcm", PixelSpacing=[0.6, 0.25])
    with pytest.raises(ImageError, match=r"pixel spacing differs: .*s2\.dcm \(0\.6, 0\.25\)"):
        read_volume(folder)


def test_two_slices_in_one_place_are_an_error(folder):
    shutil.copy(folder / "s2.dcm", folder / "s2_copy.dcm")
    with pytest.raises(ImageError, match=r"share their place with another, such as s2\.dcm and s2_copy\.dcm"):
        read_volume(folder)


def test_a_tilted_gantry_is_an_error(tmp_path):
    for place in range(5):
        ct_slice(tmp_path / f"s{place}.dcm", np.zeros((6, 8), np.int16), (0, 0.5 * place, 2 * place))
    with pytest.raises(ImageError, match=r"askew by 14\.0 degrees \(the gantry was tilted\).*dcm2niix"):
        read_volume(tmp_path)


@pytest.mark.parametrize("name", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_a_slice_that_does_not_say_where_it_lies_is_named(folder, name):
    rewrite(folder / "s3.dcm", **{name: None})
    with pytest.raises(ImageError, match=f"s3.dcm does not say where it lies \\({name} missing\\)"):
        read_volume(folder)


def test_a_spacing_of_0_is_an_error(folder):
    rewrite(folder / "s3.dcm", PixelSpacing=[0, 0.25])
    with pytest.raises(ImageError, match=r"s3\.dcm has a pixel spacing of 0 mm"):
        read_volume(folder)


def test_one_slice_is_no_volume(folder):
    for name in ("s2", "s3", "s4", "s5"):
        (folder / f"{name}.dcm").unlink()
    with pytest.raises(ImageError, match="one slice, which makes no volume"):
        read_volume(folder)


def test_a_single_file_is_a_2d_image_given_as_a_volume(folder):
    assert kind_of(folder / "s1.dcm") == "image"
    with pytest.raises(ImageError, match=r"s1\.dcm: it holds one 2-D image, not a volume.*give its folder"):
        read_volume(folder / "s1.dcm")


@pytest.mark.parametrize("damage", ["cut", "no pixels"])
def test_a_damaged_slice_is_named(folder, damage):
    if damage == "cut":
        data = (folder / "s3.dcm").read_bytes()
        (folder / "s3.dcm").write_bytes(data[:-20])
    else:
        rewrite(folder / "s3.dcm", PixelData=None)
    with pytest.raises(ImageError, match=r"s3\.dcm: .*(truncated|PixelData is missing)"):
        read_volume(folder)


def test_coloured_slices_make_no_volume(tmp_path):
    for place in range(3):
        image(tmp_path / f"s{place}.dcm", np.zeros((4, 4, 3), np.uint8), SamplesPerPixel=3, SOPInstanceUID=f"1.{place}",
              ImagePositionPatient=[0, 0, place], ImageOrientationPatient=list(AXIAL), PixelSpacing=[1, 1])  # fmt: skip
    with pytest.raises(ImageError, match="coloured"):
        read_volume(tmp_path)


@pytest.mark.parametrize("content", [None, b"no dicom"])
def test_a_folder_without_dicom_is_an_error(tmp_path, content):
    if content:
        (tmp_path / "a.dcm").write_bytes(content)
    with pytest.raises(ImageError, match="holds no DICOM files"):
        read_volume(tmp_path)


@settings(max_examples=50, deadline=None)
@given(st.permutations(range(7)), st.integers(0, 2**16))
def test_a_stack_in_any_order_has_one_affine(order, seed):
    """Oblique slices: the affine takes (column, row, slice) to the centre that the header's formula gives."""
    rng = np.random.default_rng(seed)
    turned, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    row, column = turned[0], turned[1]
    normal, origin = np.cross(row, column), rng.normal(size=3) * 50
    planes = [
        Plane(f"s{place}", tuple(origin + 3 * place * normal), (tuple(row), tuple(column)), (0.5, 0.25), (4, 4))
        for place in order
    ]
    found = stack("stack", planes)
    assert [order[place] for place in found.order_TZ[0]] == list(range(7))
    # PS3.3, C.7.6.2.1.1: position + column index * row direction * column spacing + row index * ...
    lps = origin + 2 * 0.25 * row + 1 * 0.5 * column + 3 * 4 * normal
    np.testing.assert_allclose(found.affine @ [2, 1, 4, 1], [-lps[0], -lps[1], lps[2], 1], atol=1e-9)
