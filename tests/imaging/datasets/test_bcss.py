"""BCSS's layout: names tell patient, hospital and spacing; the paper's test hospitals; masks alone are refused."""

import numpy as np
import pytest
from tests.imaging.datasets import miniatures

from lamella.errors import DatasetError
from lamella.imaging.datasets.bcss import TEST_SITES, split_of_patient
from lamella.imaging.datasets.mask_channels import channels_of
from lamella.imaging.datasets.opening import DatasetSettings, open_collection


@pytest.mark.parametrize("images", ["rgbs_colorNormalized", "images"])
def test_names_tell_patient_site_spacing_and_split(tmp_path, images):
    collection = open_collection(miniatures.make_bcss(tmp_path, images=images))
    assert (collection.name, len(collection), collection.group_noun) == ("bcss", 8, "patient")
    first = collection.items[0]
    assert (first.item_id, first.group, first.site, first.mpp) == (
        miniatures.bcss_name("A1-A0SK"),
        "TCGA-A1-A0SK",
        "A1",
        0.25,
    )
    assert collection.read(first).spacing_mm == pytest.approx((0.00025, 0.00025))
    assert {item.site for item in collection.items if item.split == "test"} == {"OL", "E2"}
    assert channels_of(collection)[:2] == ("other", "tumor")
    values = set(np.unique(collection.read_mask(first)).tolist())
    assert values == {0, 1, 2, 3, 4, 5, 255}
    assert "bcss5" in collection.notes[0]


def test_another_class_map(tmp_path):
    collection = open_collection(miniatures.make_bcss(tmp_path), DatasetSettings(class_map="bcss-official"))
    assert channels_of(collection) == ("other", "tumor", "stroma", "inflammatory", "necrosis")


def test_the_official_test_sites():
    assert set(TEST_SITES) == {"OL", "LL", "E2", "EW", "GM", "S3"}
    assert split_of_patient("TCGA-S3-AA10") == "test"


def test_validation_is_by_patient_whatever_else_is_there(tmp_path):
    splits = [split_of_patient(f"TCGA-A2-{number:04d}") for number in range(1000)]
    assert "test" not in splits
    assert 0.15 < splits.count("val") / len(splits) < 0.25
    few = open_collection(miniatures.make_bcss(tmp_path / "few", regions=miniatures.BCSS_REGIONS[:3]))
    many = open_collection(miniatures.make_bcss(tmp_path / "many"))
    assert [item.split for item in few.items] == [
        item.split for item in many.items if item.item_id in {other.item_id for other in few.items}
    ]


def test_masks_without_images_say_what_is_missing(tmp_path):
    folder = miniatures.make_bcss(tmp_path)
    for masks_alone in (folder, folder / "masks"):
        for image in (folder / "rgbs_colorNormalized").glob("*"):
            image.unlink()
        if (folder / "rgbs_colorNormalized").is_dir():
            (folder / "rgbs_colorNormalized").rmdir()
        with pytest.raises(DatasetError, match=r"the images are missing: .* and 8 mask.s. alone") as caught:
            open_collection(masks_alone)
        assert "Download the colour regions" in caught.value.remedy


def test_one_missing_image_or_mask_is_named(tmp_path):
    folder = miniatures.make_bcss(tmp_path)
    first, second = (f"{miniatures.bcss_name(region)}.png" for region in miniatures.BCSS_REGIONS[:2])
    (folder / "rgbs_colorNormalized" / first).unlink()
    (folder / "masks" / second).unlink()
    with pytest.raises(DatasetError) as caught:
        open_collection(folder)
    assert f"masks/{first}: its image is not in rgbs_colorNormalized/" in str(caught.value)
    assert f"rgbs_colorNormalized/{second}: its mask is not in masks/" in str(caught.value)


def test_another_table_of_codes_is_refused(tmp_path):
    folder = miniatures.make_bcss(tmp_path)
    (folder / "meta").mkdir()
    table = folder / "meta" / "gtruth_codes.tsv"
    table.write_text("label\tGT_code\noutside_roi\t0\ntumor\t1\nblood_vessel\t18\n")
    assert len(open_collection(folder)) == 8
    table.write_text("label\tGT_code\noutside_roi\t0\ntumor\t1\nblood_vessel\t9\n")
    with pytest.raises(DatasetError, match="numbers the classes differently"):
        open_collection(folder)


def test_a_setting_without_effect_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="mpp has no effect"):
        open_collection(miniatures.make_bcss(tmp_path), DatasetSettings(mpp=0.5))
