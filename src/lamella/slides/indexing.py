"""Making a slide index: one slide at a time, each with its own fate, resumed where it was stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lamella.errors import EmptyTissueError, ManifestError, MaskMismatchError, SlideError
from lamella.formats.atomic import write_text
from lamella.formats.journal import Journal
from lamella.formats.tables import write_csv
from lamella.slides.index import (
    INDEX_FILE,
    OWN_COLUMNS,
    IndexedSlide,
    from_record,
    read_slides,
    relative_metadata,
    relative_path,
    to_record,
    write_slides,
)
from lamella.slides.manifest import ManifestRow
from lamella.slides.slide import open_slide
from lamella.slides.tissue import TissueSettings
from lamella.slides.tissue_files import given_mask, new_mask

REPORT_FILE = "slide_metadata_build_report.csv"
EXPORT_FILE = "slide_metadata_index.jsonl"
FAILED_FILE = "failed.csv"
REPORT_COLUMNS = ("slide_id", "wsi_path", "mask_path", "status", "error")
_JOURNAL = ".slides.jsonl"  # slides finished by a run that has not ended yet
_MARK_BYTES = 2**16  # a slide's header and its last tiles; reading all of a slide would take longer than indexing it
_UM2_PER_MM2 = 1e6


@dataclass(frozen=True)
class SlideFate:
    """What became of one slide of the manifest."""

    row: ManifestRow
    status: Literal["ok", "failed", "rejected"]
    """`failed`: it cannot be read. `rejected`: it can, but it is of no use (wrong mask, no tissue, listed twice)."""
    error: str = ""
    slide: IndexedSlide | None = None
    note: str = ""
    """Something the user should know about a slide that is in order."""


def build_index(
    rows: Sequence[ManifestRow],
    folder: Path,
    settings: TissueSettings,
    tree: Mapping[str, Any],
    follow: Callable[[Sequence[ManifestRow]], Iterable[ManifestRow]] = iter,
) -> list[SlideFate]:
    """Index the slides and write the index folder.

    Slides that are in the folder already, from a finished run or one that was killed, are not opened again unless they
    or their row changed. One slide is in memory at a time.

    Args:
        rows: The slides, each with its own slide_id.
        folder: Where to; claimed for these settings by the caller.
        settings: How tissue is found.
        tree: All settings, kept in the index.
        follow: Wraps the rows, to show progress.

    Raises:
        ManifestError: A metadata column has a name that the index needs itself.
        StorageError: The disk refused a write.
    """
    _refuse_own_columns(rows)
    journal = Journal(folder / _JOURNAL)
    slides = list(read_slides(folder)) if (folder / INDEX_FILE).is_file() else []
    slides += [from_record(entry, folder) for entry in journal.entries]
    known = {slide.slide_id: slide for slide in slides}
    fates: list[SlideFate] = []
    first_use: dict[Path, str] = {}
    for row in follow(rows):
        fate = _fate(row, folder, settings, known.get(row.slide_id), first_use)
        fates.append(fate)
        if fate.slide is not None and fate.slide is not known.get(row.slide_id):
            journal.add(to_record(fate.slide, folder))
    _write(folder, fates, tree)
    journal.end()
    return fates


def index_slide(row: ManifestRow, folder: Path, settings: TissueSettings) -> tuple[IndexedSlide, str]:
    """Open one slide, lay its mask over it or compute one, and measure its tissue.

    Returns:
        The slide, and a note for the user (empty if there is nothing to say).

    Raises:
        SlideError: With the reason, of the kind that tells failed from rejected.
    """
    for column, value in row.metadata.items():
        if column.endswith("_path") and not Path(value).exists():
            raise SlideError(value, f"the file of column {column} does not exist", "Correct the path in the manifest.")
    with open_slide(row.wsi_path, mpp=row.mpp) as slide:
        tissue, mask_path = (
            new_mask(row, slide, folder, settings)
            if row.mask_path is None
            else given_mask(row.mask_path, row, slide, settings)
        )
        share = float(tissue.mask.mean())
        indexed = IndexedSlide(
            slide_id=row.slide_id,
            wsi_path=row.wsi_path,
            mask_path=mask_path,
            frame=slide.frame,
            mask_frame=tissue.frame,
            mask_values=() if row.mask_path is None else settings.mask_values,
            metadata=row.metadata,
            mask_computed=row.mask_path is None,
            reader=slide.reader.name,
            mpp_origin=slide.resolution.origin,
            level_sizes_px=tuple((level.width_px, level.height_px) for level in slide.levels),
            tissue_area_mm2=share * slide.frame.size_um[0] * slide.frame.size_um[1] / _UM2_PER_MM2,
            tissue_fraction=share,
            source_hash=_source_hash(row, folder),
        )
        return indexed, slide.resolution.note


def _fate(
    row: ManifestRow, folder: Path, settings: TissueSettings, known: IndexedSlide | None, first_use: dict[Path, str]
) -> SlideFate:
    twin = first_use.setdefault(row.wsi_path.resolve(), row.slide_id)
    if twin != row.slide_id:
        # The same pixels under two names would count twice and could stand on both sides of a split.
        return SlideFate(row, "rejected", f"{row.wsi_path}: it is the same file as slide {twin}. Keep one of the rows.")
    try:
        if known is not None and known.mask_path.is_file() and known.source_hash == _source_hash(row, folder):
            return SlideFate(row, "ok", slide=known)
        slide, note = index_slide(row, folder, settings)
        return SlideFate(row, "ok", slide=slide, note=note)
    except (MaskMismatchError, EmptyTissueError) as error:
        return SlideFate(row, "rejected", str(error))
    except SlideError as error:
        return SlideFate(row, "failed", str(error))


def _source_hash(row: ManifestRow, folder: Path) -> str:
    """16 hexadecimal digits of the row and of the size, beginning and end of its files.

    Not the time stamps: a copy of the same files is the same input.
    """
    digest = hashlib.sha256()
    files = [path for path in (row.wsi_path, row.mask_path) if path is not None]
    named = [relative_path(path, folder) for path in files]
    content = [row.slide_id, named, row.mpp, row.mask_mpp, relative_metadata(row.metadata, folder)]
    digest.update(json.dumps(content, sort_keys=True).encode())
    for path in files:
        if path.is_file():
            digest.update(_file_mark(path))
    return digest.hexdigest()[:16]


def _file_mark(path: Path) -> bytes:
    size = path.stat().st_size
    try:
        with open(path, "rb") as file:
            start = file.read(_MARK_BYTES)
            file.seek(max(0, size - _MARK_BYTES))
            return str(size).encode() + start + file.read(_MARK_BYTES)
    except OSError as error:
        raise SlideError(path, f"the file cannot be read ({error.strerror})", "Check its permissions.") from error


def _refuse_own_columns(rows: Sequence[ManifestRow]) -> None:
    taken = sorted({key for row in rows for key in row.metadata} & OWN_COLUMNS)
    if taken:
        raise ManifestError(
            f"column {', '.join(taken)}", "the index has a column of this name itself", "Rename it in the manifest."
        )


def _write(folder: Path, fates: Sequence[SlideFate], tree: Mapping[str, Any]) -> None:
    write_slides(folder, [fate.slide for fate in fates if fate.slide is not None], tree)
    write_csv(folder / REPORT_FILE, (_report_row(fate, folder) for fate in fates), REPORT_COLUMNS)
    lines = (json.dumps(_exported(fate, folder), ensure_ascii=False) for fate in fates)
    write_text(folder / EXPORT_FILE, "".join(f"{line}\n" for line in lines))
    bad = [
        {"slide_id": fate.row.slide_id, "path": str(fate.row.wsi_path), "error": fate.error}
        for fate in fates
        if fate.status != "ok"
    ]
    if bad:
        write_csv(folder / FAILED_FILE, bad, ("slide_id", "path", "error"))
    else:
        (folder / FAILED_FILE).unlink(missing_ok=True)


def _report_row(fate: SlideFate, folder: Path) -> dict[str, str]:
    mask = fate.slide.mask_path if fate.slide else fate.row.mask_path
    return {
        "slide_id": fate.row.slide_id,
        "wsi_path": relative_path(fate.row.wsi_path, folder),
        "mask_path": relative_path(mask, folder) if mask else "",
        "status": fate.status,
        "error": fate.error,
    }


def _exported(fate: SlideFate, folder: Path) -> dict[str, Any]:
    """A line of slide_metadata_index.jsonl with the source project's fields."""
    head = {**_report_row(fate, folder), "error": fate.error or None}
    slide = fate.slide
    if slide is None:
        return {**head, **fate.row.metadata}
    record = to_record(slide, folder)
    mask = slide.mask_frame
    return {
        **head,
        "wsi_level0_width": slide.frame.width_px,
        "wsi_level0_height": slide.frame.height_px,
        "wsi_level0_spacing_mpp": slide.frame.mpp,
        "wsi_shapes": [list(size) for size in slide.level_sizes_px],
        "wsi_spacings_mpp": [level.mpp for level in slide.levels],
        "mask_level0_width": mask.width_px,
        "mask_level0_height": mask.height_px,
        "mask_level0_spacing_mpp": mask.mpp,
        "mask_shapes": [[mask.width_px, mask.height_px]],
        "mask_spacings_mpp": [mask.mpp],
        "mask_to_wsi_scale_x": slide.frame.width_px / mask.width_px,
        "mask_to_wsi_scale_y": slide.frame.height_px / mask.height_px,
        **{key: record[key] for key in ("mpp_x", "mpp_y", "mpp_origin", "mask_computed", "tissue_area_mm2")},
        **record["metadata"],
    }
