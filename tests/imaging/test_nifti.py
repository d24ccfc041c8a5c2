"""NIfTI: the same block however it is stored, and what is none or contradicts itself."""

from __future__ import annotations

import gzip

import nibabel
import numpy as np
import pytest

from lamella.errors import ImageError
from lamella.imaging.reading import kind_of, read_image, read_video, read_volume, slice_over_time

BLOCK = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)  # (X, Y, Z)
AFFINE = np.array([[-2.0, 0, 0, 10], [0, 3, 0, -20], [0, 0, 4, 5], [0, 0, 0, 1]])


def write(path, data=BLOCK, affine=AFFINE, kind=nibabel.Nifti1Image):
    content = kind(data, affine).to_bytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_volume_is_turned_to_ras(tmp_path, kind, name):
    path = write(tmp_path / name, kind=kind)
    assert kind_of(path) == "volume"
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.values_CZYX[0], BLOCK.transpose(2, 1, 0)[:, :, ::-1])
    assert volume.spacing_mm == pytest.approx((4, 3, 2))
    np.testing.assert_allclose(volume.affine @ [0, 0, 0, 1], [10 - 2 * 3, -20, 5, 1])
    assert (volume.unit, volume.fourth, volume.values_CZYX.dtype) == ("stored", "channel", np.float32)


def test_big_endian(tmp_path):
    header = nibabel.Nifti1Header(endianness=">")
    image = nibabel.Nifti1Image(BLOCK, AFFINE, header)
    (tmp_path / "a.nii").write_bytes(image.to_bytes())
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii").values_CZYX[0], BLOCK.transpose(2, 1, 0)[:, :, ::-1])


def test_the_bytes_decide_and_not_the_name(tmp_path):
    packed, plain = write(tmp_path / "a.nii.gz"), write(tmp_path / "a.nii")
    packed.rename(tmp_path / "b.nii")
    plain.rename(tmp_path / "b.gz")
    assert read_volume(tmp_path / "b.nii").values_CZYX.shape == (1, 6, 5, 4)
    assert read_volume(tmp_path / "b.gz").values_CZYX.shape == (1, 6, 5, 4)


def test_a_gz_that_is_no_nifti_is_an_error(tmp_path):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(b"subject,age\n" * 100))
    with pytest.raises(ImageError, match=r"a\.nii\.gz: it is gzip, but what it packs is no NIfTI"):
        read_volume(path)


def test_slope_and_intercept(tmp_path):
    image = nibabel.Nifti1Image(BLOCK, AFFINE)
    content = bytearray(image.to_bytes())
    content[112:120] = np.array([0.5, -7], "<f4").tobytes()  # scl_slope, scl_inter
    (tmp_path / "a.nii").write_bytes(content)
    expected = BLOCK.transpose(2, 1, 0)[:, :, ::-1] * 0.5 - 7
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii").values_CZYX[0], expected)


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1), ("micron", 1e-3), ("meter", 1e3), ("unknown", 1)])
def test_units_of_length(tmp_path, unit, factor):
    image = nibabel.Nifti1Image(BLOCK, AFFINE)
    image.header.set_xyzt_units(unit)
    (tmp_path / "a.nii").write_bytes(image.to_bytes())
    assert read_volume(tmp_path / "a.nii").spacing_mm == pytest.approx((4 * factor, 3 * factor, 2 * factor))


@pytest.mark.parametrize(
    ("time_unit", "asked", "expected"),
    [("sec", None, "time"), ("unknown", None, "channel"), ("sec", "channel", "channel"), ("unknown", "time", "time")],
)
def test_the_fourth_axis(tmp_path, time_unit, asked, expected):
    data = np.stack([BLOCK, BLOCK + 1000], axis=-1)
    image = nibabel.Nifti1Image(data, AFFINE)
    image.header.set_xyzt_units("mm", time_unit)
    (tmp_path / "a.nii").write_bytes(image.to_bytes())
    volume = read_volume(tmp_path / "a.nii", fourth=asked)
    assert volume.fourth == expected
    np.testing.assert_array_equal(volume.values_CZYX[1], volume.values_CZYX[0] + 1000)


def test_one_slice_over_time_is_a_video(tmp_path):
    data = np.stack([BLOCK, BLOCK + 1000, BLOCK + 2000], axis=-1)
    volume = read_volume(write(tmp_path / "a.nii", data), fourth="time")
    video = slice_over_time(volume, 2)
    assert video.frames_TYXC.shape == (3, 5, 4, 1)
    assert video.spacing_mm == pytest.approx((3, 2))
    # On the screen the front is up and the right is left: y and x of RAS turned.
    np.testing.assert_array_equal(video.frames_TYXC[1, ..., 0], volume.values_CZYX[1, 2, ::-1, ::-1])
    with pytest.raises(ImageError, match="no slice 6"):
        slice_over_time(volume, 6)
    with pytest.raises(ImageError, match="without points in time"):
        slice_over_time(read_volume(write(tmp_path / "b.nii")))


def test_vectors_on_the_fifth_axis_are_channels(tmp_path):
    data = np.zeros((4, 5, 6, 1, 3), np.float32)
    data[..., 2] = 1
    assert read_volume(write(tmp_path / "a.nii", data)).values_CZYX[:, 0, 0, 0].tolist() == [0, 0, 1]


# ---- bad files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_an_error(tmp_path, value):
    data = BLOCK.astype(np.float32)
    data[1, 2, 3] = value
    with pytest.raises(ImageError, match=r"a\.nii: 1 of its values are NaN or infinite"):
        read_volume(write(tmp_path / "a.nii", data))


@pytest.mark.parametrize("spacing", [0, np.nan])
@pytest.mark.parametrize(
    ("kind", "at", "number"), [(nibabel.Nifti1Image, 84, "<f4"), (nibabel.Nifti2Image, 120, "<f8")]
)
def test_a_spacing_of_0_is_an_error(tmp_path, kind, at, number, spacing):
    content = bytearray(write(tmp_path / "a.nii", kind=kind).read_bytes())
    assert np.frombuffer(content, number, 1, at) == 3  # the second of the spacings
    value = np.array([spacing], number).tobytes()
    content[at : at + len(value)] = value
    (tmp_path / "a.nii").write_bytes(content)
    with pytest.raises(ImageError, match="voxel spacing is"):
        read_volume(tmp_path / "a.nii")


@pytest.mark.parametrize(("shape", "said"), [((4, 5), "2-D image of 4 x 5"), ((4, 5, 1), "2-D image stored as"),
                                             ((4, 5, 6, 2, 2), "5 axes")])  # fmt: skip
def test_what_has_no_three_axes_is_an_error(tmp_path, shape, said):
    with pytest.raises(ImageError, match=said):
        read_volume(write(tmp_path / "a.nii", np.zeros(shape, np.int16)))


def test_no_orientation_is_an_error(tmp_path):
    path = write(tmp_path / "a.nii")
    content = bytearray(path.read_bytes())
    content[252:256] = bytes(4)  # qform_code and sform_code
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"does not say which way its axes point.*set_sform"):
        read_volume(path)


def test_a_skewed_affine_is_an_error(tmp_path):
    skewed = AFFINE.copy()
    skewed[0, 2] = 2
    with pytest.raises(ImageError, match="right angles"):
        read_volume(write(tmp_path / "a.nii", affine=skewed))


@pytest.mark.parametrize("kind", [np.complex64, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])])
def test_voxels_that_are_no_grey_values_are_an_error(tmp_path, kind):
    with pytest.raises(ImageError, match="not grey values"):
        read_volume(write(tmp_path / "a.nii", np.zeros((4, 5, 6), kind)))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_a_file_cut_short_is_an_error(tmp_path, name, share):
    noise = np.random.default_rng(0).integers(0, 1000, (20, 20, 20)).astype(np.int16)
    path = write(tmp_path / name, noise)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ImageError, match=r"a\.nii"):
        read_volume(path)


def test_a_header_that_states_a_huge_size_takes_no_memory(tmp_path):
    content = bytearray(write(tmp_path / "a.nii").read_bytes())
    content[42:48] = np.array([30_000] * 3, "<i2").tobytes()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content))
    with pytest.raises(ImageError, match="is truncated: 54,000,000,000,000 bytes"):
        read_volume(tmp_path / "a.nii.gz")


def test_half_a_pair_is_an_error(tmp_path):
    image = nibabel.Nifti1Pair(BLOCK, AFFINE)
    image.to_filename(tmp_path / "a.hdr")
    with pytest.raises(ImageError, match="one half of a pair"):
        read_volume(tmp_path / "a.hdr")


def test_other_kinds_are_refused(tmp_path):
    path = write(tmp_path / "a.nii")
    with pytest.raises(ImageError, match="it is a volume, not one image"):
        read_image(path)
    with pytest.raises(ImageError, match="it is a volume, not a video"):
        read_video(path)
