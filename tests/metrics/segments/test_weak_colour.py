"""Colour learnt from labels of whole images: it finds classes without a mask, and says when it cannot."""

from __future__ import annotations

import numpy as np
import pytest

from lamella.metrics.segments.weak_colour import fit_weak_colour_rule, sample_weak_colours

RED, GREEN, PINK, WHITE = (190, 60, 90), (80, 150, 70), (225, 170, 190), (250, 250, 250)


def image(seed: int, *colours: tuple[int, int, int]) -> np.ndarray:
    """Bands of colours with noise, 40 px high."""
    rng = np.random.default_rng(seed)
    bands = np.concatenate([np.broadcast_to(colour, (40, 20, 3)) for colour in colours], axis=1)
    return (bands + rng.normal(0, 6, bands.shape)).clip(0, 255).astype(np.uint8)


def samples(*images: tuple[np.ndarray, tuple[int, ...]]):
    return [sample_weak_colours(pixels, labels, 300, seed=row) for row, (pixels, labels) in enumerate(images)]


def test_two_classes_are_told_apart_where_every_image_also_holds_pink_and_glass():
    shown = samples(
        (image(0, RED, PINK, WHITE), (1, 0)),
        (image(1, RED, PINK, WHITE), (1, 0)),
        (image(2, GREEN, PINK, WHITE), (0, 1)),
        (image(3, GREEN, PINK, WHITE), (0, 1)),
        (image(4, PINK, PINK, WHITE), (0, 0)),
        (image(5, PINK, WHITE, WHITE), (0, 0)),
        (image(6, RED, GREEN, PINK), (1, 1)),
    )
    rule = fit_weak_colour_rule(shown, 2)
    called = rule.predict(image(9, RED, GREEN, PINK, WHITE))
    middles = [called[10:30, 20 * band + 6 : 20 * band + 14] for band in range(4)]
    assert [np.bincount(each.ravel(), minlength=3).argmax() for each in middles] == [0, 1, 2, 2]
    assert "tells the training images' labels with an AUC of" in rule.told


def test_without_a_background_every_pixel_is_the_likelier_class():
    shown = samples((image(0, RED, WHITE), (1, 0)), (image(1, GREEN, WHITE), (0, 1)))
    called = fit_weak_colour_rule(shown, None).predict(image(2, RED, GREEN, WHITE))
    assert set(np.unique(called)) == {0, 1}
    assert (called[10:30, 5:15] == 0).mean() > 0.9
    assert (called[10:30, 25:35] == 1).mean() > 0.9


@pytest.mark.parametrize("labels", [[(1, 0), (1, 1)], [(0, 0), (0, 1)]], ids=["in all", "in none"])
def test_a_class_in_all_images_or_in_none_cannot_be_learnt(labels):
    shown = samples(*((image(row, RED, GREEN), each) for row, each in enumerate(labels)))
    assert fit_weak_colour_rule(shown, 2) is None


def test_one_class_in_every_image_is_what_is_not_glass():
    shown = samples(*((image(row, RED, WHITE), (1,)) for row in range(2)))
    called = fit_weak_colour_rule(shown, 1).predict(image(5, PINK, WHITE))
    assert (called[:, :20] == 0).all()
    assert (called[:, 20:] == 1).mean() > 0.9


def test_nothing_shown_is_no_rule():
    assert fit_weak_colour_rule([], 1) is None
