"""Any folder: classes, parts, masks, unlabelled files, NIfTI, DICOM and what does not belong."""

import nibabel
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from tests.imaging.datasets import miniatures

from lamella.errors import DatasetError
from lamella.imaging.datasets.opening import DatasetSettings, open_collection


def refused(path, cause, **settings):
    with pytest.raises(DatasetError) as caught:
        open_collection(path, DatasetSettings(**settings))
    assert cause in str(caught.value)


def write_slice(path, number, *, series="1.2.3", patient="Miller^Jane", modality="CT"):
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[f"{series}.{number}"])
    file = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    file.SeriesInstanceUID, file.PatientID, file.Modality = series, patient, modality
    file.Rows = file.Columns = 8
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated = file.BitsStored = 16
    file.HighBit, file.PixelRepresentation = 15, 0
    file.RescaleSlope, file.RescaleIntercept = 1, -1024
    file.PixelSpacing, file.ImageOrientationPatient = [0.5, 0.5], [1, 0, 0, 0, 1, 0]
    file.ImagePositionPatient = [0, 0, 2.0 * number]
    file.PixelData = np.full((8, 8), 1000 + number, np.uint16).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    file.save_as(path)
    return path


def test_one_subfolder_per_class(tmp_path):
    collection = open_collection(miniatures.make_class_folder(tmp_path / "pets"))
    assert (collection.name, collection.kind, collection.classes) == ("pets", "image", ("cat", "dog"))
    assert [item.item_id for item in collection.items][:3] == ["cat/p00_0", "cat/p00_1", "cat/p01_2"]
    assert collection.items[4].labels == ("dog",)
    assert "every" not in collection.group_noun
    assert "6 item(s) are groups of their own" in collection.notes[0]


def test_groups_from_the_names(tmp_path):
    miniatures.make_class_folder(tmp_path)
    settings = DatasetSettings(group_pattern=r"(p\d+)_", group_noun="patient")
    collection = open_collection(tmp_path, settings)
    assert [item.group for item in collection.items] == ["p00", "p00", "p01", "p10", "p10", "p11"]
    assert collection.group_noun == "patient"
    miniatures.picture(tmp_path / "dog/rex.png")
    refused(tmp_path, "dog/rex.png does not match group_pattern", group_pattern=r"(p\d+)_")
    refused(tmp_path, "or it has no bracket", group_pattern=r"\d+|rex")


def test_parts_of_classes(tmp_path):
    for part in ("train", "valid", "test"):
        miniatures.make_class_folder(tmp_path / part)
    collection = open_collection(tmp_path)
    assert {item.split for item in collection.items} == {"train", "val", "test"}
    assert collection.classes == ("cat", "dog")
    refused(tmp_path, "group p00 is in test and train and val", group_pattern=r"(p\d+)_")


def test_flat_and_unlabelled(tmp_path):
    for number in range(3):
        miniatures.picture(tmp_path / f"{number}.jpg", number)
    (tmp_path / "README.txt").write_text("about")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    collection = open_collection(tmp_path)
    assert [item.labels for item in collection.items] == [None] * 3
    assert collection.notes[0] == "1 file(s) that are no images were passed over: README.txt"
    miniatures.picture(tmp_path / "0.png", 9)  # ids stay unique
    assert [item.item_id for item in open_collection(tmp_path).items][:2] == ["0.jpg", "0.png"]


def test_images_beside_masks(tmp_path):
    miniatures.make_glas(tmp_path)
    (tmp_path / "manifest.csv").unlink()
    collection = open_collection(tmp_path)
    assert (len(collection), collection.items[0].item_id) == (8, "train_1")
    assert collection.read_mask(collection.items[0]).max() == 1
    (tmp_path / "masks/train_3.png").rename(tmp_path / "masks/train_9.png")
    refused(tmp_path, "train_3.jpg has no mask of its name")
    refused(tmp_path, "train_9.png has no image of its name")


def test_whether_folders_are_classes_is_asked_for(tmp_path):
    miniatures.picture(tmp_path / "scans/a.png")
    refused(tmp_path, "it is not clear whether its folders (scans) are classes: all files lie in one folder")
    assert open_collection(tmp_path, DatasetSettings(label="none")).items[0].labels is None
    miniatures.picture(tmp_path / "b.png", 1)
    refused(tmp_path, "classes: some files lie in subfolders and some beside or deeper")
    refused(tmp_path, "b.png lies in no class folder", label="folder")
    refused(tmp_path, "a folder has no column 'grade'", label="grade", name="folder")
    miniatures.picture(tmp_path / "deep/er/c.png", 2)
    (tmp_path / "b.png").unlink()
    assert open_collection(tmp_path, DatasetSettings(label="folder")).classes == ("deep", "scans")


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        ("a.exe", b"MZ", "a.exe is no image, volume or video that can be read"),
        ("a.png", b"", "a.png is empty (0 bytes)"),
        ("a.png", b"GIF89a", "a.png is no png file: it begins with 47 49 46 38"),
        ("a.nii.gz", b"\x00\x00", "a.nii.gz is no nii.gz file"),
        ("a.dcm", b"nothing", "a.dcm cannot be read as DICOM"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, content, cause):
    miniatures.picture(tmp_path / "good.png")
    (tmp_path / name).write_bytes(content)
    refused(tmp_path, cause)


def test_a_picture_or_volume_of_another_suffix_is_read_all_the_same(tmp_path):
    miniatures.picture(tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert open_collection(tmp_path).items[0].item_id == "a"
    (tmp_path / "a.jpg").unlink()
    miniatures.nifti(tmp_path / "v.nii", miniatures.grey_volume(0)).rename(tmp_path / "v.nii.gz")
    collection = open_collection(tmp_path)
    assert collection.read(collection.items[0]).values_CZYX.shape == (1, 6, 10, 8)


def test_an_empty_folder(tmp_path):
    refused(tmp_path, "there is no image, volume or video in it")


def test_volumes(tmp_path):
    for number in range(2):
        miniatures.nifti(tmp_path / f"case{number}.nii.gz", miniatures.grey_volume(number))
    collection = open_collection(tmp_path)
    assert (collection.kind, [item.item_id for item in collection.items]) == ("volume", ["case0", "case1"])
    assert collection.read(collection.items[0]).values_CZYX.shape == (1, 6, 10, 8)


def test_each_folder_of_slices_is_a_volume_grouped_by_patient_without_showing_who(tmp_path):
    for case, patient in (("one", "Miller"), ("two", "Miller"), ("three", "B")):
        for number in range(4):
            write_slice(
                tmp_path / case / f"{number}.dcm", number, series=f"1.2.{len(case)}.{ord(case[0])}", patient=patient
            )
    collection = open_collection(tmp_path, DatasetSettings(label="none"))
    assert (collection.kind, collection.group_noun) == ("volume", "patient")
    one, three, two = collection.items
    assert (one.item_id, one.sources) == ("one", (tmp_path / "one",))
    assert one.group == two.group != three.group
    assert one.group.startswith("patient-")
    assert "Miller" not in one.group
    volume = collection.read(one)
    assert (volume.values_CZYX.shape, volume.unit) == ((1, 4, 8, 8), "HU")
    alone = open_collection(tmp_path / "one")
    assert [item.item_id for item in alone.items] == ["one"]


def test_two_series_in_one_folder(tmp_path):
    for number in range(4):
        write_slice(tmp_path / f"{number}.dcm", number, series=f"1.2.{number % 2}")
    refused(tmp_path, "the folder itself holds 2 DICOM series (2 files, 2 files): one folder for each", kind="volume")
    assert len(open_collection(tmp_path, DatasetSettings(kind="image"))) == 4


def test_radiographs_of_one_series_are_images(tmp_path):
    for number in range(3):
        write_slice(tmp_path / f"{number}.dcm", number, modality="DX")
    collection = open_collection(tmp_path)
    assert (collection.kind, len(collection)) == ("image", 3)


def test_links_that_lead_back_up_end(tmp_path):
    miniatures.make_class_folder(tmp_path)
    (tmp_path / "cat/up").symlink_to(tmp_path)
    assert len(open_collection(tmp_path)) == 6


def test_films(tmp_path):
    frames = [Image.fromarray(np.full((8, 9), 30 * number, np.uint8)) for number in range(4)]
    frames[0].save(tmp_path / "heart.gif", save_all=True, append_images=frames[1:], duration=40)
    collection = open_collection(tmp_path)
    assert (collection.kind, collection.items[0].item_id) == ("video", "heart")
    video = collection.read(collection.items[0])
    assert (video.frames_TYXC.shape, video.frame_ms) == ((4, 8, 9, 3), 40)


def test_the_fourth_axis_is_time_if_the_settings_say_so(tmp_path):
    values = np.random.default_rng(0).normal(size=(6, 5, 4, 3)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "heart.nii.gz")
    for said, expected in (("auto", "channel"), ("channel", "channel"), ("time", "time")):
        collection = open_collection(tmp_path, DatasetSettings(fourth=said))
        assert collection.read(collection.items[0]).fourth == expected
