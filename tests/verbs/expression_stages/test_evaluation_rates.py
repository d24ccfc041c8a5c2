"""The generator's own rates at the judged places: summed into larger bins, matched by barcode, never guessed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.verbs.expression_stages.made_evaluation import made_stage

from lamella.data.expression import ExpressionSlide
from lamella.formats.spatial_counts import ExpressionError
from lamella.verbs.expression_stages.evaluation_rates import _of_bins, has_rates, true_rates
from lamella.verbs.expression_stages.evaluation_truth import Truths

GENES = tuple(f"G{number}" for number in range(6))


def studied(folder: Path, **changes: Any) -> tuple[Truths, ExpressionSlide]:
    truths = Truths.of(made_stage(folder, **changes))
    return truths, truths.stage.study.by_id["a1"]


def write_rates(
    folder: Path, slide: ExpressionSlide, *, genes: tuple[str, ...] = GENES, places: int = 16
) -> np.ndarray:
    """Rates in another order of spots and genes than the study's; (16, 6) in its order."""
    rates = np.random.default_rng(0).gamma(1.0, size=(16, len(genes))).astype(np.float32)
    order = np.random.default_rng(1).permutation(places)
    np.savez(
        folder / "a1_true_rates.npz",
        genes=np.array(genes[::-1]),
        expected=rates[order][:, ::-1],
        barcodes=np.array(slide.counts.barcodes.astype(str))[order],
    )
    return rates


@pytest.mark.parametrize("target", ["counts", "log1p"])
def test_rates_of_spots_are_found_by_barcode_and_gene(tmp_path: Path, target: str) -> None:
    truths, slide = studied(tmp_path, data={"target": target})
    rates = write_rates(tmp_path, slide)
    found = true_rates(truths, truths.folds[0], slide)
    expected = rates[:, [GENES.index(gene) for gene in truths.panels[0]]]
    np.testing.assert_allclose(found, np.log1p(expected) if target == "log1p" else expected, rtol=1e-6)


def test_there_are_none_where_the_slide_has_none_or_the_target_needs_more(tmp_path: Path) -> None:
    truths, slide = studied(tmp_path / "one")
    assert not has_rates(truths, slide)
    with pytest.raises(ExpressionError, match="Only generated slides"):
        true_rates(truths, truths.folds[0], slide)
    write_rates(tmp_path / "one", slide)
    assert has_rates(truths, slide)
    assert not has_rates(truths, replace(slide, expression_path=None))
    truths, slide = studied(tmp_path / "two", data={"target": "log_cpm"})
    write_rates(tmp_path / "two", slide)
    assert not has_rates(truths, slide)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    truths, slide = studied(tmp_path / "places")
    write_rates(tmp_path / "places", slide, places=14)
    with pytest.raises(ExpressionError, match="lacks 2 judged spots"):
        true_rates(truths, truths.folds[0], slide)
    truths, slide = studied(tmp_path / "genes")
    write_rates(tmp_path / "genes", slide, genes=GENES[:5])
    with pytest.raises(ExpressionError, match="lacks genes of the panel: G5"):
        true_rates(truths, truths.folds[0], slide)
    truths, slide = studied(tmp_path / "damaged")
    (tmp_path / "damaged" / "a1_true_rates.npz").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(ExpressionError, match="cannot be read"):
        true_rates(truths, truths.folds[0], slide)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_rates_of_bins_are_summed_into_larger_ones(factor: int) -> None:
    """Mistake of the source: swapped rows and columns."""
    rates = np.random.default_rng(0).gamma(1.0, size=(8, 12, 3)).astype(np.float32)
    rows, cols = np.mgrid[:8, :12].reshape(2, -1)
    order = np.random.default_rng(1).permutation(len(rows))
    file = {"rows": rows[order], "cols": cols[order], "expected": rates.reshape(-1, 3)[order]}
    pooled = rates.reshape(8 // factor, factor, 12 // factor, factor, 3).sum((1, 3))
    judged = np.argwhere(np.ones(pooled.shape[:2], bool))[::-1]
    found = _of_bins(file, [2, 0], judged.astype(np.int32), factor)
    np.testing.assert_allclose(found, pooled[judged[:, 0], judged[:, 1]][:, [2, 0]], rtol=1e-5)
