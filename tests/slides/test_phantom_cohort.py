import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lamella.geometry import Box
from lamella.slides.phantom_cohort import IDS, PRESENT, CohortPlan, write_cohort
from lamella.slides.slide import open_slide

PLAN = CohortPlan(slides=(4, 2, 2), size_px=512, tile_px=64, patches=6, seed=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(folder, PLAN)
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def truth_of(folder: Path, row: dict[str, str]) -> np.ndarray:
    return np.asarray(Image.open(folder / row["label_mask_path"]))


def box(x: float, y: float) -> Box:
    return Box(float(x), float(y), float(x) + PLAN.tile_px, float(y) + PLAN.tile_px)


def test_a_slide_is_labelled_with_what_its_truth_holds(folder) -> None:
    for row in rows_of(folder / "manifest.csv"):
        found = set(np.unique(truth_of(folder, row))) - {0}
        assert {IDS[name] for name in PLAN.classes if row[name] == "1"} == found  # stroma is background


def test_every_part_holds_each_class_in_half_of_its_slides(folder) -> None:
    rows = rows_of(folder / "manifest.csv")
    for part, number in zip(("train", "val", "test"), PLAN.slides, strict=True):
        of_part = [row for row in rows if row["split"] == part]
        assert len(of_part) == number
        for name in PLAN.classes:
            assert sum(int(row[name]) for row in of_part) == number / 2


def test_no_patient_and_no_scanner_belongs_to_one_part_of_a_class(folder) -> None:
    rows = rows_of(folder / "manifest.csv")
    parts = {row["patient"]: {other["split"] for other in rows if other["patient"] == row["patient"]} for row in rows}
    assert all(len(of_patient) == 1 for of_patient in parts.values())
    assert {row["site"] for row in rows if row["split"] == "test"} == {"aster", "briar"}


def test_the_projects_own_files_say_the_same(folder) -> None:
    rows = rows_of(folder / "manifest.csv")
    split = rows_of(folder / "split.csv")
    assert list(split[0]) == ["train", "val", "test"]
    assert [len([row for row in split if row[part]]) for part in split[0]] == [4, 2, 2]  # ragged
    for part in split[0]:
        assert [row[part] for row in split if row[part]] == [r["slide_id"] for r in rows if r["split"] == part]
    for told, row in zip(rows_of(folder / "labels.csv"), rows, strict=True):
        assert told == {"image_name": row["slide_id"], **{name: row[name] for name in PLAN.classes}}


def test_coordinates_need_no_unpickling_and_lie_on_tissue(folder) -> None:
    for row in rows_of(folder / "manifest.csv"):
        tiles = np.load(folder / "coordinates" / f"{row['slide_id']}.npy", allow_pickle=False)
        assert tiles.dtype["wsi_name"].kind == "U"
        assert set(tiles["wsi_name"]) == {row["slide_id"]}
        assert set(tiles["tile_size_lv0"]) == {PLAN.tile_px}
        with open_slide(folder / row["wsi_path"]) as slide:
            for tile in tiles[:3]:
                pixels = slide.read(box(tile["x"], tile["y"]), 0.5).pixels
                assert (pixels.min(axis=2) < 220).mean() > 0.4  # glass is whiter


def test_a_patch_is_what_lies_on_the_slide_and_its_label_what_covers_a_tenth_of_it(folder) -> None:
    patches = rows_of(folder / "patches.csv")
    assert len(patches) > 20
    for row in patches:
        shares = {name: (truth_of(folder, row) == IDS[name]).mean() for name in PLAN.classes}
        assert {name: row[name] == "1" for name in shares} == {n: share >= PRESENT for n, share in shares.items()}
        assert all(share == 0 or share >= PRESENT for share in shares.values())
    row = patches[0]
    slide_id, x, y = row["slide_id"].rsplit("_", 2)
    patch = np.asarray(Image.open(folder / row["wsi_path"])).astype(int)
    with open_slide(folder / "slides" / f"{slide_id}.tif") as slide:
        there = slide.read(box(x, y), 0.5).pixels
    assert np.abs(patch - there).mean() < 4  # the slide is JPEG, the patch is not
    labels = {row["image_name"]: row["label"] for row in rows_of(folder / "patch_labels.csv")}
    assert labels == {f"{row['slide_id']}.png": f"{row['gland']},{row['lymphoid']}" for row in patches}
    assert [row["filename"] for row in rows_of(folder / "patch_split.csv")] == list(labels)


def test_patches_are_learnt_from_and_whole_slides_judged(folder) -> None:
    rows = rows_of(folder / "patches_then_slides.csv")
    kinds = {(row["split"], Path(row["wsi_path"]).parent.name) for row in rows}
    assert kinds == {("train", "patches"), ("val", "patches"), ("test", "slides")}


def test_four_classes_share_their_slides(tmp_path) -> None:
    plan = CohortPlan(("gland", "stroma", "lymphoid", "solid"), (), slides=(14, 0, 0), size_px=128, tile_px=64)
    write_cohort(tmp_path, plan)
    rows = rows_of(tmp_path / "manifest.csv")
    held = [tuple(row[name] for name in plan.classes) for row in rows]
    assert len(set(held)) > 8
    assert ("0",) * 4 not in held  # a slide of nothing but glass is no slide


def test_a_cohort_that_stands_is_left_alone(folder) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")}
    write_cohort(folder, PLAN)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")} == before
