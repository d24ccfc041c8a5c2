"""Generated DICOM files: single slices, series, frames; small, and with every number in reach of a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
US_FRAMES, ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.3.1", "1.2.840.10008.5.1.4.1.1.2.1"
AXIAL = (1, 0, 0, 0, 1, 0)


def header(pixels: np.ndarray, **elements: Any) -> FileDataset:
    """A DICOM data set of grey (Y, X), (T, Y, X) or, with SamplesPerPixel 3, coloured (.., Y, X, 3) pixels."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    found = FileDataset("generated", {}, file_meta=meta, preamble=bytes(128))
    samples = elements.get("SamplesPerPixel", 1)
    rows, columns = pixels.shape[-3:-1] if samples == 3 else pixels.shape[-2:]
    bits = 8 * pixels.dtype.itemsize
    found.SOPClassUID, found.SOPInstanceUID = CT, "1.2.3.4.5"
    found.StudyInstanceUID, found.SeriesInstanceUID, found.Modality = "1.2.3", "1.2.3.4", "CT"
    found.Rows, found.Columns, found.SamplesPerPixel = rows, columns, samples
    found.BitsAllocated, found.BitsStored, found.HighBit = bits, bits, bits - 1
    found.PixelRepresentation = int(pixels.dtype.kind == "i")
    found.PhotometricInterpretation = "RGB" if samples == 3 else "MONOCHROME2"
    if samples == 3:
        found.PlanarConfiguration = 0
    frames = pixels.size // (rows * columns * samples)
    if frames > 1:
        found.NumberOfFrames = frames
    found.PixelData = pixels.tobytes()
    if len(found.PixelData) % 2:
        found.PixelData += b"\0"
    found["PixelData"].VR = "OB" if bits == 8 else "OW"
    for name, value in elements.items():
        if value is None:
            delattr(found, name)
        else:
            setattr(found, name, value)
    return found


def save(path: Path, data: Dataset) -> Path:
    meta = data.file_meta
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    return path


def image(path: Path, pixels: np.ndarray, **elements: Any) -> Path:
    return save(path, header(pixels, **elements))


def ct_slice(path: Path, stored: np.ndarray, position: tuple[float, float, float], **elements: Any) -> Path:
    """A CT slice whose HU are stored - 1024, 0.5 mm between rows and 0.25 mm between columns."""
    place = {
        "SOPInstanceUID": "1.2.3.4." + "".join(str(ord(letter)) for letter in path.stem),
        "ImagePositionPatient": list(position),
        "ImageOrientationPatient": list(AXIAL),
        "PixelSpacing": [0.5, 0.25],
        "SliceThickness": 2,
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "RescaleType": "HU",
        "WindowCenter": [40, -600],
        "WindowWidth": [400, 1500],
    }
    return image(path, stored, **(place | elements))


def series(folder: Path, slices: int = 5, rows: int = 6, columns: int = 8) -> np.ndarray:
    """A CT series 2 mm apart, files named against their order; its stored numbers (Z, Y, X) from the feet."""
    stored = np.arange(slices * rows * columns, dtype=np.int16).reshape(slices, rows, columns)
    for place in range(slices):
        ct_slice(folder / f"s{slices - place}.dcm", stored[place], (10, 20, 30 + 2 * place))
    return stored


def functional_groups(data: Dataset, positions: list[tuple[float, float, float]], **extra: Any) -> Dataset:
    """Make a multi-frame data set an enhanced one: a place for each frame, the rest shared."""
    data.SOPClassUID = ENHANCED_CT
    shared, per_frame = Dataset(), []
    orientation, measures, values = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = list(AXIAL)
    measures.PixelSpacing, measures.SliceThickness = [0.5, 0.25], 2
    values.RescaleSlope, values.RescaleIntercept, values.RescaleType = 1, -1024, "HU"
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = Items([orientation]), Items([measures])
    shared.PixelValueTransformationSequence = Items([values])
    for number, position in enumerate(positions):
        place, group, content = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = list(position)
        group.PlanePositionSequence = Items([place])
        for name, per in extra.items():
            setattr(content, name, per[number])
        if extra:
            group.FrameContentSequence = Items([content])
        per_frame.append(group)
    data.SharedFunctionalGroupsSequence, data.PerFrameFunctionalGroupsSequence = Items([shared]), Items(per_frame)
    return data


def pydicom_files() -> dict[str, Path]:
    """Name -> path of the DICOM files that come with pydicom and pydicom-data; nothing is downloaded."""
    import data_store

    folders = (Path(pydicom.__file__).parent / "data" / "test_files", Path(data_store.__file__).parent / "data")
    return {path.name: path for folder in folders for path in sorted(folder.glob("*.dcm"))}
