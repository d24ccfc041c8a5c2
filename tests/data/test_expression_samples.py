"""Tiles of bins and spots, with what of them counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.data.tiny_expression import (
    GRID,
    UPRIGHT,
    counts_of,
    full_rc,
    settings_of,
    slide_of,
    spots_of,
    study_of,
)

from lamella.data.expression_samples import SlideSamples
from lamella.formats.spatial_counts import ExpressionError

GENES = ("G2", "G0")


def chip(seed: int = 0, rows: int = 20, columns: int = 18) -> np.ndarray:
    """(rows * columns, 3) counts, most of them 0."""
    return np.random.default_rng(seed).poisson(0.2, (rows * columns, 3))


def bins(tmp_path: Path, tissue: np.ndarray | None = None, **changes: object) -> SlideSamples:
    """20 x 18 bins with row and column 0 first; the file has half of them, the others had no counts."""
    table, rc = chip(), full_rc(20, 18)
    kept = table.sum(axis=1) > 0
    counts = counts_of(table[kept], rc[kept], captured_rc=(0, 0, 20, 18), **changes)
    slide = slide_of(tmp_path, counts, tissue=tissue)
    return SlideSamples.of(slide, study_of(slide), GENES, settings_of())


def below(line_px: int) -> np.ndarray:
    """Tissue above a line of the image."""
    mask = np.zeros((160, 160), bool)
    mask[:line_px] = True
    return mask


def test_a_sample_is_the_bins_around_its_centre(tmp_path: Path) -> None:
    """mistake: swapped rows and columns."""
    samples, dense = bins(tmp_path), chip().reshape(20, 18, 3)
    counts, mask = samples.sample(3.5 + 5, 3.5 + 2)
    assert counts.dtype == np.float32
    assert (counts == np.moveaxis(dense[5:13, 2:10][..., [2, 0]], -1, 0)).all()
    assert mask.all()
    library = samples.library(3.5 + 5, 3.5 + 2)
    assert (library == dense[5:13, 2:10].sum(axis=-1)).all()


def test_bins_without_counts_count_and_bins_off_the_chip_do_not(tmp_path: Path) -> None:
    """mistake: label-derived tissue mask. Zeros on tissue are real zeros."""
    samples = bins(tmp_path)
    counts, mask = samples.sample(3.5 + 16, 3.5 + 13)
    assert mask[:4, :5].all()
    assert mask.sum() == 20
    assert (counts[:, ~mask] == 0).all()
    assert samples.judged == 360
    assert (chip().sum(axis=1) == 0).sum() > 100


def test_tissue_decides_at_the_bins_own_places(tmp_path: Path) -> None:
    """The chip is mirrored and turned: a straight edge of tissue runs across its rows at a slant."""
    samples = bins(tmp_path, tissue=below(50))
    rc = full_rc(20, 18)
    _, y_px0 = GRID.place_px0(rc[:, 0], rc[:, 1])
    sure = np.abs(y_px0 - 50) > 2.1  # a bin is 4 pixels high
    assert (samples.mask.ravel()[sure] == (y_px0 < 50)[sure]).all()
    assert 0 < samples.judged < 360


def test_bins_that_the_vendor_took_out_are_not_judged(tmp_path: Path) -> None:
    """A filtered matrix says nothing of them, which is not zero."""
    samples = bins(tmp_path, all_measured=False)
    present = int((chip().sum(axis=1) > 0).sum())
    assert samples.judged == present
    assert samples.unmeasured == 360 - present


def test_judged_places_truth_and_totals_go_together(tmp_path: Path) -> None:
    samples = bins(tmp_path, tissue=below(50))
    places, truth, total = samples.places(), samples.judged_truth(), samples.judged_total()
    dense = chip().reshape(20, 18, 3)
    assert places.rc is not None
    assert places.rc.tolist() == sorted(places.rc.tolist())
    rows, columns = places.rc.T
    assert (truth == dense[rows, columns][:, [2, 0]]).all()
    assert (total == dense[rows, columns].sum(axis=1)).all()
    assert places.px0 == pytest.approx(np.stack(GRID.place_px0(rows, columns), axis=1))
    assert places.um == pytest.approx(places.px0 * 0.5)
    assert (dense.reshape(-1, 3)[np.flatnonzero(chip().sum(axis=1))][samples.judged_rows].sum(axis=1) > 0).all()


def test_a_prediction_tile_by_tile_comes_back_at_its_places(tmp_path: Path) -> None:
    """Every judged bin lies in exactly one tile of the cover."""
    samples = bins(tmp_path, tissue=below(50))
    found = np.full((samples.judged, 2), np.nan, np.float32)
    times = np.zeros(samples.judged, int)
    for row, col in samples.cover():
        counts, mask = samples.sample(row, col)
        numbers, i, j = samples.places_in(row, col)
        assert len(numbers) == mask.sum() > 0
        found[numbers] = counts[:, i, j].T
        times[numbers] += 1
    assert (times == 1).all()
    assert (found == samples.judged_truth()).all()


def test_tiles_are_drawn_around_any_judged_bin_and_stay_on_the_chip(tmp_path: Path) -> None:
    samples, rng = bins(tmp_path, tissue=below(50)), np.random.default_rng(0)
    seen = np.zeros(samples.mask.shape, bool)
    for _ in range(200):
        row, col = samples.random_centre(rng)
        _, mask = samples.sample(row, col)
        assert mask.any()
        assert 3.5 <= row <= 15.5
        assert 3.5 <= col <= 13.5
        seen[int(row - 3.5) : int(row + 4.5), int(col - 3.5) : int(col + 4.5)] = True
    assert seen[samples.mask].all()


def test_a_centre_of_another_lattice_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no tile of 8 bins"):
        bins(tmp_path).sample(4.0, 4.5)


def test_no_place_on_tissue_is_refused(tmp_path: Path) -> None:
    far = np.zeros((160, 160), bool)
    far[150:, :20] = True
    with pytest.raises(ExpressionError, match="none of its bins or spots lies on tissue"):
        bins(tmp_path, tissue=far)


def test_a_share_of_0_asks_for_some_tissue(tmp_path: Path) -> None:
    table, rc = chip(), full_rc(20, 18)
    slide = slide_of(tmp_path, counts_of(table, rc, grid=UPRIGHT), tissue=below(50))
    samples = SlideSamples.of(slide, study_of(slide), GENES, settings_of(min_tissue_fraction=0.0))
    assert samples.mask.any(axis=1).sum() == 10  # rows from 10 to 14 px, ..., 46 to 50, and nothing below


# ---- spots ----------------------------------------------------------------------------------------------------------

PLACES = np.array([[30.0, 40.0], [100.3, 41.7], [31.0, 130.0]])


def spots(tmp_path: Path, **changes: object) -> SlideSamples:
    counts = spots_of(np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]]), PLACES, 20.0, **changes)
    slide = slide_of(tmp_path, counts, tissue=below(90))
    return SlideSamples.of(slide, study_of(slide, tile_bins=6, bin_um=4.0), GENES, settings_of(bin_um=4.0))


def test_spots_are_samples_of_an_upright_grid(tmp_path: Path) -> None:
    samples = spots(tmp_path)
    assert len(samples) == samples.judged == 2
    assert np.stack(samples.grid.place_px0(*samples.cover().T), axis=1) == pytest.approx(PLACES[:2])
    values, disk = samples.sample(*samples.centres_rc[1])
    assert values.tolist() == [6, 4]
    assert disk.shape == (6, 6)
    assert disk.sum() * 16 == pytest.approx(np.pi * 100, rel=1e-5)
    assert samples.library(*samples.centres_rc[1]) == 15
    assert samples.judged_truth().tolist() == [[3, 1], [6, 4]]
    assert samples.judged_total().tolist() == [6, 15]
    assert samples.judged_rows.tolist() == [0, 1]
    assert samples.places().px0 == pytest.approx(PLACES[:2])
    assert samples.places().rc is None
    with pytest.raises(ValueError, match="no spot"):
        samples.sample(0.0, 0.0)


def test_larger_spots_and_other_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExpressionError, match="larger than a sample of 6 bins"):
        spots(tmp_path, size_um=30.0)
    slide = slide_of(tmp_path, counts_of(chip(), full_rc(20, 18)))
    other = slide_of(tmp_path, spots_of(np.ones((1, 1), int), PLACES[:1], 20.0))
    with pytest.raises(ExpressionError, match="holds bins, and the study is of spots"):
        SlideSamples.of(slide, study_of(other), GENES, settings_of())
