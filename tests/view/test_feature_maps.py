"""Patch components as colours: known directions are found, and what position alone explains is told."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

from lamella.errors import LamellaError
from lamella.view.feature_maps import components, patch_colours, variance_by_place


def test_components_are_those_of_an_independent_pca() -> None:
    features = np.random.default_rng(0).normal(size=(200, 8)) * np.arange(8, 0, -1)
    scores, explained = components(features)
    pca = PCA(3).fit(features)
    np.testing.assert_allclose(explained, pca.explained_variance_ratio_)
    np.testing.assert_allclose(np.abs(scores), np.abs(pca.transform(features)), atol=1e-9)


def test_the_sign_is_fixed() -> None:
    """The largest loading is positive, however a solver orients its vectors: 10 (.6, -.8, 0, 0) scores -10."""
    rng = np.random.default_rng(0)
    steps = rng.choice([-10.0, 10.0], 100)
    features = steps[:, None] * np.array([0.6, -0.8, 0, 0]) + rng.normal(0, 0.1, (100, 4))
    scores, _ = components(features)
    assert np.corrcoef(scores[:, 0], -steps)[0, 1] > 0.99
    assert np.corrcoef(components(-features)[0][:, 0], steps)[0, 1] > 0.99


def test_colours_are_one_mapping_for_all_images_of_any_grid() -> None:
    rng = np.random.default_rng(1)
    kinds = rng.normal(0, 5, (3, 12))
    maps = [rng.integers(0, 3, grid) for grid in ((4, 5), (2, 3, 6))]
    found = patch_colours([kinds[labels] + rng.normal(0, 0.1, (*labels.shape, 12)) for labels in maps])
    assert [colours.shape for colours in found.colours] == [(4, 5, 3), (2, 3, 6, 3)]
    means = [[colours[labels == kind].mean(axis=0) for kind in range(3)] for colours, labels in
             zip(found.colours, maps, strict=True)]  # fmt: skip
    np.testing.assert_allclose(np.array(means)[0, :, :2], np.array(means)[1, :, :2], atol=0.1)
    assert sum(found.explained) <= 1
    assert sum(found.explained[:2]) > 0.95  # three kinds lie in a plane
    assert found.by_place is None
    assert "%" in found.text


def test_foreground_is_the_part_that_the_edges_lack() -> None:
    rng = np.random.default_rng(2)
    disc = np.zeros((8, 8), bool)
    disc[2:6, 2:6] = True
    for sign in (1, -1):  # whichever way the first component points
        tokens = rng.normal(0, 0.1, (8, 8, 6))
        tokens[disc] += sign * np.array([4, 0, 0, 0, 0, 0])
        tokens[disc] += rng.normal(0, 1, (16, 6)) * np.array([0, 1, 1, 1, 0, 0])
        found = patch_colours([tokens, tokens + rng.normal(0, 0.01, tokens.shape)], foreground=True)
        np.testing.assert_array_equal(found.foreground[0], disc)
        assert not found.colours[0][~disc].any()


def test_variance_by_place_knows_position_from_noise() -> None:
    rng = np.random.default_rng(3)
    place = rng.normal(size=(50, 8))
    noise = rng.normal(size=(4, 50, 8))
    assert variance_by_place(list(place + 0 * noise)) == pytest.approx(1)
    assert variance_by_place(list(noise)) < 0.1
    assert variance_by_place(list(place + noise)) == pytest.approx(0.5, abs=0.1)
    assert variance_by_place([place]) is None


def test_tokens_that_are_all_alike_are_refused() -> None:
    with pytest.raises(LamellaError, match="all tokens are alike"):
        patch_colours([np.full((4, 4, 8), 3.0), np.full((4, 4, 8), 3.0)])
    with pytest.raises(LamellaError, match="3 tokens of 8 numbers"):
        patch_colours([np.random.default_rng(0).normal(size=(1, 3, 8))])
