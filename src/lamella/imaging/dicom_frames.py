"""A DICOM file of many frames: a volume where each frame says where it lies, a video otherwise.

Source: DICOM PS3.3, C.7.6.16 (functional groups of the enhanced objects), C.7.6.5 (cine), C.8.8.3.2 (dose grids).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from lamella.errors import ImageError
from lamella.imaging.dicom_header import file_faults, frame_count, number, numbers, read_dataset, text
from lamella.imaging.dicom_image import pixel_spacing_mm
from lamella.imaging.dicom_pixels import measured_pixels, modality_slope, rescaled, stored_pixels, unit_of, windows_of
from lamella.imaging.dicom_series import plane_of
from lamella.imaging.dicom_stack import Plane, stack
from lamella.imaging.measured import Unit, Video, Volume, Window
from lamella.imaging.orientation import to_ras

_SECOND_MS = 1000.0


def says_where(header: Dataset) -> bool:
    """Whether the frames of this header have places in the patient, so that they make a volume."""
    if "GridFrameOffsetVector" in header:
        return True
    groups = header.get("PerFrameFunctionalGroupsSequence") or ()
    return len(groups) > 0 and "PlanePositionSequence" in groups[0]


def read_dicom_frames(path: Path) -> Volume:
    """Read a multi-frame DICOM file whose frames have places.

    Raises:
        ImageError: It is damaged, its frames have no places, or they make no straight, even stack.
    """
    header = read_dataset(path)
    with file_faults(path):
        frames = frame_count(header)
        if frames == 1 and not says_where(header):
            raise ImageError(path, "it holds one 2-D image, not a volume", "Read it as an image, or give its folder.")
        if not says_where(header):
            cause = f"its {frames} frames do not say where they lie, so they make no volume"
            raise ImageError(path, cause, "Read it as a video.")
        found = stack(path, _planes(path, header, frames))
        stored = stored_pixels(path, header)
        if stored.ndim == 4:
            raise ImageError(path, "its frames are coloured, which makes no volume", "Read it as a video.")
        values, unit, windows = _rescaled_frames(path, header, stored)
        in_order = values[found.order_TZ]  # (T, Z, Y, X)
        placed = to_ras(in_order.transpose(3, 2, 1, 0), found.affine)
        return Volume(
            values_CZYX=placed.values_CZYX,
            unit=unit,
            spacing_mm=placed.spacing_mm,
            affine=placed.affine,
            fourth="time" if len(in_order) > 1 else "channel",
            modality=text(header, "Modality") or None,
            windows=windows,
            source=str(path),
        )


def read_dicom_video(path: Path) -> Video:
    """Read a multi-frame DICOM file as frames in time.

    Raises:
        ImageError: It is damaged, holds one frame, or frames of a volume.
    """
    header = read_dataset(path)
    with file_faults(path):
        if frame_count(header) == 1:
            raise ImageError(path, "it holds one frame, not a video", "Read it as an image.")
        if says_where(header):
            raise ImageError(path, "its frames are the slices of a volume, not a video", "Read it as a volume.")
        pixels = measured_pixels(path, header)
        coloured = pixels.values.ndim == 4
        frames = pixels.values if coloured else pixels.values[..., None]
        return Video(
            frames_TYXC=np.repeat(frames, 3, axis=-1) if pixels.unit == "byte" and not coloured else frames,
            unit=pixels.unit,
            frame_ms=frame_ms(header),
            spacing_mm=pixel_spacing_mm(header),
            modality=text(header, "Modality") or None,
            windows=pixels.windows,
            source=str(path),
        )


def frame_ms(header: Dataset) -> float | None:
    """Milliseconds from frame to frame; None where none are stated (0 states none)."""
    vector = [one for one in numbers(header, "FrameTimeVector")[1:] if one > 0]  # the first entry is always 0
    stated = number(header, "FrameTime") or (float(np.mean(vector)) if vector else None)
    if stated is None or stated <= 0:
        rate = number(header, "CineRate") or number(header, "RecommendedDisplayFrameRate")
        stated = _SECOND_MS / rate if rate and rate > 0 else None
    return stated


# ---- places ---------------------------------------------------------------------------------------------------------


def _planes(path: Path, header: Dataset, frames: int) -> list[Plane]:
    size = (int(header.Rows), int(header.Columns))
    if "GridFrameOffsetVector" in header:
        return _grid_planes(path, header, frames, size)
    per_frame = header.PerFrameFunctionalGroupsSequence
    if len(per_frame) != frames:
        raise ValueError(f"it describes {len(per_frame)} frames where NumberOfFrames is {frames}")
    moments = _moments(path, per_frame)
    return [
        plane_of(
            path,
            f"frame {place + 1}",
            numbers(_group(header, group, "PlanePositionSequence"), "ImagePositionPatient"),
            numbers(_group(header, group, "PlaneOrientationSequence"), "ImageOrientationPatient"),
            numbers(_group(header, group, "PixelMeasuresSequence"), "PixelSpacing"),
            size,
            moment,
        )
        for place, (group, moment) in enumerate(zip(per_frame, moments, strict=True))
    ]


def _grid_planes(path: Path, header: Dataset, frames: int, size: tuple[int, int]) -> list[Plane]:
    """Frames of a dose grid: one place and a list of offsets along the normal."""
    offsets = numbers(header, "GridFrameOffsetVector")
    if len(offsets) != frames:
        raise ValueError(f"it places {len(offsets)} frames where NumberOfFrames is {frames}")
    direction = numbers(header, "ImageOrientationPatient")
    position, spacing = numbers(header, "ImagePositionPatient"), numbers(header, "PixelSpacing")
    first = plane_of(path, "frame 1", position, direction, spacing, size)
    # Offsets are relative to the first frame, or places themselves; their differences are the same.
    return [
        plane_of(
            path,
            f"frame {place + 1}",
            tuple(np.array(first.position_mm) + (offset - offsets[0]) * first.normal),
            direction,
            spacing,
            size,
        )
        for place, offset in enumerate(offsets)
    ]


def _moments(path: Path, per_frame: Sequence[Dataset]) -> list[int]:
    """Time points of the frames by their TemporalPositionIndex; all 0 where there is none."""
    contents = [(group.get("FrameContentSequence") or [Dataset()])[0] for group in per_frame]
    found = [content.get("TemporalPositionIndex") for content in contents]
    return [int(one) if one is not None else 0 for one in found]


def _group(header: Dataset, frame: Dataset, name: str) -> Dataset:
    """A functional group of a frame: its own, or the one that all share."""
    own = frame.get(name)
    if own:
        return own[0]
    shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    return (shared.get(name) or [Dataset()])[0]


# ---- values ---------------------------------------------------------------------------------------------------------


def _rescaled_frames(path: Path, header: Dataset, stored: np.ndarray) -> tuple[np.ndarray, Unit, tuple[Window, ...]]:
    """Values of all frames, each with its own slope where the functional groups state one."""
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or [Dataset()] * len(stored)
    values = np.empty(stored.shape, np.float32)
    units: set[Unit] = set()
    for place, group in enumerate(per_frame):
        own = _group(header, group, "PixelValueTransformationSequence")
        told = own if "RescaleSlope" in own else header
        values[place] = rescaled(stored[place], *modality_slope(told))
        units.add(unit_of(header, told))
    if len(units) > 1:
        raise ImageError(path, f"its frames have several units ({', '.join(sorted(units))})", "Fetch the file again.")
    middle = _group(header, per_frame[len(per_frame) // 2], "FrameVOILUTSequence")
    return values, units.pop(), windows_of(middle if "WindowCenter" in middle else header)
