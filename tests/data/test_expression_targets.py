"""What is predicted of each place."""

from __future__ import annotations

import numpy as np
import pytest
from tests.data.tiny_expression import counts_of, full_rc, spots_of

from lamella.data.expression_targets import neighbour_means, target_values, totals
from lamella.formats.spatial_counts import ExpressionError

TABLE = np.random.default_rng(3).poisson(0.7, (30, 6))
RC = full_rc(5, 6)
GENES = ("G4", "G1")


def chosen(target: str) -> np.ndarray:
    return target_values(counts_of(TABLE, RC), GENES, target).toarray()  # type: ignore[arg-type]


def test_every_target_by_its_formula() -> None:
    """Library size is of all genes, not of the panel."""
    counts, total = TABLE[:, [4, 1]].astype(float), TABLE.sum(axis=1, keepdims=True)
    assert (total > 0).all()
    assert (chosen("counts") == counts).all()
    assert (chosen("values") == counts).all()
    assert chosen("log1p") == pytest.approx(np.log1p(counts), rel=1e-6)
    assert chosen("log10_library") == pytest.approx(np.log10(1 + 1e4 * counts / total), rel=1e-6)
    assert chosen("log_cpm") == pytest.approx(np.log(1 + 1e6 * counts / total), rel=1e-6)


def test_smoothing_is_the_mean_of_the_neighbours_that_exist() -> None:
    kept = np.delete(np.arange(30), [7, 20])  # holes in the array
    values = target_values(counts_of(TABLE[kept], RC[kept]), GENES, "log_cpm_smoothed").toarray()
    raw = target_values(counts_of(TABLE[kept], RC[kept]), GENES, "log_cpm").toarray()
    for place, (row, col) in enumerate(RC[kept]):
        near = (np.abs(RC[kept] - (row, col)) <= 1).all(axis=1)
        assert values[place] == pytest.approx(raw[near].mean(axis=0), rel=1e-5)


def test_neighbours_do_not_reach_into_the_next_row() -> None:
    """mistake: rows and columns counted as one number wrap at the edge of the chip."""
    weights = neighbour_means(counts_of(TABLE, RC)).toarray()
    assert (weights > 0).sum(axis=1).reshape(5, 6)[2].tolist() == [6, 9, 9, 9, 9, 6]
    assert weights.sum(axis=1) == pytest.approx(1)
    assert not weights[5, 6]  # the last of row 0 and the first of row 1


def test_a_place_without_counts_is_zero_in_every_target() -> None:
    table = TABLE.copy()
    table[3] = 0
    for target in ("counts", "log1p", "log10_library", "log_cpm"):
        values = target_values(counts_of(table, RC), GENES, target).toarray()  # type: ignore[arg-type]
        assert np.isfinite(values).all()
        assert (values[3] == 0).all()


@pytest.mark.parametrize(("wrong", "says"), [(-1.0, "1 are negative"), (0.5, "1 of its [0-9]+ stored values")])
def test_fractions_and_negatives_are_no_counts(wrong: float, says: str) -> None:
    """Bad input: negative or fractional counts for count losses."""
    table = TABLE.astype(float)
    table[2, 4] = wrong
    for target in ("counts", "log1p", "log_cpm"):
        with pytest.raises(ExpressionError, match=says):
            target_values(counts_of(table, RC), GENES, target)  # type: ignore[arg-type]
    assert target_values(counts_of(table, RC), GENES, "values").toarray()[2, 0] == wrong


def test_genes_that_are_absent_are_named() -> None:
    """Bad input: genes absent from the panel."""
    with pytest.raises(ExpressionError, match="1 of 2 genes of the panel are not in it: TP53"):
        target_values(counts_of(TABLE, RC), ("G1", "TP53"), "counts")


def test_places_without_an_array_have_no_neighbours() -> None:
    with pytest.raises(ExpressionError, match="no rows and columns"):
        target_values(spots_of(TABLE, np.zeros((30, 2)), 55, array_rc=None), GENES, "log_cpm_smoothed")


def test_totals_are_of_all_genes() -> None:
    assert totals(counts_of(TABLE, RC)).tolist() == TABLE.sum(axis=1).tolist()
