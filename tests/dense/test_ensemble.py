from __future__ import annotations

import pytest
import torch
from tests.dense.tiny_models import ColourModel, PlaceInTileModel

from lamella.dense.ensemble import Ensemble
from lamella.errors import LamellaError
from lamella.models.dense_contract import DenseModel

IMAGES = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_probabilities_are_averaged():
    one, other = ColourModel(), PlaceInTileModel()
    both = Ensemble([one, other], "both")
    assert isinstance(both, DenseModel)
    assert torch.allclose(both.maps(IMAGES), (one.maps(IMAGES) + other.maps(IMAGES)) / 2)
    assert both.contract == one.contract


def test_its_fingerprint_is_that_of_its_members_in_any_order():
    one, other = ColourModel(), PlaceInTileModel()
    both = Ensemble([one, other], "both").fingerprint
    assert both == Ensemble([other, one], "both again").fingerprint
    assert len(both) == 16
    assert both != Ensemble([one, one], "both").fingerprint


def test_models_that_see_or_say_different_things_are_not_averaged():
    with pytest.raises(LamellaError, match="they differ in mpp, tile_px"):
        Ensemble([ColourModel(64), ColourModel(128, mpp=1.0)], "run")
