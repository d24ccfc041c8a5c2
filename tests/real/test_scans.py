"""A real MRI series: read as DICOM it is the volume that somebody else converted to NIfTI."""

from __future__ import annotations

import numpy as np
import pytest
from nibabel.orientations import aff2axcodes

from lamella.cli import main
from lamella.imaging.intensity import to_network
from lamella.imaging.reading import read_volume


@pytest.fixture
def folder(real_data):
    return real_data / "volumes" / "brain_tumor_progression"


def test_the_dicom_series_is_its_nifti_twin(folder):
    dicom = read_volume(folder / "dicom_PGBM-001_t1_flair")
    nifti = read_volume(folder / "PGBM-001_t1_flair.nii.gz")
    assert dicom.values_CZYX.shape == (1, 25, 320, 260)
    np.testing.assert_array_equal(dicom.values_CZYX, nifti.values_CZYX)
    np.testing.assert_allclose(dicom.affine, nifti.affine, atol=1e-4)
    assert dicom.spacing_mm == pytest.approx(nifti.spacing_mm, abs=1e-6)
    assert aff2axcodes(dicom.affine) == ("R", "A", "S")
    assert (dicom.unit, dicom.modality) == ("stored", "MR")


def test_masks_lie_on_their_scans(folder):
    for scan in sorted(folder.glob("*_flair.nii.gz")):
        image = read_volume(scan)
        mask = read_volume(scan.with_name(scan.name.replace("flair", "tumor")))
        assert mask.values_CZYX.shape == image.values_CZYX.shape
        np.testing.assert_allclose(mask.affine, image.affine, atol=0.01)
        scaled = to_network(image)[0]
        assert scaled[mask.values_CZYX[0] > 0].mean() > scaled.mean()  # tumours are bright in FLAIR


def test_the_deidentified_series_is_the_same_volume(folder, tmp_path):
    source = folder / "dicom_PGBM-001_t1_flair"
    assert main(["deidentify", str(source), "-o", str(tmp_path / "out")]) == 0
    (series,) = {path.parent for path in (tmp_path / "out").rglob("*.dcm")}
    before, after = read_volume(source), read_volume(series)
    np.testing.assert_array_equal(after.values_CZYX, before.values_CZYX)
    np.testing.assert_allclose(after.affine, before.affine)
