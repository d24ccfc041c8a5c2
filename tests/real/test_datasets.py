"""The data sets beside the checkout, opened as their users would."""

from collections import Counter, defaultdict

import numpy as np

from lamella.data.folds import held_out
from lamella.data.labelled_tiles import LabelledTiles, LabelledTileSettings
from lamella.imaging.datasets.identity import item_digest
from lamella.imaging.datasets.opening import DatasetSettings, open_collection


def test_pneumoniamnist(real_data):
    collection = open_collection(real_data / "classification/pneumoniamnist.npz")
    splits = [item.split for item in collection.items]
    assert [splits.count(split) for split in ("train", "val", "test")] == [3882, 524, 624]
    assert collection.classes == ("normal", "pneumonia")
    test = [item for item in collection.items if item.split == "test"]
    # The published test set: 234 normal, 390 with pneumonia.
    assert sum(item.labels == ("pneumonia",) for item in test) == 390
    with np.load(real_data / "classification/pneumoniamnist.npz") as archive:
        np.testing.assert_array_equal(collection.read(test[100]).values, archive["test_images"][100])
    # The set itself holds some images twice, and some of them in train and in val; none of its test images in train.
    splits_of = defaultdict(set)
    for item in collection.items:
        splits_of[item_digest(collection, item)].add(item.split)
    assert Counter(len(held) for held in splits_of.values())[2] == 8
    assert all(held in ({"train", "val"}, {"train"}, {"val"}, {"test"}) for held in splits_of.values())


def test_glas(real_data):
    collection = open_collection(
        real_data / "segmentation/glas/manifest.csv", DatasetSettings(mask_classes={"gland": 255})
    )
    assert (len(collection), len({item.group for item in collection.items})) == (110, 11)
    assert collection.classes == ("benign", "malignant")
    mask = collection.read_mask(collection.items[0])
    assert mask.shape == collection.read(collection.items[0]).values.shape[:2] == (522, 775)
    assert collection.mask_classes == {"gland": 1}
    assert set(np.unique(mask)) == {0, 1}


def test_brain_tumour_progression(real_data):
    folder = real_data / "volumes/brain_tumor_progression"
    collection = open_collection(folder / "manifest.csv", DatasetSettings(image="flair"))
    assert (len(collection), len({item.group for item in collection.items})) == (4, 3)
    for item in collection.items:
        volume, mask = collection.read(item), collection.read_mask(item)
        assert mask.shape == volume.values_CZYX.shape[1:]
        # Tumour and oedema are bright in FLAIR: the mask lies over the brightest place, mirrored it does not.
        values = volume.values_CZYX[0]
        for axis in (0, 1, 2):
            assert values[mask == 1].mean() > values[np.flip(mask, axis) == 1].mean()
    series = open_collection(folder / "dicom_PGBM-001_t1_flair")
    assert (series.kind, len(series), series.group_noun) == ("volume", 1, "patient")


def test_nuinsseg(real_data):
    collection = open_collection(real_data / "segmentation/nuinsseg")
    assert (len(collection), collection.mask_classes) == (40, {"foreground": 1})
    assert collection.read_mask(collection.items[0]).shape == (512, 512)


def test_tiles_of_glas_at_its_stated_spacing(real_data):
    settings = DatasetSettings(mask_classes={"gland": 255}, mpp=0.62)
    collection = open_collection(real_data / "segmentation/glas/manifest.csv", settings)
    held = []
    for fold in range(5):
        train, test = held_out(collection, 5, fold)
        assert {item.group for item in train}.isdisjoint(item.group for item in test)
        held += test
    assert sorted(item.item_id for item in held) == sorted(item.item_id for item in collection.items)
    tiles = LabelledTiles([collection], held[:4], LabelledTileSettings(tile_px=256, batch_size=2), 0)
    pixels, channels = tiles.whole(held[0])
    rows, columns = collection.read_mask(held[0]).shape
    assert pixels.shape[:2] == channels.shape == (round(rows * 1.24), round(columns * 1.24))
    batch = tiles.batch(0)
    assert batch["image"].shape == (2, 3, 256, 256)
