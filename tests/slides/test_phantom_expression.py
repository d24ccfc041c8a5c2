import csv
import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy import sparse

from lamella.slides.phantom_expression import draw, lay_chip, make_genes, rates
from lamella.slides.phantom_expression_cohort import ExpressionPlan, scanner_of, write_expression_cohort
from lamella.slides.phantom_tissue import LABEL_STEP_PX0, MPP, draw_tissue

PLAN = ExpressionPlan(patients=1, size_px=512, side_bins=96, genes=20, seed=5)
CLASS_OF = {"GLAND": 1, "STROMA": 2, "LYMPHOID": 3, "SOLID": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("expression")
    write_expression_cohort(folder, PLAN)
    return folder


def square(folder: Path, bin_um: int) -> Path:
    return folder / "expression" / "p1s1" / "binned_outputs" / f"square_{bin_um:03d}um"


def matrix_of(folder: Path, bin_um: int) -> tuple[sparse.csr_array, list[str], list[str]]:
    """(N, G) counts, barcodes, genes: read by hand from the 10x schema."""
    with h5py.File(square(folder, bin_um) / "filtered_feature_bc_matrix.h5") as file:
        group = file["matrix"]
        genes, places = group["shape"][:]
        counts = sparse.csr_array((group["data"][:], group["indices"][:], group["indptr"][:]), shape=(places, genes))
        names = [each.decode() for each in group["features/name"][:]]
        return counts, [each.decode() for each in group["barcodes"][:]], names


def positions_of(folder: Path, bin_um: int) -> dict[str, dict[str, float]]:
    rows = pq.read_table(square(folder, bin_um) / "spatial" / "tissue_positions.parquet").to_pylist()
    return {row["barcode"]: row for row in rows}


def on_chip(folder: Path, bin_um: int) -> np.ndarray:
    """(rows, cols, G) counts of every bin of the chip."""
    counts, barcodes, genes = matrix_of(folder, bin_um)
    positions = positions_of(folder, bin_um)
    side = PLAN.side_bins * 2 // bin_um
    dense = np.zeros((side, side, len(genes)), np.int64)
    for barcode, row in zip(barcodes, counts.toarray(), strict=True):
        dense[positions[barcode]["array_row"], positions[barcode]["array_col"]] = row
    return dense


def test_positions_hold_every_bin_in_another_order_than_the_matrix(folder) -> None:
    counts, barcodes, _ = matrix_of(folder, 2)
    positions = positions_of(folder, 2)
    assert len(positions) == PLAN.side_bins**2 > len(barcodes)
    assert [name for name in positions if name in set(barcodes)] != barcodes
    assert set(barcodes) <= {name for name, row in positions.items() if row["in_tissue"]}
    assert (np.diff(counts.indptr) > 0).all()  # as Space Ranger: bins that caught something
    assert barcodes[0][:8] + barcodes[0][-2:] == "s_002um_-1"


def test_the_chip_is_mirrored_and_turned_by_about_a_degree(folder) -> None:
    by_place = {(row["array_row"], row["array_col"]): row for row in positions_of(folder, 2).values()}

    def place(row: int, col: int) -> np.ndarray:
        found = by_place[row, col]
        return np.array([found["pxl_col_in_fullres"], found["pxl_row_in_fullres"]])

    down, right = place(95, 0) - place(0, 0), place(0, 95) - place(0, 0)
    assert right[0] < 0 < down[1]  # columns run to the left
    assert np.degrees(np.arctan2(-right[1], -right[0])) == pytest.approx(1.1, abs=0.01)
    assert np.linalg.norm(right) * MPP == pytest.approx(95 * 2.0)
    facts = json.loads((square(folder, 2) / "spatial" / "scalefactors_json.json").read_text(encoding="utf-8"))
    assert (facts["microns_per_pixel"], facts["bin_size_um"]) == (MPP, 2.0)


def test_coarser_squares_are_the_sums_of_the_finer(folder) -> None:
    # A bin that the vendor flags holds all of its fine bins, flagged or not; so only blocks that are flagged throughout
    # can be compared with the fine file.
    fine, flagged = on_chip(folder, 2), np.zeros((PLAN.side_bins, PLAN.side_bins), bool)
    for row in positions_of(folder, 2).values():
        flagged[row["array_row"], row["array_col"]] = row["in_tissue"]
    for bin_um in (8, 16):
        factor, side = bin_um // 2, PLAN.side_bins * 2 // bin_um
        summed = fine.reshape(side, factor, side, factor, -1).sum(axis=(1, 3))
        whole = flagged.reshape(side, factor, side, factor).all(axis=(1, 3))
        assert whole.sum() > 10
        assert np.array_equal(on_chip(folder, bin_um)[whole], summed[whole])


def test_zeros_are_as_common_as_in_real_bins_of_two_micrometres(folder) -> None:
    counts, _, genes = matrix_of(folder, 2)
    bins = sum(row["in_tissue"] for row in positions_of(folder, 2).values())  # empty ones are zeros, too
    assert 0.95 < 1 - counts.nnz / (bins * len(genes)) < 0.98


def test_markers_follow_their_class_where_the_positions_say(folder) -> None:
    """Rates, positions, mirror and image belong together: a marker is strong where the truth shows its class."""
    counts, barcodes, genes = matrix_of(folder, 2)
    positions = positions_of(folder, 2)
    classes = np.asarray(Image.open(folder / "classes" / "p1s1.png"))
    xy = np.array([[positions[name][f"pxl_{axis}_in_fullres"] for axis in ("col", "row")] for name in barcodes])
    column, row = (xy / LABEL_STEP_PX0).astype(int).T
    there = classes[row, column]
    for name, label in CLASS_OF.items():
        inside, outside = there == label, (there != label) & (there > 0)
        if inside.sum() < 50:
            continue
        count = counts[:, [genes.index(f"{name}1")]].toarray()[:, 0]
        assert count[inside].mean() > 2 * count[outside].mean()


def test_counts_have_the_expected_mean_and_more_spread_than_poisson() -> None:
    genes = make_genes(12, seed=3)
    expected = np.full((40_000, 12), 0.5, np.float32)
    counts = draw(expected, genes, seed=1).toarray()
    kept = 1 - genes.zero
    mean = 0.5 / kept
    variance = kept * (mean + mean**2 / genes.theta) + kept * genes.zero * mean**2  # of a zero-inflated NB
    assert np.abs(counts.mean(axis=0) - 0.5).max() < 5 * np.sqrt(variance / len(counts)).max()
    assert counts.var(axis=0) == pytest.approx(variance, rel=0.1)


def test_truth_is_kept_for_every_bin_and_follows_the_patient(folder) -> None:
    truth = np.load(folder / "expression" / "p1s1" / "true_rates.npz")
    assert truth["expected"].shape == (PLAN.side_bins**2, PLAN.genes)
    assert truth["expected"].min() > 0
    fine = on_chip(folder, 2)[truth["rows"], truth["cols"]]
    flagged = {(row["array_row"], row["array_col"]) for row in positions_of(folder, 2).values() if row["in_tissue"]}
    seen = np.array([place in flagged for place in zip(truth["rows"], truth["cols"], strict=True)])
    gap = fine[seen].mean(axis=0) / truth["expected"][seen].mean(axis=0)
    assert gap == pytest.approx(1.0, abs=0.5)
    assert np.median(gap) == pytest.approx(1.0, abs=0.1)
    tissue, genes = draw_tissue(1, 256), make_genes(3, 0)
    places = np.array([[100.0, 128.0]])
    base = rates(tissue, genes, places, 1, patient=np.zeros(3))
    twice = rates(tissue, genes, places, 1, patient=np.full(3, np.log(2)))
    assert twice == pytest.approx(2 * base, rel=1e-5)


def test_the_same_seed_draws_the_same_and_a_stand_is_left_alone(folder, tmp_path) -> None:
    write_expression_cohort(tmp_path, PLAN)
    assert (matrix_of(folder, 2)[0] != matrix_of(tmp_path, 2)[0]).nnz == 0
    (tmp_path / "slides" / "p1s1.tif").unlink()
    write_expression_cohort(tmp_path, PLAN)
    assert not (tmp_path / "slides" / "p1s1.tif").exists()


def test_patients_differ_in_stain() -> None:
    first, third = scanner_of(0, 0), scanner_of(2, 0)
    assert first.name == third.name
    assert first.haematoxylin != third.haematoxylin


@pytest.mark.parametrize(
    ("files", "table"), [("visium", "p1s1/spatial/tissue_positions.csv"), ("st", "p1s1_spots.csv")]
)
def test_spots_lie_on_tissue_and_hold_what_their_disk_does(tmp_path, files, table) -> None:
    plan = replace(PLAN, files=files, side_bins=104)
    write_expression_cohort(tmp_path, plan)
    with open(tmp_path / "expression" / table, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    truth = next((tmp_path / "expression").rglob("*true_rates.npz"))
    expected = np.load(truth)["expected"]
    x, y = ("pxl_col_in_fullres", "pxl_row_in_fullres") if files == "visium" else ("px", "py")
    classes = np.asarray(Image.open(tmp_path / "classes" / "p1s1.png"))
    assert len(rows) == len(expected) > 0
    # The masks are written every 4 um: a spot on the edge may lie on the next pixel.
    on_tissue = [classes[int(float(row[y]) / LABEL_STEP_PX0), int(float(row[x]) / LABEL_STEP_PX0)] > 0 for row in rows]
    assert np.mean(on_tissue) > 0.9
    # A tenth of the bins' mean, times the bins under a disk of 55 or 100 um.
    bins = np.pi * ({"visium": 55, "st": 100}[files] / 2) ** 2 / 4
    assert 0.0002 * bins < expected.mean() < 0.02 * bins


def test_a_chip_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        lay_chip(512, 128, turn_deg=1.0)
    assert not lay_chip(512, 64, turn_deg=1.0, mirrored=False).grid.mirrored
    assert lay_chip(512, 64, turn_deg=1.0).grid.mirrored
