from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lamella.errors import ImageError
from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.measured import MedicalImage
from lamella.models.colour_statistics import ColourStatistics
from lamella.models.encoders import InputContract, ViTEncoder, fresh_vit
from lamella.models.vit import ViTSettings
from lamella.verbs.evaluation.image_features import ItemViews, ViewSettings, embed_items, has_spacing, is_grey

CONTRACT = InputContract(None, 32, (0.5,) * 3, (0.25,) * 3, patch_px=8, dim=16)


def collection(shape: tuple[int, ...] = (40, 60, 3), count: int = 5, *, broken: int | None = None) -> Collection:
    def read(item: Item) -> MedicalImage:
        if item.row == broken:
            raise ImageError(item.item_id, "it is broken", "Mend it.")
        return MedicalImage(np.random.default_rng(item.row).integers(0, 256, shape).astype(np.uint8), "byte")

    items = tuple(Item(f"i{n}", (Path(f"{n}.png"),), row=n, group=f"i{n}") for n in range(count))
    return Collection("toys", "image", items, read)


def encoder(seed: int = 0, contract: InputContract = CONTRACT) -> ViTEncoder:
    settings = ViTSettings(dim=16, depth=2, heads=2, patch_px=8, wave_min=8, wave_max=64)
    return ViTEncoder(fresh_vit(settings, seed), contract, "tiny")


def views_of(data: Collection, contract: InputContract = CONTRACT, **settings: object) -> ItemViews:
    return ItemViews(data, ViewSettings(**settings), encoder(contract=contract), 8)


def test_whole_images_and_tiles_that_cover_the_image() -> None:
    data = collection()
    assert views_of(data).views(data.items[0], 32).shape == (1, 32, 32, 3)
    tiles = views_of(data, name="tiles")
    assert tiles.views(data.items[0], 32).shape == (4, 32, 32, 3)
    pixels = tiles.pixels(data.items[0])
    np.testing.assert_array_equal(tiles.views(data.items[0], 32)[-1], pixels[-32:, -32:])
    assert len(views_of(data, name="tiles", max_tiles=2).views(data.items[0], 32)) == 2


def test_an_encoder_with_a_spacing_brings_images_to_it_and_one_of_any_scale_does_not() -> None:
    spaced = replace(CONTRACT, mpp=1.0)
    data = collection((64, 64, 3))
    assert len(views_of(data, spaced, source_mpp=1.0).views(data.items[0], 32)) == 4
    assert len(views_of(data, spaced, source_mpp=0.5).views(data.items[0], 32)) == 1
    with pytest.raises(ImageError, match="it states no spacing"):
        views_of(data, spaced).views(data.items[0], 32)
    assert has_spacing(encoder(contract=spaced))
    assert not has_spacing(encoder())
    assert not has_spacing(ColourStatistics())  # its contract names a spacing, which it does not need


def test_features_are_those_of_the_encoder_and_are_read_back(tmp_path: Path, monkeypatch) -> None:
    data, network = collection(), encoder()
    views = views_of(data)
    found = embed_items(network, data.items, views, tmp_path, label="x", last_layers=True, tokens=True, batch_size=2)
    shown = torch.from_numpy(np.concatenate([views.views(item, 32) for item in data.items])).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = network.pooled(shown.contiguous())
    np.testing.assert_allclose(np.stack(list(found.pooled.values())), expected.numpy(), atol=1e-5)
    assert found.last["i0"].shape == (2 * 16,)  # it has two layers only
    np.testing.assert_allclose(found.last["i0"][16:], found.pooled["i0"], atol=1e-5)
    assert found.tokens["i0"].shape == (16, 16)
    monkeypatch.setattr(ViTEncoder, "tokens", None)
    again = embed_items(network, data.items, views, tmp_path, label="x", last_layers=True, tokens=True, batch_size=2)
    np.testing.assert_array_equal(again.pooled["i3"], found.pooled["i3"])


def test_another_encoder_another_view_and_a_damaged_cache_are_embedded_anew(tmp_path: Path) -> None:
    data = collection()
    first = embed_items(encoder(0), data.items, views_of(data), tmp_path, label="x").pooled["i0"]
    other = embed_items(encoder(1), data.items, views_of(data), tmp_path, label="x").pooled["i0"]
    cropped = embed_items(encoder(1), data.items, views_of(data, fit="crop"), tmp_path, label="x").pooled["i0"]
    (tmp_path / "00000.safetensors").write_bytes(b"damaged")
    back = embed_items(encoder(0), data.items, views_of(data), tmp_path, label="x").pooled["i0"]
    assert not np.allclose(first, other)
    assert not np.allclose(other, cropped)
    np.testing.assert_array_equal(first, back)


def test_an_item_that_cannot_be_read_is_told_and_tried_again(tmp_path: Path) -> None:
    data = collection(broken=2)
    found = embed_items(encoder(), data.items, views_of(data), tmp_path, label="x")
    assert list(found.failed) == ["i2"]
    assert list(found.pooled) == ["i0", "i1", "i3", "i4"]
    mended = embed_items(encoder(), data.items, views_of(collection()), tmp_path, label="x")
    assert not mended.failed
    assert len(mended.pooled) == 5


def test_grey_is_told_from_colour() -> None:
    grey, colour = collection((20, 20)), collection()
    assert is_grey(views_of(grey), grey.items)
    assert not is_grey(views_of(colour), colour.items)
