from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lamella.data.image_augment import NoColour
from lamella.data.images import ImageDataSettings, TrainingImages
from lamella.data.multi_crop import MultiCrops, MultiCropSettings, crop, crop_box
from lamella.errors import ConfigError
from lamella.geometry import Box
from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.measured import MedicalImage

SMALL = {"local_px": 16, "local_views": 3}


def gradient(number: int, height: int = 60, width: int = 90) -> np.ndarray:
    """Red grows to the right, green downwards, blue says which image it is."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(width), np.arange(height)[:, None]
    pixels[..., 2] = 10 * number
    return pixels


def make_crops(images: int = 5, seed: int = 0, batch_size: int = 4, **settings: object) -> MultiCrops:
    items = tuple(Item(f"image{number}", (Path(f"{number}.png"),), row=number) for number in range(images))
    collection = Collection("toy", "image", items, lambda item: MedicalImage(gradient(item.row or 0), "byte"))
    given = TrainingImages([collection], ImageDataSettings(batch_size=batch_size), seed)
    return MultiCrops(given, MultiCropSettings.model_validate({**SMALL, **settings}), size_px=32)


def test_a_batch_holds_global_and_local_views_of_its_positions() -> None:
    crops = make_crops()
    batch = crops.batch(1)
    assert {name: tuple(value.shape) for name, value in batch.items()} == {
        "globals": (4, 2, 3, 32, 32),
        "locals": (4, 3, 3, 16, 16),
        "position": (4,),
    }
    assert batch["globals"].dtype == batch["locals"].dtype == torch.uint8
    assert batch["position"].tolist() == [4, 5, 6, 7]
    assert "locals" not in make_crops(local_views=0).batch(0)
    assert (len(crops), crops.samples_per_epoch) == (5, 5)


def test_views_belong_to_seed_and_position_whoever_asks() -> None:
    whole = make_crops().batch(2)
    shares = [make_crops().batch(2, rank, 3) for rank in range(3)]  # uneven: 1, 1 and 2 images
    for name, value in whole.items():
        assert torch.equal(torch.cat([share[name] for share in shares]), value)
    assert not torch.equal(make_crops(seed=1).batch(2)["globals"], whole["globals"])
    views = whole["globals"].flatten(0, 1)
    assert len({view.numpy().tobytes() for view in views}) == len(views)
    # Another pass over the same images shows other views.
    first, again = make_crops(1, batch_size=1).batch(0)["globals"], make_crops(1, batch_size=1).batch(1)["globals"]
    assert not torch.equal(first, again)


def test_a_view_shows_what_its_box_holds() -> None:
    crops = make_crops(colour=NoColour(), mirror=False)
    batch = crops.batch(0)
    for position in range(4):
        for view in range(5):
            box = crops.view_box(position, view)
            pixels = (batch["globals"][position, view] if view < 2 else batch["locals"][position, view - 2]).float()
            assert pixels[0].mean() == pytest.approx(box.center[0] - 0.5, abs=0.8)
            assert pixels[1].mean() == pytest.approx(box.center[1] - 0.5, abs=0.8)
            assert box.area / (60 * 90) >= (0.3 if view < 2 else 0.05) - 1e-9


def test_mirrored_views_are_half_and_turned_ones_lie_any_way() -> None:
    views = make_crops(16, batch_size=16, colour=NoColour()).batch(0)["globals"][:, :, 0].float()
    to_the_right = (views[..., -1] > views[..., 0]).float().mean(-1)
    assert set(to_the_right.unique().tolist()) == {0.0, 1.0}
    assert 0.2 < float(to_the_right.mean()) < 0.8
    turned = make_crops(16, batch_size=16, colour=NoColour(), turn=True).batch(0)["globals"].float()
    downwards = turned[:, :, 0, -1, 0] - turned[:, :, 0, 0, 0]  # red grows along a column in a quarter turn
    assert 0.2 < float((downwards.abs() > 10).float().mean()) < 0.8


def test_held_views_are_whole_images_without_recolouring() -> None:
    crops = make_crops(20)
    held = crops.held(18)
    assert [len(batch["image"]) for batch in held] == [16, 2]
    image = held[0]["image"][0]
    assert image.shape == (3, 32, 32)
    assert image[0].float().mean() == pytest.approx(44.5, abs=0.5)  # the middle square of 60 x 90
    assert image[0].min() in (15, 16)
    assert torch.equal(held[0]["globals"][0, 0, 2].unique(), image[2].unique())  # blue as in the file
    assert len(make_crops(3).held(18)) == 1
    assert all(torch.equal(one["locals"], same["locals"]) for one, same in zip(held, crops.held(18), strict=True))


@given(
    seed=st.integers(0, 2**31),
    height=st.integers(1, 400),
    width=st.integers(1, 400),
    scale=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(lambda pair: (min(pair), max(pair))),
)
def test_a_crop_lies_inside_and_keeps_its_share_and_aspect(
    seed: int, height: int, width: int, scale: tuple[float, float]
) -> None:
    box = crop_box(np.random.default_rng(seed), height, width, scale, (3 / 4, 4 / 3))
    assert Box(0, 0, width, height).contains(box, slack=1e-6)
    assert box.area <= scale[1] * height * width * (1 + 1e-6)
    assert 3 / 4 - 1e-6 <= box.width / box.height <= 4 / 3 + 1e-6
    if 3 / 4 <= width / height <= 4 / 3 and scale[1] <= 0.5:  # every shape fits
        assert box.area >= scale[0] * height * width * (1 - 1e-6)


def test_shares_of_the_area_are_even() -> None:
    rng = np.random.default_rng(0)
    shares = np.array([crop_box(rng, 100, 100, (0.05, 0.3), (3 / 4, 4 / 3)).area / 1e4 for _ in range(2000)])
    assert np.quantile(shares, [0.1, 0.5, 0.9]) == pytest.approx([0.075, 0.175, 0.275], abs=0.01)


def test_shrinking_averages_instead_of_skipping() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[::2] = 200
    small = crop(stripes, Box(0, 0, 64, 64), 8)
    assert np.abs(small.astype(int) - 100).max() <= 12


def test_views_of_broken_patches_and_falling_ranges_are_refused() -> None:
    images = make_crops().images
    with pytest.raises(ConfigError, match=r"views\.local_px: 90 is not a multiple of the encoder's patch of 16"):
        MultiCrops(images, MultiCropSettings(local_px=90), 224, patch_px=16)
    MultiCrops(images, MultiCropSettings(local_px=90, local_views=0), 224, patch_px=16)
    with pytest.raises(ValidationError, match="local_scale"):
        MultiCropSettings(local_scale=(0.4, 0.1))
