"""Which slides there are: a manifest CSV, an exported index (.jsonl), folders, or slide files.

The manifest's columns are `slide_id,wsi_path,mask_path`; `slide_path` is accepted for `wsi_path`, and `mask_path` may
be empty or absent. `mpp` (or `mpp_x` and `mpp_y`) states the slide's micrometres per pixel, `mask_mpp` the mask's.
Every other column is metadata and is kept as text; those that end in `_path` name files.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lamella.errors import LamellaError, ManifestError
from lamella.formats.tables import read_csv
from lamella.slides.readers.registry import slide_files

_OWN = {"slide_id", "wsi_path", "slide_path", "mask_path", "mpp", "mpp_x", "mpp_y", "mask_mpp"}
# Fields of slide_metadata_index.jsonl that are measured anew when the file is imported.
_MEASURED = {"status", "error", "traceback", "tissue_area_mm2", "tissue_fraction", "reader", "mpp_origin"}
_MEASURED_PREFIXES = ("wsi_", "mask_")
_ROWS_SHOWN = 5  # a message names so many rows; the number of the rest is told


@dataclass(frozen=True)
class ManifestRow:
    """One slide as the user gave it; nothing is opened yet."""

    slide_id: str
    wsi_path: Path
    mask_path: Path | None = None
    mpp: tuple[float, float] | None = None
    """Stated (x, y) micrometres per pixel at level 0."""
    mask_mpp: float | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Further columns; values of columns that end in `_path` are absolute paths."""


def find_slides(paths: Sequence[Path], mpp: float | None = None) -> list[ManifestRow]:
    """List the slides of any mix of manifests (.csv), exported indexes (.jsonl), folders and slide files.

    Args:
        paths: What the user gave.
        mpp: Micrometres per pixel of every slide; wins over the manifest.

    Raises:
        ManifestError: A file or folder is missing or empty, a manifest cannot be used as a whole, or two slides have
            the same slide_id.
    """
    rows: list[ManifestRow] = []
    for path in paths:
        path = Path(path)
        if not path.exists():
            raise ManifestError(path, "there is no such file or folder", "Correct the path.")
        rows.extend(_rows_of(path))
    _refuse_repeated(rows, paths)
    return rows if mpp is None else [replace(row, mpp=(mpp, mpp)) for row in rows]


def _rows_of(path: Path) -> list[ManifestRow]:
    if path.suffix.lower() == ".csv":
        return read_manifest(path)
    if path.suffix.lower() == ".jsonl":
        return read_exported_index(path)
    files = slide_files(path) if path.is_dir() else [path]
    if not files:
        raise ManifestError(path, "there is no slide in this folder", "Give a folder of slides, or a manifest CSV.")
    return [ManifestRow(file.stem, file.absolute()) for file in files]


def read_manifest(path: Path | str) -> list[ManifestRow]:
    """Read a manifest CSV; its paths are absolute or relative to it.

    Raises:
        ManifestError: A column is missing, a slide_id is empty or stands twice (the lines are named), or an mpp is
            not a number.
    """
    path = Path(path)
    try:
        rows = read_csv(path)
    except LamellaError as error:
        raise ManifestError(error.thing, error.cause, error.remedy) from error
    if not rows:
        raise ManifestError(path, "it names no slide", "Add one row per slide: slide_id,wsi_path,mask_path.")
    columns = set(rows[0])
    if not columns & {"wsi_path", "slide_path"}:
        _refuse_column(path, "wsi_path", columns)
    if "slide_id" not in columns:
        _refuse_column(path, "slide_id", columns)
    numbered = list(enumerate(rows, start=2))  # line 1 is the header, as a spreadsheet counts
    _refuse_lines(path, "an empty slide_id", [line for line, row in numbered if not row["slide_id"]])
    _refuse_lines(path, "an empty wsi_path", [line for line, row in numbered if not _slide_path(row)])
    for line, row in numbered:
        _check_name(path, line, row["slide_id"])
    _refuse_repeated_ids(path, [(line, row["slide_id"]) for line, row in numbered])
    return [_manifest_row(path, line, row) for line, row in numbered]


def read_exported_index(path: Path | str) -> list[ManifestRow]:
    """Read slide_metadata_index.jsonl, Lamella's or the source project's; what it measured is measured anew.

    Raises:
        ManifestError: A line is not a JSON object, or has no slide_id or wsi_path.
    """
    path = Path(path)
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise ManifestError(
                f"{path}, line {number}", f"it is not JSON ({error})", "Export the index again."
            ) from error
        if not isinstance(values, dict) or not values.get("slide_id") or not values.get("wsi_path"):
            raise ManifestError(f"{path}, line {number}", "it has no slide_id and wsi_path", "Export the index again.")
        rows.append((number, values))
    if not rows:
        raise ManifestError(path, "it names no slide", "Export the index again.")
    _refuse_repeated_ids(path, [(number, str(values["slide_id"])) for number, values in rows])
    return [_exported_row(path, number, values) for number, values in rows]


def _exported_row(path: Path, number: int, values: Mapping[str, object]) -> ManifestRow:
    kept = {
        key: str(value)
        for key, value in values.items()
        if value not in (None, "") and (key in _OWN or not (key in _MEASURED or key.startswith(_MEASURED_PREFIXES)))
    }
    # The old index's spacing is a statement about the slide, not a measurement: it may have come from the user.
    if not {"mpp", "mpp_x"} & set(kept) and values.get("wsi_level0_spacing_mpp"):
        kept["mpp"] = str(values["wsi_level0_spacing_mpp"])
    if str(values.get("mask_computed", "")).lower() == "true":
        kept.pop("mask_path", None)  # a computed mask belongs to the index that computed it
    _check_name(path, number, kept["slide_id"])
    return _manifest_row(path, number, kept)


def _manifest_row(path: Path, line: int, row: Mapping[str, str]) -> ManifestRow:
    def resolved(text: str) -> Path:
        return (path.parent / Path(text).expanduser()).absolute()

    mask = row.get("mask_path", "")
    metadata = {
        key: str(resolved(value)) if key.endswith("_path") else value
        for key, value in row.items()
        if key not in _OWN and value
    }
    mpp = _number(path, line, "mpp", row)
    mpp_x, mpp_y = (_number(path, line, key, row) or mpp for key in ("mpp_x", "mpp_y"))
    if (mpp_x is None) != (mpp_y is None):
        raise ManifestError(f"{path}, line {line}", "only one of mpp_x and mpp_y is given", "Give both, or `mpp`.")
    return ManifestRow(
        slide_id=row["slide_id"],
        wsi_path=resolved(_slide_path(row)),
        mask_path=resolved(mask) if mask else None,
        mpp=None if mpp_x is None or mpp_y is None else (mpp_x, mpp_y),
        mask_mpp=_number(path, line, "mask_mpp", row),
        metadata=metadata,
    )


def _slide_path(row: Mapping[str, str]) -> str:
    return row.get("wsi_path") or row.get("slide_path") or ""


def _number(path: Path, line: int, column: str, row: Mapping[str, str]) -> float | None:
    text = row.get(column, "")
    if not text:
        return None
    try:
        return float(text)
    except ValueError as error:
        raise ManifestError(
            f"{path}, line {line}", f"{column} is {text!r}, not a number", "Write micrometres per pixel, such as 0.5."
        ) from error


def _check_name(path: Path, line: int, slide_id: str) -> None:
    """A slide_id becomes the name of files, so it must not lead out of their folder."""
    if "/" in slide_id or "\\" in slide_id or slide_id.startswith("."):
        raise ManifestError(
            f"{path}, line {line}",
            f"slide_id {slide_id!r} cannot be a file name",
            "Leave out slashes and leading dots.",
        )


def _refuse_column(path: Path, column: str, columns: Iterable[str]) -> None:
    raise ManifestError(
        path,
        f"the column {column} is missing (it has {', '.join(sorted(columns))})",
        "The first line must be slide_id,wsi_path,mask_path and any columns of your own.",
    )


def _refuse_lines(path: Path, what: str, lines: Sequence[int]) -> None:
    if lines:
        shown = ", ".join(map(str, lines[:_ROWS_SHOWN])) + (", ..." if len(lines) > _ROWS_SHOWN else "")
        raise ManifestError(path, f"{what} in line {shown}", "Fill it in, or remove the row.")


def _refuse_repeated_ids(path: Path, ids: Sequence[tuple[int, str]]) -> None:
    counts = Counter(slide_id for _, slide_id in ids)
    repeated = [slide_id for slide_id, count in counts.items() if count > 1]
    if repeated:
        named = "; ".join(
            f"{slide_id} in lines {', '.join(str(line) for line, other in ids if other == slide_id)}"
            for slide_id in repeated[:_ROWS_SHOWN]
        )
        more = f"; and {len(repeated) - _ROWS_SHOWN} more" if len(repeated) > _ROWS_SHOWN else ""
        raise ManifestError(path, f"a slide_id stands twice: {named}{more}", "Give every slide its own slide_id.")


def _refuse_repeated(rows: Sequence[ManifestRow], paths: Sequence[Path]) -> None:
    """Slides of several arguments, or of one folder with several kinds of file, may share a name."""
    first: dict[str, ManifestRow] = {}
    for row in rows:
        other = first.setdefault(row.slide_id, row)
        if other is not row:
            raise ManifestError(
                ", ".join(map(str, paths)),
                f"two slides would be called {row.slide_id}: {other.wsi_path} and {row.wsi_path}",
                "Write a manifest CSV that gives each its own slide_id.",
            )
