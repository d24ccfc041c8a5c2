from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse
from tests.verbs.expression_stages.made_stage import no_counts
from tests.verbs.expression_stages.tiny_expected import GENES, added_model, place_model, place_views

from lamella.data.bin_rows import BinRows
from lamella.data.expression import ExpressionSlide
from lamella.data.expression_samples import SlideSamples
from lamella.errors import LamellaError
from lamella.geometry import BinGrid, Frame
from lamella.models.expression.model import ExpressionModel
from lamella.verbs.expression_stages.expected import ensemble_at, expected_at

FRAME = Frame(512, 400, 0.5, 0.5)  # 256 x 200 um
SLIDE = ExpressionSlide("s", Path("s.tif"), FRAME, "P1", no_counts)
CPU = torch.device("cpu")


def turned_grid(bin_um: float, degrees: float = 3.0) -> BinGrid:
    """Mirrored and turned, as chips lie: columns run left, rows down."""
    step, turn = bin_um / FRAME.mpp, math.radians(degrees)
    col = (-step * math.cos(turn), -step * math.sin(turn))
    row = (-step * math.sin(turn), step * math.cos(turn))
    return BinGrid((420.0, 60.0), row, col, bin_um)


def bin_samples(bins: int = 8, genes: tuple[str, ...] = GENES, bin_um: float = 4.0) -> SlideSamples:
    """20 rows and 37 columns of bins, a tenth of them not judged."""
    rows, columns = 20, 37
    mask = np.random.default_rng(0).random((rows, columns)) > 0.1
    array_rc = np.stack(np.nonzero(np.ones((rows, columns))), 1)
    values = sparse.csr_array(np.ones((rows * columns, len(genes)), np.float32))
    table = BinRows.of(array_rc, values, np.ones(rows * columns, np.float32), (0, 0, rows, columns))
    half = (bins - 1) / 2
    centres = [(r + half, c + half) for r in range(0, rows, bins) for c in range(0, columns, bins)]
    at, judged = np.array(centres), np.flatnonzero(mask)
    return SlideSamples(SLIDE, "bin", turned_grid(bin_um), bins, genes, at, bin_um, table, mask, judged)


def spot_samples(bins: int = 8) -> SlideSamples:
    """Five spots of 30 um on an upright lattice, at any place of it."""
    grid = BinGrid.upright(4.0, 0.5, 0.5)
    centres = np.random.default_rng(1).uniform((12, 12), (36, 50), (5, 2))
    values = sparse.csr_array(np.ones((5, 2), np.float32))
    table = BinRows(np.arange(5), (0, 0, 1, 5), values, np.ones(5, np.float32))
    return SlideSamples(SLIDE, "spot", grid, bins, GENES, centres, 30.0, table, np.ones(5, bool), np.arange(5))


# mistake: swapped rows and columns; misregistered crops
@pytest.mark.parametrize("model", [place_model(), added_model()], ids=["one view", "two views"])
def test_every_bin_of_a_mirrored_and_turned_chip_gets_what_lies_there(tmp_path: Path, model: ExpressionModel) -> None:
    samples, views = bin_samples(), place_views(tmp_path, FRAME, model)
    found = expected_at(model, samples, views, CPU, batch_size=3)
    places = samples.places()
    assert samples.grid.mirrored
    assert found.shape == (int(samples.mask.sum()), 2)
    # Coarse views reach over the slide's edge for bins near it; those that do not say their place exactly.
    inner = (np.abs(places.um - (128, 100)) < (60, 40)).all(1)
    assert inner.sum() > 100
    np.testing.assert_allclose(found[inner], places.um[inner], atol=0.02)


def test_spots_get_the_mean_under_their_disk(tmp_path: Path) -> None:
    model, samples = place_model(kind="spot"), spot_samples()
    found = expected_at(model, samples, place_views(tmp_path, FRAME, model), CPU, batch_size=2)
    np.testing.assert_allclose(found, samples.places().um, atol=0.02)


def test_counts_of_spots_are_sums_under_their_disk(tmp_path: Path) -> None:
    model, samples = place_model(rule="rate", kind="spot"), spot_samples()
    found = expected_at(model, samples, place_views(tmp_path, FRAME, model), CPU)
    bins_under = math.pi * 15**2 / 4.0**2
    np.testing.assert_allclose(found, np.tile([0.25 * bins_under, 0.5 * bins_under], (5, 1)), rtol=0.01)


def test_an_ensemble_is_the_mean_of_its_models(tmp_path: Path) -> None:
    model, other, samples = place_model(), place_model(), bin_samples()
    with torch.no_grad():
        other.network.rate.bias.add_(10.0)
    views = place_views(tmp_path, FRAME, model)
    alone = expected_at(model, samples, views, CPU)
    np.testing.assert_allclose(ensemble_at([model, other], samples, lambda _: views, CPU), alone + 5, atol=1e-3)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (bin_samples(genes=("Y", "X")), "in another order"),
        (bin_samples(bins=4), "its samples are 4 bins of 4 um"),
        (bin_samples(bin_um=2.0), "its samples are 8 bins of 2 um"),
    ],
)
def test_samples_of_another_model_are_refused(tmp_path: Path, samples: SlideSamples, message: str) -> None:
    model = place_model()
    with pytest.raises(LamellaError, match=message):
        expected_at(model, samples, place_views(tmp_path, FRAME, model), CPU)


def test_views_of_another_model_are_refused(tmp_path: Path) -> None:
    views = place_views(tmp_path, FRAME, place_model(bin_um=2.0))
    with pytest.raises(LamellaError, match=r"its views are 8 x 2 um .4 wide., 6 x 8 um"):
        expected_at(place_model(), bin_samples(), views, CPU)


def test_what_is_no_number_is_refused(tmp_path: Path) -> None:
    model = place_model()
    torch.nn.init.constant_(model.network.rate.bias, torch.nan)
    with pytest.raises(LamellaError, match="expects 675 of 675 places to hold what is no number"):
        expected_at(model, bin_samples(), place_views(tmp_path, FRAME, model), CPU)
