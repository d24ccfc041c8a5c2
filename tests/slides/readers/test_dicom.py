"""DICOM slides: which file of a folder is the slide, and its pixels."""

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from lamella.errors import SlideError
from lamella.slides.readers.dicom import WHOLE_SLIDE, DicomReader, read_instance, series_files
from lamella.slides.readers.mpp import resolve_mpp
from lamella.slides.readers.registry import open_reader

TILE = 64
NOISE = np.random.default_rng(0).integers(0, 256, (150, 203, 3), dtype=np.uint8)


def write_dicom(path, pixels=NOISE, *, kind="VOLUME", series="1.2.3", spacing_mm=(0.0005, 0.00025), number=1):
    """An uncompressed, fully tiled whole-slide instance. PixelSpacing is (row, column) = (y, x) in millimetres."""
    height, width, _ = pixels.shape
    padded = np.pad(pixels, ((0, -height % TILE), (0, -width % TILE), (0, 0)))
    frames = [
        padded[y : y + TILE, x : x + TILE].tobytes() for y in range(0, height, TILE) for x in range(0, width, TILE)
    ]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = WHOLE_SLIDE, f"{series}.{number}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header = Dataset()
    header.file_meta = meta
    header.SOPClassUID, header.SOPInstanceUID = WHOLE_SLIDE, f"{series}.{number}"
    header.StudyInstanceUID, header.SeriesInstanceUID, header.FrameOfReferenceUID = "1.9", series, "1.8"
    header.Modality = "SM"
    header.ImageType = ["ORIGINAL", "PRIMARY", kind, "NONE"]
    header.SamplesPerPixel, header.PhotometricInterpretation, header.PlanarConfiguration = 3, "RGB", 0
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 8, 8, 7, 0
    header.Rows, header.Columns, header.NumberOfFrames = TILE, TILE, len(frames)
    header.TotalPixelMatrixColumns, header.TotalPixelMatrixRows = width, height
    header.TotalPixelMatrixFocalPlanes = 1
    header.ImagedVolumeWidth, header.ImagedVolumeHeight = width * spacing_mm[1], height * spacing_mm[0]
    header.DimensionOrganizationType = "TILED_FULL"
    measures, groups, path_item = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = list(spacing_mm)
    groups.PixelMeasuresSequence = Sequence([measures])
    header.SharedFunctionalGroupsSequence = Sequence([groups])
    path_item.OpticalPathIdentifier = "1"
    header.OpticalPathSequence = Sequence([path_item])
    header.PixelData = b"".join(frames)
    header["PixelData"].VR = "OB"
    header.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def folder(tmp_path):
    """One series: the slide, a smaller level, its label and its overview."""
    write_dicom(tmp_path / "c.dcm", number=1)
    write_dicom(tmp_path / "b.dcm", NOISE[::2, ::2].copy(), spacing_mm=(0.001, 0.0005), number=2)
    write_dicom(tmp_path / "a.dcm", NOISE[:40, :30].copy(), kind="LABEL", number=3)
    write_dicom(tmp_path / "d.dcm", NOISE[::3, ::3].copy(), kind="OVERVIEW", number=4)
    return tmp_path


def test_the_volume_of_a_folder_is_found_and_read_exactly(folder):
    reader = open_reader(folder)
    assert (reader.name, reader.path.name) == ("dicom", "c.dcm")
    assert reader.level_sizes == [(203, 150), (102, 75)]
    assert (reader.read_level(0, 3, 5, 190, 140) == NOISE[5:145, 3:193]).all()
    found = resolve_mpp(folder, reader.properties)
    assert (found.mpp_x, found.mpp_y) == pytest.approx((0.25, 0.5))
    reader.close()


def test_the_file_itself_is_read_by_the_dicom_reader(folder):
    reader = open_reader(folder / "c.dcm")
    assert reader.name == "dicom"
    assert (reader.read_level(0, 0, 0, 203, 150) == NOISE).all()


@pytest.mark.parametrize(("name", "kind"), [("a.dcm", "LABEL"), ("d.dcm", "OVERVIEW")])
def test_a_side_picture_is_refused_and_the_slide_beside_it_named(folder, name, kind):
    with pytest.raises(SlideError) as caught:
        open_reader(folder / name)
    for words in (name, f"the slide's {kind} picture", "Give c.dcm"):
        assert words in str(caught.value)


def test_one_entry_for_each_series(folder):
    write_dicom(folder / "other.dcm", NOISE[:70, :70].copy(), series="1.2.4")
    write_dicom(folder / "lonely_label.dcm", NOISE[:40, :30].copy(), kind="LABEL", series="1.2.5")
    (folder / "damaged.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff" * 50)
    names = [path.name for path in series_files(folder.iterdir())]
    assert names == ["c.dcm", "damaged.dcm", "lonely_label.dcm", "other.dcm"]
    with pytest.raises(SlideError, match="4 DICOM series"):
        DicomReader(folder)


def test_what_is_no_dicom_slide_is_refused(tmp_path, folder):
    (tmp_path / "a.txt").write_text("no")
    with pytest.raises(SlideError, match="not a DICOM file"):
        read_instance(tmp_path / "a.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SlideError, match="holds no DICOM files"):
        open_reader(tmp_path / "empty")
