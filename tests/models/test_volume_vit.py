import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lamella.models.volume_vit import (
    FilmViTSettings,
    NormaliseBytes,
    VolumeViTSettings,
    film_spacing,
    grid_of,
    patchify3d,
    token_places,
)

SIDE = st.integers(1, 4)
SIDES = st.tuples(SIDE, SIDE, SIDE)


@settings(deadline=None, max_examples=30)
@given(SIDES, SIDES, st.integers(1, 3))
def test_patches_hold_the_voxels_of_their_block(grid, patch, channels):
    size = [count * side for count, side in zip(grid, patch, strict=True)]
    voxels = torch.arange(2 * channels * np.prod(size), dtype=torch.int64).reshape(2, channels, *size)
    patches = patchify3d(voxels, patch)
    assert patches.shape == (2, np.prod(grid), channels * np.prod(patch))
    number = 0
    for z in range(0, size[0], patch[0]):
        for y in range(0, size[1], patch[1]):
            for x in range(0, size[2], patch[2]):
                block = voxels[:, :, z : z + patch[0], y : y + patch[1], x : x + patch[2]]
                torch.testing.assert_close(patches[:, number], block.flatten(1))
                number += 1


@pytest.mark.parametrize("size", [(3, 4, 4), (4, 4, 6), (0, 4, 4)])
def test_sizes_that_are_not_whole_patches_are_refused(size):
    with pytest.raises(ValueError, match="whole patches of 2 x 4 x 4"):
        grid_of(size, (2, 4, 4))


@settings(deadline=None, max_examples=30)
@given(SIDES, SIDES, st.tuples(*[st.floats(0.3, 7)] * 3))
def test_places_are_the_patches_centres_in_millimetres(grid, patch, spacing_mm):
    places = token_places(grid, patch, spacing_mm).numpy()
    index_zyx = np.stack(np.unravel_index(np.arange(np.prod(grid)), grid), -1)
    length_mm = np.array(patch) * spacing_mm
    expected_zyx = (index_zyx + 0.5) * length_mm - np.array(grid) * length_mm / 2
    np.testing.assert_allclose(places, expected_zyx[:, ::-1], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(places.mean(0), 0, atol=1e-4)


def test_each_volume_of_a_batch_may_have_its_own_spacing():
    spacing = torch.tensor([[2.0, 1.0, 1.0], [6.5, 0.7, 0.7]])
    together = token_places((2, 3, 4), (8, 16, 16), spacing)
    for own, places in zip(spacing.tolist(), together, strict=True):
        torch.testing.assert_close(places, token_places((2, 3, 4), (8, 16, 16), own))


def test_a_tubelet_is_as_long_as_it_is_wide():
    places = token_places((3, 3, 3), (2, 16, 16), film_spacing((2, 16, 16))).reshape(3, 3, 3, 3)
    steps = [places[1, 0, 0] - places[0, 0, 0], places[0, 1, 0] - places[0, 0, 0], places[0, 0, 1] - places[0, 0, 0]]
    torch.testing.assert_close(torch.stack(steps), 16 * torch.eye(3).flip(1))  # along t (z), y and x


def test_bytes_are_normalised_by_channel():
    mean, std = (0.2, 0.4, 0.6), (0.1, 0.2, 0.3)
    film = torch.stack(
        [torch.full((2, 4, 4), round(255 * (m + s)), dtype=torch.uint8) for m, s in zip(mean, std, strict=True)]
    )
    patches = NormaliseBytes(mean, std, (2, 4, 4))(patchify3d(film[None], (2, 4, 4)))
    torch.testing.assert_close(patches, torch.ones_like(patches), atol=0.03, rtol=0)  # a grey level is 0.02 to 0.04


def test_settings_know_the_size_of_a_patch_and_refuse_what_three_coordinates_do_not_divide():
    assert VolumeViTSettings(channels=4).patch_values == 4 * 8 * 16 * 16
    assert FilmViTSettings().patch_values == 3 * 2 * 16 * 16
    with pytest.raises(ValidationError, match="multiple of 6"):
        VolumeViTSettings(dim=64, heads=2)
    with pytest.raises(ValidationError):
        FilmViTSettings(channels=1)
