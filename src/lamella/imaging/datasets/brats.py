"""BraTS: brain tumours in four MRI channels with segmentations, in the namings of 2018 to 2021 and since 2023."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from lamella.errors import DatasetError
from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.datasets.files import head_problems
from lamella.imaging.datasets.item_files import ReadFiles
from lamella.imaging.datasets.layouts import Adapter
from lamella.imaging.datasets.mask_files import ReadMask
from lamella.imaging.datasets.problems import named
from lamella.imaging.datasets.settings import DatasetSettings
from lamella.imaging.datasets.soundness import sound

CHANNELS = ("t1", "t1ce", "t2", "flair")
_SINCE_2023 = {"t1n": "t1", "t1c": "t1ce", "t2w": "t2", "t2f": "flair"}
_FILE = re.compile(r"(?P<case>.+)[_-](?P<what>t1ce|t1n|t1c|t1|t2w|t2f|t2|flair|seg)\.nii(\.gz)?")
# The enhancing tumour was 4 until 2021, and is 3 since 2023.
CLASSES_UNTIL_2021 = {"necrotic_core": 1, "edema": 2, "enhancing_tumor": 4}
CLASSES_SINCE_2023 = {"necrotic_core": 1, "edema": 2, "enhancing_tumor": 3}
_GRADES = ("HGG", "LGG")  # folders of 2018 and 2019
_FEW = 10
_DEPTH = 3  # MICCAI_BraTS_2018_Data_Training/HGG/<case>


def _fits(path: Path) -> bool:
    return path.is_dir() and next(_cases(path, few=True), None) is not None


def _cases(path: Path, depth: int = _DEPTH, *, few: bool = False) -> Iterator[Path]:
    """Folders that hold a channel named like the folder, in the order of their names.

    Args:
        path: Where to look.
        depth: How much deeper.
        few: Only the first subfolders of each folder, to recognise the layout quickly.
    """
    with os.scandir(path) as listing:
        entries = sorted((entry for entry in listing if not entry.name.startswith(".")), key=lambda entry: entry.name)
    if any(match and match["case"] == path.name for match in (_FILE.fullmatch(entry.name) for entry in entries)):
        yield path
        return
    folders = [Path(entry.path) for entry in entries if entry.is_dir()] if depth > 0 else []
    for folder in folders[: _FEW if few else None]:
        yield from _cases(folder, depth - 1, few=few)


def _no_cases(cases: list[Path]) -> Iterator[str]:
    """Folders beside cases that are none."""
    known = set(cases)
    for parent in sorted({case.parent for case in cases if len(cases) > 1}):
        for folder in sorted(each for each in parent.iterdir() if each.is_dir() and not each.name.startswith(".")):
            if folder not in known and next(_cases(folder), None) is None:
                yield f"{folder.name} holds no channel of its name"


def _open(path: Path, settings: DatasetSettings) -> Collection:
    items, problems, since_2023 = [], [], set()
    folders = list(_cases(path)) if path.is_dir() else []
    for folder in folders:
        item, wrong, new_names = _case(folder)
        problems += wrong
        since_2023.add(new_names)
        if item is not None:
            items.append(item)
    if not folders:
        raise DatasetError(
            path,
            "there is no case folder",
            "A case is a folder with channels of its name: CASE/CASE_flair.nii.gz or CASE/CASE-t2f.nii.gz.",
        )
    problems += _no_cases(folders)
    if len(since_2023) > 1 and not settings.mask_classes:
        problems.append("the namings of 2018-2021 and 2023 are mixed, and their masks number the classes differently")
    problems += head_problems([file for item in items for file in (*item.sources, *([item.mask] if item.mask else []))])
    classes = settings.mask_classes or (CLASSES_SINCE_2023 if since_2023 == {True} else CLASSES_UNTIL_2021)
    masked = sum(item.mask is not None for item in items)
    notes = [f"{len(items) - masked} case(s) have no public segmentation"] if masked < len(items) else []
    graded = any(item.labels for item in items)
    collection = Collection(
        name=ADAPTER.name,
        kind="volume",
        items=tuple(items),
        read=ReadFiles("volume", CHANNELS, modality="MR"),
        classes=_GRADES if graded else (),
        group_noun="patient",
        read_mask=ReadMask("volume", classes) if masked else None,
        mask_classes=classes if masked else {},
        origin=ADAPTER.origin,
        licence=ADAPTER.licence,
        notes=tuple(notes),
    )
    return sound(path, collection, problems, splits=settings.splits)


def _case(folder: Path) -> tuple[Item | None, list[str], bool]:
    """One case, what is wrong with it, and whether it is named as since 2023."""
    found: dict[str, list[Path]] = defaultdict(list)
    strange = []
    new_names = False
    for file in sorted(each for each in folder.iterdir() if not each.name.startswith(".")):
        match = _FILE.fullmatch(file.name)
        if match:
            new_names |= match["what"] in _SINCE_2023
            found[_SINCE_2023.get(match["what"], match["what"])].append(file)
        elif ".nii" in file.name:
            strange.append(file.name)
    problems = [f"{folder.name} has no {channel}" for channel in CHANNELS if channel not in found]
    problems += [
        f"{folder.name} has {named([each.name for each in files])}" for files in found.values() if len(files) > 1
    ]
    if strange:  # BraTS20_Training_355 has its segmentation as W39_1998.09.19_Segm.nii
        told = "and no segmentation: is it that? Rename it" if "seg" not in found else "which is no channel"
        problems.append(f"{folder.name} holds {named(strange)}, {told}")
    if problems:
        return None, problems, new_names
    item = Item(
        item_id=folder.name,
        sources=tuple(found[channel][0] for channel in CHANNELS),
        labels=(folder.parent.name,) if folder.parent.name in _GRADES else None,
        group=_patient(folder.name, new_names),
        mask=found["seg"][0] if "seg" in found else None,
    )
    return item, [], new_names


def _patient(case: str, new_names: bool) -> str:
    """Since 2023 the last number counts the examinations of a patient: BraTS-GLI-00005-001."""
    return case.rpartition("-")[0] if new_names and re.fullmatch(r".+-\d{5}-\d{3}", case) else case


ADAPTER = Adapter(
    name="brats",
    title="BraTS (brain tumours, 4 MRI channels)",
    kind="volume",
    labels="masks: necrotic_core, edema, enhancing_tumor; HGG or LGG where folders say it (2018, 2019)",
    group="patient (since 2023 several examinations of one)",
    layout="<case>/<case>_{t1,t1ce,t2,flair,seg}.nii.gz or <case>/<case>-{t1n,t1c,t2w,t2f,seg}.nii.gz",
    origin="https://www.synapse.org/brats (registration)",
    licence="terms of each year's challenge (registration, citation); see its Synapse page",
    uses=frozenset({"mask_classes"}),
    fits=_fits,
    open=_open,
)
