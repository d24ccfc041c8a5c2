"""Samples of I-JEPA: a crop and its mask, for whoever asks for the position."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from lamella.data.images import ImageDataSettings, TrainingImages
from lamella.data.masked_images import MaskedImages, MaskedImageSettings
from lamella.errors import ConfigError, ImageError, LamellaError
from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.measured import MedicalImage

HEIGHT, WIDTH = 60, 90


def gradient(item: Item) -> MedicalImage:
    """Red grows to the right, green downwards, blue says which image it is."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = 2 * np.arange(WIDTH), 4 * np.arange(HEIGHT)[:, None]
    pixels[..., 2] = 10 * (item.row or 0)
    return MedicalImage(pixels, "byte")


def unreadable(item: Item) -> MedicalImage:
    raise ImageError(item.item_id, "it is cut short", "Copy it again.")


def make(seed: int = 0, batch_size: int = 4, read=gradient, size_px: int = 32, **settings: object) -> MaskedImages:
    items = tuple(Item(f"image{number}", (Path(f"{number}.png"),), row=number) for number in range(5))
    images = TrainingImages(
        [Collection("toy", "image", items, read)], ImageDataSettings(batch_size=batch_size, exclude_split=None), seed
    )
    return MaskedImages(images, MaskedImageSettings.model_validate(settings), size_px, patch_px=4)


def test_a_batch_holds_crops_and_masks_of_its_positions() -> None:
    batch = make().batch(1)
    assert batch["image"].shape == (4, 3, 32, 32)
    assert batch["image"].dtype == torch.uint8
    assert batch["position"].tolist() == [4, 5, 6, 7]
    assert batch["context"].dtype == batch["targets"].dtype == torch.int64
    assert batch["context_pad"].dtype == batch["targets_pad"].dtype == torch.bool
    assert batch["context"].shape == batch["context_pad"].shape
    assert batch["targets"].shape[:2] == (4, 4)
    for sample in range(4):
        shown = batch["context"][sample][~batch["context_pad"][sample]]
        asked = batch["targets"][sample][~batch["targets_pad"][sample]]
        assert not torch.isin(shown, asked).any()
        assert max(shown.max(), asked.max()) < 64


def test_samples_belong_to_seed_and_position_whoever_asks() -> None:
    """Uneven shares of three ranks; padded sets differ in width only."""
    whole, shares = make().batch(2), [make().batch(2, rank, 3) for rank in range(3)]
    assert torch.equal(torch.cat([share["image"] for share in shares]), whole["image"])
    sample = 0
    for share in shares:
        for own in range(len(share["image"])):
            for name in ("context", "targets"):
                given = share[name][own][~share[f"{name}_pad"][own]]
                assert torch.equal(given, whole[name][sample][~whole[f"{name}_pad"][sample]])
            sample += 1
    assert sample == 4
    assert not torch.equal(make(seed=1).batch(2)["image"], whole["image"])
    # Another pass over the same images shows other crops.
    first = {crop.numpy().tobytes() for crop in make(batch_size=5).batch(0)["image"]}
    assert first.isdisjoint(crop.numpy().tobytes() for crop in make(batch_size=5).batch(1)["image"])
    # A worker gets a copy, whatever was asked before.
    assert torch.equal(copy.deepcopy(make()).batch(2)["image"], whole["image"])


def test_a_crop_shows_the_box_that_it_says() -> None:
    samples = make(mirror=False)
    for position in range(12):
        box, crop = samples.crop_box(position), samples.crop(position).astype(float)
        assert 0 <= box.x0 < box.x1 <= WIDTH
        assert 0 <= box.y0 < box.y1 <= HEIGHT
        # The ramps say where a pixel comes from: 2 a column, 4 a row; its centre is half a pixel on.
        middle = crop[:, 16].mean(0), crop[16].mean(0)
        assert middle[0][0] == pytest.approx(2 * (box.x0 + 16.5 / 32 * box.width - 0.5), abs=1.5)
        assert middle[1][1] == pytest.approx(4 * (box.y0 + 16.5 / 32 * box.height - 0.5), abs=3)


def test_crops_have_the_asked_area_and_aspect() -> None:
    samples = make()
    boxes = [samples.crop_box(position) for position in range(400)]
    share = np.array([box.width * box.height for box in boxes]) / (HEIGHT * WIDTH)
    aspect = np.array([box.width / box.height for box in boxes])
    assert 0.3 - 1e-9 <= share.min() < 0.35
    assert 0.8 < share.max() <= 1  # a box of the image's own 3 to 2 is not among the aspects
    assert 3 / 4 - 1e-9 <= aspect.min() < 0.85
    assert 1.2 < aspect.max() <= 4 / 3 + 1e-9


def test_half_of_the_crops_are_mirrored_and_no_colour_is_changed() -> None:
    plain, mirrored, flipped = make(mirror=False), make(), 0
    for position in range(60):
        own, other = plain.crop(position), mirrored.crop(position)
        if np.array_equal(own, other):
            continue
        assert np.array_equal(own[:, ::-1], other)
        flipped += 1
    assert 15 < flipped < 45
    turned = [make(turn=True).crop(position) for position in range(8)]
    assert any(np.abs(np.diff(crop[..., 0].astype(int), axis=0)).max() > 1 for crop in turned)  # red grows downwards


def test_held_images_are_whole_and_alike_in_every_run() -> None:
    held, again = make().held(64), make().held(64)
    assert [len(batch["image"]) for batch in held] == [5]
    assert all(torch.equal(held[0][name], again[0][name]) for name in held[0])
    blue = held[0]["image"][:, 2].flatten(1)
    assert sorted(blue[:, 0].tolist()) == [0, 10, 20, 30, 40]
    red = held[0]["image"][0, 0, 16].float()
    # The middle square of 60 of 90 columns, not mirrored.
    assert (red[0].item(), red[-1].item()) == pytest.approx((2 * 15, 2 * 74), abs=3)
    assert "context" in held[0]


def test_other_masks_can_be_asked_for() -> None:
    batch = make(mask={"name": "random", "ratio": 0.5}).batch(0)
    assert batch["context"].shape == (4, 32)
    assert batch["targets"].shape == (4, 1, 32)
    assert not batch["targets_pad"].any()
    with pytest.raises(ValidationError):
        MaskedImageSettings.model_validate({"mask": {"name": "tube"}})


def test_what_cannot_be_masked_or_read_is_refused_and_nothing_replaced() -> None:
    with pytest.raises(ConfigError, match=r"data\.size_px: 30 is not two or more patches of 4 px"):
        make(size_px=30)
    with pytest.raises(ConfigError, match=r"size_px: 4 is not"):
        make(size_px=4)
    with pytest.raises(LamellaError, match="8 x 8 tokens"):
        make(mask={"name": "multiblock", "scale": (1, 1), "min_keep": 40})
    with pytest.raises(ImageError, match=r"image\d: it is cut short"):
        make(read=unreadable).batch(0)
