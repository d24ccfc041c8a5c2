"""Numbers at their places; nothing is painted where nobody looked, and nothing is read before it is asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.view.server.layers.analytic import (
    HEIGHT,
    MPP,
    SLIDE,
    WIDTH,
    tiles,
    write_probabilities,
    write_values,
)

from lamella.view.server.layers.colours import table
from lamella.view.server.layers.contract import LayerInfo, Legend, Look
from lamella.view.server.layers.rasters import zarr_raster
from lamella.view.server.layers.value_maps import ProbabilityLayer, RasterValues, robust_range

INFO = LayerInfo("values", "values", "run", Legend(unit="um"))


@pytest.fixture(scope="module")
def values(tmp_path_factory) -> RasterValues:
    return RasterValues(INFO, zarr_raster(write_values(tmp_path_factory.mktemp("values") / "values.zarr"), SLIDE))


@pytest.fixture(scope="module")
def probabilities(tmp_path_factory) -> ProbabilityLayer:
    folder = write_probabilities(tmp_path_factory.mktemp("probabilities") / "probabilities.zarr")
    return ProbabilityLayer(INFO, zarr_raster(folder, SLIDE), "background")


def share_of(pixels: np.ndarray, name: str) -> np.ndarray:
    """How far along a colour map the colour of each pixel lies, 0 to 1; the first of equal ones."""
    packed, known = (colours[..., :3].astype(int) @ [1 << 16, 1 << 8, 1] for colours in (pixels, table(name)))
    colours, first = np.unique(known, return_index=True)
    places = np.searchsorted(colours, packed).clip(0, len(colours) - 1)
    assert np.array_equal(colours[places], packed)
    return (first[places] - 1) / 254


def test_values_are_those_at_the_pixels_centres(values):
    for box, width, height, x, y in tiles(downs=(4, 16)):
        pixels = values.tile(box, width, height, Look("AAA", "viridis", 0, WIDTH * MPP))
        known = np.broadcast_to(y >= 100, pixels.shape[:2])
        assert np.array_equal(pixels[..., 3] == 255, known)
        if known.any():
            shown = share_of(pixels[known], "viridis") * WIDTH * MPP
            across = np.broadcast_to(x, known.shape)[known]
            # Half a pixel of the raster, or of its level, and a step of the colour map, which has some equal entries.
            assert np.abs(shown - across).max() <= max(MPP, box.width / width * 0.4) / 2 + 1.5 * WIDTH * MPP / 255


def test_a_channel_of_two_signs_is_red_above_zero_and_blue_below(values):
    legend = values.legend(Look("BBB"))
    assert legend.stops[8].startswith("#f7f")
    assert legend.stops == values.legend(Look("BBB", "RdBu")).stops
    assert legend.maps[0] == "automatic"
    assert values.legend(Look("BBB", "automatic")) == legend
    assert legend.low == -legend.high  # zero is white
    box, width, height, _, y = next(tiles(downs=(16,)))
    pixels = values.tile(box, width, height, Look("BBB")).astype(int)
    below, above = (y[:, 0] > 110) & (y[:, 0] < 200), y[:, 0] > 600
    assert (pixels[below][..., 2] > pixels[below][..., 0] + 40).all()
    assert (pixels[above][..., 0] > pixels[above][..., 2] + 40).all()


def test_each_channel_has_its_own_range_without_odd_values(values):
    legend = values.legend(Look("AAA"))
    assert legend.low == 0  # of values that are never negative
    assert 0.95 * WIDTH * MPP < legend.high < WIDTH * MPP
    assert values.legend(Look("AAA", "magma", 5, 10)).low == 5
    assert values.legend(Look("AAA", "magma")).stops[0] == "#000004"
    assert legend.unit == "um"


@pytest.mark.parametrize("look", [Look("CCC"), Look("AAA", "jet")])
def test_an_unknown_channel_or_colour_map_is_refused(values, look):
    with pytest.raises(KeyError):
        values.legend(look)
    box, width, height, *_ = next(tiles(downs=(16,)))
    with pytest.raises(KeyError):
        values.tile(box, width, height, look)


def test_probability_is_bare_only_where_nobody_looked(probabilities):
    for box, width, height, x, _y in tiles(downs=(4,)):
        pixels = probabilities.tile(box, width, height, Look())
        # Not within a pixel of the border, which a coarser level shares out.
        for place, shown in ((x < 1198, 255), (x > 1202, 0)):
            assert (pixels[:, place][..., 3] == shown).all()
    box, width, height, x, _ = next(tiles(downs=(4,)))
    pixels = probabilities.tile(box, width, height, Look("tumour", "viridis"))
    assert np.abs(share_of(pixels, "viridis") - x / (WIDTH * MPP)).max() < 0.01  # 0 at the left, and not bare
    assert probabilities.info.channels[0] == "tumour"  # not the background
    assert (probabilities.info.legend.low, probabilities.info.legend.high) == (0, 1)
    assert "nobody looked" in probabilities.info.legend.bare


def test_thousands_of_genes_are_listed_searched_and_read_one_at_a_time(tmp_path):
    raster = zarr_raster(write_values(tmp_path / "genes.zarr"), SLIDE)
    reads = []

    def window(level, channels, rows, columns):
        reads.append(channels)
        return np.full((len(range(*rows.indices(HEIGHT))), len(range(*columns.indices(WIDTH)))), 3.0, np.float32)

    genes = tuple(f"GENE{number}" for number in range(10_000))
    layer = RasterValues(INFO, replace(raster, names=genes, window=window))
    assert len(layer.info.channels) == 64
    assert layer.info.channel_count == 10_000
    assert layer.search("gene99", 5) == ["GENE99", "GENE990", "GENE991", "GENE992", "GENE993"]
    assert layer.search("9999", 5) == ["GENE9999"]
    assert reads == []
    box, width, height, *_ = next(tiles(downs=(16,)))
    for _ in range(2):
        layer.tile(box, width, height, Look("GENE7"))
    assert reads == [7, 7, 7]  # the second tile needs no range


def test_the_range_leaves_out_a_few_odd_values():
    values = np.concatenate([np.linspace(0, 10, 1000), [1e6], [np.nan]])
    low, high = robust_range(values)
    assert low == 0
    assert 9 < high <= 10
    assert robust_range(np.full(5, np.nan)) == (0.0, 1.0)
    assert robust_range(np.zeros(5)) == (0.0, 1.0)
    assert robust_range(np.array([0.0] * 999 + [4.0])) == (0.0, 4.0)  # a rare gene is seen
