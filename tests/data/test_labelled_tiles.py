"""Tiles of labelled images: one spacing, no squashing, ignored area, balance, and a pure function of seed and step."""

from __future__ import annotations

import pickle
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.data.made_labels import coloured, made_labels
from tests.imaging.datasets import miniatures

from lamella.data.labelled_tiles import LabelledTiles, LabelledTileSettings, TilePlace, starts
from lamella.data.segmentation_augment import NO_CHANGE
from lamella.errors import DatasetError, ImageError
from lamella.imaging.datasets.opening import DatasetSettings, open_collection

PLAIN = {"augment": NO_CHANGE, "batch_size": 4, "tile_px": 8}


def mask_of(height=24, width=40, *, tumor=0, stroma=0, ignored=0):
    """Rows of each class from the top, then background, and ignored ones at the bottom."""
    mask = np.zeros((height, width), np.uint8)
    mask[:tumor] = 1
    mask[tumor : tumor + stroma] = 2
    mask[height - ignored :] = 255
    return mask


def tiles_of(masks, *, items=None, seed=0, groups=None, mpp=0.5, splits=None, reads=None, **settings):
    collection = made_labels(masks, groups=groups, mpp=mpp, splits=splits, reads=reads)
    return LabelledTiles([collection], items, LabelledTileSettings(**{**PLAIN, **settings}), seed)


def test_a_batch_is_bytes_and_channels_that_fit_each_other():
    tiles = tiles_of({"a": mask_of(tumor=6, stroma=6, ignored=4)})
    batch = tiles.batch(0)
    assert batch["image"].shape == (4, 3, 8, 8)
    assert batch["mask"].shape == (4, 8, 8)
    assert batch["image"].dtype == batch["mask"].dtype == torch.uint8
    assert batch["position"].tolist() == [0, 1, 2, 3]
    # `coloured` paints the class in red: pixels and mask were cut at one place.
    red = batch["image"][:, 0].int()
    assert torch.equal(red, torch.where(batch["mask"] == 255, 250, 50 * batch["mask"].int()))


def test_batches_are_a_pure_function_of_seed_and_step():
    masks = {name: mask_of(tumor=6, stroma=6) for name in "abc"}
    tiles = tiles_of(masks, augment={})
    forward = [tiles.batch(step) for step in range(4)]
    again = tiles_of(masks, augment={}, cache_mb=0)  # another process, nothing kept, in another order
    for step in (2, 0, 3, 1):
        assert all(torch.equal(forward[step][key], again.batch(step)[key]) for key in forward[step])
    ranks = [again.batch(1, rank, 2) for rank in range(2)]
    for key, values in forward[1].items():
        assert torch.equal(torch.cat([rank[key] for rank in ranks]), values)
    assert not torch.equal(tiles_of(masks, seed=1, augment={}).batch(0)["mask"], forward[0]["mask"])


def test_workers_give_the_same_and_are_sent_no_images(tmp_path):
    collection = open_collection(miniatures.make_glas(tmp_path), DatasetSettings(mask_classes={"gland": 255}, mpp=0.62))
    tiles = LabelledTiles([collection], None, LabelledTileSettings(**{**PLAIN, "mpp": 0.62, "augment": {}}), 0)
    here = [tiles.batch(step) for step in range(3)]
    assert len(tiles._kept) > 0
    there = pickle.loads(pickle.dumps(tiles))  # noqa: S301 - our own bytes, as a worker is sent them
    assert len(there._kept) == 0
    for step, batch in enumerate(here):
        assert all(torch.equal(there.batch(step)[key], values) for key, values in batch.items())


# ---- spacing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mpp", "shape"), [(0.5, (12, 20)), (0.25, (24, 40)), (1.0, (6, 10)), (None, (24, 40))])
def test_images_are_brought_to_one_spacing_and_keep_their_aspect(mpp, shape):
    # A region is never squashed to a square.
    tiles = LabelledTiles(
        [made_labels({"a": mask_of(tumor=12)}, mpp=0.25)], None, LabelledTileSettings(**{**PLAIN, "mpp": mpp}), 0
    )
    pixels, channels = tiles.whole(tiles.items[0][1])
    assert pixels.shape == (*shape, 3)
    assert channels.shape == shape
    assert (channels[: shape[0] // 2] == 1).all()
    assert (channels[shape[0] // 2 :] == 0).all()
    np.testing.assert_allclose(pixels[..., 0], 50 * channels, atol=13)  # between two rows where classes meet


def test_without_a_spacing_the_setting_is_named():
    collection = made_labels({"a": mask_of(tumor=12)}, mpp=None)
    tiles = LabelledTiles([collection], None, LabelledTileSettings(**PLAIN), 0)
    with pytest.raises(
        ImageError, match=r"a.png: it states no spacing, and tiles of 0.5 um/px are asked for"
    ) as caught:
        tiles.batch(0)
    assert "data.dataset.mpp=0.5" in caught.value.remedy
    assert "data.mpp=null" in caught.value.remedy
    in_pixels = LabelledTiles([collection], None, LabelledTileSettings(**{**PLAIN, "mpp": None}), 0)
    assert in_pixels.batch(0)["image"].shape == (4, 3, 8, 8)


def test_a_thin_class_keeps_its_share_when_made_coarser():
    # Majority would leave nothing of lines one pixel wide; the class at the new centres keeps one in three.
    mask = np.zeros((30, 99), np.uint8)
    mask[:, 1::3] = 1
    tiles = LabelledTiles([made_labels({"a": mask}, mpp=0.25)], None, LabelledTileSettings(**{**PLAIN, "mpp": 0.5}), 0)
    _, channels = tiles.whole(tiles.items[0][1])
    assert (channels == 1).mean() == pytest.approx(1 / 3, abs=0.05)


# ---- what is cut ----------------------------------------------------------------------------------------------------


def test_what_is_smaller_than_a_tile_lies_in_white_glass_that_is_ignored():
    tiles = tiles_of({"a": mask_of(4, 6, tumor=4)}, tile_px=8, sampler="uniform")
    batch = tiles.batch(0)
    mask = batch["mask"][0].numpy()
    assert (mask[2:6, 1:7] == 1).all()
    outside = np.ones((8, 8), bool)
    outside[2:6, 1:7] = False
    assert (mask[outside] == 255).all()
    assert (batch["image"][0].numpy()[:, outside] == 255).all()


def test_ignored_area_is_never_background():
    # Mistake of the source: ignored area as background.
    tiles = tiles_of({"a": mask_of(tumor=6, ignored=12)}, augment={"elastic": 1.0})
    masks = torch.cat([tiles.batch(step)["mask"] for step in range(20)])
    assert (masks == 255).any()
    assert tiles.class_shares() == pytest.approx({"other": 0.5, "tumor": 0.5, "stroma": 0.0})


def test_cached_images_are_not_changed_by_augmentation():
    # Mistake of the source: the image was whitened in place while it was cropped.
    tiles = tiles_of({"a": mask_of(tumor=6, stroma=9)}, augment={"elastic": 1.0})
    for step in range(10):
        tiles.batch(step)
    pixels, channels = tiles.whole(tiles.items[0][1])
    np.testing.assert_array_equal(pixels, coloured(mask_of(tumor=6, stroma=9)))
    np.testing.assert_array_equal(channels, mask_of(tumor=6, stroma=9))


@given(st.integers(1, 300), st.integers(1, 64), st.floats(0, 0.9))
def test_listed_tiles_cover_an_axis(length, side, overlap):
    begun = starts(length, side, overlap)
    covered = np.zeros(length, bool)
    for start in begun:
        covered[max(0, start) : start + side] = True
        assert length < side or 0 <= start <= length - side
    assert covered.all()
    steps = np.diff(begun)
    assert (steps > 0).all()
    assert (steps <= max(1, side * (1 - overlap)) + 1).all()


def test_listed_tiles_put_together_are_the_image():
    tiles = tiles_of({"a": mask_of(tumor=6, stroma=9), "b": mask_of(7, 30, tumor=2)})
    pixels = {item.item_id: np.zeros_like(tiles.whole(item)[0]) for _, item in tiles.items}
    places = tiles.listed()
    batch = tiles.held(places)
    for place, image in zip(places, batch["image"].numpy(), strict=True):
        whole = pixels[tiles.items[place.number][1].item_id]
        y0, x0 = max(0, place.y0), max(0, place.x0)
        part = whole[y0 : place.y0 + 8, x0 : place.x0 + 8]
        part[...] = np.moveaxis(image, 0, -1)[y0 - place.y0 :, x0 - place.x0 :][: part.shape[0], : part.shape[1]]
    for _, item in tiles.items:
        np.testing.assert_array_equal(pixels[item.item_id], tiles.whole(item)[0])


# ---- what is drawn --------------------------------------------------------------------------------------------------


def test_rare_classes_are_drawn_as_often_as_common_ones():
    masks = {"a": mask_of(tumor=1), "b": mask_of(stroma=20), "c": mask_of()}
    tiles = tiles_of(masks, groups={"a": "p1", "b": "p2", "c": "p3"}, tile_px=2)
    drawn = Counter()
    for position in range(600):
        place = tiles.place(position, 2)
        drawn[int(tiles.tile(place).masks[0].max())] += 1  # of 2 x 2 pixels
    # One in three is asked to show each class; by pixels tumor would be one in 72.
    assert drawn[1] / 600 > 0.2
    uniform = tiles_of(masks, tile_px=2, sampler="uniform")
    shown = [uniform.tile(uniform.place(position, 2)).masks[0] for position in range(600)]
    assert np.mean([mask.max() == 1 for mask in shown]) < 0.05


def test_the_drawn_place_is_in_the_middle_half_or_held_by_the_edge():
    mask = mask_of(40, 40)
    mask[20, 20] = 1
    tiles = tiles_of({"a": mask, "b": mask_of(40, 40, stroma=40)}, class_weights={"other": 0, "stroma": 0})
    found = set()
    for position in range(50):
        place = tiles.place(position, 8)
        assert tiles.tile(place).masks[0].max() == 1
        found.add((20 - place.y0, 20 - place.x0))
    assert min(map(min, found)) >= 2
    assert max(map(max, found)) <= 6
    assert len(found) > 10  # not always at the centre


def test_a_patient_with_many_images_does_not_outweigh_the_others():
    masks = {f"i{number}": mask_of(tumor=8) for number in range(10)}
    groups = {f"i{number}": "many" if number < 9 else "one" for number in range(10)}
    tiles = tiles_of(masks, groups=groups, class_weights={"other": 0})
    drawn = Counter(tiles.items[tiles.place(position, 8).number][1].group for position in range(400))
    assert 0.4 < drawn["one"] / 400 < 0.6


def test_class_weights_set_how_often():
    masks = {"a": mask_of(tumor=24), "b": mask_of(stroma=24)}
    tiles = tiles_of(masks, class_weights={"tumor": 3.0})
    drawn = Counter(tiles.place(position, 8).number for position in range(400))
    assert 0.68 < drawn[0] / 400 < 0.82
    with pytest.raises(DatasetError, match=r"data.class_weights: tumour is no class. Classes: other, tumor, stroma"):
        tiles_of(masks, class_weights={"tumour": 1.0})
    with pytest.raises(DatasetError, match="no class that occurs has a weight above 0"):
        tiles_of(masks, class_weights={"tumor": 0, "stroma": 0}).batch(0)


def test_shares_are_of_labelled_pixels():
    tiles = tiles_of({"a": mask_of(20, 10, tumor=5, stroma=5, ignored=10), "b": mask_of(20, 10, tumor=10, ignored=10)})
    assert tiles.class_shares() == pytest.approx({"other": 0, "tumor": 0.75, "stroma": 0.25})


def test_the_side_grows_from_an_epoch_on():
    masks = {"a": mask_of(tumor=8)}
    tiles = tiles_of(masks, tile_px_stages={3: 16}, samples_per_epoch=8)
    assert [tiles.batch(step)["mask"].shape[-1] for step in range(6)] == [8, 8, 8, 8, 16, 16]
    assert [LabelledTileSettings(tile_px_stages={2: 4, 4: 6}).tile_px_at(epoch) for epoch in range(1, 6)] == [
        *(512, 4, 4, 6, 6)
    ]
    with pytest.raises(ValidationError, match="epochs count from 1"):
        LabelledTileSettings(tile_px_stages={0: 4})


def test_an_epoch_covers_all_images_once():
    reads: list[str] = []
    tiles = tiles_of({"a": mask_of(24, 40, tumor=3), "b": mask_of(4, 4, tumor=3)}, reads=reads)
    assert tiles.samples_per_epoch == 24 * 40 // 64 + 1
    assert not reads  # masks and the stated spacing tell the size


def test_the_cache_is_bounded():
    reads: list[str] = []
    masks = {"a": mask_of(200, 200, tumor=50), "b": mask_of(200, 200, stroma=50)}
    tiles = tiles_of(masks, reads=reads, cache_mb=1)
    for step in range(10):
        tiles.batch(step)
    assert Counter(reads) == {"a": 1, "b": 1}
    reads.clear()
    small = tiles_of(masks, reads=reads, cache_mb=0)
    small.batch(0)
    assert len(small._kept) == 0


# ---- what takes part ------------------------------------------------------------------------------------------------


def test_test_items_and_their_groups_stay_out():
    masks = {name: mask_of(tumor=4) for name in "abc"}
    tiles = tiles_of(masks, splits={"b": "test"}, groups={"a": "p", "b": "q", "c": "q"})
    assert [item.item_id for _, item in tiles.items] == ["a"]
    with pytest.raises(DatasetError, match="no image is left"):
        tiles_of(masks, splits=dict.fromkeys("abc", "test"))


def test_a_test_image_without_a_mask_keeps_its_patient_out():
    masks = {name: mask_of(tumor=4) for name in "abc"}
    collection = made_labels(masks, splits={"a": "test"}, groups={"a": "p", "b": "p", "c": "q"})
    first, *others = collection.items
    unmasked = collection.only([replace(first, mask=None), *others])
    tiles = LabelledTiles([unmasked], None, LabelledTileSettings(**PLAIN), 0)
    assert [item.item_id for _, item in tiles.items] == ["c"]


def test_given_items_are_taken_as_they_are():
    masks = {name: mask_of(tumor=4) for name in "abc"}
    collection = made_labels(masks)
    tiles = LabelledTiles([collection], [collection.items[2]], LabelledTileSettings(**PLAIN), 0)
    assert [item.item_id for _, item in tiles.items] == ["c"]
    with pytest.raises(KeyError):
        tiles.whole(collection.items[0])


def test_masks_without_any_label_are_named():
    masks = {"a": mask_of(tumor=4), "b": mask_of(ignored=24), "c": mask_of(ignored=24)}
    with pytest.raises(DatasetError) as caught:
        tiles_of(masks)
    assert "b_mask.png: every pixel is ignored" in str(caught.value)
    assert "c_mask.png: every pixel is ignored" in str(caught.value)
    assert "Leave these images out" in caught.value.remedy


def test_an_empty_mask_is_nothing_here():
    tiles = tiles_of({"a": mask_of(tumor=4), "b": mask_of()})
    assert tiles.counts.pixels_NC[1].tolist() == [24 * 40, 0, 0]


def test_collections_must_name_the_same_classes():
    first = made_labels({"a": mask_of(tumor=4)}, name="one")
    other = made_labels({"b": mask_of(tumor=4)}, name="two", classes=("stroma", "tumor"))
    with pytest.raises(DatasetError, match=r"two: its classes are other, stroma, tumor, those of one other, tumor"):
        LabelledTiles([first, other], None, LabelledTileSettings(**PLAIN), 0)


def test_one_class_is_nothing_to_tell_apart():
    only = made_labels({"a": mask_of(tumor=24)}, classes=("tumor",), background=None)
    with pytest.raises(DatasetError, match="it has one class only"):
        LabelledTiles([only], None, LabelledTileSettings(**PLAIN), 0)


def test_a_mask_of_another_size_is_refused():
    collection = made_labels({"a": mask_of(tumor=4)})
    wrong = type(collection)(**{**collection.__dict__, "read_mask": lambda item: np.ones((40, 24), np.int32)})
    tiles = LabelledTiles([wrong], None, LabelledTileSettings(**PLAIN), 0)
    with pytest.raises(ImageError, match=r"a_mask.png: it has 40 rows of 24 pixels, its image made/a.png has 24 of 40"):
        tiles.batch(0)


def test_a_class_that_vanishes_when_made_coarser_is_told():
    mask = mask_of(40, 40)
    mask[1, 1] = 1  # between the centres of pixels ten times as large
    collection = made_labels({"a": mask}, mpp=0.1)
    weights = {"other": 0.0, "stroma": 0.0}
    tiles = LabelledTiles(
        [collection], None, LabelledTileSettings(**{**PLAIN, "mpp": 1.0, "class_weights": weights}), 0
    )
    with pytest.raises(DatasetError, match=r"lost the wanted class when brought to 1.0 um/px"):
        tiles.batch(0)


def test_a_tile_place_is_where_it_says():
    tiles = tiles_of({"a": mask_of(tumor=6, stroma=9)})
    tile = tiles.tile(TilePlace(0, 3, 5, 8))
    np.testing.assert_array_equal(tile.pixels_YXC, coloured(mask_of(tumor=6, stroma=9))[3:11, 5:13])
