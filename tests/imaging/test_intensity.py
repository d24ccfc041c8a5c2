"""Windows, percentiles and z-scores against their formulas; what has nothing to show is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamella.config import resolve
from lamella.errors import ConfigError, ImageError
from lamella.imaging.intensity import WINDOWS, IntensitySettings, to_bytes_rgb, to_network, video_bytes, volume_bytes
from lamella.imaging.measured import MedicalImage, Video, Volume, Window


def image(values, unit="stored", windows=()):
    return MedicalImage(np.asarray(values), unit, windows=windows, source="scan.dcm")


def volume(values, unit="stored", fourth="channel", windows=(), channels=()):
    values = np.asarray(values, np.float32)
    return Volume(values, unit, (1, 1, 1), np.eye(4), fourth, channels, windows=windows, source="scan.nii")


def test_the_windows_are_those_of_the_specification():
    found = {name: (window.level, window.width) for name, window in WINDOWS.items()}
    assert found == {"soft_tissue": (40, 400), "lung": (-600, 1500), "bone": (400, 1800), "brain": (40, 80),
                     "liver": (60, 150), "mediastinum": (50, 350)}  # fmt: skip


def test_bytes_are_shown_as_they_are():
    grey = np.array([[3, 200]], np.uint8)
    np.testing.assert_array_equal(to_bytes_rgb(image(grey, "byte")), np.stack([grey] * 3, axis=-1))
    colours = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    np.testing.assert_array_equal(to_bytes_rgb(image(colours, "byte")), colours)


@given(st.sampled_from(sorted(WINDOWS)), st.floats(-3000, 3000))
def test_a_window_is_linear_between_black_and_white(name, value):
    shown = to_bytes_rgb(image(np.array([[value, 5000.0]], np.float32), "HU"), IntensitySettings(window=name))[0, 0, 0]
    window = WINDOWS[name]
    exact = 255 * (np.float32(value) - (window.level - window.width / 2)) / window.width
    assert abs(float(shown) - min(max(float(exact), 0), 255)) <= 0.51


def test_hounsfield_units_need_a_window():
    hu = np.array([[-1000.0, 0, 1000]], np.float32)
    with pytest.raises(ImageError, match=r"scan\.dcm: it states no window.*soft_tissue"):
        to_bytes_rgb(image(hu, "HU"))
    by_file = to_bytes_rgb(image(hu, "HU", (Window(0, 2000), Window(40, 80))))
    np.testing.assert_array_equal(by_file[0, :, 0], [0, 128, 255])
    by_settings = to_bytes_rgb(image(hu, "HU", (Window(0, 2000),)), IntensitySettings(window=(0, 4000)))
    np.testing.assert_array_equal(by_settings[0, :, 0], [64, 128, 191])


def test_other_values_take_the_files_window_or_percentiles():
    values = np.arange(1001, dtype=np.float32).reshape(7, 143)
    by_file = to_bytes_rgb(image(values, windows=(Window(500, 200),)))
    assert (by_file[0, 0, 0], by_file[-1, -1, 0], by_file.reshape(-1, 3)[500, 0]) == (0, 255, 128)
    robust = to_bytes_rgb(image(values), IntensitySettings(percentiles=(10, 90))).reshape(-1, 3)[:, 0]
    assert (robust[100], robust[900], robust[500]) == (0, 255, 128)
    assert robust[99] == 0


def test_one_bright_pixel_does_not_darken_the_rest():
    values = np.random.default_rng(0).normal(100, 10, (64, 64)).astype(np.float32)
    values[0, 0] = 1e6
    assert to_bytes_rgb(image(values)).std() > 40
    assert to_bytes_rgb(image(values), IntensitySettings(name="minmax")).std() < 5


def test_a_small_bright_thing_on_black_is_seen():
    values = np.zeros((100, 100), np.float32)
    values[50, 50] = 7
    shown = to_bytes_rgb(image(values))
    assert (shown.max(), np.count_nonzero(shown[..., 0])) == (255, 1)


def test_a_network_gets_hounsfield_units_by_window_from_minus_1_to_1():
    hu = np.array([-1000, -160, 40, 140, 3000], np.float32).reshape(1, 1, 1, 5)
    files_own = volume(hu, "HU", windows=(Window(-600, 1500),))
    np.testing.assert_allclose(to_network(files_own).ravel(), [-1, -1, 0, 0.5, 1], atol=1e-6)
    lung = to_network(files_own, IntensitySettings(window="lung"))
    np.testing.assert_allclose(lung.ravel(), [(-1000 + 600) / 750, 440 / 750, 640 / 750, 740 / 750, 1], atol=1e-6)


def test_other_volumes_become_z_scores_over_the_foreground():
    """Air 0, tissue N(1000, 50): the air is left out of mean and deviation."""
    rng = np.random.default_rng(1)
    tissue = rng.normal(1000, 50, (2, 10, 30, 30))
    values = np.concatenate([np.zeros((2, 10, 30, 30)), tissue], axis=2)
    values[1] *= 7  # each channel by itself
    scaled = to_network(volume(values))
    for channel in scaled:
        foreground = channel[:, 30:]
        assert foreground.mean() == pytest.approx(0, abs=0.02)
        assert foreground.std() == pytest.approx(1, abs=0.02)
        assert channel[:, :30].max() < -15
    assert scaled.dtype == np.float32


def test_time_points_share_their_scale():
    values = np.random.default_rng(1).normal(1000, 50, (2, 4, 16, 16))
    values[1] += 500
    scaled = to_network(volume(values, fourth="time"))
    assert scaled[1].mean() - scaled[0].mean() > 1.5
    apart = to_network(volume(values))
    assert abs(apart[1].mean() - apart[0].mean()) < 0.1


@pytest.mark.parametrize("name", ["percentile", "minmax", "window"])
def test_the_other_ways_give_minus_1_to_1(name):
    values = np.random.default_rng(2).normal(0, 100, (2, 4, 8, 8))
    scaled = to_network(volume(values), IntensitySettings(name=name, window=(0, 50)))
    assert (scaled.min(), scaled.max()) == (-1, 1)


def test_volumes_and_videos_as_pictures():
    values = np.random.default_rng(2).normal(0, 100, (2, 3, 8, 8))
    values[1] *= 100
    shown = volume_bytes(volume(values))
    assert (shown.shape, shown.dtype) == ((2, 3, 8, 8), np.uint8)
    assert abs(int(shown[0].max()) - int(shown[1].max())) < 2
    film = Video(values[0][..., None].astype(np.float32), "stored")
    assert video_bytes(film).shape == (3, 8, 8, 3)
    colours = Video(np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3), "byte")
    assert video_bytes(colours) is colours.frames_TYXC


# ---- nothing to show ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["auto", "percentile", "zscore", "minmax"])
@pytest.mark.parametrize("unit", ["stored", "byte"])
def test_a_constant_image_is_an_error(name, unit):
    values = np.full((4, 4), 7, np.uint8 if unit == "byte" else np.float32)
    with pytest.raises(ImageError, match=r"scan\.dcm: all values are 7: there is nothing to see"):
        to_bytes_rgb(image(values, unit), IntensitySettings(name=name))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_an_error(value):
    values = np.array([[1.0, value]], np.float32)
    with pytest.raises(ImageError, match="NaN or infinite"):
        to_bytes_rgb(image(values))
    with pytest.raises(ImageError, match="NaN or infinite"):
        to_network(volume(values[None, None]))


def test_a_constant_channel_is_named():
    values = np.random.default_rng(2).normal(size=(2, 2, 4, 4))
    values[1] = 3
    with pytest.raises(ImageError, match="all values of channel T1 are 3"):
        to_network(volume(values, channels=("FLAIR", "T1")))


@pytest.mark.parametrize(
    "text", ["window=chest", "window=[40,0]", "percentiles=[99,1]", "percentiles=[1,101]", "name=best"]
)
def test_settings_are_checked(text):
    with pytest.raises(ConfigError):
        resolve(IntensitySettings, overrides=[text])


def test_settings_are_read():
    found = resolve(IntensitySettings, overrides=["window=[40,400]", "percentiles=[1,99]"]).config
    assert found.asked_window() == Window(40, 400)
    assert resolve(IntensitySettings, overrides=["window=lung"]).config.asked_window() == WINDOWS["lung"]
