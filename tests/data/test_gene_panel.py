"""The panel of a fold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import sparse
from tests.data.test_local_regression import plainly
from tests.data.tiny_expression import counts_of, full_rc, slide_of

from lamella.data.gene_panel import PanelSettings, choose_panel, gene_variance, panel_of, standardised_variance
from lamella.errors import DatasetError

RC = full_rc(20, 20)


def draws(seed: int, genes: int = 40, places: int = 400) -> np.ndarray:
    """Poisson counts of rising means; G25 and G17 vary more than their mean says."""
    rng = np.random.default_rng(seed)
    rate = np.tile(np.geomspace(0.05, 5, genes), (places, 1))
    for gene in (25, 17):
        rate[:, gene] *= rng.choice([0.05, 4], places)
    return rng.poisson(rate)


def seurat_v3(table: np.ndarray) -> np.ndarray:
    """The formula of scanpy's `seurat_v3`, on a dense matrix, gene by gene."""
    places = len(table)
    mean, variance = table.mean(axis=0), table.var(axis=0, ddof=1)
    varies = variance > 0
    fitted = np.zeros(len(mean))
    fitted[varies] = plainly(np.log10(mean[varies]), np.log10(variance[varies]), 0.3)
    deviation = np.sqrt(10**fitted)
    clipped = np.minimum(table, mean + deviation * np.sqrt(places))
    score = (places * mean**2 + (clipped**2).sum(axis=0) - 2 * clipped.sum(axis=0) * mean) / (
        (places - 1) * deviation**2
    )
    return np.where(varies, score, 0)


def test_variability_is_that_of_seurat_v3() -> None:
    table = draws(0)
    table[:, 5] = 0
    found = standardised_variance(sparse.csr_array(table))
    assert found == pytest.approx(seurat_v3(table), rel=1e-6)
    assert found[5] == 0
    assert set(np.argsort(-found)[:2]) == {25, 17}


def test_variance_is_numpys_and_exactly_0_of_constants() -> None:
    table = draws(1)
    table[:, 7] = 3
    assert gene_variance(sparse.csr_array(table)) == pytest.approx(table.var(axis=0, ddof=1), rel=1e-12)
    assert gene_variance(sparse.csr_array(table))[7] == 0


def test_what_is_chosen() -> None:
    counts = [counts_of(draws(seed), RC) for seed in (0, 1)]
    assert set(panel_of(counts, PanelSettings(number=2))) == {"G25", "G17"}
    assert panel_of(counts, PanelSettings(choose="mean", number=2)) == ("G39", "G38")
    by_log = np.mean([np.log1p(draws(seed)).var(axis=0, ddof=1) for seed in (0, 1)], axis=0)
    expected = tuple(f"G{gene}" for gene in np.argsort(-by_log)[:5])
    assert panel_of(counts, PanelSettings(choose="variance", number=5)) == expected
    assert panel_of(counts, PanelSettings(choose="all")) == counts[0].genes


def test_slides_count_alike_whatever_their_size() -> None:
    large = np.zeros((400, 40), int)
    large[:, 8] = 4  # a mean of 2 over both slides, and of 3.6 over all places; G39 has 2.5 and 0.5
    counts = [counts_of(draws(0)[:40], RC[:40]), counts_of(large, RC)]
    assert panel_of(counts, PanelSettings(choose="mean", number=1)) == ("G39",)


def test_the_judged_patient_has_no_say(tmp_path: Path) -> None:
    """mistake: genes chosen on test patients. Only the given slides are read at all."""
    train = slide_of(tmp_path, counts_of(draws(0), RC))
    panel = choose_panel([train], PanelSettings(number=5))
    assert panel == choose_panel([slide_of(tmp_path, counts_of(draws(0), RC), name="other")], PanelSettings(number=5))
    assert panel == panel_of([train.counts], PanelSettings(number=5))


def test_genes_without_a_count_or_not_measured_everywhere_are_never_chosen() -> None:
    first, second = draws(0), draws(1)
    first[:, 39] = second[:, 39] = 0
    one, two = counts_of(first, RC), counts_of(second[:, :38], RC)
    chosen = panel_of([one, two], PanelSettings(choose="all"))
    assert set(chosen) == {f"G{gene}" for gene in range(38)}
    with pytest.raises(DatasetError, match="40 genes are wanted, and 39 of 40"):
        panel_of([one], PanelSettings(number=40))


def test_rare_genes_can_be_left_out() -> None:
    table = draws(0)
    table[:, 0] = 0
    table[4, 0] = 1000  # one bin makes it the most variable
    counts = [counts_of(table, RC)]
    assert panel_of(counts, PanelSettings(choose="variance", number=1, variance_of="counts")) == ("G0",)
    rest = PanelSettings(choose="variance", number=1, variance_of="counts", min_places=0.01)
    assert panel_of(counts, rest) != ("G0",)


def test_a_stated_list_is_taken_in_its_order(tmp_path: Path) -> None:
    slide = slide_of(tmp_path, counts_of(draws(0), RC))
    assert choose_panel([slide], PanelSettings(genes=("G5", "G1"))) == ("G5", "G1")
    path = tmp_path / "genes.txt"
    path.write_text("# our genes\nG2\n\n G9 \n")
    assert choose_panel([slide], PanelSettings(genes=path)) == ("G2", "G9")


@pytest.mark.parametrize(
    ("genes", "says"),
    [
        (("G1", "TP53"), "1 of its 2 genes are not measured on slide s0: TP53"),
        (("G1", "G1"), "G1 stand there twice"),
        ((), "names no gene"),
    ],
)
def test_bad_lists(tmp_path: Path, genes: tuple[str, ...], says: str) -> None:
    """Bad input: genes absent from the panel."""
    slide = slide_of(tmp_path, counts_of(draws(0), RC))
    with pytest.raises(DatasetError, match=says):
        choose_panel([slide], PanelSettings(genes=genes))


def test_a_list_that_is_not_there(tmp_path: Path) -> None:
    slide = slide_of(tmp_path, counts_of(draws(0), RC))
    with pytest.raises(DatasetError, match="cannot be read"):
        choose_panel([slide], PanelSettings(genes=tmp_path / "none.txt"))
    with pytest.raises(DatasetError, match="no training slides"):
        choose_panel([], PanelSettings())
