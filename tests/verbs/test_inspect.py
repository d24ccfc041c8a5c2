"""`lamella inspect`: the facts of every kind of file, and of no person."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
from PIL import Image
from tests.imaging.dicoms import header, image, pydicom_files, save, series
from tests.imaging.test_deidentify import planted, words_of

from lamella.cli import main
from lamella.imaging.silence import silence


def facts(capsys, *paths):
    assert main(["inspect", *map(str, paths), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_ct_slice(tmp_path, capsys):
    pixels = np.arange(48, dtype=np.uint16).reshape(6, 8)
    data = header(
        pixels, RescaleSlope=1, RescaleIntercept=-1024, SliceThickness=2.5, PixelSpacing=[0.5, 0.25], BitsStored=12,
        HighBit=11, WindowCenter=40, WindowWidth=400, ImageOrientationPatient=[1, 0, 0, 0, 0, -1],
        BodyPartExamined="CHEST",
    )  # fmt: skip
    (found,) = facts(capsys, save(tmp_path / "a.dcm", data))
    expected = {
        "kind": "image", "format": "dicom", "rows": 6, "columns": 8, "frames": 1, "modality": "CT", "bits_stored": 12,
        "bits_allocated": 16, "pixel_spacing_mm": [0.5, 0.25], "slice_thickness_mm": 2.5, "orientation": "LI",
        "transfer_syntax": "Explicit VR Little Endian", "sop_class": "CT Image Storage", "photometric": "MONOCHROME2",
        "unit": "HU", "value_range": [-1024, -977], "windows": [[39.5, 399]], "body_part": "CHEST", "channels": 1,
    }  # fmt: skip
    assert expected.items() <= found.items()


def test_a_series_a_nifti_and_a_picture(tmp_path, capsys):
    series(tmp_path / "ct")
    nibabel.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.diag([-1, 2, 3, 1])).to_filename(
        tmp_path / "a.nii"
    )
    Image.fromarray(np.arange(30, dtype=np.uint8).reshape(5, 6)).save(tmp_path / "a.png")
    ct, nifti, picture = facts(capsys, tmp_path / "ct", tmp_path / "a.nii", tmp_path / "a.png")
    assert (ct["kind"], ct["shape_zyx"], ct["spacing_mm_zyx"], ct["unit"]) == (
        "volume",
        [5, 6, 8],
        [2, 0.5, 0.25],
        "HU",
    )
    assert (nifti["shape_zyx"], nifti["spacing_mm_zyx"], nifti["orientation"]) == ([5, 4, 3], [3, 2, 1], "RAS")
    assert nifti["value_range"] == [0, 59]
    assert (picture["kind"], picture["rows"], picture["columns"], picture["unit"]) == ("image", 5, 6, "byte")


def test_a_video(capsys):
    (found,) = facts(capsys, pydicom_files()["examples_ybr_color.dcm"])
    assert (found["kind"], found["frames"], found["frame_ms"], found["modality"]) == ("video", 30, 33.333, "US")


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_nothing_personal_is_printed(tmp_path, capsys, flags):
    with silence:
        data, secrets = planted()
        data.WindowCenter, data.WindowWidth, data.WindowCenterWidthExplanation = 40, 400, "fuer Xanthippe"
        path = save(tmp_path / "a.dcm", data)
    assert main(["inspect", str(path), *flags]) == 0
    said = capsys.readouterr().out.lower().encode()
    assert b"ct image storage" in said
    assert not [value for value in [*secrets, "fuer Xanthippe"] for word in words_of(value) if word.lower() in said]
    assert b"(invalid code string)" in said  # a body part that holds a name


def test_one_that_cannot_be_read_is_said_and_the_others_go_on(tmp_path, capsys):
    good = image(tmp_path / "good.dcm", np.arange(16, dtype=np.uint8).reshape(4, 4))
    (tmp_path / "bad.dcm").write_bytes(good.read_bytes()[:-8])
    assert main(["inspect", str(tmp_path / "bad.dcm"), str(good)]) == 1
    said = capsys.readouterr().out
    assert "cannot be read: its DICOM content is damaged (it is truncated" in said
    assert "rows" in said
    assert main(["inspect", str(tmp_path / "bad.dcm"), "--json"]) == 1
    assert "truncated" in json.loads(capsys.readouterr().out)[0]["error"]


@pytest.mark.parametrize("arguments", [[], ["rows=3"]])
def test_refusals(capsys, arguments):
    assert main(["inspect", *arguments]) == 2
    assert "lamella inspect" in capsys.readouterr().err
