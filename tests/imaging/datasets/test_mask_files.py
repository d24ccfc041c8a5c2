"""Masks of pictures: sizes, colours, spacing, and values that mean something else elsewhere."""

import numpy as np
import pytest
from PIL import Image
from tests.imaging.datasets import miniatures

from lamella.errors import DatasetError, ImageError
from lamella.imaging.datasets.collection import Item
from lamella.imaging.datasets.item_files import spaced
from lamella.imaging.datasets.mask_channels import as_channels, channels_of
from lamella.imaging.datasets.mask_files import image_shape
from lamella.imaging.datasets.opening import DatasetSettings, open_collection
from lamella.imaging.measured import MedicalImage
from lamella.imaging.reading import read_image

MAP = """
classes: {tumor: [1], stroma: [2, 4]}
ignore: [0]
rest: background
rest_name: other
known: [0, 1, 2, 3, 4]
"""


def made_folder(folder, mask, *, size=(12, 8), name="a"):
    miniatures.picture(folder / "images" / f"{name}.png", 0, size)
    (folder / "masks").mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(mask, np.uint8)).save(folder / "masks" / f"{name}.png")
    return folder


def made_map(folder, text=MAP):
    path = folder.parent / f"{folder.name}.yaml"
    path.write_text(text)
    return str(path)


def test_a_class_map_over_any_folder(tmp_path):
    mask = np.zeros((8, 12), np.uint8)
    mask[0, :5] = 0, 1, 2, 3, 4
    folder = made_folder(tmp_path / "own", mask)
    collection = open_collection(folder, DatasetSettings(class_map=made_map(folder)))
    assert (collection.mask_classes, collection.mask_background) == ({"tumor": 1, "stroma": 2}, "other")
    read = collection.read_mask(collection.items[0])
    assert read[0, :5].tolist() == [255, 1, 2, 0, 2]
    assert (read[1:] == 255).all()  # ignored, not background
    assert channels_of(collection) == ("other", "tumor", "stroma")
    assert as_channels(read, collection)[0, :5].tolist() == [255, 1, 2, 0, 2]


def test_without_a_background_the_first_channel_is_a_class(tmp_path):
    folder = made_folder(tmp_path / "own", [[1, 2, 0]], size=(3, 1))
    text = "classes: {tumor: [1], stroma: [2]}\nignore: [0]\n"
    collection = open_collection(folder, DatasetSettings(class_map=made_map(folder, text)))
    assert channels_of(collection) == ("tumor", "stroma")
    assert as_channels(collection.read_mask(collection.items[0]), collection).tolist() == [[0, 1, 255]]


def test_an_unknown_class_id_names_file_and_value(tmp_path):
    folder = made_folder(tmp_path / "own", np.full((8, 12), 6))
    collection = open_collection(folder, DatasetSettings(class_map=made_map(folder)))
    with pytest.raises(ImageError, match=r"masks/a.png: it holds the unknown value 6 "):
        collection.read_mask(collection.items[0])


def test_mask_and_image_of_different_size_are_named(tmp_path):
    folder = made_folder(tmp_path / "own", np.ones((12, 8)))
    collection = open_collection(folder)
    with pytest.raises(ImageError, match=r"masks/a.png: it has 12 rows of 8 pixels, its image a.png 8 of 12"):
        collection.read_mask(collection.items[0])


def test_an_empty_mask_says_that_nothing_is_here(tmp_path):
    collection = open_collection(made_folder(tmp_path / "own", np.zeros((8, 12))))
    assert as_channels(collection.read_mask(collection.items[0]), collection).tolist() == [[0] * 12] * 8


def test_a_class_of_255_is_no_ignored_area(tmp_path):
    mask = np.zeros((8, 12), np.uint8)
    mask[:, :6] = 255
    mask[0, 0] = 1
    folder = made_folder(tmp_path / "own", mask)
    collection = open_collection(folder, DatasetSettings(mask_classes={"nucleus": 255, "edge": 1}))
    assert collection.mask_classes == {"nucleus": 2, "edge": 1}
    read = collection.read_mask(collection.items[0])
    assert read[0, [0, 1, 11]].tolist() == [1, 2, 0]
    assert 255 not in read


@pytest.mark.parametrize(
    ("classes", "told"),
    [({"a": 0}, "values are 1 or more, not a 0"), ({"a": 1, "b": 1}, "two classes share a value: a 1, b 1")],
)
def test_classes_that_cannot_be_told_apart(tmp_path, classes, told):
    folder = made_folder(tmp_path / "own", np.ones((8, 12)))
    with pytest.raises(DatasetError, match=told):
        open_collection(folder, DatasetSettings(mask_classes=classes))


def test_class_map_and_mask_classes_are_one_too_many(tmp_path):
    folder = made_folder(tmp_path / "own", np.ones((8, 12)))
    with pytest.raises(DatasetError, match="class_map says already what the masks hold"):
        open_collection(folder, DatasetSettings(mask_classes={"a": 1}, class_map="bcss5"))


def test_masks_painted_in_colours(tmp_path):
    painted = np.zeros((8, 12, 3), np.uint8)
    painted[:, :4] = 255, 0, 0
    painted[:, 4:8] = 0, 0, 255
    folder = made_folder(tmp_path / "own", painted)
    numbers = open_collection(folder)
    with pytest.raises(ImageError, match=r"its colours are no class numbers. .* class map with the colours"):
        numbers.read_mask(numbers.items[0])
    text = "classes: {tumor: ['#ff0000'], stroma: ['#0000ff']}\nignore: ['#000000']\n"
    collection = open_collection(folder, DatasetSettings(class_map=made_map(folder, text)))
    assert collection.read_mask(collection.items[0])[3].tolist() == [1] * 4 + [2] * 4 + [255] * 4


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_the_shape_of_a_picture_is_known_without_decoding_it(tmp_path, suffix):
    path = miniatures.picture(tmp_path / f"a.{suffix}", 0, (12, 8))
    assert image_shape(path) == read_image(path).values.shape[:2] == (8, 12)
    exif = Image.Exif()
    exif[0x0112] = 6  # held upright
    upright = tmp_path / f"upright.{suffix}"
    with Image.open(path) as picture:
        picture.save(upright, exif=exif)
    assert image_shape(upright) == read_image(upright).values.shape[:2] == (12, 8)


def test_the_shape_of_a_damaged_picture_is_an_error(tmp_path):
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ImageError, match=r"cut.png: it is"):
        image_shape(tmp_path / "cut.png")


def test_the_spacing_of_pictures_is_stated(tmp_path):
    folder = made_folder(tmp_path / "own", np.ones((8, 12)))
    bare, stated = open_collection(folder), open_collection(folder, DatasetSettings(mpp=0.62))
    assert bare.read(bare.items[0]).spacing_mm is None
    assert stated.read(stated.items[0]).spacing_mm == pytest.approx((0.00062, 0.00062))


def test_a_csv_column_states_the_spacing_of_each_image(tmp_path):
    path = miniatures.make_glas(tmp_path)
    head, *rows = path.read_text().splitlines()
    path.write_text("\n".join([f"{head},mpp", f"{rows[0]},0.25", *(f"{row}," for row in rows[1:])]))
    collection = open_collection(path, DatasetSettings(mpp=0.62))
    assert [item.mpp for item in collection.items[:3]] == [0.25, 0.62, 0.62]
    assert "mpp = mpp" in collection.notes[0]
    path.write_text("\n".join([f"{head},mpp", f"{rows[0]},-1", f"{rows[1]},half"]))
    with pytest.raises(DatasetError) as caught:
        open_collection(path)
    assert "line 2: mpp is '-1', not micrometres per pixel" in str(caught.value)
    assert "line 3: mpp is 'half', not micrometres per pixel" in str(caught.value)


def test_images_and_masks_in_each_part(tmp_path):
    for part in ("train", "test"):
        made_folder(tmp_path / part, np.ones((8, 12)))
    collection = open_collection(tmp_path)
    assert [(item.item_id, item.split) for item in collection.items] == [
        ("test/images/a", "test"),
        ("train/images/a", "train"),
    ]
    assert [item.mask.relative_to(tmp_path).as_posix() for item in collection.items] == [
        "test/masks/a.png",
        "train/masks/a.png",
    ]


def test_masks_of_one_name_in_several_folders_are_not_mixed_up(tmp_path):
    for case, value in (("p1", 1), ("p2", 0)):
        miniatures.picture(tmp_path / "images" / case / "a.png", 0, (12, 8))
        (tmp_path / "masks" / case).mkdir(parents=True)
        Image.fromarray(np.full((8, 12), value, np.uint8)).save(tmp_path / "masks" / case / "a.png")
    collection = open_collection(tmp_path)
    assert [int(collection.read_mask(item).max()) for item in collection.items] == [1, 0]
    Image.fromarray(np.ones((8, 12), np.uint8)).save(tmp_path / "masks" / "p1" / "a.tif")
    with pytest.raises(DatasetError, match=r"a.png and a.tif are both the mask of p1/a"):
        open_collection(tmp_path)


def test_a_spacing_that_contradicts_the_file_is_refused(tmp_path):
    image = MedicalImage(np.zeros((2, 2), np.uint8), "byte", spacing_mm=(0.0005, 0.0005), source="x.dcm")
    item = Item("x", (tmp_path / "x.dcm",), mpp=0.25)
    with pytest.raises(ImageError, match=r"x.dcm: its file states 0.5 x 0.5 um per pixel, the data set 0.25"):
        spaced(image, item)


def test_channels_refuse_values_of_no_class(tmp_path):
    collection = open_collection(made_folder(tmp_path / "own", np.ones((8, 12))))
    with pytest.raises(ValueError, match=r"\[2\] are of no class"):
        as_channels(np.array([[0, 1, 2]]), collection)
    with pytest.raises(ValueError, match="go from -1 to 1, not 0 to 255"):
        as_channels(np.array([[-1, 1]]), collection)


def test_settings_without_effect_are_refused(tmp_path):
    miniatures.picture(tmp_path / "pictures" / "a.png")
    with pytest.raises(DatasetError, match="there is no mask that it could be used on"):
        open_collection(tmp_path / "pictures", DatasetSettings(class_map="bcss5"))
    miniatures.nifti(tmp_path / "volumes" / "a.nii.gz", miniatures.grey_volume(0))
    with pytest.raises(DatasetError, match="mpp has no effect on volumes"):
        open_collection(tmp_path / "volumes", DatasetSettings(mpp=0.5))
