"""DICOM whole-slide images. OpenSlide 4 reads the pixels; pydicom only tells which file of a folder is the slide.

A DICOM slide is a series of files: the VOLUME (one file per pyramid level) and photos of the label and the glass.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.errors import BytesLengthException, InvalidDicomError

from lamella.errors import DamagedSlideError, SlideError, first_line
from lamella.slides.readers.dicom_frames import check_frames
from lamella.slides.readers.openslide import OpenSlideReader

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"  # SOP class "VL Whole Slide Microscopy Image Storage"
_TAGS = ["SOPClassUID", "SeriesInstanceUID", "ImageType", "TotalPixelMatrixColumns", "TotalPixelMatrixRows"]
# A DICOM file starts with 128 free bytes and these four.
_MAGIC_AT, _MAGIC = 128, b"DICM"
# What pydicom lets out on a damaged header, beside its own errors.
_HEADER_ERRORS = (
    InvalidDicomError,
    BytesLengthException,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    NotImplementedError,
    MemoryError,  # an element that states gigabytes
    struct.error,
)


@dataclass(frozen=True, slots=True)
class Instance:
    """The header of one DICOM file."""

    path: Path
    series: str
    whole_slide: bool
    kind: str
    """Third value of ImageType: VOLUME, LABEL, OVERVIEW or THUMBNAIL for slides."""
    pixels: int

    @property
    def is_volume(self) -> bool:
        return self.whole_slide and self.kind == "VOLUME"


class DicomReader(OpenSlideReader):
    """The VOLUME of a DICOM series, given one of its files or a folder that holds one series."""

    name = "dicom"

    def __init__(self, path: Path | str) -> None:
        volume = _volume_of_folder(Path(path)) if Path(path).is_dir() else _checked_volume(Path(path))
        _check_series(volume)
        super().__init__(volume)

    def _refuse_vendor(self, refused: object) -> None:
        super()._refuse_vendor({})


def is_dicom(path: Path) -> bool:
    """Whether the file carries DICOM's mark."""
    with open(path, "rb") as file:
        return file.read(_MAGIC_AT + len(_MAGIC))[_MAGIC_AT:] == _MAGIC


def read_instance(path: Path) -> Instance:
    """Read the header of one DICOM file, without its pixels.

    Raises:
        SlideError: It is not DICOM, or its header is damaged.
    """
    if not is_dicom(path):
        raise SlideError(path, "it is not a DICOM file", "Give a DICOM whole-slide file, or its folder.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's word on odd values; what cannot be used raises
            return _instance(path, pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS))
    except _HEADER_ERRORS as error:
        raise SlideError(path, f"its DICOM header is damaged ({first_line(error)})", "Fetch the file again.") from error


def _instance(path: Path, header: pydicom.Dataset) -> Instance:
    image_type = header.get("ImageType") or []
    return Instance(
        path=path,
        series=str(header.get("SeriesInstanceUID", "")),
        whole_slide=header.get("SOPClassUID") == WHOLE_SLIDE,
        kind=str(image_type[2]).upper() if len(image_type) > 2 else "",
        pixels=int(header.get("TotalPixelMatrixColumns") or 0) * int(header.get("TotalPixelMatrixRows") or 0),
    )


def series_files(paths: Iterable[Path]) -> list[Path]:
    """One file for each DICOM series among `paths`: the largest VOLUME, or the first file of a series without one.

    A damaged file stands for itself, so that whoever opens it learns what is wrong.
    """
    series: dict[str, list[Instance]] = {}
    damaged: list[Path] = []
    for path in sorted(paths):
        try:
            instance = read_instance(path)
        except SlideError:
            damaged.append(path)
            continue
        series.setdefault(instance.series, []).append(instance)
    return sorted([_slide_of(instances).path for instances in series.values()] + damaged)


def _slide_of(instances: list[Instance]) -> Instance:
    # sorted() and max() keep the first of equals, so the choice does not depend on the order of the file system.
    return max(instances, key=lambda instance: (instance.is_volume, instance.pixels if instance.is_volume else 0))


def _checked_volume(path: Path) -> Path:
    instance = read_instance(path)
    if not instance.whole_slide:
        raise SlideError(path, "it is DICOM, but not a whole-slide image", "Give a DICOM whole-slide file.")
    if not instance.is_volume:
        slide = _slide_of([read_instance(file) for file in path.parent.iterdir() if file.is_file() and is_dicom(file)])
        hint = f"Give {slide.path.name} of the same folder." if slide.is_volume else "Give the file of type VOLUME."
        raise SlideError(path, f"it is the slide's {instance.kind or 'side'} picture, not its pixels", hint)
    return path


def _check_series(volume: Path) -> None:
    """Check the frames of every file that OpenSlide opens with this one.

    Raises:
        DamagedSlideError: The frames of one do not lie where it says.
    """
    series = read_instance(volume).series
    for path in sorted(volume.parent.iterdir()):
        if path.is_file() and is_dicom(path) and (path == volume or _series_of(path) == series):
            try:
                check_frames(path)
            except _HEADER_ERRORS as error:
                raise DamagedSlideError(
                    path, f"it is damaged DICOM: {first_line(error)}", "Fetch the series again from its source."
                ) from error


def _series_of(path: Path) -> str | None:
    try:
        return read_instance(path).series
    except SlideError:
        return None  # a neighbour that cannot be read belongs to no series


def _volume_of_folder(folder: Path) -> Path:
    files = series_files(path for path in folder.iterdir() if path.is_file() and is_dicom(path))
    if not files:
        raise SlideError(folder, "this folder holds no DICOM files", "Give a slide file or the folder of one series.")
    if len(files) > 1:
        names = ", ".join(path.name for path in files[:4]) + (", ..." if len(files) > 4 else "")
        raise SlideError(folder, f"it holds {len(files)} DICOM series", f"Give the file of one: {names}.")
    return _checked_volume(files[0])
