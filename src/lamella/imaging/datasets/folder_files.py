"""All images below a folder: pictures, NIfTI, videos, DICOM files, and DICOM series as one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lamella.errors import ImageError
from lamella.imaging.datasets.files import is_beside, is_dicom, kind_by_name
from lamella.imaging.datasets.problems import named
from lamella.imaging.dicom_header import file_faults, frame_count, read_dataset, text

# Modalities whose single-frame files are slices of a volume; a folder of radiographs shares a series and is none.
_SLICED = ("CT", "MR", "PT", "NM")
_TAGS = ("SeriesInstanceUID", "Modality", "NumberOfFrames", "PatientID")


@dataclass
class Found:
    """What lies below a folder.

    Attributes:
        items: Files, and folders that are one DICOM series, in the order of their names.
        patients: For DICOM, a name of the patient that cannot be read back; the file's PatientID hashed.
        beside: Files that are no images.
        problems: Files of an unknown kind, folders with several series.
    """

    items: list[Path] = field(default_factory=list)
    patients: dict[Path, str] = field(default_factory=dict)
    beside: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def find_files(folder: Path, kind: str = "auto") -> Found:
    """List the items below a folder.

    Args:
        folder: Where to look, at any depth; links are followed.
        kind: `image` or `video`: every DICOM file is an item; `volume`: every folder of several DICOM files is one.
    """
    found = Found()
    for place, names in _folders(folder):
        dicom = []
        for name in names:
            path = place / name
            if is_beside(path):
                found.beside.append(path)
            elif kind_by_name(path) is not None or path.suffix.lower() == ".gif":
                found.items.append(path)
            elif path.stat().st_size and is_dicom(path):
                dicom.append(path)
            else:
                found.problems.append(f"{path.relative_to(folder)} is no image, volume or video that can be read")
        if dicom:
            _add_dicom(folder, place, dicom, kind, found)
    found.items.sort()
    return found


def _folders(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    seen = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        yield Path(place), sorted(name for name in names if not name.startswith("."))


def _add_dicom(folder: Path, place: Path, files: list[Path], kind: str, found: Found) -> None:
    series: dict[str, list[Path]] = {}
    patients, sliced = {}, True
    for path in files:
        try:
            header = read_dataset(path, pixels=False, tags=_TAGS)
            with file_faults(path):
                single = frame_count(header) == 1
        except ImageError as error:
            found.problems.append(f"{path.relative_to(folder)} cannot be read as DICOM: {error.cause}")
            continue
        series.setdefault(text(header, "SeriesInstanceUID"), []).append(path)
        if patient := text(header, "PatientID"):
            patients[path] = _veiled(patient)
        sliced &= single and text(header, "Modality") in _SLICED
    # One slice is no volume by itself, and a folder of single slices of many series is a folder of images.
    whole = kind == "volume" or (kind == "auto" and sliced and len(series) == 1)
    if not (whole and len(files) > 1):
        found.items += [path for of_series in series.values() for path in of_series]
        found.patients.update(patients)
    elif len(series) > 1:
        sizes = named([f"{len(of_series)} files" for of_series in series.values()])
        found.problems.append(
            f"{_below(folder, place)} holds {len(series)} DICOM series ({sizes}): one folder for each"
        )
    elif series:
        found.items.append(place)
        if patients:
            found.patients[place] = next(iter(patients.values()))


def _veiled(patient_id: str) -> str:
    """Groups are printed in messages, where a patient's number has no place."""
    return "patient-" + hashlib.blake2b(patient_id.encode(), digest_size=6).hexdigest()


def _below(folder: Path, place: Path) -> str:
    return "the folder itself" if place == folder else str(place.relative_to(folder))
