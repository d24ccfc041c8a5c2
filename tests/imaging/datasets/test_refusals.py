"""What is wrong with a data set is refused, all of it at once, and nothing is left out in silence."""

import json

import h5py
import numpy as np
import pytest
from PIL import Image
from tests.imaging.datasets import miniatures

from lamella.errors import DatasetError, ImageError
from lamella.imaging.datasets.opening import DatasetSettings, open_collection
from lamella.imaging.datasets.problems import DatasetProblems
from lamella.imaging.datasets.requirements import labelled, masked


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def refused(path, cause, **settings):
    with pytest.raises(DatasetError) as caught:
        open_collection(path, DatasetSettings(**settings))
    assert cause in str(caught.value)
    return caught.value


def test_a_path_that_is_none(tmp_path):
    refused(tmp_path / "nowhere", "there is no such file or folder")
    (tmp_path / "a.txt").write_text("x")
    refused(tmp_path / "a.txt", "this is no data set")


def test_the_first_ten_problems_and_the_number_of_all(tmp_path):
    miniatures.make_ham10000(tmp_path)
    for file in list(tmp_path.glob("*/*.jpg"))[:12]:
        file.unlink()
    error = refused(tmp_path, "12 problems")
    assert isinstance(error, DatasetProblems)
    assert len(error.problems) == 12
    assert str(error).count("there is no ISIC_") == 10
    assert "... and 2 more" in str(error)


def test_several_kinds_of_problems_at_once(tmp_path):
    table = miniatures.make_ham10000(tmp_path) / "HAM10000_metadata.csv"
    edit(table, "ISIC_0027419,akiec", "ISIC_0027419,acne")
    edit(table, "ISIC_0027421,bkl", "ISIC_0027420,bkl")
    edit(table, "HAM_0000003,", ",")
    (tmp_path / "HAM10000_images_part_1/ISIC_0027424.jpg").unlink()
    (tmp_path / "HAM10000_images_part_1/ISIC_0027425.jpg").write_bytes(b"")
    (tmp_path / "HAM10000_images_part_2/ISIC_0027426.jpg").write_bytes(b"<html>not found</html>")
    text = str(refused(tmp_path, "6 problems"))
    assert "ISIC_0027419: unknown label 'acne' (known: akiec, bcc, bkl" in text
    assert "ISIC_0027420 stands 2 times" in text
    assert "ISIC_0027422: its lesion_id is empty" in text
    assert "there is no ISIC_0027424.jpg" in text
    assert "ISIC_0027425.jpg is empty (0 bytes)" in text
    assert "ISIC_0027426.jpg is no jpg file: it begins with 3c 68 74 6d" in text


def test_a_column_that_is_absent(tmp_path):
    table = miniatures.make_ham10000(tmp_path) / "HAM10000_metadata.csv"
    edit(table, "lesion_id,", "lesion,")
    refused(tmp_path, "the column lesion_id is absent (it has lesion, image_id, dx")


def test_images_beside_the_table_are_told(tmp_path):
    miniatures.picture(miniatures.make_ham10000(tmp_path) / "HAM10000_images_part_2/ISIC_0099999.jpg")
    assert "1 image(s) are not in the table and are left out: ISIC_0099999" in open_collection(tmp_path).notes


def test_pcam_whose_own_split_leaks_names_the_slides(tmp_path):
    meta = miniatures.make_pcam(tmp_path) / "camelyonpatch_level_2_split_test_meta.csv"
    edit(meta, "camelyon16_test_tumor_000", "camelyon16_train_tumor_002")
    error = refused(tmp_path, "slide camelyon16_train_tumor_002 is in test and train")
    assert "set splits=none" in error.remedy
    assert {item.split for item in open_collection(tmp_path, DatasetSettings(splits="none")).items} == {None}


def test_pcam_files_that_do_not_fit_together(tmp_path):
    miniatures.make_pcam(tmp_path)
    stem = "camelyonpatch_level_2_split_"
    (tmp_path / f"{stem}valid_y.h5").unlink()
    (tmp_path / f"{stem}test_x.h5.gz").write_bytes(b"\x1f\x8b")
    edit(tmp_path / f"{stem}train_meta.csv", "2,200,400", "4,200,400")
    with h5py.File(tmp_path / f"{stem}test_y.h5", "w") as file:
        file.create_dataset("y", data=np.array([0, 1, 2, 1], np.uint8).reshape(-1, 1, 1, 1))
    text = str(refused(tmp_path, "4 problems"))
    assert "valid_y.h5 is missing" in text
    assert "test_x.h5.gz is still packed: gunzip it" in text
    assert "is in another order than the patches, from row 2 on" in text
    assert "test-000002: unknown label '2'" in text


def test_pcam_that_is_no_hdf5(tmp_path):
    miniatures.make_pcam(tmp_path)
    (tmp_path / "camelyonpatch_level_2_split_train_x.h5").write_bytes(b"truncated")
    refused(tmp_path, "it is no HDF5 file")


def test_aptos_with_an_unknown_grade(tmp_path):
    edit(miniatures.make_aptos2019(tmp_path) / "train.csv", "000000000003,3", "000000000003,7")
    refused(tmp_path, "000000000003: unknown label '7' (known: no DR, mild")


def test_tables_of_the_same_name_are_not_taken_for_a_known_data_set(tmp_path):
    edit(miniatures.make_aptos2019(tmp_path / "a") / "train.csv", "diagnosis", "breed")
    refused(tmp_path / "a", "its layout is not known, and it holds test.csv, train.csv")
    refused(tmp_path / "a", "the column diagnosis is absent", name="aptos2019")
    edit(miniatures.make_pcam_kaggle(tmp_path / "p") / "train_labels.csv", "id,label", "id,score")
    refused(tmp_path / "p", "its layout is not known")
    refused(tmp_path / "p", "the column label is absent", name="pcam")


def test_images_that_are_missing_or_there_twice(tmp_path):
    aptos = miniatures.make_aptos2019(tmp_path / "a")
    (aptos / "train_images/000000000004.png").unlink()
    refused(aptos, "there is no train_images/000000000004.png")
    pcam = miniatures.make_pcam_kaggle(tmp_path / "p")
    edit(pcam / "train_labels.csv", f"{3:040x},1", f"{3:040x},maybe")
    (pcam / f"train/{0:040x}.tif").unlink()
    refused(pcam, f"there is no train/{0:040x}.tif")
    refused(pcam, "unknown label 'maybe' (known: normal, tumor)")
    ham = miniatures.make_ham10000(tmp_path / "h")
    miniatures.picture(ham / "HAM10000_images_part_2/ISIC_0027419.jpg", 5)
    refused(ham, "ISIC_0027419.jpg is in HAM10000_images_part_1 and in HAM10000_images_part_2")


def test_no_images_at_all(tmp_path):
    for make, folders in ((miniatures.make_ham10000, "HAM*_part_*"), (miniatures.make_chestxray14, "images_00*")):
        path = make(tmp_path / make.__name__)
        for folder in path.glob(folders):
            folder.rename(path / f"lost_{folder.name}")
        refused(path, "it has no folder")


def test_chestxray14(tmp_path):
    miniatures.make_chestxray14(tmp_path)
    edit(tmp_path / "Data_Entry_2017.csv", "Cardiomegaly|Effusion", "Cardiomegaly|Cold")
    edit(tmp_path / "test_list.txt", "00000004_000.png\n", "00000001_000.png\n")
    edit(tmp_path / "BBox_List_2017.csv", "00000001_000.png", "00000009_000.png")
    (tmp_path / "images_002/images/00000003_001.png").unlink()
    text = str(refused(tmp_path, "5 problems"))
    assert "00000001_000: unknown label 'Cold'" in text
    assert "00000001_000.png is in train_val_list.txt and in test_list.txt" in text
    assert "00000004_000.png is neither in train_val_list.txt nor in test_list.txt" in text
    assert "BBox_List_2017.csv, line 2: 00000009_000.png is not in the table of images" in text
    assert "00000003_001.png: there is no such file" in text


def test_chestxray14_with_a_patient_in_both_lists(tmp_path):
    miniatures.make_chestxray14(tmp_path)
    edit(tmp_path / "train_val_list.txt", "00000003_001.png\n", "")
    edit(tmp_path / "test_list.txt", "00000004_000", "00000003_001.png\n00000004_000")
    refused(tmp_path, "patient 3 is in test and train")


def test_chestxray14_with_one_list_only(tmp_path):
    (miniatures.make_chestxray14(tmp_path) / "test_list.txt").unlink()
    refused(tmp_path, "test_list.txt is missing beside train_val_list.txt")


def test_brats(tmp_path):
    miniatures.make_brats(tmp_path / "b", cases=4)
    case = tmp_path / "b/BraTS2021_00000"
    (case / "BraTS2021_00000_t1ce.nii.gz").unlink()
    other = tmp_path / "b/BraTS2021_00001"
    (other / "BraTS2021_00001_seg.nii.gz").rename(other / "W39_1998.09.19_Segm.nii")
    (tmp_path / "b/BraTS2021_00009").mkdir()
    text = str(refused(tmp_path / "b", "3 problems"))
    assert "BraTS2021_00000 has no t1ce" in text
    assert "BraTS2021_00001 holds W39_1998.09.19_Segm.nii, and no segmentation: is it that?" in text
    assert "BraTS2021_00009 holds no channel of its name" in text


def test_brats_of_both_namings_numbers_its_masks_differently(tmp_path):
    miniatures.make_brats(tmp_path, cases=1)
    miniatures.make_brats(tmp_path, cases=1, since_2023=True)
    refused(tmp_path, "the namings of 2018-2021 and 2023 are mixed")


def test_channels_and_masks_must_share_a_grid(tmp_path):
    collection = open_collection(miniatures.make_brats(tmp_path, cases=2))
    moved, other = collection.items
    miniatures.nifti(moved.sources[2], miniatures.grey_volume(0), shift_mm=3)
    with pytest.raises(ImageError, match=r"another grid than .*its corners lie up to 3 mm away"):
        collection.read(moved)
    miniatures.nifti(other.mask, miniatures.class_volume(0, (1,), (8, 10, 5)))
    with pytest.raises(ImageError, match=r"5 x 10 x 8 voxels .z, y, x. against 6 x 10 x 8"):
        collection.read_mask(other)
    miniatures.nifti(other.mask, miniatures.class_volume(0, (1,)), shift_mm=0.05)  # rounding of another program
    collection.read_mask(other)


def test_a_mask_with_an_unknown_value_or_no_whole_numbers(tmp_path):
    collection = open_collection(miniatures.make_brats(tmp_path))
    item = collection.items[0]
    miniatures.nifti(item.mask, miniatures.class_volume(0, (1, 3)))
    with pytest.raises(ImageError, match=r"unknown value 3 .known: 0, necrotic_core 1, edema 2, enhancing_tumor 4"):
        collection.read_mask(item)
    miniatures.nifti(item.mask, np.full((8, 10, 6), 0.5, np.float32))
    with pytest.raises(ImageError, match="not whole numbers"):
        collection.read_mask(item)


def test_decathlon(tmp_path):
    table = miniatures.make_decathlon(tmp_path) / "dataset.json"
    (tmp_path / "labelsTr/prostate_01.nii.gz").unlink()
    (tmp_path / "imagesTs/prostate_03.nii.gz").write_bytes(b"no gzip")
    text = str(refused(tmp_path, "2 problems"))
    assert "there is no file ./labelsTr/prostate_01.nii.gz" in text
    assert "prostate_03.nii.gz is no nii.gz file" in text
    tree = json.loads(table.read_text())
    del tree["modality"]
    table.write_text(json.dumps(tree))
    refused(tmp_path, "it is not of the Decathlon's layout (KeyError: 'modality')")
    table.write_text('{"channel_names": {}}')
    refused(tmp_path, "this is nnU-Net's layout")
    table.write_text("{")
    refused(tmp_path, "it cannot be read as JSON")


def test_decathlon_whose_file_has_another_number_of_channels(tmp_path):
    collection = open_collection(miniatures.make_decathlon(tmp_path))
    miniatures.nifti(collection.items[0].sources[0], miniatures.grey_volume(0))
    with pytest.raises(ImageError, match=r"it has 1 channel.s., not 2 .T2, ADC."):
        collection.read(collection.items[0])


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"val_labels": None}, "it has no array val_labels"),
        ({"test_images": np.zeros((6, 28, 28), np.float32)}, "test_images is float32"),
        ({"test_images": np.zeros((6, 20, 28), np.uint8)}, "images of another size"),
        ({"test_images": np.zeros((5, 28, 28), np.uint8)}, "test has 5 images and labels of shape (6, 1)"),
        ({"train_labels": np.full((12, 1), 0.5)}, "not whole numbers"),
        ({"test_labels": np.full((6, 1), 2, np.uint8)}, "test-000000: unknown label 2 (known: 0 to 1)"),
        ({"val_labels": np.zeros((4, 3), np.uint8)}, "its splits have [1, 3] labels each"),
        ({"val_labels": np.array([[object()]] * 4)}, "holds Python objects"),
    ],
)
def test_medmnist(tmp_path, change, cause):
    with np.load(miniatures.make_medmnist(tmp_path / "pneumoniamnist.npz")) as archive:
        arrays = {key: value for key, value in {**archive, **change}.items() if value is not None}
    path = tmp_path / "breastmnist.npz"
    np.savez(path, **arrays)
    refused(path, cause)


def test_medmnist_that_is_truncated(tmp_path):
    path = miniatures.make_medmnist(tmp_path / "pneumoniamnist.npz")
    path.write_bytes(path.read_bytes()[:-200])
    refused(path, "it is no npz archive")


def test_medmnist_with_damaged_bytes_is_refused_when_read(tmp_path):
    path = miniatures.make_medmnist(tmp_path / "pneumoniamnist.npz")
    data = bytearray(path.read_bytes())
    middle = data.index(b"test_images.npy") + 2000
    data[middle : middle + 50] = bytes(50)
    path.write_bytes(bytes(data))
    collection = open_collection(path)
    with pytest.raises(DatasetError, match="test_images cannot be read"):
        collection.read(collection.items[-1])


def test_a_setting_that_the_layout_does_not_use(tmp_path):
    path = miniatures.make_medmnist(tmp_path / "pneumoniamnist.npz")
    refused(path, "label, mask has no effect on this layout", label="x", mask="y")
    refused(path, "these are images, not volumes", spacing_mm=(1, 1, 1))


def test_a_folder_of_data_sets_and_a_folder_that_could_be_two(tmp_path):
    miniatures.make_ham10000(tmp_path / "skin")
    miniatures.make_aptos2019(tmp_path / "eyes")
    refused(tmp_path, "it holds data sets: eyes (aptos2019), skin (ham10000)")
    miniatures.make_aptos2019(tmp_path / "skin")
    refused(tmp_path / "skin", "it could be ham10000 or aptos2019")
    assert len(open_collection(tmp_path / "skin", DatasetSettings(name="aptos2019"))) == 12


def test_what_a_caller_needs(tmp_path):
    whole = open_collection(miniatures.make_aptos2019(tmp_path / "a"))
    assert len(labelled(whole)) == 10
    one = whole.only([item for item in whole.items if item.labels in (("mild",), None)])
    with pytest.raises(DatasetError, match="one class only: mild in all 2 items"):
        labelled(one)
    with pytest.raises(DatasetError, match="no item is labelled"):
        labelled(whole.only([item for item in whole.items if item.labels is None]))
    with pytest.raises(DatasetError, match="no item has a mask"):
        masked(whole)
    chest = open_collection(miniatures.make_chestxray14(tmp_path / "c"))
    healthy = [item for item in chest.items if item.labels == ()]
    with pytest.raises(DatasetError, match="no class tells items apart"):
        labelled(chest.only(healthy))
    assert len(labelled(chest)) == 8
    assert len(masked(open_collection(miniatures.make_decathlon(tmp_path / "d")))) == 3


def test_a_picture_mask_of_another_size_or_of_many_values(tmp_path):
    collection = open_collection(miniatures.make_glas(tmp_path))
    first, second, third, fourth, *_ = collection.items
    Image.fromarray(np.zeros((30, 40), np.uint8)).save(first.mask)
    with pytest.raises(ImageError, match=r"it has 30 rows of 40 pixels, its image train_1.jpg 32 of 40"):
        collection.read_mask(first)
    Image.fromarray(np.arange(32 * 40, dtype=np.uint8).reshape(32, 40)).save(second.mask)
    with pytest.raises(ImageError, match=r"it holds 255 values beside 0 .1, 2, 3, 4, 5."):
        collection.read_mask(second)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 40, 3), dtype=np.uint8)).save(third.mask)
    with pytest.raises(ImageError, match="its colours are no class numbers"):
        collection.read_mask(third)
    fourth.mask.write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ImageError, match="it cannot be read"):
        collection.read_mask(fourth)
