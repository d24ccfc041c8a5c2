from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from tests.tiny_space_ranger import MPP, Run, write_folder, write_h5

from lamella.formats.spatial_counts import ExpressionError
from lamella.formats.visium_hd import read_visium_hd


def by_place(run: Run, rc: np.ndarray, counts: sparse.csr_array) -> np.ndarray:
    """(rows, cols, G) of what was read."""
    out = np.zeros((run.rows, run.cols, run.genes), np.int64)
    out[rc[:, 0], rc[:, 1]] = counts.toarray()
    return out


@settings(max_examples=6, deadline=None)
@given(turn=st.floats(-30, 30), mirrored=st.booleans(), seed=st.integers(0, 99))
def test_every_bin_lies_where_tissue_positions_say(
    tmp_path_factory: pytest.TempPathFactory, turn: float, mirrored: bool, seed: int
) -> None:
    run = Run(turn_deg=turn, mirrored=mirrored, seed=seed)
    outs = tmp_path_factory.mktemp("outs")
    run.write_hd(outs)
    read = read_visium_hd(outs)
    truth = np.zeros((run.rows * run.cols, run.genes), np.int64)
    truth[run.kept] = run.counts.toarray()
    assert np.array_equal(by_place(run, read.array_rc, read.counts), truth.reshape(run.rows, run.cols, -1))
    # mistake: rows and columns, or x and y, swapped
    number = read.array_rc[:, 0] * run.cols + read.array_rc[:, 1]
    assert np.array_equal(read.places_px0, run.places_px0[number])
    assert read.names == [run.barcodes[each] for each in number]
    assert read.grid.mirrored == mirrored
    assert np.allclose(np.stack(read.grid.place_px0(*read.array_rc.T), 1), read.places_px0, atol=1e-9)
    assert (read.shape, read.size_um, read.mpp) == ("bin", 2.0, MPP)
    assert read.captured_rc == (0, 0, run.rows, run.cols)
    assert read.flagged.all()
    assert not read.all_measured
    assert "filtered" in read.notes[-1]


def test_any_level_of_the_folders_reads_the_same_and_sizes_are_chosen(tmp_path: Path) -> None:
    fine, coarse = Run(), Run(rows=3, cols=4, bin_um=8, seed=3)
    square = fine.write_hd(tmp_path / "case_7" / "outs")
    coarse.write_hd(tmp_path / "case_7" / "outs2")
    (tmp_path / "case_7" / "outs2" / "binned_outputs" / "square_008um").rename(square.parent / "square_008um")
    outs = tmp_path / "case_7" / "outs"
    for path in (tmp_path / "case_7", outs, square.parent, square):
        read = read_visium_hd(path)
        assert read.size_um == 2
        assert read.name == "case_7"
    assert read_visium_hd(outs, bin_um=8).size_um == 8
    assert read_visium_hd(outs, bin_um=24).size_um == 8  # the caller pools three by three
    assert read_visium_hd(outs, bin_um=6).size_um == 2
    with pytest.raises(ExpressionError, match=r"bins of 3 um are no multiple of its bins of 2 um, 8 um"):
        read_visium_hd(outs, bin_um=3)


def test_the_folder_of_a_matrix_stands_in_for_the_h5(tmp_path: Path) -> None:
    run = Run()
    square = run.write_hd(tmp_path)
    whole = read_visium_hd(square)
    (square / "filtered_feature_bc_matrix.h5").unlink()
    write_folder(square / "filtered_feature_bc_matrix", run.counts, [run.barcodes[each] for each in run.kept])
    read = read_visium_hd(square)
    assert (read.counts != whole.counts).nnz == 0
    assert np.array_equal(read.places_px0, whole.places_px0)


def test_chosen_genes(tmp_path: Path) -> None:
    run = Run()
    read = read_visium_hd(run.write_hd(tmp_path), genes=["Gene3", "Gene0"])
    assert read.genes == ("Gene3", "Gene0")
    assert np.array_equal(read.counts.toarray(), run.counts.toarray()[:, [3, 0]])
    assert read.gene_ids == ("ENSG00000000003", "ENSG00000000000")


def test_a_raw_matrix_measured_every_bin(tmp_path: Path) -> None:
    run = Run()
    square = run.write_hd(tmp_path, name="raw_feature_bc_matrix")
    with pytest.raises(ExpressionError, match=r"no filtered_feature_bc_matrix\.h5"):
        read_visium_hd(square)
    read = read_visium_hd(square, matrix="raw")
    assert read.all_measured
    assert read.notes == ()


def test_bins_under_tissue_without_a_barcode_are_zeros_and_said(tmp_path: Path) -> None:
    """Space Ranger leaves barcodes without a read out; on tissue these are real zeros, and none is dropped."""
    run = Run()
    square = run.write_hd(tmp_path)
    left = np.sort(np.random.default_rng(1).permutation(len(run.kept))[: len(run.kept) // 2])
    names = [run.barcodes[each] for each in run.kept[left]]
    write_h5(square / "filtered_feature_bc_matrix.h5", run.counts[left], names)
    read = read_visium_hd(square)
    assert len(read) == run.flagged.sum()
    assert sorted(read.names) == sorted(run.barcodes[each] for each in run.kept)
    assert read.counts.sum() == run.counts[left].sum()
    assert read.counts[len(left) :].nnz == 0
    gone = run.flagged.sum() - len(left)
    assert f"{gone} of {run.flagged.sum()} places under tissue have no barcode" in read.notes[0]


def test_barcodes_without_a_position_are_refused(tmp_path: Path) -> None:
    """Bad input: positions and matrix disagree."""
    run = Run()
    square = run.write_hd(tmp_path)
    table = pq.read_table(square / "spatial" / "tissue_positions.parquet")
    lost = {run.barcodes[each] for each in run.kept[:2]}
    keep = pa.array([name not in lost for name in table["barcode"].to_pylist()])
    pq.write_table(table.filter(keep), square / "spatial" / "tissue_positions.parquet")
    with pytest.raises(ExpressionError, match=rf"2 of its {len(run.kept)} barcodes have no position"):
        read_visium_hd(square)


def test_a_matrix_of_another_run_is_refused(tmp_path: Path) -> None:
    """Bad input: barcodes missing. Nearly all places under tissue without a barcode are no zeros."""
    run = Run(rows=20, cols=20)
    square = run.write_hd(tmp_path)
    write_h5(square / "filtered_feature_bc_matrix.h5", run.counts[:3], [run.barcodes[each] for each in run.kept[:3]])
    with pytest.raises(ExpressionError, match=r"positions under tissue have no barcode in it, such as s_002um"):
        read_visium_hd(square)


def positions_without(square: Path, *columns: str) -> None:
    path = square / "spatial" / "tissue_positions.parquet"
    pq.write_table(pq.read_table(path).drop_columns(list(columns)), path)


def test_rows_and_columns_alone_do_not_place_a_chip(tmp_path: Path) -> None:
    """Bad input: a mirrored grid without transform. mistake: upright grids guessed from rows and columns."""
    square = Run().write_hd(tmp_path)
    positions_without(square, "pxl_row_in_fullres", "pxl_col_in_fullres")
    with pytest.raises(ExpressionError, match="mirrored and turned"):
        read_visium_hd(square)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    square = Run().write_hd(tmp_path)
    positions_without(square, "array_row")
    with pytest.raises(ExpressionError, match="no column array_row"):
        read_visium_hd(square)


def changed(square: Path, column: str, number: int, value: object) -> None:
    path = square / "spatial" / "tissue_positions.parquet"
    table = pq.read_table(path).to_pydict()
    table[column] = [value if each == number else old for each, old in enumerate(table[column])]
    pq.write_table(pa.table(table), path)


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("pxl_row_in_fullres", float("nan"), "not a finite number"),
        ("array_col", None, "values are missing in array_col"),
        ("barcode", "s_002um_00000_00000-1", "stands twice"),
        ("array_row", 1.5, "not what it should be"),
        ("array_row", 2_000_000_000, "more than any chip has"),
        ("pxl_col_in_fullres", 1e5, "no lattice"),
    ],
)
def test_damaged_positions_are_refused(tmp_path: Path, column: str, value: object, said: str) -> None:
    square = Run().write_hd(tmp_path)
    names = pq.read_table(square / "spatial" / "tissue_positions.parquet")["barcode"].to_pylist()
    changed(square, column, 0 if names[0] != "s_002um_00000_00000-1" else 1, value)
    with pytest.raises(ExpressionError, match=said):
        read_visium_hd(square)


def test_two_positions_of_one_row_and_column_are_refused(tmp_path: Path) -> None:
    square = Run().write_hd(tmp_path)
    path = square / "spatial" / "tissue_positions.parquet"
    table = pq.read_table(path).to_pydict()
    for column in ("array_row", "array_col"):
        table[column][0] = table[column][1]
    pq.write_table(pa.table(table), path)
    with pytest.raises(ExpressionError, match="the same row and column"):
        read_visium_hd(square)


def test_a_square_folder_without_its_spatial_folder_is_named(tmp_path: Path) -> None:
    square = Run().write_hd(tmp_path)
    (square / "spatial").rename(square / "elsewhere")
    with pytest.raises(ExpressionError, match=r"scalefactors_json\.json: the file does not exist"):
        read_visium_hd(square)


def test_a_truncated_parquet_is_refused(tmp_path: Path) -> None:
    square = Run().write_hd(tmp_path)
    path = square / "spatial" / "tissue_positions.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(Exception, match="cannot be read as Parquet"):
        read_visium_hd(square)


def test_positions_as_csv_with_and_without_a_header(tmp_path: Path) -> None:
    square = Run().write_hd(tmp_path)
    spatial = square / "spatial"
    whole = read_visium_hd(square)
    table = pq.read_table(spatial / "tissue_positions.parquet")
    (spatial / "tissue_positions.parquet").unlink()
    with pytest.raises(ExpressionError, match=r"none of tissue_positions\.parquet"):
        read_visium_hd(square)
    for name, header in (("tissue_positions.csv", True), ("tissue_positions_list.csv", False)):
        pa_csv.write_csv(table, spatial / name, pa_csv.WriteOptions(include_header=header))
        read = read_visium_hd(square)
        assert np.allclose(read.places_px0, whole.places_px0, atol=1e-9)
        assert np.array_equal(read.array_rc, whole.array_rc)
        (spatial / name).unlink()


@pytest.mark.parametrize(
    ("scales", "said"),
    [
        ({"bin_size_um": 8.0, "microns_per_pixel": 0.25}, r"of bins of 8\.0 um"),
        ({"bin_size_um": 2.0, "microns_per_pixel": 0.5}, r"says 0\.5 um per pixel"),
        ({"bin_size_um": 2.0}, "nothing says how many micrometres"),
        ({"bin_size_um": 2.0, "microns_per_pixel": -1}, "microns_per_pixel is -1, no size"),
        ([1], "no JSON object"),
        ("{", "cannot be read as JSON"),
        (None, "does not exist"),
    ],
)
def test_scale_files_that_are_wrong_are_refused(tmp_path: Path, scales: object, said: str) -> None:
    square = Run().write_hd(tmp_path)
    path = square / "spatial" / "scalefactors_json.json"
    path.unlink()
    if scales is not None:
        path.write_text(scales if isinstance(scales, str) else json.dumps(scales))
    with pytest.raises(ExpressionError, match=said):
        read_visium_hd(square)


def test_the_image_says_mpp_where_the_scale_file_does_not(tmp_path: Path) -> None:
    square = Run().write_hd(tmp_path)
    (square / "spatial" / "scalefactors_json.json").write_text('{"bin_size_um": 2.0}')
    assert read_visium_hd(square, mpp=(0.25, 0.25)).mpp == 0.25
    with pytest.raises(ExpressionError, match=r"Give the full-resolution image that Space Ranger was given"):
        read_visium_hd(square, mpp=0.5)


def test_other_folders_are_no_visium_hd(tmp_path: Path) -> None:
    with pytest.raises(ExpressionError, match="no Visium HD output"):
        read_visium_hd(tmp_path)
    with pytest.raises(ExpressionError, match="no such folder"):
        read_visium_hd(tmp_path / "no")
