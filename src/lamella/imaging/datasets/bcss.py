"""BCSS: regions of 151 breast cancer slides of TCGA with masks of 22 tissue codes, at 0.25 micrometres per pixel.

Amgad et al., "Structured crowdsourcing enables convolutional segmentation of histology images", Bioinformatics 2019.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from lamella.errors import DatasetError, first_line
from lamella.imaging.datasets.class_map import open_class_map
from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.datasets.files import by_name, head_problems
from lamella.imaging.datasets.item_files import ReadFiles
from lamella.imaging.datasets.layouts import Adapter
from lamella.imaging.datasets.mask_files import mask_facts
from lamella.imaging.datasets.problems import named
from lamella.imaging.datasets.settings import DatasetSettings
from lamella.imaging.datasets.soundness import sound

CLASS_MAP = "bcss5"
# Tissue source sites whose patients are the test set of the paper: no hospital is in training and in test.
TEST_SITES = ("OL", "LL", "E2", "EW", "GM", "S3")
# One of this many patients of the other sites is for validation.
_VALIDATION_OF = 5
_IMAGES = ("rgbs_colorNormalized", "images", "rgbs")
_MASKS = "masks"
_CODES = "gtruth_codes.tsv"
# TCGA-A1-A0SK-DX1_xmin45749_ymin25055_MPP-0.2500.png
_REGION = re.compile(
    r"(?P<patient>TCGA-(?P<site>[A-Z0-9]{2})-[A-Z0-9]{4})-(?P<slide>[A-Z0-9]+)_xmin\d+_ymin\d+_MPP-(?P<mpp>\d+\.\d+)"
)
_FEW = 50  # names looked at to recognise the layout


def _fits(path: Path) -> bool:
    if not path.is_dir():
        return False
    return any(_has_regions(folder) for folder in (path / _MASKS, path))


def _has_regions(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    names = [each.stem for _, each in zip(range(_FEW), folder.glob("TCGA-*.png"), strict=False)]
    return any(_REGION.fullmatch(name) for name in names)


def _open(path: Path, settings: DatasetSettings) -> Collection:
    masks_folder = path / _MASKS if (path / _MASKS).is_dir() else path
    masks, problems = by_name([masks_folder], (".png",)) if masks_folder.is_dir() else ({}, [])
    folders = [path / name for name in _IMAGES if (path / name).is_dir()]
    if not masks or not folders:
        raise _incomplete(path, len(masks), folders)
    if len(folders) > 1:
        names = ", ".join(folder.name for folder in folders)
        raise DatasetError(path, f"it holds several folders of images: {names}", "Move all but one of them away.")
    images, wrong = by_name(folders, (".png", ".jpg", ".jpeg", ".tif", ".tiff"))
    problems += wrong
    problems += [f"{masks_folder.name}/{masks[stem].name}: its image is not in {folders[0].name}/"
                 for stem in masks if stem not in images]  # fmt: skip
    problems += [f"{folders[0].name}/{images[stem].name}: its mask is not in {masks_folder.name}/"
                 for stem in images if stem not in masks]  # fmt: skip
    items = []
    for stem in sorted(set(images) & set(masks)):
        match = _REGION.fullmatch(stem)
        if match is None:
            problems.append(
                f"{images[stem].name} is not named like TCGA-A1-A0SK-DX1_xmin45749_ymin25055_MPP-0.2500.png"
            )
            continue
        items.append(_item(stem, match, images[stem], masks[stem]))
    problems += _code_problems(path, masks_folder)
    problems += head_problems([file for item in items for file in (*item.sources, *([item.mask] if item.mask else []))])
    collection = Collection(
        name=ADAPTER.name,
        kind="image",
        items=tuple(items),
        read=ReadFiles("image"),
        group_noun="patient",
        **mask_facts("image", settings, masked=bool(items), class_map=CLASS_MAP),
        origin=ADAPTER.origin,
        licence=ADAPTER.licence,
        notes=_notes(settings, items),
    )
    return sound(path, collection, problems, splits=settings.splits)


def _item(stem: str, match: re.Match[str], image: Path, mask: Path) -> Item:
    return Item(
        item_id=stem,
        sources=(image,),
        group=match["patient"],
        site=match["site"],
        split=split_of_patient(match["patient"]),
        mask=mask,
        mpp=float(match["mpp"]),
    )


def split_of_patient(barcode: str) -> Literal["train", "val", "test"]:
    """The part of a patient such as TCGA-A1-A0SK: test by the hospital, validation by a hash of the barcode.

    A hash, not a draw: the part of a patient does not depend on which others are on the disk.
    """
    if barcode.split("-")[1] in TEST_SITES:
        return "test"
    return "val" if hashlib.blake2b(barcode.encode(), digest_size=8).digest()[-1] % _VALIDATION_OF == 0 else "train"


def _incomplete(path: Path, masks: int, folders: list[Path]) -> DatasetError:
    wanted = " or ".join(f"{name}/" for name in _IMAGES)
    if not folders:
        return DatasetError(
            path,
            f"the images are missing: there is no {wanted}, and {masks} mask(s) alone teach nothing",
            f"Download the colour regions of BCSS ({ADAPTER.origin}) and lay them as {_IMAGES[0]}/ beside masks/, "
            "under the names of the masks.",
        )
    return DatasetError(path, f"there is no mask in {_MASKS}/", f"Download the masks of BCSS ({ADAPTER.origin}).")


def _code_problems(path: Path, masks_folder: Path) -> Iterator[str]:
    """The table of codes that comes with the masks must be the one that the shipped class maps are written for."""
    table = next((f for f in (path / "meta" / _CODES, path / _CODES, masks_folder / _CODES) if f.is_file()), None)
    if table is None:
        return
    try:
        with table.open(encoding="utf-8", newline="") as file:
            codes = {row["label"]: int(row["GT_code"]) for row in csv.DictReader(file, delimiter="\t")}
    except (OSError, KeyError, ValueError, TypeError) as error:
        yield f"{table.name} is no table of codes ({first_line(error)})"
        return
    known = set(open_class_map(CLASS_MAP).known)
    if strange := sorted(set(codes.values()) - known):
        yield f"{table.name} names codes that BCSS does not have: {', '.join(map(str, strange))}"
    if codes.get("blood_vessel", 18) != 18 or codes.get("outside_roi", 0) != 0:
        yield f"{table.name} numbers the classes differently: is it another edition of the masks?"


def _notes(settings: DatasetSettings, items: list[Item]) -> tuple[str, ...]:
    sites = sorted({item.site for item in items if item.split == "test" and item.site})
    notes = [f"class map: {settings.class_map or ('mask_classes' if settings.mask_classes else CLASS_MAP)}"]
    if settings.splits == "given":
        notes.append(
            f"test: the patients of the paper's test hospitals ({named(sites, 6) or 'none of them is here'}); "
            f"val: about one in {_VALIDATION_OF} of the other patients, by a hash of the barcode"
        )
    return tuple(notes)


ADAPTER = Adapter(
    name="bcss",
    title="BCSS (breast cancer tissue, 22 codes)",
    kind="image",
    labels="masks: class map bcss5 (tumor, stroma, lymphocytic_infiltrate, necrosis_or_debris, blood_vessel; other), "
    "or class_map=bcss-official; 0 and 7 are ignored",
    group="patient (first 12 characters of the TCGA barcode)",
    layout="rgbs_colorNormalized/ or images/, and masks/: TCGA-XX-XXXX-DX1_xmin1_ymin1_MPP-0.2500.png",
    origin="https://github.com/PathologyDataScience/BCSS",
    licence="CC0 1.0 (masks); images: TCGA, open access",
    uses=frozenset({"class_map", "mask_classes"}),
    fits=_fits,
    open=_open,
)
