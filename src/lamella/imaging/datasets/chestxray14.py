"""ChestX-ray14: 112,120 frontal radiographs of 30,805 patients with 14 findings mined from reports.

Source: Wang et al., CVPR 2017. The labels are of reports, read by a program: they are wrong in parts.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

from lamella.errors import DatasetError
from lamella.imaging.datasets.box_files import Box, box_of
from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.datasets.files import by_name, head_problems
from lamella.imaging.datasets.item_files import ReadFiles
from lamella.imaging.datasets.layouts import Adapter
from lamella.imaging.datasets.metadata import lines_of, refuse_columns, rows_of
from lamella.imaging.datasets.problems import named
from lamella.imaging.datasets.settings import DatasetSettings
from lamella.imaging.datasets.soundness import sound
from lamella.imaging.datasets.split_words import Split

CLASSES = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
NO_FINDING = "No Finding"
_TABLES = ("Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv")
_LISTS: tuple[tuple[str, Split], ...] = (("train_val_list.txt", "train"), ("test_list.txt", "test"))
_BOXES = "BBox_List_2017.csv"
# The table of boxes calls this finding otherwise than the table of images.
_SAME_FINDING = {"Infiltrate": "Infiltration"}


def _fits(path: Path) -> bool:
    return any((path / name).is_file() for name in _TABLES)


def _open(path: Path, settings: DatasetSettings) -> Collection:
    table = next((path / name for name in _TABLES if (path / name).is_file()), path / _TABLES[0])
    rows = rows_of(table)
    refuse_columns(table, rows, ("Image Index", "Finding Labels", "Patient ID"))
    files, problems = by_name(_image_folders(path), (".png",))
    split_of, notes, wrong = _splits(path)
    boxes, wrong_boxes = _boxes(path / _BOXES, {row["Image Index"] for row in rows})
    problems += wrong + wrong_boxes
    items = []
    for row in rows:
        name = row["Image Index"]
        stem = Path(name).stem
        if stem not in files:
            problems.append(f"{name}: there is no such file")
            continue
        if not row["Patient ID"]:
            problems.append(f"{name}: its Patient ID is empty")
        if split_of and name not in split_of and settings.splits == "given":
            problems.append(f"{name} is neither in train_val_list.txt nor in test_list.txt")
        labels = tuple(label.strip() for label in row["Finding Labels"].split("|"))
        if labels == (NO_FINDING,):
            labels = ()
        items.append(
            Item(
                item_id=stem,
                sources=(files[stem],),
                labels=labels,
                group=row["Patient ID"],
                split=split_of.get(name),
                boxes=boxes.get(name, ()),
            )
        )
    extra = sorted(set(files) - {Path(row["Image Index"]).stem for row in rows})
    if extra:
        notes.append(f"{len(extra)} image(s) are not in the table and are left out: {named(extra, 3)}")
    problems += head_problems([item.sources[0] for item in items])
    collection = Collection(
        name=ADAPTER.name,
        kind="image",
        items=tuple(items),
        read=ReadFiles("image"),
        classes=CLASSES,
        multi_label=True,
        group_noun="patient",
        origin=ADAPTER.origin,
        licence=ADAPTER.licence,
        notes=("labels were mined from reports by a program; they are not a radiologist's reading", *notes),
    )
    return sound(path, collection, problems, splits=settings.splits)


def _image_folders(path: Path) -> list[Path]:
    """images_001/images to images_012/images (Kaggle), images_001 ..., or images (NIH's archives unpacked)."""
    tops = sorted(each for each in path.iterdir() if each.is_dir() and each.name.startswith("images"))
    folders = [each / "images" if (each / "images").is_dir() else each for each in tops]
    if not folders:
        raise DatasetError(path, "it has no folder images or images_001", "Unpack the images beside the table.")
    return folders


def _splits(path: Path) -> tuple[dict[str, Split], list[str], list[str]]:
    """File name -> split, what to tell, what is wrong."""
    there = [name for name, _ in _LISTS if (path / name).is_file()]
    if not there:
        return {}, ["train_val_list.txt and test_list.txt are not there: no split is given"], []
    found: dict[str, Split] = {}
    problems = []
    for name, split in _LISTS:
        if name not in there:
            problems.append(f"{name} is missing beside {there[0]}")
            continue
        for image in lines_of(path / name):
            if found.setdefault(image, split) != split:
                problems.append(f"{image} is in train_val_list.txt and in test_list.txt")
    return found, [], problems


def _boxes(path: Path, known: set[str]) -> tuple[dict[str, tuple[Box, ...]], list[str]]:
    """File name -> boxes, and what is wrong.

    The header is `Image Index,Finding Label,Bbox [x,y,w,h],,,`: cells are told by their place.
    """
    if not path.is_file():
        return {}, []
    boxes: dict[str, list[Box]] = defaultdict(list)
    problems = []
    with path.open(newline="", encoding="utf-8-sig") as file:
        for line, cells in enumerate(csv.reader(file), start=1):
            if line == 1 or not any(cells):
                continue
            image, finding = (*cells, "", "")[:2]
            finding = _SAME_FINDING.get(finding, finding)
            box, problem = box_of(cells[2:6], finding, sizes=True)
            if image not in known:
                problem = f"{image} is not in the table of images"
            elif finding not in CLASSES:
                problem = f"unknown finding {finding!r}"
            if problem or box is None:
                problems.append(f"{path.name}, line {line}: {problem}")
            else:
                boxes[image].append(box)
    return {image: tuple(of_image) for image, of_image in boxes.items()}, problems


ADAPTER = Adapter(
    name="chestxray14",
    title="NIH ChestX-ray14",
    kind="image",
    labels="14 findings, any number each; `No Finding` is none of them",
    group="patient (Patient ID)",
    layout="Data_Entry_2017.csv, images_001/images/*.png ... or images/*.png; train_val_list.txt, test_list.txt, "
    "BBox_List_2017.csv if there",
    origin="https://nihcc.app.box.com/v/ChestXray-NIHCC or https://www.kaggle.com/datasets/nih-chest-xrays/data",
    licence="free use with credit to the NIH Clinical Center and Wang et al. 2017; see README_CHESTXRAY.pdf there",
    uses=frozenset(),
    fits=_fits,
    open=_open,
)
