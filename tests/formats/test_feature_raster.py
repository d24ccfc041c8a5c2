"""Features on disk: read bilinearly where they are asked for, and never where nothing was made."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from tests.formats.made_rasters import made_raster

from lamella.formats.feature_raster import FACTS_FILE, FEATURES_FILE, SEEN_FILE, FeatureRaster, FeatureRasterError


@pytest.fixture(scope="module")
def random_raster(tmp_path_factory: pytest.TempPathFactory) -> FeatureRaster:
    features = np.random.default_rng(0).normal(0, 1, (9, 7, 3)).astype(np.float16)
    return made_raster(tmp_path_factory.mktemp("raster"), features)


@given(st.lists(st.tuples(st.floats(0, 27.99), st.floats(0, 35.99)), min_size=1, max_size=20))
@settings(max_examples=50, deadline=None)
def test_between_tokens_it_is_what_scipy_interpolates(random_raster: FeatureRaster, places: list[Any]) -> None:
    x, y = np.array(places).T
    values, seen = random_raster.sample(x, y)
    at = np.stack([(y - 2) / 4, (x - 2) / 4])
    for feature in range(3):
        plane = np.asarray(random_raster.features[..., feature], np.float64)
        expected = ndimage.map_coordinates(plane, at, order=1, mode="nearest")
        np.testing.assert_allclose(values[:, feature], expected, atol=1e-5)
    assert seen.all()


def test_places_keep_their_shape_and_rows_are_not_columns(random_raster: FeatureRaster) -> None:
    """mistake: swapped rows and columns."""
    x, y = np.meshgrid(2 + 4 * np.arange(7), 2 + 4 * np.arange(9))
    values, seen = random_raster.sample(x, y)
    assert values.shape == (9, 7, 3)
    assert seen.shape == (9, 7)
    assert np.array_equal(values.astype(np.float16), random_raster.features)


def test_outside_the_slide_nothing_is_seen(random_raster: FeatureRaster) -> None:
    x = np.array([-0.01, 0.0, 14, 27.9, 28.0, 14, 14])
    y = np.array([18, 18, -0.01, 18, 18, 36.0, np.nextafter(36, 0)])
    values, seen = random_raster.sample(x, y)
    assert seen.tolist() == [False, True, False, True, False, False, True]
    assert not values[~seen].any()


def test_tokens_that_were_not_made_have_no_part(tmp_path: Path) -> None:
    features = np.full((4, 4, 2), 5.0)
    features[:, 2:] = 1000  # what lies in a hole of the file is of no matter
    seen = np.ones((4, 4), bool)
    seen[:, 2:] = False
    raster = made_raster(tmp_path, features, seen)
    values, there = raster.sample(np.array([6.0, 7.9, 8.1, 10.0]), np.full(4, 8.0))
    assert there.tolist() == [True, True, False, False]
    np.testing.assert_array_equal(values, [[5, 5], [5, 5], [0, 0], [0, 0]])


def test_beyond_the_outermost_tokens_nothing_is_stretched(tmp_path: Path) -> None:
    """A slide that is larger than its tokens: half a token beyond their middles they speak, and no further.

    mistake: clipped border patches stretched.
    """
    raster = made_raster(tmp_path, np.ones((2, 2, 1)), slide_px0=(100, 100), first_px0=(10.0, 10.0))
    _, seen = raster.sample(np.array([7.9, 8.0, 16.0, 16.1, 50.0]), np.full(5, 12.0))
    assert seen.tolist() == [False, True, True, False, False]


def test_one_token_is_a_raster(tmp_path: Path) -> None:
    values, seen = made_raster(tmp_path, np.full((1, 1, 2), 3.0)).sample(0.5, 3.5)
    assert values.tolist() == [3, 3]
    assert bool(seen)


def test_many_places_are_gathered_in_pieces(random_raster: FeatureRaster, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.uniform(0, 28, 100), rng.uniform(0, 36, 100)
    expected = random_raster.sample(x, y)[0]
    monkeypatch.setattr("lamella.formats.feature_raster._CHUNK", 22)  # 7 places of 3 numbers
    np.testing.assert_array_equal(random_raster.sample(x, y)[0], expected)


def test_another_process_opens_it_anew(random_raster: FeatureRaster) -> None:
    sent = pickle.dumps(random_raster)
    assert len(sent) < 1000  # the place, not the tokens
    again = pickle.loads(sent)  # noqa: S301 -- its own
    assert again.facts == random_raster.facts
    assert np.array_equal(again.features, random_raster.features)


def test_what_is_missing_or_damaged_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FeatureRasterError, match="no features here"):
        FeatureRaster.open(tmp_path / "none")
    folder = tmp_path / "raster"

    def fresh() -> None:
        made_raster(folder, np.ones((3, 4, 2)))

    fresh()
    np.save(folder / FEATURES_FILE, np.ones((3, 4, 1), np.float16))
    with pytest.raises(FeatureRasterError, match=r"float16 \(3, 4, 1\), and facts.json says float16 \(3, 4, 2\)"):
        FeatureRaster.open(folder)
    fresh()
    np.save(folder / SEEN_FILE, np.ones((4, 3), bool))
    with pytest.raises(FeatureRasterError, match=r"seen.npy"):
        FeatureRaster.open(folder)
    fresh()
    whole = (folder / FEATURES_FILE).read_bytes()
    (folder / FEATURES_FILE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FeatureRasterError, match="cannot be read"):
        FeatureRaster.open(folder)
    fresh()
    told = json.loads((folder / FACTS_FILE).read_text())
    (folder / FACTS_FILE).write_text(json.dumps({**told, "format": "another"}))
    with pytest.raises(FeatureRasterError, match="another format"):
        FeatureRaster.open(folder)
    (folder / FACTS_FILE).write_text("{")
    with pytest.raises(FeatureRasterError, match="cannot be read"):
        FeatureRaster.open(folder)
