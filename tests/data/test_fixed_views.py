"""A fixed number of views of each image."""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch
from tests.data.made_labels import made_labels

from lamella.data.fixed_views import FixedViews
from lamella.data.labelled_tiles import LabelledTiles, LabelledTileSettings


def views_of(names: str, views: int = 3, seed: int = 0, **settings: object) -> FixedViews:
    rng = np.random.default_rng(0)
    masks = {name: rng.integers(0, 3, (24, 40)).astype(np.uint8) for name in "abcd"}
    collection = made_labels(masks)
    items = [item for item in collection.items if item.item_id in names]
    chosen = LabelledTileSettings(**{"batch_size": 4, "tile_px": 16, **settings})
    return FixedViews(LabelledTiles([collection], items, chosen, seed), views)


def test_a_view_does_not_depend_on_what_else_is_trained_on() -> None:
    """Else what a frozen network made of it would not serve another fold."""
    for view in range(3):
        one, other = views_of("abc").view(1, view), views_of("bd").view(0, view)  # both are of b
        assert np.array_equal(one.pixels_YXC, other.pixels_YXC)
        assert np.array_equal(one.masks[0], other.masks[0])


def test_views_differ_and_the_seed_makes_others() -> None:
    views = views_of("abc")
    pixels = [views.view(number, view).pixels_YXC.tobytes() for number in range(3) for view in range(3)]
    pixels.append(views_of("abc", seed=1).view(0, 0).pixels_YXC.tobytes())
    assert len(set(pixels)) == 10


def test_every_view_comes_once_before_any_comes_again() -> None:
    views = views_of("abcd")
    assert len(views) == 12
    seen = Counter(tuple(image.flatten().tolist()) for step in range(6) for image in views.batch(step)["image"])
    assert sorted(seen.values()) == [2] * 12


def test_batches_are_a_pure_function_of_the_step_and_shared_among_ranks() -> None:
    views = views_of("abcd")
    whole = views.batch(2)
    ranks = [views_of("abcd").batch(2, rank, 2) for rank in range(2)]
    for key, values in whole.items():
        assert torch.equal(values, torch.cat([rank[key] for rank in ranks]))
    assert whole["position"].tolist() == [8, 9, 10, 11]


def test_an_image_smaller_than_the_tile_lies_in_its_middle_and_the_rest_is_not_labelled() -> None:
    from lamella.data.segmentation_augment import NO_CHANGE

    view = views_of("abcd", tile_px=48, augment=NO_CHANGE).view(0, 0)
    labelled = view.masks[0] != 255
    assert labelled.sum() == 24 * 40
    assert labelled[12:36, 4:44].all()
    assert (view.pixels_YXC[~labelled] == 255).all()
