from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.tiny_glands import write_glands

from lamella.data.prompted_objects import PromptedDataSettings, PromptedObjects
from lamella.errors import DatasetError
from lamella.imaging.datasets.opening import DatasetSettings, open_collection
from lamella.models.prompts import PADDING, THIS

SETTINGS = PromptedDataSettings(mpp=None, tile_px=40, batch_size=4, objects=3, min_area_px=20)


@pytest.fixture(scope="module")
def glands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_glands(tmp_path_factory.mktemp("glands"))


def samples(path: Path, **changes: object) -> PromptedObjects:
    return PromptedObjects([open_collection(path)], None, SETTINGS.model_copy(update=changes), seed=1)


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        torch.testing.assert_close(value, other[key], rtol=0, atol=0, equal_nan=True)


def test_a_batch_is_a_pure_function_of_seed_and_step(glands: Path) -> None:
    assert_equal(samples(glands).batch(5), samples(glands).batch(5))
    whole = samples(glands).batch(5)
    halves = [samples(glands).batch(5, rank, 2) for rank in range(2)]
    assert_equal(whole, {key: torch.cat([half[key] for half in halves]) for key in whole})
    assert not torch.equal(samples(glands).batch(6)["image"], whole["image"])


def test_prompts_lie_on_the_mask_as_it_is_after_the_tile_was_turned_and_warped(glands: Path) -> None:
    """Mistake of the source: prompts that were not moved with the image."""
    found = samples(glands, augment=SETTINGS.augment.model_copy(update={"elastic": 1.0}))
    kinds = set()
    for step in range(6):
        batch = found.batch(step)
        for tile in range(4):
            # The glands are dark: what the mask shows is there in the turned and recoloured pixels, too.
            mask, pixels = batch["objects"][tile].any(0), batch["image"][tile].float().mean(0)
            assert pixels[mask].mean() < pixels[batch["known"][tile] & ~mask].mean() - 20
            for row in range(3):
                truth = batch["objects"][tile, row]
                if batch["labels"][tile, row, 0] == THIS:
                    x, y = batch["points"][tile, row, 0].tolist()
                    assert truth[int(y), int(x)]
                    assert batch["boxes"][tile, row].isnan().all()
                    kinds.add("click")
                else:
                    assert batch["labels"][tile, row, 0] == PADDING
                    rows, columns = truth.nonzero().T
                    tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                    sides = [tight[2] - tight[0], tight[3] - tight[1]] * 2
                    for side, own, given in zip(sides, tight, batch["boxes"][tile, row].tolist(), strict=True):
                        assert abs(given - own) <= min(0.1 * side, 20) + 1e-4
                    kinds.add("box")
    assert kinds == {"click", "box"}


def test_objects_are_connected_and_of_the_known_part(glands: Path) -> None:
    from scipy import ndimage

    batch = samples(glands).batch(0)
    for tile in range(4):
        for mask in batch["objects"][tile].numpy():
            assert ndimage.label(mask, np.ones((3, 3)))[1] == 1
            assert not (mask & ~batch["known"][tile].numpy()).any()


def test_no_object_is_asked_about_twice_while_there_are_others(glands: Path) -> None:
    found = samples(glands, objects=2, tile_px=60)
    for step in range(4):
        for masks in found.batch(step)["objects"]:
            whole = masks.any(0).sum()
            assert whole > masks[0].sum() or torch.equal(masks[0], masks[1])


def test_fixed_views_come_again_with_other_prompts(glands: Path) -> None:
    found = samples(glands, views=1, batch_size=6)
    one, other = found.batch(0), found.batch(1)
    assert sorted(one["view"].tolist()) == sorted(other["view"].tolist()) == list(range(6))
    first = {int(view): image for view, image in zip(one["view"], one["image"], strict=True)}
    again = {int(view): image for view, image in zip(other["view"], other["image"], strict=True)}
    assert all(torch.equal(first[view], again[view]) for view in first)
    assert not torch.equal(torch.nan_to_num(one["boxes"]), torch.nan_to_num(other["boxes"]))
    assert (samples(glands).batch(0)["view"] == -1).all()


def test_tiles_grow_where_the_stages_say(glands: Path) -> None:
    found = samples(glands, tile_px_stages={2: 56}, samples_per_epoch=4)
    assert [found.batch(step)["image"].shape[-1] for step in (0, 1, 2)] == [40, 56, 56]


def test_rare_classes_are_asked_about_as_often_as_common_ones(tmp_path: Path) -> None:
    """One tile with nine objects of one class and one of another."""
    mask = np.zeros((64, 64), np.uint8)
    for row in range(3):
        for column in range(3):
            mask[4 + 16 * row : 12 + 16 * row, 4 + 16 * column : 12 + 16 * column] = 1
    mask[52:60, 52:60] = 2
    Image.fromarray(mask).save(tmp_path / "m.png")
    Image.fromarray(np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)).save(tmp_path / "i.png")
    (tmp_path / "d.csv").write_text("image_id,image_path,mask_path,patient\na,i.png,m.png,p\n")
    collection = open_collection(tmp_path / "d.csv", DatasetSettings(mask_classes={"gland": 1, "vessel": 2}))
    still = SETTINGS.augment.model_copy(update={"elastic": 0.0})
    changes = {"tile_px": 64, "objects": 1, "batch_size": 40, "augment": still}
    settings = SETTINGS.model_copy(update=changes)
    channels = PromptedObjects([collection], None, settings, 0).batch(0)["channel"]
    assert 10 <= int((channels == 2).sum()) <= 30


def test_images_without_objects_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((48, 48), np.uint8)).save(tmp_path / "m.png")
    Image.fromarray(np.full((48, 48, 3), 200, np.uint8)).save(tmp_path / "i.png")
    (tmp_path / "d.csv").write_text("image_id,image_path,mask_path,patient\na,i.png,m.png,p\n")
    collection = open_collection(tmp_path / "d.csv", DatasetSettings(mask_classes={"gland": 1}))
    with pytest.raises(DatasetError, match=r"no class that occurs has a weight above 0|hold no object"):
        PromptedObjects([collection], None, SETTINGS, 0).batch(0)
