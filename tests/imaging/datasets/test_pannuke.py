"""PanNuke's arrays: five channels of numbered nuclei and one of background become one semantic mask."""

import numpy as np
import pytest

from lamella.errors import DatasetError
from lamella.imaging.datasets.mask_channels import channels_of
from lamella.imaging.datasets.opening import DatasetSettings, open_collection

SIDE = 16


def make_fold(folder, apart=None, patches=3, channels=6):
    rng = np.random.default_rng(patches)
    masks = np.zeros((patches, SIDE, SIDE, channels))
    masks[..., -1] = 1
    masks[:, 2:6, 2:6, -1] = 0
    masks[:, 2:6, 2:6, 0] = 7  # the number of a neoplastic nucleus
    masks[:, 8:10, 8:10, -1] = 0
    masks[:, 8:10, 8:10, 4] = 9
    masks[:, 5, 5, 1] = 3  # one pixel of two kinds
    masks[:, 0, 0, -1] = 0  # one of none
    for path in (folder, apart or folder):
        path.mkdir(parents=True, exist_ok=True)
    np.save(folder / "images.npy", rng.integers(0, 256, (patches, SIDE, SIDE, 3)).astype(np.float64))
    np.save((apart or folder) / "masks.npy", masks)
    np.save(folder / "types.npy", np.array(["Breast", "Colon", "Breast"])[:patches])
    return folder


def test_a_fold_side_by_side(tmp_path):
    collection = open_collection(make_fold(tmp_path))
    assert (collection.name, len(collection), collection.classes) == ("pannuke", 3, ("Breast", "Colon"))
    assert channels_of(collection) == ("background", "neoplastic", "inflammatory", "connective", "dead", "epithelial")
    mask = collection.read_mask(collection.items[1])
    assert mask[3, 3] == 1
    assert mask[8, 9] == 5
    assert mask[12, 12] == 0
    assert mask[5, 5] == mask[0, 0] == 255
    image = collection.read(collection.items[1])
    assert (image.values.dtype, image.spacing_mm) == (np.uint8, (0.00025, 0.00025))
    np.testing.assert_array_equal(image.values, np.load(tmp_path / "images.npy")[1])


def test_folds_as_they_are_unpacked(tmp_path):
    for number in (1, 2):
        fold = tmp_path / f"Fold {number}"
        make_fold(fold / "images" / f"fold{number}", fold / "masks" / f"fold{number}")
    collection = open_collection(tmp_path, DatasetSettings(mpp=0.5))
    assert [item.item_id for item in collection.items[2:4]] == ["fold1-00002", "fold2-00000"]
    assert collection.items[0].mpp == 0.5


def test_masks_of_another_shape_are_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"where .N, 256, 256, 3. and .N, 256, 256, 6. are wanted"):
        open_collection(make_fold(tmp_path, channels=5))


def test_objects_in_an_array_are_not_unpacked(tmp_path):
    make_fold(tmp_path)
    np.save(tmp_path / "types.npy", np.array(["a", None, "b"], dtype=object), allow_pickle=True)
    with pytest.raises(DatasetError, match="it is no array"):
        open_collection(tmp_path)
