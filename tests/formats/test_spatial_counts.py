from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from lamella.formats.spatial_counts import ExpressionError, SpatialCounts


def counts_of(values: np.ndarray, genes: tuple[str, ...] = ("A", "B", "C"), places: int | None = None) -> SpatialCounts:
    count = len(values) if places is None else places
    return SpatialCounts(
        "s", Path("run"), sparse.csr_array(values), genes, np.arange(2.0 * count).reshape(count, 2), "spot", 55.0, 0.5,
        np.array([f"p{number}" for number in range(count)], "S"), flagged=np.arange(count) % 2 == 0,
        gene_ids=tuple(f"id{gene}" for gene in genes),
    )  # fmt: skip


def test_positions_and_matrix_that_disagree_are_refused() -> None:
    """Bad input: positions and matrix disagree."""
    with pytest.raises(ExpressionError, match="2 places x 3 genes, but there are 3 positions"):
        counts_of(np.zeros((2, 3)), places=3)
    with pytest.raises(ExpressionError, match="2 gene names"):
        counts_of(np.zeros((2, 3)), ("A", "B"))


def test_genes_are_chosen_by_name_and_absent_ones_all_named() -> None:
    """Bad input: genes absent from the panel."""
    chosen = counts_of(np.array([[1, 2, 3], [0, 5, 0]])).of_genes(["C", "A"])
    assert chosen.counts.toarray().tolist() == [[3, 1], [0, 0]]
    assert chosen.gene_ids == ("idC", "idA")
    with pytest.raises(ExpressionError, match="2 of 3 genes of the panel are not in it: X, Y"):
        counts_of(np.zeros((1, 3))).of_genes(["X", "A", "Y"])


def test_places_are_chosen_in_every_column() -> None:
    chosen = counts_of(np.arange(9).reshape(3, 3)).of_places(np.array([2, 0]))
    assert chosen.counts.toarray().tolist() == [[6, 7, 8], [0, 1, 2]]
    assert chosen.names == ["p2", "p0"]
    assert chosen.places_px0.tolist() == [[4, 5], [0, 1]]
    assert chosen.flagged.tolist() == [True, True]
    assert len(counts_of(np.ones((3, 3))).of_places(np.array([True, False, False]))) == 1


@pytest.mark.parametrize(
    ("values", "are"),
    [([[1, 0, 2]], True), ([[1, -1, 0]], False), ([[1.0, 2.0, 0]], True), ([[0.5, 0, 0]], False), ([[0, 0, 0]], True)],
)
def test_counts_are_whole_and_not_negative(values: list[list[float]], are: bool) -> None:
    """Bad input: negative or fractional counts for count losses."""
    assert counts_of(np.array(values)).are_counts is are


def test_zero_share_counts_stored_zeros() -> None:
    counts = counts_of(np.array([[1, 0, 2], [3, 0, 0]]))
    assert counts.zero_share == pytest.approx(0.5)
    counts.counts.data[0] = 0
    assert counts.zero_share == pytest.approx(4 / 6)
