"""APTOS 2019: fundus photographs graded 0 to 4 for diabetic retinopathy, Kaggle's layout."""

from __future__ import annotations

from pathlib import Path

from lamella.errors import DatasetError
from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.datasets.files import by_name, head_problems
from lamella.imaging.datasets.item_files import ReadFiles
from lamella.imaging.datasets.layouts import Adapter
from lamella.imaging.datasets.metadata import has_columns, refuse_columns, rows_of
from lamella.imaging.datasets.problems import named
from lamella.imaging.datasets.settings import DatasetSettings
from lamella.imaging.datasets.soundness import sound

# The grades of the competition's page, in the order of their numbers.
CLASSES = ("no DR", "mild", "moderate", "severe", "proliferative DR")


def _fits(path: Path) -> bool:
    return (path / "train_images").is_dir() and has_columns(path / "train.csv", ("id_code", "diagnosis"))


def _open(path: Path, settings: DatasetSettings) -> Collection:
    table = path / "train.csv"
    rows = rows_of(table)
    refuse_columns(table, rows, ("id_code", "diagnosis"))
    files, problems = by_name([_folder(path / "train_images")], (".png",))
    items = []
    for row in rows:
        code, grade = row["id_code"], row["diagnosis"]
        if code not in files:
            problems.append(f"{code}: there is no train_images/{code}.png")
            continue
        known = grade.isdecimal() and int(grade) < len(CLASSES)
        label = CLASSES[int(grade)] if known else grade  # refused below, by its own name
        items.append(Item(code, (files[code],), labels=(label,), group=code))
    extra = sorted(set(files) - {row["id_code"] for row in rows})
    notes = ["the public files do not say which two eyes are of one patient: every image is its own group"]
    if extra:
        notes.append(f"{len(extra)} image(s) of train_images are not in train.csv and are left out: {named(extra, 3)}")
    if (path / "test_images").is_dir():
        tests, wrong = by_name([path / "test_images"], (".png",))
        problems += wrong
        items += [Item(code, (file,), group=code) for code, file in tests.items()]
        notes.append(f"{len(tests)} image(s) of test_images have no public grade: unlabelled")
    problems += head_problems([item.sources[0] for item in items])
    collection = Collection(
        name=ADAPTER.name,
        kind="image",
        items=tuple(items),
        read=ReadFiles("image"),
        classes=CLASSES,
        origin=ADAPTER.origin,
        licence=ADAPTER.licence,
        notes=tuple(notes),
    )
    return sound(path, collection, problems, splits=settings.splits)


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise DatasetError(path, "there is no such folder", "Unpack the images beside train.csv.")
    return path


ADAPTER = Adapter(
    name="aptos2019",
    title="APTOS 2019 (diabetic retinopathy)",
    kind="image",
    labels="5 grades: no DR, mild, moderate, severe, proliferative DR",
    group="image (the eyes of a patient are not linked in the public files)",
    layout="train.csv (id_code, diagnosis), train_images/*.png; test_images/ if there",
    origin="https://www.kaggle.com/c/aptos2019-blindness-detection",
    licence="Kaggle competition rules (research and education); see the competition's rules page",
    uses=frozenset(),
    fits=_fits,
    open=_open,
)
