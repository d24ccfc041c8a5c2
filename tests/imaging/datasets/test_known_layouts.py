"""Each public layout: its labels, groups, splits, masks and boxes, from a miniature with the true names."""

import shutil

import h5py
import numpy as np
import pytest
from tests.imaging.datasets import miniatures

from lamella.imaging.datasets.opening import ADAPTERS, DatasetSettings, open_collection
from lamella.imaging.measured import MedicalImage, Volume


def groups(collection):
    return {item.item_id: item.group for item in collection.items}


def test_ham10000(tmp_path):
    collection = open_collection(miniatures.make_ham10000(tmp_path))
    assert (collection.name, collection.kind, len(collection)) == ("ham10000", "image", 14)
    assert collection.classes == ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
    assert collection.items[1].labels == ("bcc",)
    assert (collection.group_noun, len(set(groups(collection).values()))) == ("lesion", 10)
    assert groups(collection)["ISIC_0027419"] == groups(collection)["ISIC_0027426"] == "HAM_0000000"
    assert collection.read(collection.items[9]).values.shape == (24, 24, 3)
    assert {item.sources[0].parent.name[-6:] for item in collection.items} == {"part_1", "part_2"}


def test_ham10000_of_harvard_tells_the_site(tmp_path):
    table = miniatures.make_ham10000(tmp_path) / "HAM10000_metadata.csv"
    lines = table.read_text().splitlines()
    table.unlink()
    with_site = [f"{line},{'dataset' if n == 0 else 'rosendahl'}" for n, line in enumerate(lines)]
    (tmp_path / "HAM10000_metadata").write_text("\n".join(with_site))
    assert {item.site for item in open_collection(tmp_path).items} == {"rosendahl"}


def test_ham10000_with_each_folder_twice_as_in_the_archive_of_kaggle(tmp_path):
    miniatures.make_ham10000(tmp_path)
    for part in (1, 2):
        shutil.copytree(tmp_path / f"HAM10000_images_part_{part}", tmp_path / f"ham10000_images_part_{part}")
    assert len(open_collection(tmp_path)) == 14
    for part in (1, 2):
        shutil.rmtree(tmp_path / f"HAM10000_images_part_{part}")
    assert len(open_collection(tmp_path)) == 14


def test_pcam_original(tmp_path):
    collection = open_collection(miniatures.make_pcam(tmp_path))
    assert collection.classes == ("normal", "tumor")
    assert [item.split for item in collection.items] == ["train"] * 6 + ["val"] * 3 + ["test"] * 4
    assert collection.items[3].labels == ("tumor",)
    assert (collection.group_noun, collection.items[3].group) == ("slide", "camelyon16_train_tumor_001")
    image = collection.read(collection.items[7])
    with h5py.File(tmp_path / "camelyonpatch_level_2_split_valid_x.h5") as file:
        np.testing.assert_array_equal(image.values, file["x"][1])
    assert image.unit == "byte"
    assert not collection.notes


def test_pcam_without_meta_says_that_patches_are_not_tied_to_slides(tmp_path):
    collection = open_collection(miniatures.make_pcam(tmp_path, meta=False))
    assert collection.group_noun == "patch"
    assert len(set(groups(collection).values())) == 13
    assert "slides are not named" in collection.notes[0]


def test_pcam_of_kaggle(tmp_path):
    collection = open_collection(miniatures.make_pcam_kaggle(tmp_path))
    assert [item.labels for item in collection.items] == [("normal",), ("tumor",)] * 3 + [None, None]
    assert collection.group_noun == "patch"
    assert "do not say the slide" in collection.notes[0]
    assert "2 patch(es) of test/ have no public label" in collection.notes[1]
    assert collection.read(collection.items[-1]).values.shape == (96, 96, 3)


def test_aptos2019(tmp_path):
    collection = open_collection(miniatures.make_aptos2019(tmp_path))
    assert collection.classes == ("no DR", "mild", "moderate", "severe", "proliferative DR")
    assert [item.labels for item in collection.items[3:6]] == [("severe",), ("proliferative DR",), ("no DR",)]
    assert [item.labels for item in collection.items[10:]] == [None, None]
    assert "which two eyes" in collection.notes[0]


def test_chestxray14(tmp_path):
    collection = open_collection(miniatures.make_chestxray14(tmp_path))
    items = {item.item_id: item for item in collection.items}
    assert (len(collection.classes), collection.multi_label, collection.group_noun) == (14, True, "patient")
    assert items["00000001_000"].labels == ("Cardiomegaly", "Effusion")
    assert items["00000001_001"].labels == ()
    assert (items["00000001_001"].group, items["00000004_000"].group) == ("1", "4")
    assert [item.split for item in collection.items] == ["train"] * 6 + ["test"] * 2
    assert items["00000001_000"].boxes == ((10.5, 20.25, 40.5, 32.25, "Cardiomegaly"),)
    assert items["00000002_000"].boxes == ((1, 2, 4, 6, "Infiltration"),)
    assert collection.read(items["00000003_000"]).values.shape == (64, 64)


def test_chestxray14_with_all_images_in_one_folder_and_no_lists(tmp_path):
    miniatures.make_chestxray14(tmp_path)
    (tmp_path / "images").mkdir()
    for file in tmp_path.glob("images_00*/images/*.png"):
        file.rename(tmp_path / "images" / file.name)
    for folder in tmp_path.glob("images_00*"):
        (folder / "images").rmdir()
        folder.rmdir()
    (tmp_path / "train_val_list.txt").unlink()
    (tmp_path / "test_list.txt").unlink()
    collection = open_collection(tmp_path)
    assert {item.split for item in collection.items} == {None}
    assert any("no split is given" in note for note in collection.notes)


@pytest.mark.parametrize(
    ("since_2023", "enhancing", "group"), [(False, 4, "BraTS2021_00001"), (True, 3, "BraTS-GLI-00000")]
)
def test_brats_in_both_namings(tmp_path, since_2023, enhancing, group):
    collection = open_collection(miniatures.make_brats(tmp_path / "brats", since_2023=since_2023))
    item = collection.items[1]
    volume = collection.read(item)
    assert isinstance(volume, Volume)
    assert (volume.values_CZYX.shape, volume.channels) == ((4, 6, 10, 8), ("t1", "t1ce", "t2", "flair"))
    # The file is in LPS order: RAS turns x and y round.
    np.testing.assert_array_equal(volume.values_CZYX[1, 2, 3, 4], miniatures.grey_volume(11)[7 - 4, 9 - 3, 2])
    assert (volume.spacing_mm, volume.modality) == ((2, 1, 1), "MR")
    assert collection.mask_classes == {"necrotic_core": 1, "edema": 2, "enhancing_tumor": enhancing}
    mask = collection.read_mask(item)
    np.testing.assert_array_equal(mask, miniatures.class_volume(1, (1, 2, enhancing)).transpose(2, 1, 0)[:, ::-1, ::-1])
    assert (item.group, collection.group_noun, collection.classes) == (group, "patient", ())


def test_brats_of_2018_has_the_grade_as_label_and_validation_cases_no_mask(tmp_path):
    for grade in ("HGG", "LGG"):
        miniatures.make_brats(tmp_path / "data" / grade, cases=1)
    for number, case in enumerate(sorted((tmp_path / "data").glob("*/*"))):
        name = f"Brats18_2013_{number}_1"
        for file in case.iterdir():
            file.rename(file.with_name(file.name.replace("BraTS2021_00000", name)))
        case.rename(case.with_name(name))
    (tmp_path / "data/LGG/Brats18_2013_1_1/Brats18_2013_1_1_seg.nii.gz").unlink()
    collection = open_collection(tmp_path / "data")
    assert [item.labels for item in collection.items] == [("HGG",), ("LGG",)]
    assert collection.items[1].mask is None
    assert collection.notes == ("1 case(s) have no public segmentation",)


def test_decathlon(tmp_path):
    collection = open_collection(miniatures.make_decathlon(tmp_path))
    assert (collection.name, collection.mask_classes) == ("PROSTATE", {"PZ": 1, "TZ": 2})
    volume = collection.read(collection.items[0])
    assert (volume.values_CZYX.shape, volume.channels, volume.fourth) == ((2, 6, 10, 8), ("T2", "ADC"), "channel")
    assert (volume.modality, volume.unit) == ("MR", "stored")
    assert set(np.unique(collection.read_mask(collection.items[0]))) == {0, 1, 2}
    assert collection.items[-1].mask is None
    assert collection.licence == "CC-BY-SA 4.0"


def test_decathlon_ct_is_in_hounsfield_units(tmp_path):
    miniatures.make_decathlon(tmp_path)
    table = tmp_path / "dataset.json"
    table.write_text(table.read_text().replace('"0": "T2", "1": "ADC"', '"0": "CT"'))
    for number, file in enumerate(sorted(tmp_path.glob("images*/[a-z]*.nii.gz"))):
        miniatures.nifti(file, miniatures.grey_volume(number))
    collection = open_collection(table)
    volume = collection.read(collection.items[0])
    assert (volume.unit, volume.modality) == ("HU", "CT")


def test_medmnist_by_its_file_name(tmp_path):
    collection = open_collection(miniatures.make_medmnist(tmp_path / "pneumoniamnist.npz"))
    assert collection.classes == ("normal", "pneumonia")
    assert [item.item_id for item in collection.items][11:14] == ["train-000011", "val-000000", "val-000001"]
    assert collection.items[13].labels == ("pneumonia",)
    with np.load(tmp_path / "pneumoniamnist.npz") as archive:
        for item in collection.items:
            image = collection.read(item)
            expected = archive[f"{item.split}_images"][int(item.item_id[-6:])]
            np.testing.assert_array_equal(image.values, expected)
    assert isinstance(image, MedicalImage)
    assert image.source.endswith("pneumoniamnist.npz, test-000005")


def test_medmnist_in_colour_larger_and_of_unknown_name(tmp_path):
    collection = open_collection(miniatures.make_medmnist(tmp_path / "own_64.npz", shape=(64, 64, 3), classes=3))
    assert (collection.kind, collection.classes) == ("image", ("0", "1", "2"))
    assert collection.read(collection.items[0]).values.shape == (64, 64, 3)
    named = open_collection(tmp_path / "own_64.npz", DatasetSettings(classes=("a", "b", "c")))
    assert named.items[2].labels == ("c",)


def test_medmnist_multi_label(tmp_path):
    path = miniatures.make_medmnist(tmp_path / "chestmnist.npz", classes=14, multi_label=True)
    collection = open_collection(path)
    assert (collection.multi_label, len(collection.classes)) == (True, 14)
    with np.load(path) as archive:
        row = archive["val_labels"][1]
    names = tuple(name for name, value in zip(collection.classes, row, strict=True) if value)
    assert collection.items[13].labels == names


def test_medmnist_volumes_say_that_their_voxels_have_no_size(tmp_path):
    path = miniatures.make_medmnist(tmp_path / "organmnist3d.npz", shape=(28, 28, 28), classes=11)
    collection = open_collection(path)
    volume = collection.read(collection.items[2])
    assert (collection.kind, volume.values_CZYX.shape, volume.spacing_mm) == ("volume", (1, 28, 28, 28), (1, 1, 1))
    assert any("states no voxel size" in note for note in collection.notes)
    stated = open_collection(path, DatasetSettings(spacing_mm=(3, 2, 1)))
    volume = stated.read(stated.items[2])
    assert volume.spacing_mm == (3, 2, 1)
    np.testing.assert_array_equal(volume.affine, np.diag([1, 2, 3, 1]))
    assert not any("states no voxel size" in note for note in stated.notes)
    known = open_collection(miniatures.make_medmnist(tmp_path / "adrenalmnist3d.npz", shape=(32, 32, 32)))
    assert known.read(known.items[0]).spacing_mm == (2, 2, 2)  # 64 mm over 32 voxels


def test_an_archive_that_was_not_compressed_is_read_as_well(tmp_path):
    with np.load(miniatures.make_medmnist(tmp_path / "pathmnist.npz", classes=9)) as archive:
        arrays = dict(archive)
    np.savez(tmp_path / "pathmnist.npz", **arrays)
    collection = open_collection(tmp_path / "pathmnist.npz")
    np.testing.assert_array_equal(collection.read(collection.items[0]).values, arrays["train_images"][0])


@pytest.mark.parametrize("name", sorted(ADAPTERS))
def test_every_layout_says_what_it_is(name):
    adapter = ADAPTERS[name]
    assert adapter.name == name
    for text in (adapter.title, adapter.kind, adapter.labels, adapter.group, adapter.layout, adapter.origin):
        assert text
    assert adapter.licence
    assert adapter.uses <= set(DatasetSettings.model_fields)
