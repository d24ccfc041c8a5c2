"""Measured expression over its slide."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from tests.view.server.layers.analytic import SLIDE

from lamella.errors import LamellaError
from lamella.formats.spatial_counts import SpatialCounts
from lamella.geometry import Box
from lamella.view.server.layers import spots
from lamella.view.server.layers.contract import Look
from lamella.view.server.layers.spots import TOTAL, SpotLayer

PLACES = np.array([[500.0, 500.0], [1000.0, 500.0], [-80.0, 500.0]])
COUNTS = np.array([[1, 0, 9], [4, 2, 0], [0, 0, 3]], np.int32)


@pytest.fixture
def read(monkeypatch, tmp_path):
    def give(shape: str = "spot", places: np.ndarray = PLACES, error: Exception | None = None) -> SpotLayer:
        def read_expression(path, mpp):
            if error is not None:
                raise error
            counts = sparse.csr_array(COUNTS)
            names = np.array([b"a", b"b", b"c"])
            return SpatialCounts("s", path, counts, ("ACTB", "CD3E", "KRT8"), places, shape, 50.0, 0.5, names)

        monkeypatch.setattr(spots, "read_expression", read_expression)
        return SpotLayer(tmp_path / "counts.h5ad", "spots", SLIDE, wait_s=10)

    return give


def test_spots_are_disks_in_micrometres_with_their_gene(read):
    layer = read()
    box = Box(400, 400, 600, 600)
    values = layer.under(box, 200, 200, layer.channel(Look("KRT8")))
    x, y = (np.arange(200) + 0.5 - 100) * SLIDE.mpp_x, (np.arange(200)[:, None] + 0.5 - 100) * SLIDE.mpp_y
    inside = x**2 + y**2 <= 25**2  # a spot of 50 um, on pixels that are not square
    assert np.array_equal(values == 9, inside)
    assert np.isnan(values[~inside]).all()
    assert np.array_equal(layer.tile(box, 200, 200, Look("KRT8"))[..., 3] == 255, inside)


def test_bins_are_squares_and_all_genes_are_shown_first(read):
    layer = read("bin")
    values = layer.under(Box(900, 400, 1100, 600), 200, 200, layer.chosen(Look()))
    assert np.isfinite(values).sum() == 100 * 125
    assert np.nanmax(values) == 6
    assert layer.search("c", 9) == ["CD3E", "ACTB"]
    assert layer.info.channels == (TOTAL, "ACTB", "CD3E", "KRT8")
    assert layer.settled
    assert layer.info.note == "3 bins of 50 µm, 1 of them off the slide, 3 genes"
    assert layer.legend(Look("ACTB")).unit == "counts"
    assert layer.legend(Look("ACTB")).low == 0


def test_what_cannot_be_read_or_lies_elsewhere_is_refused(read):
    with pytest.raises(LamellaError, match="none of its places lies on the slide"):
        read(places=PLACES + 1e5)
    with pytest.raises(LamellaError, match="no good"):
        read(error=LamellaError("counts.h5ad", "no good", "Mend it."))
    with pytest.raises(LamellaError, match="cannot be shown"):
        read(error=ZeroDivisionError())
