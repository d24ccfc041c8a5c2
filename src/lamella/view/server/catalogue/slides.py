"""The slides of a folder: files, a manifest's rows, or an index with its QC."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import tifffile

from lamella.errors import LamellaError, SlideError
from lamella.formats.tables import read_csv
from lamella.geometry import Frame
from lamella.slides.index import INDEX_FILE, IndexedSlide, read_slides
from lamella.slides.manifest import ManifestRow, read_exported_index, read_manifest
from lamella.slides.readers.dicom import is_dicom, read_instance, series_files
from lamella.slides.readers.registry import SLIDE_SUFFIXES
from lamella.slides.slide import open_slide
from lamella.view.server.catalogue.walk import Place

FAILED = "failed.csv"
MEASURED = ("size", "spacing", "tissue")  # facts that hang on the micrometres per pixel
_PLAIN = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
_TIFF = (".tif", ".tiff")
# What tifffile raises at damage, as in `readers.tiff`.
_TIFF_FAULTS = (ValueError, OSError, EOFError, struct.error, KeyError, IndexError, TypeError, AttributeError)


@dataclass(frozen=True)
class FoundSlide:
    """A slide before it has an id; as `SlideItem` otherwise.

    Attributes:
        expression: Measured expression that a manifest names for it.
    """

    name: str
    path: Path
    mpp: tuple[float, float] | None = None
    indexed: IndexedSlide | None = None
    refused: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    expression: Path | None = None


def is_index(place: Place) -> bool:
    return place.has(INDEX_FILE)


def indexed_slides(place: Place, said: list[str]) -> Iterator[FoundSlide]:
    """The slides of an index folder, usable and failed. Where its files lie is the index's word; it is trusted."""
    try:
        slides = read_slides(place.folder)
        failed = read_csv(place.folder / FAILED) if place.has(FAILED) else []
    except LamellaError as error:
        said.append(str(error))
        return
    for slide in slides:
        yield FoundSlide(slide.slide_id, slide.wsi_path, slide.mpp_stated, slide, facts=_index_facts(slide))
    for row in failed:
        if row.get("slide_id") and row.get("path"):
            refused = row.get("error") or "it failed when it was indexed, without a reason"
            yield FoundSlide(row["slide_id"], (place.folder / row["path"]).absolute(), refused=refused)


def slides_in(place: Place, said: list[str], stated_mpp: bool) -> Iterator[FoundSlide]:
    """The slides that lie directly in a folder, or that its manifest names.

    Args:
        place: The folder.
        said: Gets what was left out.
        stated_mpp: Whether the user stated a spacing: plain pictures are slides then; they have none of their own.
    """
    plain, masks = [], []
    for path in place.files:
        suffix = path.suffix.lower()
        if suffix == ".csv" and (path.name == "manifest.csv" or not place.whole):
            yield from _manifest(path, said)
        elif suffix == ".jsonl" and not place.whole:
            yield from map(_found, read_exported_index(path))
        elif not place.whole and suffix in SLIDE_SUFFIXES:
            yield FoundSlide(path.stem, path)
        elif suffix in _PLAIN:
            if stated_mpp and not place.made:
                yield FoundSlide(path.stem, path)
            elif not place.made:
                plain.append(path)
        elif suffix in _TIFF and _one_band(path):
            masks.append(path)
        elif suffix in SLIDE_SUFFIXES:
            yield FoundSlide(path.stem, path)
    series = [path for path in series_files(filter(_may_be_dicom, place.files)) if _is_dicom_slide(path)]
    for path in series:
        # Archives call files by number or UID; a folder of one series has the name then.
        numbered = not path.stem.strip("0123456789.") and len(series) == 1
        yield FoundSlide(place.folder.name if numbered else path.stem, path)
    if plain:
        said.append(f"{place.folder}: {_files(plain)} without spacing: shown as slides where --mpp states one.")
    if masks and not place.made:
        said.append(f"{place.folder}: {_files(masks)} with one value a pixel: masks or label maps, not slides.")


def _files(paths: Sequence[Path]) -> str:
    return paths[0].name + (f" and {len(paths) - 1} more files" if len(paths) > 1 else "")


def _may_be_dicom(path: Path) -> bool:
    return path.suffix.lower() == ".dcm" or (not path.suffix and is_dicom(path))


def _manifest(path: Path, said: list[str]) -> Iterator[FoundSlide]:
    """Its slides. Other tables are called manifest, too (of volumes, of images with labels): those are passed over."""
    try:
        columns = set(read_csv(path)[0]) if path.stat().st_size else set()
        if {"slide_id"} <= columns and columns & {"wsi_path", "slide_path"}:
            yield from map(_found, read_manifest(path))
    except (LamellaError, IndexError) as error:
        said.append(f"{path}: {error}" if isinstance(error, IndexError) else str(error))


def _found(row: ManifestRow) -> FoundSlide:
    facts = {key: value for key, value in row.metadata.items() if not key.endswith("_path")}
    expression = row.metadata.get("expression_path")
    return FoundSlide(
        row.slide_id, row.wsi_path, row.mpp, facts=facts, expression=Path(expression) if expression else None
    )


def _one_band(path: Path) -> bool:
    """Whether a TIFF has one value a pixel: a mask or a label map; tissue has three."""
    try:
        with tifffile.TiffFile(path) as file:
            return file.pages.first.samplesperpixel == 1
    except _TIFF_FAULTS:
        return False  # its card says what is wrong with it


def _is_dicom_slide(path: Path) -> bool:
    """A whole slide, or a file so damaged that nobody can tell; scans are shown elsewhere."""
    try:
        return read_instance(path).whole_slide
    except SlideError:
        return False


def opened(found: FoundSlide) -> FoundSlide:
    """With facts as its reader gives them, or the reason why it cannot be shown."""
    try:
        with open_slide(found.path, mpp=found.mpp) as slide:
            facts = {**_frame_facts(slide.frame), "levels": str(len(slide.levels)), **found.facts}
            return replace(found, facts=facts)
    except SlideError as error:
        return replace(found, refused=str(error))


def _frame_facts(frame: Frame) -> dict[str, str]:
    width_um, height_um = frame.size_um
    mpp = f"{frame.mpp_x:.4g}"
    if not math.isclose(frame.mpp_x, frame.mpp_y, rel_tol=1e-3):
        mpp = f"{frame.mpp_x:.4g} x {frame.mpp_y:.4g}"
    return {
        "size": f"{frame.width_px} x {frame.height_px} px, {width_um / 1e3:.3g} x {height_um / 1e3:.3g} mm",
        "spacing": f"{mpp} µm per px",
    }


def _index_facts(slide: IndexedSlide) -> dict[str, str]:
    facts = _frame_facts(slide.frame)
    if slide.mpp_origin:
        facts["spacing"] += f" ({slide.mpp_origin})"
    if math.isfinite(slide.tissue_area_mm2):
        facts["tissue"] = f"{slide.tissue_area_mm2:.3g} mm², {slide.tissue_fraction:.0%} of the slide"
    facts["levels"] = str(len(slide.level_sizes_px))
    if slide.reader:
        facts["reader"] = slide.reader
    return {**facts, **{key: value for key, value in slide.metadata.items() if not key.endswith("_path")}}
