"""Making a slide index: each slide with its own fate, resumed where it was stopped, put together from shards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from lamella.errors import EmptyTissueError, ManifestError, MaskMismatchError, SlideError
from lamella.formats.atomic import write_text
from lamella.formats.tables import write_csv
from lamella.slides.each_slide import Notes, Runner, failed_file, in_turn, refuse_untried
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
REPORT_COLUMNS = ("slide_id", "wsi_path", "mask_path", "status", "error")
_NOTES = "slides"  # .slides.jsonl: slides finished by a run that has not ended yet
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
    run: Runner = in_turn,
    todo: Collection[str] | None = None,
    mark: str = "",
) -> list[SlideFate]:
    """Index the slides and write the index folder.

    Slides that are in the folder already, from a finished run, a killed one or a shard, are not opened again unless
    they or their row changed. One slide for each worker of `run` is in memory at a time.

    Args:
        rows: The slides, each with its own slide_id.
        folder: Where to; claimed for these settings by the caller.
        settings: How tissue is found.
        tree: All settings that matter, kept in the index.
        run: Does the slides.
        todo: The slide_ids to do; None: all.
        mark: Tells shards apart, such as `.3of8`. A shard keeps what it found; the index is written without a mark.

    Returns:
        What became of each slide, in the order of the rows; of a shard, of each slide in `todo`.

    Raises:
        ManifestError: A metadata column has a name that the index needs itself.
        LamellaError: Without a mark, a slide was never tried and is not in `todo`.
        StorageError: The disk refused a write.
    """
    _refuse_own_columns(rows)
    notes = Notes(folder, _NOTES, mark)
    slides = list(read_slides(folder)) if (folder / INDEX_FILE).is_file() else []
    slides += [from_record(entry, folder) for entry in notes.entries]
    known = {slide.slide_id: slide for slide in slides}
    fates = _settled(rows, folder, known)
    mine = {row.slide_id for row in rows} if todo is None else set(todo)
    pending = [row for row in rows if row.slide_id in mine and row.slide_id not in fates]
    if not mark:
        refuse_untried(folder, [row.slide_id for row in rows if row.slide_id not in {*fates, *mine}])
    for number, fate, error in run(partial(_index_row, folder=folder, settings=settings), pending):
        row = pending[number]
        fates[row.slide_id] = SlideFate(row, "failed", error) if fate is None else fate
        if fate is not None and fate.slide is not None:
            notes.add(to_record(fate.slide, folder))
    if mark:
        done = [fates[row.slide_id] for row in rows if row.slide_id in mine]
        _write_failed(folder, done, mark)
        return done
    done = [fates[row.slide_id] for row in rows]
    _write(folder, done, tree)
    notes.end()
    return done


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
            else given_mask(row.mask_path, row, slide, folder, settings)
        )
        share = float(tissue.mask.mean())
        indexed = IndexedSlide(
            slide_id=row.slide_id,
            wsi_path=row.wsi_path,
            mask_path=mask_path,
            frame=slide.frame,
            mask_frame=tissue.frame,
            mask_values=settings.mask_values if mask_path == row.mask_path else (),
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


def _settled(rows: Sequence[ManifestRow], folder: Path, known: Mapping[str, IndexedSlide]) -> dict[str, SlideFate]:
    """The fates that need no slide opened: done before and unchanged, or listed twice."""
    fates: dict[str, SlideFate] = {}
    first_use: dict[Path, str] = {}
    for row in rows:
        twin = first_use.setdefault(row.wsi_path.resolve(), row.slide_id)
        if twin != row.slide_id:
            # The same pixels under two names would count twice and could stand on both sides of a split.
            reason = f"{row.wsi_path}: it is the same file as slide {twin}. Keep one of the rows."
            fates[row.slide_id] = SlideFate(row, "rejected", reason)
        elif row.slide_id in known and _unchanged(row, folder, known[row.slide_id]):
            fates[row.slide_id] = SlideFate(row, "ok", slide=known[row.slide_id])
    return fates


def _unchanged(row: ManifestRow, folder: Path, known: IndexedSlide) -> bool:
    try:
        return known.mask_path.is_file() and known.source_hash == _source_hash(row, folder)
    except SlideError:  # it cannot be read any more: its own turn will tell why
        return False


def _index_row(row: ManifestRow, folder: Path, settings: TissueSettings) -> SlideFate:
    """One job. A slide that is of no use is an answer; one that cannot be read is an error, and tried again."""
    try:
        slide, note = index_slide(row, folder, settings)
    except (MaskMismatchError, EmptyTissueError) as error:
        return SlideFate(row, "rejected", str(error))
    return SlideFate(row, "ok", slide=slide, note=note)


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
    _write_failed(folder, fates)


def _write_failed(folder: Path, fates: Sequence[SlideFate], mark: str = "") -> None:
    bad = [
        {"slide_id": fate.row.slide_id, "path": str(fate.row.wsi_path), "error": fate.error}
        for fate in fates
        if fate.status != "ok"
    ]
    if bad:
        write_csv(folder / failed_file(mark), bad, ("slide_id", "path", "error"))
    else:
        (folder / failed_file(mark)).unlink(missing_ok=True)


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
