"""What the simple baselines read: tokens under each place, standardised over the slide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.verbs.expression_stages.tiny_expected import place_raster

from lamella.formats.feature_raster import FeatureRaster
from lamella.geometry import Frame
from lamella.verbs.expression_stages import evaluation_features
from lamella.verbs.expression_stages.evaluation_features import PlaceFeatures

FRAME = Frame(200, 160, 0.5, 0.5)
TOKEN_UM = 2.0


@pytest.fixture
def raster(tmp_path: Path) -> FeatureRaster:
    return place_raster(tmp_path / "raster", FRAME, TOKEN_UM)


def inner_places(count: int = 40) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([rng.uniform(40, 160, count), rng.uniform(40, 120, count)], axis=1)


@pytest.mark.parametrize(("size_um", "shape"), [(2.0, "bin"), (20.0, "bin"), (20.0, "spot")])
def test_of_a_raster_that_rises_evenly_the_mean_under_a_place_is_its_centre(
    raster: FeatureRaster, size_um: float, shape: str
) -> None:
    """Mistakes of the source: swapped rows and columns, misregistered crops."""
    px0 = inner_places()
    features = PlaceFeatures([raster], px0, size_um, shape, (0.5, 0.5))  # type: ignore[arg-type]
    found = np.concatenate([x for _, x, _ in features.parts()])
    expected = (px0 - px0.mean(0)) / px0.std(0)
    np.testing.assert_allclose(found[:, :2], expected, atol=0.02)
    assert not found[:, 2:].any(), "what is constant says nothing"


def test_texture_is_the_deviation_between_the_tokens_of_a_place(tmp_path: Path) -> None:
    raster = place_raster(tmp_path / "raster", FRAME, TOKEN_UM)
    stripes = np.array(raster.features)
    stripes[:, :24, 1] = np.tile([100.0, 100.5], 12)  # columns of tokens differ on the left half
    stripes[:, 24:, 1] = 100.25
    raster = FeatureRaster(raster.folder, raster.facts, stripes, raster.seen)
    px0 = np.array([[52.0, 80.0], [56.0, 80.0], [152.0, 80.0], [156.0, 80.0]])
    plain = PlaceFeatures([raster], px0, 12, "bin", (0.5, 0.5))
    texture = PlaceFeatures([raster], px0, 12, "bin", (0.5, 0.5), texture=True)
    assert (plain.width, texture.width) == (4, 8)
    raw = texture._sampled(px0)[0]
    np.testing.assert_allclose(raw[:, 5], [0.25, 0.25, 0, 0], atol=0.01)
    np.testing.assert_allclose(raw[:, :4], plain._sampled(px0)[0])
    # One token a place: nothing differs within it.
    assert PlaceFeatures([raster], px0, 2, "bin", (0.5, 0.5), texture=True).width == 4


def test_pixels_that_are_not_square_keep_a_disk_round(tmp_path: Path) -> None:
    raster = place_raster(tmp_path / "raster", Frame(200, 160, 0.5, 1.0), TOKEN_UM)
    features = PlaceFeatures([raster], inner_places(), 16, "spot", (0.5, 1.0))
    x_um, y_um = (features._offsets[0] * (0.5, 1.0)).T
    assert np.hypot(x_um, y_um).max() <= 8
    assert x_um.max() == pytest.approx(y_um.max())


def test_places_off_the_slide_are_not_seen_and_do_not_move_the_others(raster: FeatureRaster) -> None:
    inside = inner_places()
    both = np.concatenate([inside, [[5000.0, 10.0]]])
    alone, more = (PlaceFeatures([raster], px0, 4, "bin", (0.5, 0.5)) for px0 in (inside, both))
    assert (alone.unseen, more.unseen) == (0, 1)
    x, seen = more.of(np.arange(len(both)))
    assert list(np.flatnonzero(~seen)) == [len(inside)]
    assert not x[-1].any()
    np.testing.assert_allclose(x[:-1], alone.of(np.arange(len(inside)))[0], rtol=1e-6)


def test_large_slides_are_read_in_pieces_to_the_same_numbers(
    raster: FeatureRaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    px0 = inner_places(100)
    whole = PlaceFeatures([raster, raster], px0, 8, "spot", (0.5, 0.5))
    expected = whole.of(np.arange(100))[0]
    monkeypatch.setattr(evaluation_features, "_KEPT_BYTES", 0)
    monkeypatch.setattr(evaluation_features, "_ROWS", 7)
    pieces = PlaceFeatures([raster, raster], px0, 8, "spot", (0.5, 0.5))
    np.testing.assert_allclose(np.concatenate([x for _, x, _ in pieces.parts()]), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(pieces.of(np.array([3, 90]))[0], expected[[3, 90]], rtol=1e-4, atol=1e-5)
    assert pieces._kept is None
