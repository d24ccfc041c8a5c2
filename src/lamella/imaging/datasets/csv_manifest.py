"""Any data set that a CSV describes: one row an image, volume or video."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from lamella.errors import DatasetError, LamellaError
from lamella.formats.tables import read_csv
from lamella.imaging.datasets.box_files import Box, read_boxes
from lamella.imaging.datasets.collection import Collection, Item, Kind
from lamella.imaging.datasets.csv_columns import Columns, file_in, find_columns
from lamella.imaging.datasets.files import head_problems, stem_of
from lamella.imaging.datasets.item_files import ReadFiles, refuse_mpp
from lamella.imaging.datasets.kinds import kind_of_all
from lamella.imaging.datasets.layouts import Adapter
from lamella.imaging.datasets.mask_files import mask_facts
from lamella.imaging.datasets.problems import refuse
from lamella.imaging.datasets.settings import DatasetSettings
from lamella.imaging.datasets.soundness import sound
from lamella.imaging.datasets.split_words import split_of

_REMEDY = "Correct the CSV or the files; nothing is left out in silence."


def _fits(path: Path) -> bool:
    return path.suffix.lower() == ".csv"


def _open(path: Path, settings: DatasetSettings) -> Collection:
    if path.is_dir():
        path = _only_csv(path)
    rows = _rows(path)
    folder = path.parent / (settings.folder or "")
    columns = find_columns(path, rows, folder, settings)
    boxes, problems = read_boxes(settings.boxes) if settings.boxes else ({}, [])
    ids = _ids(rows, columns)
    items = []
    for line, (row, item_id) in enumerate(zip(rows, ids, strict=True), start=2):
        item, wrong = _item(row, item_id, columns, folder, settings, boxes)
        problems += [f"line {line}: {each}" for each in wrong]
        items.append(item)
    used = {key for row, item_id in zip(rows, ids, strict=True) for key in (item_id, row[columns.image[0]])}
    problems += [f"{settings.boxes}: {key} is no image of the data set" for key in boxes if key not in used]
    sources = [source for item in items for source in (*item.sources, *([item.mask] if item.mask else []))]
    problems += head_problems([source for source in sources if source.exists()])
    if problems:
        problems += _repeated(ids)
        refuse(path, problems, _REMEDY)
    kind = kind_of_all(path, [source for item in items for source in item.sources], settings)
    refuse_mpp(path, kind, settings)
    if len(columns.image) > 1 and kind != "volume":
        raise DatasetError(path, f"several files for one {kind}", "Only volumes have one file per channel.")
    collection = _collection(path, rows, items, columns, settings, kind)
    return sound(path, collection, splits=settings.splits, remedy=_REMEDY)


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        rows = read_csv(path)
    except LamellaError as error:
        raise DatasetError(error.thing, error.cause, error.remedy) from error
    if not rows:
        raise DatasetError(path, "it names no image", "Add one row per image.")
    return rows


def _only_csv(folder: Path) -> Path:
    found = sorted(each for each in folder.iterdir() if each.suffix.lower() == ".csv")
    if len(found) != 1:
        names = ", ".join(each.name for each in found) or "none"
        raise DatasetError(folder, f"it should hold one CSV, and holds {names}", "Give the CSV itself.")
    return found[0]


def _ids(rows: Sequence[dict[str, str]], columns: Columns) -> list[str]:
    """The id column; else the file names; else, where two files share a name, their paths as written."""
    if columns.id:
        return [row[columns.id] for row in rows]
    cells = [row[columns.image[0]] for row in rows]
    stems = [stem_of(Path(cell)) for cell in cells]
    return stems if len(set(stems)) == len(set(cells)) else cells


def _item(
    row: dict[str, str],
    item_id: str,
    columns: Columns,
    folder: Path,
    settings: DatasetSettings,
    boxes: dict[str, tuple[Box, ...]],
) -> tuple[Item, list[str]]:
    """One item, and what is wrong with its row."""
    problems = [] if item_id else ["the id is empty"]
    sources = []
    for column in columns.image:
        sources.append(file_in(folder, row[column], settings.suffix))
        problems += _file_problem(column, row[column], sources[-1])
    mask = None
    if columns.mask and row[columns.mask]:
        mask = file_in(folder, row[columns.mask], "")
        problems += _file_problem(columns.mask, row[columns.mask], mask)
    labels = _labels(row[columns.label], settings) if columns.label else None
    if labels is not None and len(set(labels)) < len(labels):
        problems.append(f"a label stands twice in {row[columns.label or '']!r}")
    split = None
    if columns.split and row[columns.split]:
        split = split_of(row[columns.split])
        if split is None and settings.splits == "given":
            problems.append(f"unknown split {row[columns.split]!r} (known: train, val, test)")
    mpp, wrong = _mpp(row, columns, settings)
    problems += wrong
    item = Item(
        item_id=item_id,
        sources=tuple(sources),
        labels=labels,
        group=(row[columns.group] if columns.group else "") or item_id,
        site=(row[columns.site] if columns.site else "") or None,
        split=split,
        mask=mask,
        boxes=tuple(box for key in {item_id: 0, row[columns.image[0]]: 0} for box in boxes.get(key, ())),
        mpp=mpp,
    )
    return item, problems


def _file_problem(column: str, cell: str, path: Path) -> list[str]:
    if not cell:
        return [f"{column} is empty"]
    return [] if path.exists() else [f"there is no file {cell} ({column})"]


def _mpp(row: dict[str, str], columns: Columns, settings: DatasetSettings) -> tuple[float | None, list[str]]:
    """The row's own, else that of the settings, and what is wrong."""
    if not columns.mpp or not row[columns.mpp]:
        return settings.mpp, []
    try:
        value = float(row[columns.mpp])
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        return None, [f"{columns.mpp} is {row[columns.mpp]!r}, not micrometres per pixel"]
    return value, []


def _labels(cell: str, settings: DatasetSettings) -> tuple[str, ...] | None:
    """None for an empty cell: unlabelled, which is not the same as `none of the classes`."""
    if not cell:
        return None
    if settings.separator is None:
        return (cell,)
    return tuple(
        label for part in cell.split(settings.separator) if (label := part.strip()) and label != settings.no_finding
    )


def _repeated(ids: Sequence[str]) -> Iterator[str]:
    yield from (f"{item_id} stands {count} times" for item_id, count in Counter(ids).items() if count > 1 and item_id)


def _collection(
    path: Path,
    rows: Sequence[dict[str, str]],
    items: list[Item],
    columns: Columns,
    settings: DatasetSettings,
    kind: Kind,
) -> Collection:
    found = {label for item in items for label in item.labels or ()}
    masked = sum(item.mask is not None for item in items)
    notes = [columns.told()]
    if columns.group is None:
        notes.append("no group column: every item is its own group, so parts of one patient may be torn apart")
    elif ungrouped := sum(not row[columns.group] for row in rows):
        notes.append(f"{ungrouped} item(s) without a {columns.group} are groups of their own")
    if columns.label and (unlabelled := sum(item.labels is None for item in items)):
        notes.append(f"{unlabelled} item(s) have an empty {columns.label}: unlabelled")
    if columns.mask and masked < len(items):
        notes.append(f"{len(items) - masked} item(s) have no mask")
    return Collection(
        name=path.stem if path.stem != "manifest" else path.absolute().parent.name,
        kind=kind,
        items=tuple(items),
        read=ReadFiles(kind, columns.image if len(columns.image) > 1 else (), fourth=settings.stated_fourth),
        classes=settings.classes or tuple(sorted(found)),
        multi_label=settings.separator is not None,
        group_noun=settings.group_noun or _noun(columns.group) or kind,
        **mask_facts(kind, settings, masked=bool(masked)),
        origin=f"your own: {path}",
        licence="as its owner says",
        notes=tuple(notes),
    )


def _noun(column: str | None) -> str:
    """What the column's name calls a group; nothing without a column, where each item is its own."""
    return "" if column is None else column.lower().removesuffix("_id").removesuffix(" id").replace("_", " ")


ADAPTER = Adapter(
    name="csv",
    title="any CSV",
    kind="image, volume or video",
    labels="a column; with separator=pipe multi-label",
    group="a column: patient, patient_id, subject, lesion_id, slide, ...",
    layout="a .csv with one row per item; paths absolute or relative to it",
    origin="your own",
    licence="as its owner says",
    uses=frozenset(
        {
            *("kind", "fourth", "id", "image", "folder", "suffix", "label", "separator", "no_finding", "classes"),
            *("group", "group_noun", "site", "split", "mask", "mask_classes", "class_map", "boxes", "mpp"),
        }
    ),
    fits=_fits,
    open=_open,
)
