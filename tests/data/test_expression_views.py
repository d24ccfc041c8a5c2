"""Views of all scales lie where the bins lie: proven on pictures whose colour is a function of the place.

Red is linear in x and green in y, so what a token says can be turned back into the place that it looks at.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.formats.made_rasters import made_raster

from lamella.data.expression_views import SlideViews, tokens_of_view
from lamella.dense.feature_rasters import RasterWork, write_feature_raster
from lamella.dense.feature_windows import level_for
from lamella.formats.feature_raster import FeatureRaster
from lamella.geometry import BinGrid
from lamella.models.expression.contract import ViewShape
from lamella.models.pyramids.colour import ColourPyramid
from lamella.slides.slide import open_slide
from lamella.slides.tissue_map import TissueMap

RED, GREEN = 0, 1  # of the colour backbone's numbers
SIDE_PX = 510  # two pixels for each of 255 levels


def chip(bin_um: float, mpp: float, *, mirrored: bool, turn_deg: float) -> BinGrid:
    """A grid whose bin (0, 0) lies anywhere, turned, and seen from below if mirrored."""
    step, turn = bin_um / mpp, math.radians(turn_deg)
    column = (step * math.cos(turn), step * math.sin(turn))
    row = (-column[1], column[0])
    if mirrored:
        column = (-column[0], -column[1])
    return BinGrid((330.0, 70.0) if mirrored else (60.0, 70.0), row, column, bin_um)


def analytic_rasters(folder: Path, mpp: float, tokens_um: tuple[float, ...]) -> tuple[FeatureRaster, ...]:
    """Red is half the column, green half the row, of a picture that the colour backbone is shown."""
    row, column = np.mgrid[:SIDE_PX, :SIDE_PX]
    picture = np.stack([column // 2, row // 2, np.full_like(row, 120)], axis=-1).astype(np.uint8)
    path = folder / f"analytic{mpp}.tif"
    tifffile.imwrite(path, picture, photometric="rgb", tile=(128, 128))
    backbone, rasters = ColourPyramid(), []
    with open_slide(path, mpp=mpp) as slide:
        tissue = TissueMap(np.ones((51, 51), bool), slide.frame.resized(51, 51))
        for token_um in tokens_um:
            work = RasterWork(backbone, "colour", level_for(backbone, token_um, slide.mpp), margin_um=1)
            rasters.append(write_feature_raster(folder / f"{mpp}_{token_um}", slide, tissue, work))
    return tuple(rasters)


Analytic = Callable[..., tuple[FeatureRaster, ...]]


@pytest.fixture(scope="module")
def analytic(tmp_path_factory: pytest.TempPathFactory) -> Analytic:
    """analytic(mpp, tokens_um) -> rasters, made once."""
    return functools.cache(functools.partial(analytic_rasters, tmp_path_factory.mktemp("analytic")))


@pytest.mark.parametrize(("mirrored", "turn_deg"), [(False, 0.0), (True, 1.2), (False, -1.0), (True, 0.0)])
@pytest.mark.parametrize(
    ("mpp", "bin_um", "tokens_um", "tokens"),
    [
        (0.5, 2.0, (2.0, 8.0, 32.0), (32, 12, 4)),
        (2.0, 8.0, (8.0, 32.0, 128.0), (32, 12, 4)),  # 2, 8, 32 and 128 um all have their turn
        (0.275, 2.0, (2.0, 8.0), (24, 8)),  # the source's scan: tokens are no whole pixels
    ],
)
def test_all_scales_and_the_labels_agree_within_half_a_bin(
    analytic: Analytic,
    mpp: float,
    bin_um: float,
    tokens_um: tuple[float, ...],
    tokens: tuple[int, ...],
    mirrored: bool,
    turn_deg: float,
) -> None:
    """The label of a bin is at `grid.place_px0`; every view's colour says that it looks there too.

    mistakes: misregistered crops; rows and columns swapped.
    """
    rasters = analytic(mpp, tokens_um)
    width = ColourPyramid().widths[0]
    shapes = tuple(ViewShape(width, *each) for each in zip((bin_um, *tokens_um[1:]), tokens, strict=True))
    grid = chip(bin_um, mpp, mirrored=mirrored, turn_deg=turn_deg)
    assert grid.mirrored == mirrored
    middle = grid.bin_at(SIDE_PX / 2 + 3.3, SIDE_PX / 2 - 5.1)
    features, seen = SlideViews(rasters, shapes, "none").at(grid, *map(float, middle))
    for shape, each_Dtt, seen_tt in zip(shapes, features, seen, strict=True):
        along = (np.arange(shape.tokens) - (shape.tokens - 1) / 2) * shape.token_um / bin_um
        row, col = middle[0] + along[:, None], middle[1] + along[None, :]
        # Pixels 2 k and 2 k + 1 have colour k of 255, and the middle of the two is at 2 k + 1.
        looked_at = grid.bin_at(*(510 * each_Dtt[channel] + 1 for channel in (RED, GREEN)))
        assert seen_tt.all()
        for found, label in zip(looked_at, np.broadcast_arrays(row, col), strict=True):
            assert np.abs(found - label).max() < 0.5
            assert abs((found - label).mean()) < 0.05


def test_a_field_that_leaves_the_slide_is_not_seen_there_and_not_stretched(analytic: Analytic) -> None:
    """mistake: clipped border patches stretched."""
    raster, *_ = analytic(0.5, (2.0, 8.0, 32.0))
    grid = BinGrid.upright(2.0, 0.5, 0.5)
    views = SlideViews((raster,), (ViewShape(raster.facts.width, 2.0, 16),), "none")
    (features,), (seen,) = views.at(grid, -0.5, 31.5)  # half of it above the slide
    assert not seen[:8].any()
    assert seen[8:].all()
    assert not features[:, :8].any()
    whole, _ = views.at(grid, 7.5, 31.5)
    np.testing.assert_array_equal(features[:, 8:], whole[0][:, :8])


@given(st.floats(0, 20), st.floats(0, 20), st.integers(1, 9))
@settings(max_examples=30, deadline=None)
def test_bins_are_numbered_from_the_middle(ramp: FeatureRaster, row_c: float, col_c: float, bins: int) -> None:
    """Of n bins, number i lies at centre + i - (n - 1) / 2: an odd number has its middle bin on the centre."""
    views = SlideViews((ramp,), (ViewShape(2, 2.0, bins),), "none")
    (features,), (seen,) = views.at(BinGrid((42.0, 42.0), (0.0, 4.0), (4.0, 0.0), 2.0), row_c, col_c)
    along = np.arange(bins) - (bins - 1) / 2
    assert seen.all()
    np.testing.assert_allclose(features[0], np.broadcast_to((col_c + along + 10)[None, :], (bins, bins)), atol=0.02)
    np.testing.assert_allclose(features[1], np.broadcast_to((row_c + along + 10)[:, None], (bins, bins)), atol=0.02)


@pytest.fixture(scope="module")
def ramp(tmp_path_factory: pytest.TempPathFactory) -> FeatureRaster:
    """Tokens of 2 um that say their column and their row."""
    row, column = np.mgrid[:45, :45]
    return made_raster(tmp_path_factory.mktemp("ramp"), np.stack([column, row], axis=-1).astype(np.float32))


def test_many_is_at_for_each_centre(ramp: FeatureRaster) -> None:
    views = SlideViews((ramp, ramp), (ViewShape(2, 2.0, 6), ViewShape(2, 2.0, 3)))
    grid, centres = BinGrid.upright(2.0, 0.5, 0.5), [(10.0, 12.5), (30.25, 4.0)]
    features, seen = views.many(grid, np.array(centres), bins=4)
    assert [each.shape for each in features] == [(2, 2, 4, 4), (2, 2, 3, 3)]
    for number, centre in enumerate(centres):
        one_features, one_seen = views.at(grid, *centre, bins=4)
        for view in range(2):
            np.testing.assert_array_equal(features[view][number], one_features[view])
            np.testing.assert_array_equal(seen[view][number], one_seen[view])


def test_a_bin_larger_than_the_tokens_is_their_mean(tmp_path: Path) -> None:
    """Bins of 8 um over tokens of 2 um: 4 x 4 of them, none left out."""
    features = np.random.default_rng(0).normal(0, 1, (16, 16, 2)).astype(np.float16)
    views = SlideViews((made_raster(tmp_path, features),), (ViewShape(2, 8.0, 4),), "none")
    (found,), _ = views.at(BinGrid.upright(8.0, 0.5, 0.5), 1.5, 1.5)
    expected = features.astype(np.float32).reshape(4, 4, 4, 4, 2).mean((1, 3))
    np.testing.assert_allclose(found.transpose(1, 2, 0), expected, atol=1e-5)


def test_standardised_features_have_no_mean_and_unit_deviation(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal((3, -40, 7), (0.5, 20, 0), (16, 16, 3)).astype(np.float16)
    raster = made_raster(tmp_path, features.astype(np.float32))
    (found,), _ = SlideViews((raster,), (ViewShape(3, 2.0, 16),)).at(BinGrid.upright(2.0, 0.5, 0.5), 7.5, 7.5)
    np.testing.assert_allclose(found[:2].mean((1, 2)), 0, atol=1e-3)
    np.testing.assert_allclose(found[:2].std((1, 2)), 1, atol=1e-3)
    assert not found[2].any()  # the same everywhere: it says nothing, and is not blown up


def test_what_is_not_seen_stays_zero_when_standardised(tmp_path: Path) -> None:
    raster = made_raster(tmp_path, np.random.default_rng(0).normal(9, 1, (8, 8, 1)))
    (found,), (seen,) = SlideViews((raster,), (ViewShape(1, 2.0, 8),)).at(BinGrid.upright(2.0, 0.5, 0.5), -0.5, 3.5)
    assert 0 < seen.mean() < 1
    assert not found[:, ~seen].any()


def test_views_of_another_width_are_refused(ramp: FeatureRaster) -> None:
    with pytest.raises(ValueError, match="wide"):
        SlideViews((ramp,), (ViewShape(3, 2.0, 4),))


@pytest.mark.parametrize(
    ("token_um", "fov_um", "sample_um", "tokens"),
    [
        (8, None, 256, 32),
        (32, None, 256, 16),
        (128, None, 256, 16),
        (32, 256, 256, 8),
        (8, 100, 256, 13),
        (128, 64, 256, 1),
    ],
)
def test_a_view_covers_its_field(token_um: float, fov_um: float | None, sample_um: float, tokens: int) -> None:
    assert tokens_of_view(token_um, fov_um, sample_um) == tokens
