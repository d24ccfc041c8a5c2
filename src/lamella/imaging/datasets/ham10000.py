"""HAM10000: 10,015 dermatoscopic images of 7,470 pigmented lesions, Kaggle's and Harvard Dataverse's layout."""

from __future__ import annotations

import re
from pathlib import Path

from lamella.errors import DatasetError
from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.datasets.files import by_name, head_problems
from lamella.imaging.datasets.item_files import ReadFiles
from lamella.imaging.datasets.layouts import Adapter
from lamella.imaging.datasets.metadata import refuse_columns, rows_of
from lamella.imaging.datasets.problems import named
from lamella.imaging.datasets.settings import DatasetSettings
from lamella.imaging.datasets.soundness import sound

CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
_TABLES = ("HAM10000_metadata.csv", "HAM10000_metadata", "HAM10000_metadata.tab")
_FOLDER = re.compile(r"HAM10000_images(_part_\d+)?")


def _fits(path: Path) -> bool:
    return path.is_dir() and any((path / name).is_file() for name in _TABLES)


def _open(path: Path, settings: DatasetSettings) -> Collection:
    table = next((path / name for name in _TABLES if (path / name).is_file()), path / _TABLES[0])
    rows = rows_of(table)
    refuse_columns(table, rows, ("lesion_id", "image_id", "dx"))
    files, problems = by_name(_image_folders(path), (".jpg", ".jpeg"))
    items = []
    for row in rows:
        image_id = row["image_id"]
        if image_id not in files:
            problems.append(f"{image_id}: there is no {image_id}.jpg")
            continue
        if not row["lesion_id"]:
            problems.append(f"{image_id}: its lesion_id is empty")
        # `dataset` (Harvard's table only) tells the clinic and camera: rosendahl, vidir_modern, vidir_molemax, ...
        site = row.get("dataset") or None
        items.append(Item(image_id, (files[image_id],), labels=(row["dx"],), group=row["lesion_id"], site=site))
    problems += head_problems([item.sources[0] for item in items])
    extra = sorted(set(files) - {row["image_id"] for row in rows})
    notes = [f"{len(extra)} image(s) are not in the table and are left out: {named(extra, 3)}"] if extra else []
    collection = Collection(
        name=ADAPTER.name,
        kind="image",
        items=tuple(items),
        read=ReadFiles("image"),
        classes=CLASSES,
        group_noun="lesion",
        origin=ADAPTER.origin,
        licence=ADAPTER.licence,
        notes=tuple(notes),
    )
    return sound(path, collection, problems, splits=settings.splits)


def _image_folders(path: Path) -> list[Path]:
    """Kaggle's archive holds each folder twice, in capitals and in small letters, with the same files."""
    folders = sorted(each for each in path.iterdir() if each.is_dir())
    found = [each for each in folders if _FOLDER.fullmatch(each.name)]
    found = found or [each for each in folders if _FOLDER.fullmatch(each.name.replace("ham", "HAM"))]
    if not found:
        raise DatasetError(
            path, "it has no folder HAM10000_images_part_1", "Unpack both parts of the images beside the table."
        )
    return found


ADAPTER = Adapter(
    name="ham10000",
    title="HAM10000 (skin lesions)",
    kind="image",
    labels="7 diagnoses: akiec, bcc, bkl, df, mel, nv, vasc",
    group="lesion (lesion_id); several images show one lesion",
    layout="HAM10000_metadata.csv, HAM10000_images_part_1/*.jpg, HAM10000_images_part_2/*.jpg",
    origin="https://doi.org/10.7910/DVN/DBW86T or https://www.kaggle.com/datasets/kmader/skin-cancer-mnist-ham10000",
    licence="CC BY-NC 4.0 (non-commercial; Kaggle's copy says CC BY-NC-SA 4.0); see the Dataverse page",
    uses=frozenset(),
    fits=_fits,
    open=_open,
)
