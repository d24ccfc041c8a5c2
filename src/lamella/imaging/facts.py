"""What a file holds, without whom: the facts that `lamella inspect` prints. Nothing here reads names or dates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from nibabel.orientations import aff2axcodes
from pydicom.dataset import Dataset

from lamella.errors import LamellaError
from lamella.imaging.confidentiality import is_code_string
from lamella.imaging.dicom_header import file_faults, frame_count, number, numbers, read_dataset, syntax_of, text
from lamella.imaging.measured import MedicalImage, Video, Volume
from lamella.imaging.reading import format_of, kind_of, read_image, read_video, read_volume

Facts = dict[str, Any]
# Directions of the patient in LPS, by sign and axis.
_DIRECTIONS = (("R", "L"), ("A", "P"), ("I", "S"))


def facts_of(path: Path) -> Facts:
    """Non-personal facts of an image, volume, video or series folder, its values among them.

    Raises:
        ImageError: It cannot be read.
    """
    form, kind = format_of(path), kind_of(path)
    facts: Facts = {"kind": kind, "format": {"folder": "dicom series"}.get(form, form)}
    if form == "dicom":
        facts |= _header_facts(read_dataset(path, pixels=False), path)
    if kind == "image":
        return facts | _image(read_image(path))
    return facts | (_volume(read_volume(path)) if kind == "volume" else _video(read_video(path)))


def _image(image: MedicalImage) -> Facts:
    rows, columns = image.values.shape[:2]
    return {
        "rows": rows,
        "columns": columns,
        "channels": 3 if image.values.ndim == 3 else 1,
        "modality": _code(image.modality),
        "pixel_spacing_mm": _rounded(image.spacing_mm),
    } | _values(image.values, image)


def _volume(volume: Volume) -> Facts:
    channels, slices, rows, columns = volume.values_CZYX.shape
    return {
        "shape_zyx": [slices, rows, columns],
        ("frames" if volume.fourth == "time" else "channels"): channels,
        "modality": _code(volume.modality),
        "spacing_mm_zyx": _rounded(volume.spacing_mm),
        "orientation": "".join(aff2axcodes(volume.affine)),
    } | _values(volume.values_CZYX, volume)


def _video(video: Video) -> Facts:
    frames, rows, columns, channels = video.frames_TYXC.shape
    return {
        "frames": frames,
        "rows": rows,
        "columns": columns,
        "channels": channels,
        "frame_ms": None if video.frame_ms is None else round(video.frame_ms, 3),
        "modality": _code(video.modality),
        "pixel_spacing_mm": _rounded(video.spacing_mm),
    } | _values(video.frames_TYXC, video)


def _values(values: np.ndarray, measured: MedicalImage | Volume | Video) -> Facts:
    return {
        "unit": measured.unit,
        "value_range": [float(values.min()), float(values.max())],
        # Their explanations are free text, which may say anything.
        "windows": [[window.level, window.width] for window in measured.windows],
    }


def _header_facts(header: Dataset, path: Path) -> Facts:
    with file_faults(path):
        return {
            "transfer_syntax": syntax_of(header).name,
            "sop_class": _registered(header, "SOPClassUID"),
            "frames": frame_count(header),
            "photometric": _code(text(header, "PhotometricInterpretation")),
            "bits_stored": int(header.get("BitsStored") or 0) or None,
            "bits_allocated": int(header.get("BitsAllocated") or 0) or None,
            "slice_thickness_mm": number(header, "SliceThickness"),
            "orientation": _direction(numbers(header, "ImageOrientationPatient")),
            "body_part": _code(text(header, "BodyPartExamined")),
            "burned_in_annotation": _code(text(header, "BurnedInAnnotation")),
        }


def _registered(header: Dataset, name: str) -> str | None:
    """The name of a UID of the standard; nothing of other UIDs, which may identify."""
    uid = header.get(name)
    return uid.name if uid and str(uid).startswith("1.2.840.10008.") and uid.name != str(uid) else None


def _code(value: str | None) -> str | None:
    """A code string as it is; what breaks the alphabet of code strings may be a name, and is not shown."""
    if not value:
        return None
    return value if is_code_string(value) else "(invalid code string)"


def _direction(cosines: tuple[float, ...]) -> str | None:
    """Where rows and columns lead, by their largest part, such as LP for an axial slice."""
    if len(cosines) != 6:
        return None
    found = ""
    for axis in (np.array(cosines[:3]), np.array(cosines[3:])):
        largest = int(np.abs(axis).argmax())
        found += _DIRECTIONS[largest][int(axis[largest] > 0)]
    return found


def _rounded(values: tuple[float, ...] | None) -> list[float] | None:
    return None if values is None else [round(value, 6) for value in values]


def lines(path: Path, facts: Facts) -> list[str]:
    """Facts as readable lines, unknown ones left out."""
    width = max(map(len, facts))
    shown = {key: value for key, value in facts.items() if value not in (None, [])}
    return [str(path), *(f"  {key:<{width}}  {_said(value)}" for key, value in shown.items())]


def _said(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(_said(one) for one in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def refused(path: Path, error: LamellaError) -> Facts:
    """A file that cannot be read, as facts."""
    return {"path": str(path), "error": f"{error.cause}. {error.remedy}"}
