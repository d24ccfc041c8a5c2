"""A brain in the viewer: the same pictures from NIfTI and from DICOM, and the right way up by another reader."""

from __future__ import annotations

import numpy as np
import SimpleITK

from lamella.imaging.measured import Window
from lamella.view.server.catalogue.discover import discover
from lamella.view.server.scans.volume import SeenVolume

CASE, SERIES = "PGBM-001_t1_flair", "dicom_PGBM-001_t1_flair"


def test_nifti_and_dicom_of_one_brain_look_alike(real_data):
    folder = real_data / "volumes" / "brain_tumor_progression"
    scans = discover([folder]).scans
    assert scans[CASE].masks == [folder / "PGBM-001_t1_tumor.nii.gz"]
    packed, series = (SeenVolume(scans[name].path, scans[name].masks) for name in (CASE, SERIES))
    assert packed.facts["size"] == series.facts["size"]
    assert 1 < float(packed.facts["masks"][0]["labels"][0]["text"].split()[-2]) < 100  # ml
    window = Window(500, 1000)
    for axis, at in packed.facts["at"].items():
        np.testing.assert_array_equal(
            packed.plane(axis, at, 0, window).astype(int), series.plane(axis, at, 0, window).astype(int)
        )


def test_planes_are_the_right_way_up(real_data):
    path = real_data / "volumes" / "brain_tumor_progression" / f"{CASE}.nii.gz"
    # SimpleITK turns to LPS by the header alone: x to the left, y to the back, z to the head.
    turned = SimpleITK.GetArrayFromImage(SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(path)), "LPS"))
    seen, window = SeenVolume(path), Window(500, 1000)
    shown = np.rint(turned * 0.255).clip(0, 255).astype(int)
    # Axial from the feet: the patient's right on the left, the front up. Coronal from the front, sagittal from the
    # left: the head up.
    for axis, at, expected in (
        ("z", 12, shown[12]),
        ("y", 100, shown[::-1, turned.shape[1] - 1 - 100]),
        ("x", 80, shown[::-1, :, turned.shape[2] - 1 - 80]),
    ):
        assert np.abs(seen.plane(axis, at, 0, window).astype(int) - expected).max() <= 1
