"""A folder with the slices of one series as a volume."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from lamella.errors import ImageError
from lamella.imaging.dicom_header import file_faults, frame_count, is_dicom, numbers, read_dataset, text
from lamella.imaging.dicom_pixels import measured_pixels
from lamella.imaging.dicom_stack import Plane, stack
from lamella.imaging.measured import Unit, Volume, Window
from lamella.imaging.orientation import to_ras

_SHOWN = 4
# Threads wait for the disk and decode without the interpreter's lock; more than this only wait for that lock.
_MOST_THREADS = 8


def dicom_files(folder: Path) -> list[Path]:
    """The files of a folder that carry DICOM's mark, but no DICOMDIR; by name."""
    return sorted(path for path in folder.iterdir() if path.is_file() and path.name != "DICOMDIR" and is_dicom(path))


def read_dicom_series(folder: Path, series: str | None = None) -> Volume:
    """Read a folder of single slices as a volume, sorted by where they lie.

    Args:
        folder: Files that are no DICOM, or no image (reports, plans), are passed over.
        series: SeriesInstanceUID of the one to read; needed where there are several.

    Raises:
        ImageError: There is no image, more than one series, or the slices make no straight, even stack.
    """
    paths = dicom_files(folder)
    if not paths:
        raise ImageError(folder, "this folder holds no DICOM files", "Give the folder of one series.")
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as threads:
        headers = dict(zip(paths, threads.map(read_dataset, paths), strict=True))
        slices = _one_series(folder, headers, series)
        planes = list(threads.map(_plane, slices, slices.values()))
        found = stack(folder, planes)  # before pixels are decoded: what is no stack needs none to be refused
        values_ZYX = np.empty((len(planes), *planes[0].size), np.float32)
        places = np.argsort(found.order_TZ[0])  # of each file in the stack
        known = list(threads.map(partial(_decode, values_ZYX), places, slices, slices.values()))
    units = {unit for unit, _ in known}
    if len(units) > 1:
        cause = f"its slices have several units ({', '.join(sorted(units))}), which makes no volume"
        raise ImageError(folder, cause, "Read its files as images.")
    placed = to_ras(values_ZYX.transpose(2, 1, 0)[..., None], found.affine)
    return Volume(
        values_CZYX=placed.values_CZYX,
        unit=known[0][0],
        spacing_mm=placed.spacing_mm,
        affine=placed.affine,
        modality=text(next(iter(slices.values())), "Modality") or None,
        windows=known[found.order_TZ[0][len(known) // 2]][1],  # the middle slice speaks for all: they often vary
        source=str(folder),
    )


def _one_series(folder: Path, headers: dict[Path, Dataset], series: str | None) -> dict[Path, Dataset]:
    images = {path: header for path, header in headers.items() if "Rows" in header or "PixelData" in header}
    if not images:
        raise ImageError(folder, f"none of its {len(headers)} DICOM files is an image", "Give the folder of a series.")
    by_series: dict[str, list[Path]] = {}
    for path, header in images.items():
        by_series.setdefault(text(header, "SeriesInstanceUID"), []).append(path)
    if series is not None and series not in by_series:
        raise ImageError(folder, f"it holds no series {series}", f"Series that it holds: {', '.join(by_series)}.")
    if series is None and len(by_series) > 1:
        said = "; ".join(
            f"{uid or 'no SeriesInstanceUID'}: {len(paths)} files such as {paths[0].name}"
            for uid, paths in list(by_series.items())[:_SHOWN]
        )
        raise ImageError(
            folder,
            f"it holds {len(by_series)} series ({said}{'; ...' if len(by_series) > _SHOWN else ''})",
            "Give each series its own folder, or name one with series=.",
        )
    wanted = by_series[next(iter(by_series)) if series is None else series]
    return {path: images[path] for path in wanted}


def _plane(path: Path, header: Dataset) -> Plane:
    with file_faults(path):
        frames = frame_count(header)
        if frames > 1:
            raise ImageError(path, f"it holds {frames} frames among single slices", "Read this file by itself.")
        if "PixelData" not in header:
            raise ImageError(path, "it holds no pixels (element PixelData is missing)", "Fetch the file again.")
        position, direction = numbers(header, "ImagePositionPatient"), numbers(header, "ImageOrientationPatient")
        spacing = numbers(header, "PixelSpacing")
        size = (int(header.Rows), int(header.Columns))
    return plane_of(path, path.name, position, direction, spacing, size)


def plane_of(
    thing: object,
    name: str,
    position: Sequence[float],
    direction: Sequence[float],
    spacing: Sequence[float],
    size: tuple[int, int],
    moment: int = 0,
) -> Plane:
    """A frame's place from the header's numbers.

    Raises:
        ImageError: One of them is missing.
    """
    lacking = [
        element
        for element, values, count in (
            ("ImagePositionPatient", position, 3),
            ("ImageOrientationPatient", direction, 6),
            ("PixelSpacing", spacing, 2),
        )
        if len(values) != count
    ]
    if lacking:
        cause = f"{name} does not say where it lies ({', '.join(lacking)} missing)"
        raise ImageError(thing, cause, "Read its files as images, or fetch the series again.")
    x, y, z = position
    row, column = tuple(direction[:3]), tuple(direction[3:])
    return Plane(name, (x, y, z), (row, column), (spacing[0], spacing[1]), size, moment)  # type: ignore[arg-type]


def _decode(values_ZYX: np.ndarray, place: int, path: Path, header: Dataset) -> tuple[Unit, tuple[Window, ...]]:
    """Decode one slice into its place."""
    with file_faults(path):
        pixels = measured_pixels(path, header)
        if pixels.values.ndim == 4:
            raise ImageError(path, "its slice is coloured, which makes no volume", "Read its files as images.")
        values_ZYX[place] = pixels.values[0]
        return pixels.unit, pixels.windows
