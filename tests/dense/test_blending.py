from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lamella.config import ConfigError, resolve
from lamella.dense.blending import BlendSettings, starts, window, window_1d

WINDOWS = ("gaussian", "hann", "constant")


@given(st.integers(1, 3000), st.integers(1, 300), st.floats(0, 0.9))
def test_tiles_cover_an_axis_from_end_to_end_with_at_least_the_overlap(length, side, overlap):
    places = starts(length, side, overlap)
    assert places[0] == 0
    if length <= side:
        assert places.tolist() == [0]
        return
    assert places[-1] + side == length, "flush with the end"
    steps = np.diff(places)
    assert steps.min() >= 1
    assert steps.max() <= max(1, side * (1 - overlap) + 1e-6), "never less overlap than asked"
    fewest = -(-(length - side) // max(1, int(side * (1 - overlap) + 1e-9))) + 1
    assert len(places) == fewest
    assert steps.max() - steps.min() <= 1, "evenly spread: no pair overlaps by almost a whole tile"


def test_whole_steps_are_the_plain_grid():
    assert starts(512 + 3 * 384, 512, 0.25).tolist() == [0, 384, 768, 1152]


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("side", [1, 2, 7, 64, 1024])
def test_weights_are_positive_symmetric_and_largest_in_the_middle(name, side):
    line = window_1d(name, side)
    assert line == pytest.approx(line[::-1])
    assert (np.diff(line[: (side + 1) // 2]) >= 0).all()
    weights = window(name, side)
    assert weights.dtype == torch.float32
    assert float(weights.min()) > np.finfo(np.float32).tiny, "a pixel that only one tile's corner sees is divided by it"
    assert float(weights.max()) <= 1


def test_gaussian_has_a_sigma_of_an_eighth_of_the_side():
    line = window_1d("gaussian", 64)
    # At one sigma (8 px) from the centre a normal density has fallen to exp(-1/2).
    assert line[32 + 8] / line[32] == pytest.approx(np.exp(-0.5 * (8.5**2 - 0.5**2) / 8**2))


@pytest.mark.parametrize("wrong", ["overlap=1.0", "overlap=-0.1", "window=box", "tta=rotate"])
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ConfigError):
        resolve(BlendSettings, overrides=[wrong])
