from __future__ import annotations

import numpy as np
from scipy.ndimage import uniform_filter

from lamella.dense.refining.guided import guided_probabilities
from lamella.dense.refining.settings import CrfSettings


def of_two(share: np.ndarray) -> np.ndarray:
    return np.stack([share, 1 - share]).astype(np.float32)


def test_a_picture_of_one_colour_guides_to_the_mean_of_means():
    share = np.random.default_rng(0).random((40, 50))
    found = guided_probabilities(of_two(share), np.full((40, 50, 3), 99, np.uint8), CrfSettings(guided_radius_px=3))
    wanted = uniform_filter(uniform_filter(share, 7), 7)
    np.testing.assert_allclose(found[0, 6:-6, 6:-6], wanted[6:-6, 6:-6], atol=1e-5)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-6)


def test_what_is_linear_in_the_colours_stays():
    picture = np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    share = 0.1 + 0.8 * picture[..., 1] / 255
    found = guided_probabilities(of_two(share), picture, CrfSettings(guided_epsilon=1e-7))
    np.testing.assert_allclose(found[0], share, atol=1e-3)


def test_noise_goes_and_the_edge_of_the_picture_stays():
    rng = np.random.default_rng(2)
    stained = np.mgrid[:60, :60][1] < 27
    picture = np.where(stained[..., None], (120, 60, 140), (235, 200, 220)).astype(np.uint8)
    share = np.clip(np.where(stained, 0.65, 0.35) + 0.3 * rng.normal(size=stained.shape), 0, 1)
    assert ((share > 0.5) == stained).mean() < 0.8
    found = guided_probabilities(of_two(share), picture, CrfSettings())
    assert ((found[0] > 0.5) == stained).mean() > 0.995


def test_what_nobody_looked_at_has_no_say():
    rng = np.random.default_rng(3)
    picture = rng.integers(0, 256, (30, 30, 3), dtype=np.uint8)
    maps = of_two(rng.random((30, 30)))
    maps[:, 5:12, 8:20] = 0
    other = picture.copy()
    other[5:12, 8:20] = 0
    one, two = (guided_probabilities(maps, one, CrfSettings(guided_radius_px=2)) for one in (picture, other))
    np.testing.assert_allclose(one, two, atol=1e-9)
    assert not one[:, 5:12, 8:20].any()
