from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.dense.tiny_models import ColourModel, PlaceInTileModel, ValueModel, noise

from lamella.dense.blending import BlendSettings
from lamella.dense.images import predict_image
from lamella.dense.voting import Voting
from lamella.errors import LamellaError


def test_a_tile_votes_for_its_likeliest_class_and_the_first_of_equal_ones():
    class Told(ColourModel):
        def maps(self, images):
            return torch.tensor([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4]])[..., None, None]

    votes = Voting(Told()).maps(torch.zeros(2, 3, 1, 1))
    assert votes[..., 0, 0].tolist() == [[0, 1, 0], [1, 0, 0]]


def test_overlapping_tiles_are_counted_with_the_windows_weights():
    """Against a sum over the tiles, one by one, on a raster of three overlapping tiles."""
    model, pixels = PlaceInTileModel(32), noise(32, 64)
    found = predict_image(Voting(model), pixels, BlendSettings(window="constant", overlap=0.5))
    votes, tiles = np.zeros((3, 32, 64)), np.zeros((32, 64))
    for x in (0, 16, 32):
        part = torch.from_numpy(pixels[:, x : x + 32]).permute(2, 0, 1)[None]
        winner = model.maps(part)[0].argmax(0).numpy()
        votes[:, :, x : x + 32] += winner == np.arange(3)[:, None, None]
        tiles[:, x : x + 32] += 1
    assert found == pytest.approx(votes / tiles, abs=1e-6)
    averaged = predict_image(model, pixels, BlendSettings(window="constant", overlap=0.5))
    assert (found.argmax(0) != averaged.argmax(0)).any(), "a majority may differ from the mean"


def test_values_have_no_classes_to_vote_for():
    with pytest.raises(LamellaError, match="only classes can be voted on"):
        Voting(ValueModel())


def test_votes_are_not_the_models_own_prediction():
    model = ColourModel()
    assert Voting(model).fingerprint != model.fingerprint
    assert Voting(model).fingerprint == Voting(ColourModel()).fingerprint
    assert Voting(model).contract == model.contract
