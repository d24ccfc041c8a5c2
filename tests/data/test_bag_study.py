"""From files to bags: split, labels, names, groups; and everything that can be wrong with them, told at once."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.conftest import textured, write_pyramid
from tests.data.made_studies import CLASSES, SIDE, opened, plain_study, write_images, write_text

from lamella.data.bag_digest import study_digest
from lamella.errors import DatasetError
from lamella.slides.indexing import build_index
from lamella.slides.manifest import find_slides
from lamella.slides.tissue import TissueSettings


def problems(settings: dict[str, Any], **other: Any) -> str:
    with pytest.raises(DatasetError) as caught:
        opened(settings, **other)
    return "\n".join(getattr(caught.value, "problems", [str(caught.value)]))


def test_a_study_of_plain_images(tmp_path: Path) -> None:
    study = opened(plain_study(tmp_path))
    assert [(bag.slide_id, bag.part, bag.labels, bag.group, len(bag)) for bag in study.bags] == [
        ("a", "train", (1, 0), "a", 6),
        ("b", "train", (0, 1), "b", 6),
        ("c", "val", (1, 0), "c", 6),
        ("d", "test", (0, 1), "d", 6),
    ]
    assert study.channels == (*CLASSES, "background")
    assert study.bags[0].corners_px0.tolist() == [[x, y] for y in (0, 32) for x in (0, 32, 64)]
    assert study.bags[0].tile_labels is None
    assert (study.group_noun, study.labels_are, study.fov_um) == ("slide", "slide", 16)


def test_slides_and_their_tissue(tmp_path: Path) -> None:
    """Without coordinates tiles lie on tissue; a manifest brings patients, spacing, labels and split."""
    (tmp_path / "slides").mkdir()
    for number, name in enumerate("ab"):
        write_pyramid(tmp_path / "slides" / f"{name}.tif", textured(512, 512, number), mpp=0.5)
    manifest = write_text(
        tmp_path / "manifest.csv",
        "slide_id,wsi_path,patient,split,benign,tumor",
        "a,slides/a.tif,p1,train,1,0",
        "b,slides/b.tif,p2,train,0,1",
    )
    study = opened({"slides": manifest, "labels_are": "slide", "tile_px": 64, "min_tissue_fraction": 0.9})
    assert [(bag.part, bag.labels, bag.group) for bag in study.bags] == [
        ("train", (1, 0), "p1"),
        ("train", (0, 1), "p2"),
    ]
    assert study.group_noun == "patient"
    centres = study.bags[0].corners_px0 + 32
    assert 10 < len(centres) < 45  # of 64 places; the tissue is a disk of half the area
    assert (np.hypot(*(centres - 256).T) < 0.41 * 512).all()
    # An index folder holds the same slides, and where their tissue is.
    rows = find_slides([manifest])
    build_index(rows, tmp_path / "index", TissueSettings(), {})
    again = opened({"slides": tmp_path / "index", "labels_are": "slide", "tile_px": 64, "min_tissue_fraction": 0.9})
    assert study_digest(again) == study_digest(study)


def test_names_with_and_without_extension_are_the_same_slide(tmp_path: Path) -> None:
    """Issue 6, bad input: wsi_name with and without extension."""
    settings = plain_study(tmp_path)
    write_text(settings["split_csv"], "train,val,test", "a.png,c,d.png", "b")
    write_text(settings["labels_csv"], "image_name,label", "a,0", "b.png,1", "c.png,0", "d,1")
    assert study_digest(opened(settings)) == study_digest(opened(plain_study(tmp_path)))


def test_a_name_of_two_slides_is_refused(tmp_path: Path) -> None:
    """Two files of one name: neither is taken for the other."""
    settings = plain_study(tmp_path)
    shutil.copy(tmp_path / "slides" / "a.png", tmp_path / "slides" / "a.bmp")
    assert "two slides would be called a" in problems(settings)
    manifest = write_text(
        tmp_path / "m.csv",
        "slide_id,wsi_path",
        *("one,x/a.png", "two,y/a.png"),
        *(f"{name},slides/{name}.png" for name in "bcd"),
    )
    for folder in "xy":
        write_images(tmp_path / folder, ["a.png"], (64, 96 if folder == "x" else 64))
    found = problems({**settings, "slides": (manifest,)})
    assert "a: two slides go by this name" in found
    assert "x/a.png" in found
    assert "y/a.png" in found


def test_a_missing_slide_never_becomes_another(tmp_path: Path) -> None:
    """Spec, mistakes of the source: a missing extension cut patches from the first slide listed."""
    settings = plain_study(tmp_path)
    write_text(settings["split_csv"], "train,val,test", "a,c,d", "bb.png")
    assert "bb.png: no slide goes by this name. Did you mean b.png?" in problems(settings)


def test_an_image_in_two_splits_is_refused(tmp_path: Path) -> None:
    """Issue 6, bad input: image in two splits; also under two names, and as a copy."""
    settings = plain_study(tmp_path)
    write_text(settings["split_csv"], "train,val,test", "a,c,d", "b,a")
    assert "slide a stands in train and in val" in problems(settings)
    write_text(settings["split_csv"], "train,val,test", "a,c,d", "b,,a.png")
    assert "slide a (as a.png) stands in train and in test" in problems(settings)
    shutil.copy(tmp_path / "slides" / "a.png", tmp_path / "slides" / "d.png")
    write_text(settings["split_csv"], "train,val,test", "a,c,d", "b")
    assert "slide d of test is a copy of a of train" in problems(settings)
    assert "slide d of d is a copy of a of a" in opened({**settings, "split_csv": None}).notes


def test_one_file_under_two_ids_is_refused(tmp_path: Path) -> None:
    settings = plain_study(tmp_path)
    manifest = write_text(tmp_path / "m.csv", "slide_id,wsi_path", "a,slides/a.png", "b,slides/a.png")
    assert "it is the same file as slide a" in problems({**settings, "slides": (manifest,)})


def test_a_patient_in_two_splits_is_refused(tmp_path: Path) -> None:
    settings = plain_study(tmp_path)
    rows = [f"{name},slides/{name}.png,{patient}" for name, patient in zip("abcd", "1232", strict=True)]
    manifest = write_text(tmp_path / "m.csv", "slide_id,wsi_path,patient", *rows)
    assert "patient 2 stands in train (b) and in test (d)" in problems({**settings, "slides": (manifest,)})
    named = write_text(tmp_path / "m.csv", "slide_id,wsi_path,case", *rows)
    assert opened({**settings, "slides": (named,)}).group_noun == "slide"
    other = {**settings, "slides": (named,), "group_column": "case"}
    assert "case 2 stands in train (b) and in test (d)" in problems(other)
    assert "no slide has a column 'ward'" in problems({**other, "group_column": "ward"})


def test_a_class_without_slides_is_refused_and_one_absent_from_validation_is_told(tmp_path: Path) -> None:
    """Issue 6, bad input: class with no slides; a class absent from validation."""
    settings = plain_study(tmp_path)
    assert "class tumor: no slide of val has it; there is no score of it by val labels" in opened(settings).notes
    write_text(settings["labels_csv"], "image_name,label", "a,0", "b,0", "c,1", "d,1")
    assert problems(settings) == "class tumor: no training slide has it"


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    """Labels, names, files and classes that are wrong: one message lists them all."""
    settings = plain_study(tmp_path)
    write_text(settings["split_csv"], "train,val,test", "a,c,d", "b,a", "nobody")
    write_text(settings["labels_csv"], "image_name,label", "a,0", "b,7", "d,1")
    (tmp_path / "slides" / "b.png").write_bytes(b"no image")
    found = problems(settings)
    for part in ("stands in train and in val", "nobody: no slide", "label '7'", "c of val has no label", "b.png"):
        assert part in found


def test_labels_are_never_guessed(tmp_path: Path) -> None:
    """Issue 6, bad input: "1" without label_format."""
    assert "label_format does not say which" in problems({**plain_study(tmp_path), "label_format": None})


def test_two_labels_of_one_slide_must_agree(tmp_path: Path) -> None:
    settings = plain_study(tmp_path)
    write_text(settings["labels_csv"], "image_name,label", "a,0", "a.png,0", "b,1", "c,0", "d,1", "z,0")
    assert any("1 labels are of no slide that was given (z)" in note for note in opened(settings).notes)
    write_text(settings["labels_csv"], "image_name,label", "a,0", "a.png,1", "b,1", "c,0", "d,1")
    assert "slide a is labelled twice, and differently" in problems(settings)


def test_a_test_slide_needs_no_label(tmp_path: Path) -> None:
    settings = plain_study(tmp_path)
    write_text(settings["labels_csv"], "image_name,label", "a,0", "b,1", "c,0")
    assert opened(settings).by_id["d"].labels is None


def test_slides_outside_the_split_are_left_out_and_told(tmp_path: Path) -> None:
    settings = plain_study(tmp_path)
    write_images(tmp_path / "slides", ["e.png"])
    study = opened(settings)
    assert "e" not in study.by_id
    assert "1 slides are in no part of the split and left out (e)" in study.notes


def test_without_a_split_there_are_the_labelled_and_the_judged(tmp_path: Path) -> None:
    """Folds: whole images without a label are judged by their mask."""
    settings = {**plain_study(tmp_path), "split_csv": None, "masks": tmp_path / "masks"}
    settings["mask_values"] = {"benign": 1, "tumor": [2]}
    write_text(settings["labels_csv"], "image_name,label", "a,0", "b,1")
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.zeros((64, 96), np.uint8)).save(tmp_path / "masks" / "c_mask.png")
    study = opened(settings)
    assert [(bag.slide_id, bag.part, bag.labels) for bag in study.bags] == [
        ("a", None, (1, 0)),
        ("b", None, (0, 1)),
        ("c", None, None),
    ]
    assert study.by_id["c"].mask_path == tmp_path / "masks" / "c_mask.png"


def test_patches_are_slides_of_one_tile_with_a_label_of_their_own(tmp_path: Path) -> None:
    patches = write_images(tmp_path / "patches", ["a.png", "b.png"], (SIDE, SIDE))
    labels = write_text(tmp_path / "l.csv", "image_name,label", "a,tumor", "b,background")
    settings = {"slides": patches, "labels_are": "patch", "mpp0": 0.5, "tile_px": SIDE, "everywhere": True}
    assert "class benign: no training slide has it" in problems({**settings, "labels_csv": labels})
    labels = write_text(tmp_path / "l.csv", "image_name,label", "a,tumor;benign", "b,background")
    study = opened({**settings, "labels_csv": labels})
    assert [bag.tile_labels.tolist() for bag in study.bags if bag.tile_labels is not None] == [[[1, 1]], [[0, 0]]]
    found = problems({**settings, "labels_csv": labels, "tile_px": SIDE // 2})
    assert "slide a has 4 tiles and one label, but labels are of patches" in found
    assert "smaller than a tile of 33 px" in problems({**settings, "labels_csv": labels, "tile_px": SIDE + 1})


def test_a_spacing_that_was_rounded_leaves_a_patch_one_tile(tmp_path: Path) -> None:
    patches = write_images(tmp_path / "patches", ["a.png", "b.png"], (SIDE, SIDE))
    labels = write_text(tmp_path / "l.csv", "image_name,label", "a,tumor", "b,benign")
    settings = {"slides": patches, "labels_are": "patch", "labels_csv": labels, "tile_px": SIDE, "everywhere": True}
    for mpp0 in (0.4975, 0.5, 0.5025):
        assert [len(bag) for bag in opened({**settings, "mpp0": mpp0}).bags] == [1, 1]


def test_plain_images_need_a_spacing(tmp_path: Path) -> None:
    assert "State it with data.mpp0" in problems({**plain_study(tmp_path), "mpp0": None})


def test_masks_must_fit_and_their_values_be_told(tmp_path: Path) -> None:
    settings = {**plain_study(tmp_path), "masks": tmp_path / "masks"}
    assert "there is no such folder of masks" in problems(settings)
    (tmp_path / "masks").mkdir()
    assert "no mask in it is named after a slide" in problems(settings)
    mask = tmp_path / "masks" / "d.png"
    Image.fromarray(np.zeros((96, 96), np.uint8)).save(mask)
    assert "another aspect than the slide's" in problems(settings)
    Image.fromarray(np.zeros((32, 48), np.uint8)).save(mask)  # half as fine is fine
    assert "nothing says which of their values is benign, tumor" in problems(settings)
    twice = problems({**settings, "mask_values": {"benign": 1, "tumor": [1, 2]}})
    assert "a value stands for two classes" in twice
    assert "'stroma' is no class" in problems({**settings, "mask_values": {"benign": 1, "tumor": 2, "stroma": 3}})
    study = opened({**settings, "mask_values": {"benign": 1, "tumor": [2, 4]}})
    assert study.mask_values == {"benign": (1,), "tumor": (2, 4), "background": (0,)}
    Image.fromarray(np.zeros((32, 48), np.uint8)).save(tmp_path / "masks" / "d_mask.png")
    assert "slide d has two masks: d.png and d_mask.png" in problems(settings)


def test_zero_may_be_a_class_of_the_masks(tmp_path: Path) -> None:
    """Then nothing says where the background is, and no pixel is taken for it."""
    study = opened({**plain_study(tmp_path), "mask_values": {"benign": 0, "tumor": 1}})
    assert study.mask_values == {"benign": (0,), "tumor": (1,)}


@pytest.mark.parametrize("names", [("a", "a"), ("a", "background"), ("a", "b/c"), ("a", ".b"), ("a", "b "), ("a", "")])
def test_names_of_classes_must_differ_and_be_file_names(tmp_path: Path, names: tuple[str, str]) -> None:
    from lamella.data.bag_study import WeakDataSettings, open_study

    with pytest.raises(DatasetError, match="class_order: "):
        open_study(names, "background", WeakDataSettings(**plain_study(tmp_path)), 0)


def test_most_tiles_of_a_slide_are_drawn_by_seed_and_name(tmp_path: Path) -> None:
    settings = {**plain_study(tmp_path), "max_tiles": 3}
    study, other = opened(settings), opened(settings, seed=1)
    assert [len(bag) for bag in study.bags] == [3, 3, 3, 3]
    assert study_digest(opened(settings)) == study_digest(study) != study_digest(other)
    write_text(settings["split_csv"], "train,val,test", "b,c", "a")  # another order and fewer slides, the same draw
    np.testing.assert_array_equal(opened(settings).by_id["a"].corners_px0, study.by_id["a"].corners_px0)


def test_a_change_of_anything_that_is_read_changes_the_digest(tmp_path: Path) -> None:
    settings = {**plain_study(tmp_path), "mask_values": {"benign": 1, "tumor": 2}, "masks": tmp_path / "masks"}
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.zeros((64, 96), np.uint8)).save(tmp_path / "masks" / "d.png")
    study = opened(settings)
    seen = {study_digest(study), study_digest(study, masks=True)}
    seen.add(study_digest(opened({**settings, "tile_px": 31})))
    write_text(settings["labels_csv"], "image_name,label", "a,1", "b,0", "c,0", "d,1")
    seen.add(study_digest(opened(settings)))
    write_text(settings["split_csv"], "train,val,test", "a,d,c", "b")
    seen.add(study_digest(opened(settings)))
    write_images(tmp_path / "slides", ["e.png"])
    shutil.move(tmp_path / "slides" / "e.png", tmp_path / "slides" / "a.png")
    seen.add(study_digest(opened(settings)))
    before = study_digest(opened(settings), masks=True)
    Image.fromarray(np.ones((64, 96), np.uint8)).save(tmp_path / "masks" / "d.png")
    seen |= {before, study_digest(opened(settings), masks=True)}
    assert len(seen) == 8
    assert study_digest(opened(settings)) in seen  # not of masks where no stage reads them
    shutil.copytree(tmp_path / "slides", tmp_path / "moved")
    assert study_digest(opened({**settings, "slides": tmp_path / "moved"})) == study_digest(opened(settings))
