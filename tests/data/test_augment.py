from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import hed2rgb, rgb2hed
from skimage.color import rgb_from_hed as skimage_stains

from lamella.data.augment import RGB_FROM_STAINS, StainChange, StainSettings, Turn

ALL_VALUES = np.stack(np.meshgrid(*[np.arange(0, 256, 15)] * 3, indexing="ij"), -1).astype(np.uint8)


def tissue(seed: int = 0, size: int = 24) -> np.ndarray:
    """Pixels of plausible haematoxylin and eosin amounts."""
    amounts = np.random.default_rng(seed).uniform(0.05, 0.9, (size, size, 3)) * [1.0, 1.0, 0.2]
    return np.round(255 * np.exp(-amounts @ RGB_FROM_STAINS)).astype(np.uint8)


def test_the_stain_matrix_is_that_of_ruifrok_and_johnston() -> None:
    assert np.allclose(RGB_FROM_STAINS, skimage_stains)


def test_no_change_changes_no_value() -> None:
    same = StainChange.of_stains(np.ones(3), np.zeros(3))
    assert np.array_equal(same.apply(ALL_VALUES), ALL_VALUES)


@pytest.mark.parametrize("scales", [(1.3, 1.0, 1.0), (1.0, 0.7, 1.0), (0.8, 1.2, 1.1)])
def test_scaling_stains_agrees_with_scikit_image(scales: tuple[float, float, float]) -> None:
    pixels = tissue()
    ours = StainChange.of_stains(np.array(scales), np.zeros(3)).apply(pixels)
    stains = rgb2hed(pixels)
    inside = (stains > 1e-4).all(axis=-1)  # scikit-image cuts negative amounts off; compare where it did not
    theirs = np.round(255 * hed2rgb(stains * scales))
    assert inside.mean() > 0.5
    assert np.abs(ours.astype(int) - theirs)[inside].max() <= 2


def test_scaling_moves_only_its_own_stain() -> None:
    pixels = tissue(1)
    before = rgb2hed(pixels)
    after = rgb2hed(StainChange.of_stains(np.array([1.25, 1.0, 1.0]), np.zeros(3)).apply(pixels))
    certain = (before > 0.01).all(axis=-1)  # away from the cut at zero
    assert np.median(after[certain][:, 0] / before[certain][:, 0]) == pytest.approx(1.25, abs=0.02)
    assert np.median(after[certain][:, 1] / before[certain][:, 1]) == pytest.approx(1.0, abs=0.02)


def test_gamma_and_brightness_follow_their_formula() -> None:
    grey = np.full((1, 1, 3), 127, np.uint8)
    changed = StainChange.of_stains(np.ones(3), np.zeros(3), gamma=1.2, brightness=1.1).apply(grey)
    assert changed.ravel().tolist() == [round(256 * (128 / 256) ** 1.2 * 1.1 - 1)] * 3


def test_stain_leaves_glass_white_and_a_shift_tints_it() -> None:
    glass = np.full((2, 2, 3), 255, np.uint8)
    assert (StainChange.of_stains(np.array([1.4, 0.7, 1.2]), np.zeros(3)).apply(glass) == 255).all()
    assert (StainChange.of_stains(np.ones(3), np.array([0.1, 0.0, 0.0])).apply(glass)[0, 0] < 250).all()


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_strong_changes_stay_within_a_byte(seed: int) -> None:
    strong = StainSettings(scale=0.9, shift=1.0, gamma=0.9, brightness=0.9)
    rng = np.random.default_rng(seed)
    change = StainChange.drawn(strong, rng)
    changed = change.apply(ALL_VALUES)
    exact = 256 * np.exp(np.log((ALL_VALUES + 1.0) / 256) @ change.matrix - change.offset) - 1
    assert np.abs(changed - exact.clip(0, 255)).max() <= 0.51  # nothing wrapped around


def test_draws_are_repeatable_and_of_zero_strength_are_nothing() -> None:
    first, again, other = (StainChange.drawn(StainSettings(), np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first.matrix, again.matrix)
    assert not np.allclose(first.matrix, other.matrix)
    none = StainSettings(scale=0, shift=0, gamma=0, brightness=0)
    assert np.array_equal(StainChange.drawn(none, np.random.default_rng(0)).apply(ALL_VALUES), ALL_VALUES)


@pytest.mark.parametrize(
    ("drawn_per", "streams"), [("sample", [0, 0, 0, 0]), ("role", [0, 1, 1, 1]), ("view", [0, 1, 2, 3])]
)
def test_who_shares_a_draw(drawn_per: str, streams: list[int]) -> None:
    assert StainSettings(drawn_per=drawn_per).streams(3) == streams


TURNS = [Turn(mirror, quarters) for mirror in (False, True) for quarters in range(4)]


@pytest.mark.parametrize("turn", TURNS)
def test_boxes_turn_with_the_pixels(turn: Turn) -> None:
    """The content of a box is found at the turned box, itself turned."""
    side = 12
    pixels = np.arange(side * side * 3).reshape(side, side, 3)
    box = np.array([[2, 3, 7, 11]])
    inside = pixels[3:11, 2:7]
    x0, y0, x1, y1 = turn.boxes(box, side)[0]
    assert np.array_equal(turn.image(pixels)[y0:y1, x0:x1], turn.image(inside))


def test_a_stack_of_views_turns_like_each_view() -> None:
    views = np.arange(2 * 4 * 4 * 3).reshape(2, 4, 4, 3)
    turn = Turn(True, 1)
    assert np.array_equal(turn.image(views), np.stack([turn.image(view) for view in views]))


def test_all_eight_orientations_are_drawn_and_differ() -> None:
    drawn = {Turn.drawn(np.random.default_rng(seed)) for seed in range(100)}
    assert drawn == set(TURNS)
    pixels = np.arange(27).reshape(3, 3, 3)
    assert len({turn.image(pixels).tobytes() for turn in TURNS}) == 8
