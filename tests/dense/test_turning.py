from __future__ import annotations

import pytest
import torch
from tests.dense.tiny_models import ColourModel, PlaceInTileModel

from lamella.dense.turning import TURNS, averaged_maps, turned, turned_back

IMAGES = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("tta", TURNS)
def test_every_turn_is_undone_exactly_and_no_two_are_the_same(tta):
    copies = [turned(IMAGES, *turn) for turn in TURNS[tta]]
    for turn, copy in zip(TURNS[tta], copies, strict=True):
        assert torch.equal(turned_back(copy, *turn), IMAGES)
    assert len({copy.numpy().tobytes() for copy in copies}) == len(copies) == {"none": 1, "flips": 4, "d4": 8}[tta]


@pytest.mark.parametrize("tta", ["flips", "d4"])
def test_probabilities_are_averaged_not_masks_or_logits(tta):
    """A mistake of the source: masks were averaged, and ties decided."""
    model = PlaceInTileModel(8)
    wanted = torch.stack([turned_back(model.maps(turned(IMAGES, *turn)), *turn) for turn in TURNS[tta]]).mean(0)
    given = averaged_maps(model.maps, IMAGES, tta)
    assert torch.allclose(given, wanted, atol=1e-6)
    assert torch.allclose(given.sum(1), torch.ones(2, 8, 8), atol=1e-6)


@pytest.mark.parametrize("tta", ["flips", "d4"])
def test_a_model_without_a_sense_of_direction_is_left_as_it_is(tta):
    model = ColourModel(8)
    assert torch.allclose(averaged_maps(model.maps, IMAGES, tta), model.maps(IMAGES), atol=1e-6)


def test_d4_makes_any_model_turn_with_its_image():
    model = PlaceInTileModel(8)
    plain = averaged_maps(model.maps, IMAGES, "d4")
    for turn in TURNS["d4"]:
        assert torch.allclose(averaged_maps(model.maps, turned(IMAGES, *turn), "d4"), turned(plain, *turn), atol=1e-6)
