"""Readers of expression on real files: a miniature Visium HD output, and the her2st sections."""

import csv
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import sparse

from lamella.data.expression_settings import ExpressionDataSettings
from lamella.data.expression_study import open_expression
from lamella.data.expression_targets import target_values, totals
from lamella.data.gene_panel import PanelSettings, panel_of
from lamella.formats.expression_source import read_expression

SECTIONS = ("A1", "A2", "C2", "C3", "C4", "C5", "C6")


@pytest.fixture(scope="module")
def manifest(real_data: Path, tmp_path_factory) -> Path:
    folder = real_data / "expression" / "her2st"
    path = tmp_path_factory.mktemp("her2st") / "manifest.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("slide_id", "wsi_path", "expression_path", "patient", "mpp"))
        for name in SECTIONS:
            writer.writerow((name, folder / f"{name}.jpg", folder / f"{name}_spots.csv", name[0], 3.2))
    return path


@pytest.fixture(scope="module")
def study(manifest: Path):
    return open_expression(ExpressionDataSettings(slides=manifest, bin_um=25.6, tile_bins=4, target="log1p"))


def test_the_miniature_of_a_visium_hd_run_is_read_with_its_mirror_and_turn(real_data: Path) -> None:
    folder = real_data / "expression" / "fixtures" / "visium_hd_binned_outputs"
    counts = read_expression(folder)
    table = pq.read_table(folder / "square_002um" / "spatial" / "tissue_positions.parquet").to_pylist()
    stated = {row["barcode"]: row for row in table}
    assert len(counts) == 10
    assert counts.counts.nnz == 0  # the vendor's miniature holds no count
    assert counts.genes[:2] == ("Xkr4", "Rp1")
    assert counts.mpp == pytest.approx(0.27382, abs=1e-4)
    grid = counts.grid
    assert grid is not None
    assert grid.mirrored  # columns run to the left
    assert 0.2 < abs(grid.turn_deg) < 2
    assert counts.array_rc is not None
    for place, name, rc in zip(counts.places_px0, counts.names, counts.array_rc, strict=True):
        row = stated[name]
        assert tuple(place) == (row["pxl_col_in_fullres"], row["pxl_row_in_fullres"])
        x, y = grid.place_px0(*rc.astype(float))
        # The vendor maps a plane onto a plane, not quite a lattice: a fifth of a bin over 4 mm.
        assert np.hypot(x - place[0], y - place[1]) * counts.mpp < 0.5


@pytest.mark.parametrize("name", SECTIONS)
def test_sections_agree_with_their_own_tables(real_data: Path, study, name: str) -> None:
    folder = real_data / "expression" / "her2st"
    counts = study.by_id[name].counts
    with np.load(folder / f"{name}_counts.npz", allow_pickle=False) as parts:
        plain = sparse.csr_array((parts["data"], parts["indices"], parts["indptr"]), shape=tuple(parts["shape"]))
    with open(folder / f"{name}_spots.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert counts.shape == "spot"
    assert counts.size_um == pytest.approx(100)
    assert np.array_equal(totals(counts), plain.sum(axis=1))
    # The table's totals hold the genes, too, that were left out of the matrix: the most a few per cent.
    share = totals(counts) / [float(row["total_umi"]) for row in rows]
    assert (share <= 1).all()
    assert np.median(share) > 0.95
    assert counts.places_px0 == pytest.approx(np.array([[float(row["px"]), float(row["py"])] for row in rows]))
    assert counts.are_counts
    assert len(counts.genes) == len(set(counts.genes)) == 11_871


def test_total_counts_explain_as_much_as_the_data_notes_say(study) -> None:
    """Mean Pearson of ln(1 + total) with the 50 most variable genes of log1p: .601 over patients A, B, C."""
    found = []
    for test in "AC":
        train = [slide.counts for slide in study.slides if slide.patient != test]
        genes = panel_of(train, PanelSettings(choose="variance", variance_of="log1p", number=50))
        for slide in study.of((test,)):
            values = target_values(slide.counts, genes, "log1p").toarray()
            total = np.log1p(totals(slide.counts))
            found.append(np.mean([np.corrcoef(total, column)[0, 1] for column in values.T]))
    assert np.mean(found) == pytest.approx(0.601, abs=0.03)
