"""Any medical image, volume or video by its content: the one place that the rest of Lamella reads from."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from lamella.errors import ImageError
from lamella.imaging.dicom_frames import read_dicom_frames, read_dicom_video, says_where
from lamella.imaging.dicom_header import MAGIC, MAGIC_AT, file_faults, frame_count, read_dataset
from lamella.imaging.dicom_image import read_dicom_image
from lamella.imaging.dicom_series import dicom_files, read_dicom_series
from lamella.imaging.films import is_animated, is_film, read_animation, read_film
from lamella.imaging.measured import MedicalImage, Video, Volume
from lamella.imaging.nifti import is_nifti, read_nifti
from lamella.imaging.pictures import read_picture

Kind = Literal["image", "volume", "video"]
Format = Literal["folder", "dicom", "nifti", "film", "animation", "picture"]
_HEAD_BYTES = 512


def read_image(path: Path | str) -> MedicalImage:
    """Read one 2-D image: DICOM with one frame, or an ordinary image.

    Raises:
        ImageError: It is missing, damaged, no image, or a volume or video.
    """
    path = Path(path)
    found = format_of(path)
    if found == "dicom":
        return read_dicom_image(path)
    if found == "picture":
        return read_picture(path)
    is_volume = found in ("folder", "nifti")
    noun, remedy = ("a volume", "a volume") if is_volume else ("a video", "a video")
    raise ImageError(path, f"it is {noun}, not one image", f"Read it as {remedy}.")


def read_volume(
    path: Path | str, *, series: str | None = None, fourth: Literal["channel", "time"] | None = None
) -> Volume:
    """Read one volume in RAS+ order: NIfTI of 3 or 4 axes, a folder with a DICOM series, or multi-frame DICOM.

    Args:
        path: File or folder.
        series: SeriesInstanceUID to read, where a folder holds several.
        fourth: What the fourth axis of a NIfTI is, where its header says something else or nothing.

    Raises:
        ImageError: It is missing, damaged, or no volume; or its slices make no straight, even stack.
    """
    path = Path(path)
    found = format_of(path)
    if found == "folder":
        return read_dicom_series(path, series)
    if found == "dicom":
        return read_dicom_frames(path)
    if found == "nifti" or path.name.endswith((".nii", ".nii.gz")):
        return read_nifti(path, fourth)
    noun = "a 2-D image" if found == "picture" else "a video"
    raise ImageError(path, f"it is {noun}, not a volume", "Give NIfTI, multi-frame DICOM, or the folder of a series.")


def read_video(path: Path | str) -> Video:
    """Read all frames of a video file, an animated GIF, or multi-frame DICOM whose frames have no places.

    Raises:
        ImageError: It is missing, damaged, or no video.
        MissingExtraError: It is a video file and PyAV is not installed.
    """
    path = Path(path)
    found = format_of(path)
    if found == "dicom":
        return read_dicom_video(path)
    if found == "film":
        return read_film(path)
    if found == "animation":
        return read_animation(path)
    if found == "nifti":
        remedy = "Read it as a volume; of a 4-D file one slice over time is a video (`slice_over_time`)."
        raise ImageError(path, "it is a volume, not a video", remedy)
    if found == "folder":
        raise ImageError(path, "it is a folder, not a video", "Give one file.")
    raise ImageError(path, "it is one image, not a video that is known here", "Give MP4, AVI, MKV, GIF, DICOM.")


def slice_over_time(volume: Volume, z: int | None = None) -> Video:
    """One slice of a volume in time as a video, seen from the feet with the front up as radiologists do.

    Args:
        volume: Its fourth axis is time.
        z: Which slice from the feet; the middle one unless given.

    Raises:
        ImageError: The volume has no time, or no such slice.
    """
    frames, slices = volume.values_CZYX.shape[:2]
    if volume.fourth != "time" or frames < 2:
        raise ImageError(volume.source, "it is one volume, without points in time", "Give a 4-D file over time.")
    place = slices // 2 if z is None else z
    if not 0 <= place < slices:
        raise ImageError(volume.source, f"it has no slice {place}", f"Give 0 to {slices - 1}.")
    # In RAS+ rows grow to the front and columns to the right; on a screen the front is up and the right is left.
    shown_TYX = volume.values_CZYX[:, place, ::-1, ::-1]
    return Video(
        frames_TYXC=np.ascontiguousarray(shown_TYX)[..., None],
        unit=volume.unit,
        spacing_mm=volume.spacing_mm[1:],
        modality=volume.modality,
        windows=volume.windows,
        source=volume.source,
    )


def kind_of(path: Path | str) -> Kind:
    """What a file or folder holds, by its content.

    Multi-frame DICOM is a volume where its frames say where they lie, else a video. Whether it can be read is not
    proven: whoever reads it learns that.

    Raises:
        ImageError: It is missing, or of no known kind.
    """
    path = Path(path)
    found = format_of(path)
    if found in ("folder", "nifti"):
        return "volume"
    if found in ("film", "animation"):
        return "video"
    if found == "picture":
        return "image"
    header = read_dataset(path, pixels=False)
    with file_faults(path):
        if says_where(header):
            return "volume"
        return "video" if frame_count(header) > 1 else "image"


def format_of(path: Path) -> Format:
    """How a file is to be opened, by its first bytes; `picture` is whatever has no other mark.

    Raises:
        ImageError: It is missing or empty, or a folder without DICOM files.
    """
    if path.is_dir():
        if not dicom_files(path):
            raise ImageError(path, "this folder holds no DICOM files", "Give the folder of one series, or one file.")
        return "folder"
    if not path.is_file():
        raise ImageError(path, "the file does not exist", "Correct the path.")
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head:
        raise ImageError(path, "the file is empty", "Fetch it again from its source.")
    if head[MAGIC_AT : MAGIC_AT + len(MAGIC)] == MAGIC:
        return "dicom"
    if is_nifti(path):
        return "nifti"
    if is_film(head):
        return "film"
    return "animation" if is_animated(path) else "picture"
