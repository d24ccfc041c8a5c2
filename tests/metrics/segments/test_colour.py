from __future__ import annotations

import numpy as np

from lamella.formats.label_values import NOT_LABELLED
from lamella.metrics.segments.colour import fit_colour_rule, sample_colours


def image(seed: int, *, noise: float = 6.0) -> tuple[np.ndarray, np.ndarray]:
    """Purple glands on pink, each pixel a little off."""
    rng = np.random.default_rng(seed)
    channels = np.zeros((60, 60), np.uint8)
    channels[20:50, 10:45] = 1
    colours = np.array([(225, 170, 200), (130, 70, 150)], np.float64)[channels]
    return (colours + rng.normal(0, noise, colours.shape)).clip(0, 255).astype(np.uint8), channels


def rule(images):
    return fit_colour_rule([sample_colours(*each, 500, seed=1) for each in images], 2, 0)


def test_colours_that_tell_the_class_are_learned_and_found_again():
    found = rule([image(0), image(1)])
    pixels, channels = image(2)
    assert (found.predict(pixels) == channels).mean() > 0.99
    assert found.window_px == 1


def test_where_single_pixels_are_noisy_the_mean_around_them_is_taken():
    found = rule([image(seed, noise=120) for seed in range(3)])
    pixels, channels = image(9, noise=120)
    assert found.window_px > 1
    assert "mean colour of 9 x 9 px" in found.told
    assert (found.predict(pixels) == channels).mean() > 0.9


def test_what_is_not_labelled_teaches_nothing():
    pixels, channels = image(0)
    hidden = channels.copy()
    hidden[20:50, 10:45] = NOT_LABELLED
    assert rule([(pixels, hidden)]) is None  # one class is left
    assert rule([(pixels, np.full_like(channels, NOT_LABELLED))]) is None
    assert rule([]) is None


def test_where_colours_hardly_tell_the_rule_is_no_worse_than_calling_everything_tissue():
    """The most likely class everywhere would be the background, with a Dice of 0: too easy a baseline to beat."""
    rng = np.random.default_rng(0)
    channels = (rng.random((80, 80)) < 0.35).astype(np.uint8)
    pixels = (150 + 6 * channels[..., None] + rng.normal(0, 40, (80, 80, 3))).clip(0, 255).astype(np.uint8)
    called = rule([(pixels, channels)]).predict(pixels)
    both, own = (called & channels).sum(), channels.sum()
    assert 2 * both / (own + called.sum()) > 2 * own / (own + channels.size) - 0.02
