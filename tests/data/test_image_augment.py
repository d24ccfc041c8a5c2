from __future__ import annotations

import numpy as np
import pytest

from lamella.data.image_augment import NoColour, PhotometricColour, StainColour, recoloured

STILL = {"brightness": 0, "contrast": 0, "gamma": 0, "saturation": 0, "hue": 0, "blur": 0}


def picture() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.kron(rng.integers(40, 200, (8, 8, 3)), np.ones((4, 4, 1))).astype(np.uint8)


def changed(seed: int = 0, **amounts: float) -> np.ndarray:
    return recoloured(picture(), PhotometricColour(**{**STILL, **amounts}), np.random.default_rng(seed))


def luma(pixels: np.ndarray) -> np.ndarray:
    return pixels @ np.array([0.299, 0.587, 0.114])


def test_nothing_asked_changes_nothing() -> None:
    assert np.array_equal(changed(), picture())
    assert recoloured(picture(), NoColour(), np.random.default_rng(0)).tolist() == picture().tolist()


@pytest.mark.parametrize("settings", [PhotometricColour(grey=0.3), StainColour()])
def test_a_draw_belongs_to_its_generator(settings: PhotometricColour | StainColour) -> None:
    one, same, other = (recoloured(picture(), settings, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one.shape == picture().shape
    assert one.dtype == np.uint8
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_brightness_scales_all_values_by_one_factor() -> None:
    ratios = changed(3, brightness=0.2) / picture()
    assert ratios.std() < 0.01
    assert 0.8 <= ratios.mean() <= 1.2
    assert abs(ratios.mean() - 1) > 0.01


def test_contrast_keeps_the_mean_grey_and_gamma_keeps_the_ends() -> None:
    contrasted = changed(1, contrast=0.3)
    assert luma(contrasted).mean() == pytest.approx(luma(picture()).mean(), abs=1.5)
    assert abs(luma(contrasted).std() / luma(picture()).std() - 1) > 0.02
    ends = np.zeros((2, 2, 3), np.uint8)
    ends[0] = 255
    assert np.array_equal(
        recoloured(ends, PhotometricColour(**{**STILL, "gamma": 0.3}), np.random.default_rng(0)), ends
    )


@pytest.mark.parametrize("amounts", [{"saturation": 0.5}, {"hue": 0.1}])
def test_colour_changes_keep_luma_and_leave_grey_alone(amounts: dict[str, float]) -> None:
    coloured = changed(5, **amounts)
    assert not np.array_equal(coloured, picture())
    assert np.abs(luma(coloured) - luma(picture())).mean() < 3  # saturated values are cut at 255
    grey = np.repeat(picture()[..., :1], 3, axis=2)
    still = recoloured(grey, PhotometricColour(**{**STILL, **amounts}), np.random.default_rng(5))
    assert np.abs(still.astype(int) - grey).max() <= 1


def test_a_grey_view_has_three_equal_channels() -> None:
    grey = changed(grey=1.0)
    assert np.ptp(grey.astype(int), axis=2).max() <= 1
    assert np.abs(luma(grey) - luma(picture())).max() < 2


def test_blur_smooths() -> None:
    blurred = changed(blur=1.0, blur_px=(1.0, 2.0))  # type: ignore[arg-type]
    assert np.abs(np.diff(blurred.astype(int), axis=0)).max() < np.abs(np.diff(picture().astype(int), axis=0)).max()
    assert blurred.mean() == pytest.approx(picture().mean(), abs=1.5)
