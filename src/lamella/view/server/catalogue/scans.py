"""Volumes and films of a folder, and which masks belong to which volume."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import nibabel
import numpy as np

from lamella.errors import LamellaError
from lamella.formats.tables import read_csv
from lamella.imaging.dicom_header import frame_count, is_dicom, read_dataset
from lamella.imaging.dicom_series import dicom_files
from lamella.imaging.reading import kind_of
from lamella.view.server.catalogue.ids import Ids
from lamella.view.server.catalogue.items import ScanItem
from lamella.view.server.catalogue.walk import Place

_FILMS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".gif")
_NIFTI = (".nii", ".nii.gz")
# How masks are called where no manifest names them: BraTS, MSD, TotalSegmentator, 3D Slicer and ITK-SNAP.
_MASK_WORDS = ("mask", "seg", "label", "tumor", "lesion", "roi", "gt")
_WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"  # SOP class VL Whole Slide Microscopy Image Storage, PS3.4 B.5


def scans_in(place: Place, ids: Ids, said: list[str]) -> Iterator[ScanItem]:
    """What lies directly in a folder; masks belong to the volumes of the same case and grid."""
    volumes = [path for path in place.files if path.name.lower().endswith(_NIFTI)]
    named = _named_masks(place, said)
    masks = [path for path in volumes if path in named or _is_mask_by_name(path)]
    images = [path for path in volumes if path not in masks]
    for path in images or masks:  # a folder of masks alone is looked at as it is
        own = [mask for mask in masks if mask is not path and _same_case(path, mask, named) and _same_grid(path, mask)]
        yield ScanItem(ids.new(_stem(path)), _stem(path), path, "volume", own)
    if place.whole and any(path.suffix.lower() in (".dcm", "") for path in place.files):
        yield from _series(place, ids)
    for path in place.files:
        # Moving pictures that a verb wrote are results; their page shows them.
        if path.suffix.lower() in _FILMS and not place.made:
            try:
                kind = kind_of(path)
            except LamellaError as error:
                said.append(str(error))
                continue
            if kind == "video":
                yield ScanItem(ids.new(path.stem), path.stem, path, "video")
        elif not place.whole and path.suffix.lower() == ".dcm" and _frames(path) > 1:
            kind = "volume" if kind_of(path) == "volume" else "video"
            yield ScanItem(ids.new(path.stem), path.stem, path, kind)


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")


def _named_masks(place: Place, said: list[str]) -> Mapping[Path, str]:
    """Masks that the folder's manifest names -> their case."""
    table = place.folder / "manifest.csv"
    if table not in place.files:
        return {}
    try:
        rows = read_csv(table)
    except LamellaError as error:
        said.append(str(error))
        return {}
    masks = {}
    for row in rows:
        for column in ("mask", "mask_path"):
            if row.get(column):
                masks[place.folder / row[column]] = row.get("case_id") or row.get("item_id") or ""
    return masks


def _is_mask_by_name(path: Path) -> bool:
    return _stem(path).lower().replace("-", "_").split("_")[-1] in _MASK_WORDS


def _same_case(image: Path, mask: Path, named: Mapping[Path, str]) -> bool:
    case = named.get(mask) or _stem(mask)[: -len(_stem(mask).replace("-", "_").split("_")[-1])].rstrip("-_")
    return _stem(image).startswith(case) if case else True


def _same_grid(image: Path, mask: Path) -> bool:
    """Same size and the same place in the patient, by the headers."""
    try:
        one, other = nibabel.load(image), nibabel.load(mask)
    except (nibabel.filebasedimages.ImageFileError, OSError, EOFError, ValueError):
        return False
    # A thousandth of a millimetre: headers are rounded to floats.
    return one.shape[:3] == other.shape[:3] and np.allclose(one.affine, other.affine, atol=1e-3)


def _series(place: Place, ids: Ids) -> Iterator[ScanItem]:
    """A folder of DICOM slices, unless they are a whole slide's."""
    files = dicom_files(place.folder)
    if not files or _is_slide(files[0]):
        return
    if len(files) == 1 and _frames(files[0]) > 1:
        yield ScanItem(ids.new(place.folder.name), place.title, files[0], kind_of(files[0]))
    else:
        yield ScanItem(ids.new(place.folder.name), place.title, place.folder, "volume")


def _is_slide(path: Path) -> bool:
    try:
        return str(read_dataset(path, pixels=False).get("SOPClassUID", "")) == _WHOLE_SLIDE
    except LamellaError:
        return False


def _frames(path: Path) -> int:
    try:
        return frame_count(read_dataset(path, pixels=False)) if is_dicom(path) else 0
    except LamellaError:
        return 0
