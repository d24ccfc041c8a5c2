"""Four real masks of BCSS and the table of its codes. The colour regions are not here: images are generated."""

import csv
import shutil

import numpy as np
import pytest
from PIL import Image

from lamella.data.labelled_tiles import LabelledTiles, LabelledTileSettings
from lamella.errors import DatasetError
from lamella.imaging.datasets.class_map import open_class_map
from lamella.imaging.datasets.mask_files import picture_mask
from lamella.imaging.datasets.opening import DatasetSettings, open_collection


@pytest.fixture(scope="module")
def masks(real_data):
    return sorted((real_data / "segmentation/bcss_masks").glob("*.png"))


@pytest.mark.parametrize("name", ["bcss5", "bcss-official"])
def test_the_shipped_maps_know_the_codes_of_the_table(real_data, name):
    with (real_data / "segmentation/bcss_masks/gtruth_codes.tsv").open(newline="") as file:
        codes = {row["label"]: int(row["GT_code"]) for row in csv.DictReader(file, delimiter="\t")}
    found = open_class_map(name)
    assert found.known == tuple(sorted(codes.values()))
    assert set(found.ignore) == {codes["outside_roi"], codes["exclude"]}
    values = found.values
    assert codes["tumor"] in values["tumor"]
    if name == "bcss5":
        assert {codes[name]: codes[name] for name in values} == {code: code for (code,) in values.values()}
    else:
        assert set(values["tumor"]) == {codes["tumor"], codes["angioinvasion"], codes["dcis"]}
        inflammatory = ("lymphocytic_infiltrate", "plasma_cells", "other_immune_infiltrate")
        assert set(values["inflammatory"]) == {codes[each] for each in inflammatory}


@pytest.mark.parametrize("name", ["bcss5", "bcss-official"])
def test_real_masks_become_classes_code_by_code(masks, name):
    found = open_class_map(name)
    assert len(masks) == 4
    for path in masks:
        codes = picture_mask(path)[::4, ::4]
        ids = found.ids_of(codes, path)
        for code in np.unique(codes).tolist():
            expected = {255} if code in found.ignore else {0}
            expected = next(({found.ids[each]} for each, held in found.values.items() if code in held), expected)
            assert set(np.unique(ids[codes == code]).tolist()) == expected


def test_the_vessel_is_18_in_the_real_masks(masks):
    # The source document called 9 blood vessel; it is fat. In the region of A2-A0SX both occur.
    codes = picture_mask(next(path for path in masks if "A0SX" in path.name))
    ids = open_class_map("bcss5").ids_of(codes, "A0SX")
    assert (codes == 9).any()
    assert np.array_equal(ids == 5, codes == 18)


def test_masks_alone_say_that_the_images_are_missing(real_data):
    with pytest.raises(DatasetError, match=r"the images are missing: .* rgbs_colorNormalized/ .* 4 mask.s. alone"):
        open_collection(real_data / "segmentation/bcss_masks")


def test_a_real_mask_is_learned_from(masks, tmp_path):
    mask = next(path for path in masks if "A0SK" in path.name)
    (tmp_path / "masks").mkdir()
    (tmp_path / "images").mkdir()
    shutil.copy(mask, tmp_path / "masks")
    with Image.open(mask) as picture:
        size, share = picture.size, float((np.asarray(picture) == 1).mean())
    Image.effect_noise(size, 40).convert("RGB").save(tmp_path / "images" / mask.name, compress_level=0)
    collection = open_collection(tmp_path, DatasetSettings(name="bcss"))
    assert [(item.group, item.site, item.mpp) for item in collection.items] == [("TCGA-A1-A0SK", "A1", 0.25)]
    tiles = LabelledTiles([collection], list(collection.items), LabelledTileSettings(tile_px=256, batch_size=4), 0)
    assert tiles.class_shares()["tumor"] == pytest.approx(share, abs=1e-6)
    _, channels = tiles.whole(collection.items[0])
    assert channels.shape == (round(size[1] / 2), round(size[0] / 2))
    assert (channels == 1).mean() == pytest.approx(share, abs=0.002)  # at half the resolution
    assert set(np.unique(tiles.batch(0)["mask"].numpy())) <= {0, 1, 2, 3, 4, 255}
