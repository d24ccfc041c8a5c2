from __future__ import annotations

import sys

import numpy as np
import pytest

from lamella.dense.refining.crf import LEAST_PROBABILITY, crf_probabilities
from lamella.dense.refining.lattice import Lattice
from lamella.dense.refining.settings import CrfSettings
from lamella.errors import LamellaError, MissingExtraError


def shares(channels: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    scores = np.exp(2 * np.random.default_rng(seed).normal(size=(channels, height, width)))
    return (scores / scores.sum(0)).astype(np.float32)


def two_colours(height: int = 40, width: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A picture of stained and pale, and where it is stained."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    stained = (x - width / 2 + 6 * np.sin(y / 6)) < 0
    colours = np.where(stained[..., None], (120, 60, 140), (235, 200, 220))
    return np.clip(colours + rng.normal(size=(height, width, 3)) * 6, 0, 255).astype(np.uint8), stained


def test_without_kernels_it_is_the_models_own_probability():
    maps = shares(4, 9, 11)
    found = crf_probabilities(maps, two_colours(9, 11)[0], CrfSettings(near_weight=0, alike_weight=0))
    wanted = np.maximum(maps, LEAST_PROBABILITY)
    np.testing.assert_allclose(found, wanted / wanted.sum(0), atol=1e-6)


def test_it_is_mean_field_as_the_paper_writes_it():
    """Against the update written out with whole matrices, all channels, in double precision."""
    maps, (picture, _) = shares(3, 8, 9), two_colours(8, 9)
    given = CrfSettings(iterations=4, alike_px=6, alike_weight=2, near_weight=1.5)
    y, x = np.mgrid[:8, :9]
    place = np.stack([x.ravel(), y.ravel()]).astype(np.float32)
    colours = picture.reshape(-1, 3).T / np.float32(given.alike_rgb)
    message = np.zeros((72, 72))
    for points, weight in (
        (place / np.float32(given.near_px), given.near_weight),
        (np.concatenate([place / np.float32(given.alike_px), colours]).astype(np.float32), given.alike_weight),
    ):
        lattice = Lattice.of(points)
        kernel = np.stack([lattice.filter(column) for column in np.eye(72, dtype=np.float32)], 1).astype(np.float64)
        norm = kernel.sum(1) ** -0.5
        message += weight * norm[:, None] * kernel * norm
    own = np.log(np.maximum(maps, LEAST_PROBABILITY)).reshape(3, -1).astype(np.float64)
    belief = np.exp(own) / np.exp(own).sum(0)
    for _ in range(given.iterations):
        belief = np.exp(own + belief @ message.T)
        belief /= belief.sum(0)
    found = crf_probabilities(maps, picture, given)
    np.testing.assert_allclose(found.reshape(3, -1), belief, atol=2e-5)


@pytest.mark.parametrize("channels", [2, 3, 5])
@pytest.mark.parametrize("given", [CrfSettings(), CrfSettings(alike_px=15, alike_rgb=8, alike_weight=8, iterations=10)])
def test_it_agrees_with_the_original_code(channels, given):
    pytest.importorskip("pydensecrf", reason="the extra `crf` is not installed")
    maps, (picture, _) = shares(channels, 70, 90), two_colours(70, 90)
    own = crf_probabilities(maps, picture, given)
    original = crf_probabilities(maps, picture, given.model_copy(update={"engine": "pydensecrf2"}))
    assert np.abs(own - original).mean() < 1e-5
    assert (own.argmax(0) == original.argmax(0)).mean() > 0.999


def test_labels_follow_colours():
    picture, stained = two_colours()
    rng = np.random.default_rng(1)
    doubtful = np.where(stained, 0.6, 0.4) + 0.25 * rng.normal(size=stained.shape)
    maps = np.stack([doubtful.clip(0.01, 0.99), 1 - doubtful.clip(0.01, 0.99)]).astype(np.float32)
    assert ((maps[0] > 0.5) == stained).mean() < 0.75
    found = crf_probabilities(maps, picture, CrfSettings())
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)
    assert ((found[0] > 0.5) == stained).mean() > 0.99


def test_a_windows_lattice_is_a_part_of_the_rasters():
    """Far from a window's edge nothing is left of it; a lattice laid anew in each window would show at its seams."""
    maps, (picture, _) = shares(3, 90, 100), two_colours(90, 100)
    given = CrfSettings(alike_px=3, near_px=2, alike_weight=3, iterations=2)
    whole = crf_probabilities(maps, picture, given)
    part = np.s_[11:, 17:]
    found = crf_probabilities(np.ascontiguousarray(maps[:, *part]), picture[part], given, (11, 17))
    assert np.abs(found - whole[:, *part])[:, 40:, 40:].max() < 1e-4
    anew = crf_probabilities(np.ascontiguousarray(maps[:, *part]), picture[part], given)
    assert np.abs(anew - whole[:, *part])[:, 40:, 40:].max() > 1e-2


def test_twice_is_the_same_to_the_bit_and_channels_have_no_order():
    maps, (picture, _) = shares(4, 30, 31), two_colours(30, 31)
    first = crf_probabilities(maps, picture, CrfSettings())
    assert (first == crf_probabilities(maps, picture, CrfSettings())).all()
    turned = crf_probabilities(maps[[2, 3, 1, 0]], picture, CrfSettings())
    np.testing.assert_allclose(turned, first[[2, 3, 1, 0]], atol=1e-5)


@pytest.mark.parametrize("engine", ["mean_field", "pydensecrf2"])
def test_what_nobody_looked_at_has_no_say(engine):
    if engine == "pydensecrf2":
        pytest.importorskip("pydensecrf", reason="the extra `crf` is not installed")
    maps, (picture, _) = shares(3, 30, 40), two_colours(30, 40)
    maps[:, 10:20, 5:25] = 0
    other = picture.copy()
    other[10:20, 5:25] = 7
    given = CrfSettings(engine=engine)
    one, two = crf_probabilities(maps, picture, given), crf_probabilities(maps, other, given)
    assert (one == two).all()
    assert (one[:, 10:20, 5:25] == 0).all()
    np.testing.assert_allclose(one.sum(0)[:10], 1, atol=1e-5)
    assert not crf_probabilities(np.zeros_like(maps), picture, given).any()


def test_a_missing_extra_and_a_hopeless_setting_are_told(monkeypatch):
    maps, (picture, _) = shares(2, 30, 30), two_colours(30, 30)
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    with pytest.raises(MissingExtraError, match=r"lamella\[crf\]"):
        crf_probabilities(maps, picture, CrfSettings(engine="pydensecrf2"))
    with pytest.raises(LamellaError, match="too small"):
        crf_probabilities(maps, picture, CrfSettings(alike_px=1e-4, alike_rgb=1e-4))
