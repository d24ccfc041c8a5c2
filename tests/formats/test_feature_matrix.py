from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from tests.tiny_space_ranger import feature_names, write_folder, write_h5

from lamella.formats import feature_matrix
from lamella.formats.feature_matrix import read_feature_matrix
from lamella.formats.spatial_counts import ExpressionError


def random_counts(places: int, genes: int, seed: int) -> sparse.csr_array:
    return sparse.csr_array(np.random.default_rng(seed).poisson(0.4, (places, genes)).astype(np.int32))


def barcodes(places: int) -> list[str]:
    return [f"AAAC{number:04d}-1" for number in range(places)]


@settings(max_examples=10, deadline=None)
@given(places=st.integers(1, 9), genes=st.integers(1, 7), seed=st.integers(0, 99), piece=st.integers(1, 5))
def test_h5_folder_and_chosen_genes_are_the_same_matrix(
    tmp_path_factory: pytest.TempPathFactory, places: int, genes: int, seed: int, piece: int
) -> None:
    counts, folder = random_counts(places, genes, seed), tmp_path_factory.mktemp("m")
    write_h5(folder / "m.h5", counts, barcodes(places))
    write_folder(folder / "m", counts, barcodes(places))
    chosen = np.random.default_rng(seed).permutation(genes)[: 1 + seed % genes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_matrix, "_ENTRIES", piece)  # so that pieces end within rows
        some = read_feature_matrix(folder / "m.h5", genes=[f"Gene{number}" for number in chosen])
    assert np.array_equal(some.counts.toarray(), counts.toarray()[:, chosen])
    for path in (folder / "m.h5", folder / "m"):
        read = read_feature_matrix(path)
        assert np.array_equal(read.counts.toarray(), counts.toarray())
        assert read.counts.dtype == np.int32
        assert read.barcodes.tolist() == [name.encode() for name in barcodes(places)]
        assert read.genes == tuple(feature_names(genes))
        assert read.ids[0] == "ENSG00000000000"
        assert read.notes == ()


def test_reading_holds_little_more_than_the_matrix(tmp_path: Path) -> None:
    """The file keeps 64-bit indices; they are converted while they are read, and nothing is transposed."""
    write_h5(tmp_path / "m.h5", random_counts(4000, 100, 0), barcodes(4000))
    tracemalloc.start()
    counts = read_feature_matrix(tmp_path / "m.h5").counts
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (counts.indices.dtype, counts.indptr.dtype) == (np.int32, np.int32)
    assert peak < 1.5 * (counts.data.nbytes + counts.indices.nbytes + counts.indptr.nbytes)


def test_a_name_of_several_genes_is_followed_by_the_id_and_said(tmp_path: Path) -> None:
    names = np.array(["TBCE", "ACTB", "TBCE"], "S")
    write_h5(tmp_path / "m.h5", random_counts(4, 3, 0), barcodes(4), {"features/name": names})
    read = read_feature_matrix(tmp_path / "m.h5")
    assert read.genes == ("TBCE_ENSG00000000000", "ACTB", "TBCE_ENSG00000000002")
    assert "1 gene names" in read.notes[0]
    assert "TBCE" in read.notes[0]


def test_features_that_are_no_genes_are_left_aside_and_said(tmp_path: Path) -> None:
    kinds = np.array(["Gene Expression", "Antibody Capture", "Gene Expression"], "S")
    counts = random_counts(4, 3, 0)
    write_h5(tmp_path / "m.h5", counts, barcodes(4), {"features/feature_type": kinds})
    read = read_feature_matrix(tmp_path / "m.h5")
    assert np.array_equal(read.counts.toarray(), counts.toarray()[:, [0, 2]])
    assert read.notes == ("1 features that are no genes were left aside",)


def test_entries_out_of_order_are_put_in_order(tmp_path: Path) -> None:
    shuffled = {"indices": np.array([2, 0, 1]), "data": np.array([5, 3, 4]), "indptr": np.array([0, 2, 3])}
    write_h5(tmp_path / "m.h5", sparse.csr_array((2, 3), dtype=np.int32), barcodes(2), shuffled)
    assert read_feature_matrix(tmp_path / "m.h5").counts.toarray().tolist() == [[3, 0, 5], [0, 4, 0]]


@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_a_truncated_h5_is_refused(tmp_path: Path, share: float) -> None:
    """Bad input: truncated h5."""
    path = tmp_path / "m.h5"
    write_h5(path, random_counts(400, 30, 0), barcodes(400))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ExpressionError, match=r"cannot be read whole.*Copy it anew"):
        read_feature_matrix(path)


BAD = {
    "feature beyond": ({"indices": np.array([0, 9]), "data": np.array([1, 1]), "indptr": np.array([0, 1, 2])}, "has 3"),
    "feature below": ({"indices": np.array([0, -1]), "data": np.array([1, 1]), "indptr": np.array([0, 1, 2])}, "has 3"),
    "rows fall": ({"indices": np.array([0, 1]), "data": np.array([1, 1]), "indptr": np.array([0, 3, 2])}, "follow"),
    "rows missing": ({"indptr": np.array([0, 0])}, "row starts"),
    "counts missing": ({"indices": np.array([0, 1]), "indptr": np.array([0, 1, 2])}, "row starts"),
    "negative": (
        {"indices": np.array([0]), "data": np.array([-2]), "indptr": np.array([0, 1, 1])},
        r"below zero \(-2\)",
    ),
    "twice": ({"indices": np.array([1, 1]), "data": np.array([1, 2]), "indptr": np.array([0, 2, 2])}, "stands twice"),
    "not finite": (
        {"indices": np.array([1]), "data": np.array([np.nan], np.float32), "indptr": np.array([0, 1, 1])},
        "not a finite",
    ),
    "names short": ({"features/name": np.array(["a"], "S")}, "1 names"),
    "barcode twice": ({"barcodes": np.array(["a", "a"], "S")}, "1 barcodes stand twice, such as a"),
    "barcodes short": ({"barcodes": np.array(["a"], "S")}, "1 barcodes"),
    "no barcodes": ({"barcodes": None}, "no matrix/barcodes"),
    "no genes": ({"features/feature_type": np.array(["Antibody Capture"] * 3, "S")}, "none of its 3 features"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_matrix_that_contradicts_itself_is_refused(tmp_path: Path, case: str) -> None:
    replaced, said = BAD[case]
    write_h5(tmp_path / "m.h5", sparse.csr_array((2, 3), dtype=np.int32), barcodes(2), replaced)
    with pytest.raises(ExpressionError, match=said):
        read_feature_matrix(tmp_path / "m.h5")


def test_whole_floats_become_counts_and_others_stay_values(tmp_path: Path) -> None:
    rows = {"indices": np.array([0, 1]), "indptr": np.array([0, 1, 2])}
    for data, kind in (([1.0, 3.0], np.int32), ([1.5, 3.0], np.float32)):
        replaced = {**rows, "data": np.array(data, np.float64)}
        write_h5(tmp_path / "m.h5", sparse.csr_array((2, 3), dtype=np.int32), barcodes(2), replaced)
        assert read_feature_matrix(tmp_path / "m.h5").counts.dtype == kind


def test_absent_genes_are_all_named(tmp_path: Path) -> None:
    write_h5(tmp_path / "m.h5", random_counts(2, 3, 0), barcodes(2))
    with pytest.raises(ExpressionError, match=r"2 of 3 genes that are asked for are not in it: NO1, NO2"):
        read_feature_matrix(tmp_path / "m.h5", genes=["NO1", "Gene1", "NO2"])


def test_a_missing_file_and_an_empty_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ExpressionError, match="does not exist"):
        read_feature_matrix(tmp_path / "no.h5")
    with pytest.raises(ExpressionError, match=r"no matrix\.mtx"):
        read_feature_matrix(tmp_path)


def test_fractional_counts_in_a_file_of_integers_are_refused(tmp_path: Path) -> None:
    """Bad input: fractional counts."""
    write_folder(tmp_path / "m", random_counts(2, 3, 0), barcodes(2))
    text = "%%MatrixMarket matrix coordinate integer general\n3 2 1\n1 1 1.5\n"
    (tmp_path / "m" / "matrix.mtx.gz").write_bytes(gzip.compress(text.encode()))
    with pytest.raises(ExpressionError, match="says that it holds whole numbers"):
        read_feature_matrix(tmp_path / "m")
    for entry in ("1 1 -1\n", "1 1 1\n2 2 1\n"):  # below zero; one more than the head says
        text = f"%%MatrixMarket matrix coordinate integer general\n3 2 1\n{entry}"
        (tmp_path / "m" / "matrix.mtx.gz").write_bytes(gzip.compress(text.encode()))
        with pytest.raises(ExpressionError, match=r"below zero|cannot be read whole"):
            read_feature_matrix(tmp_path / "m")


def test_folders_that_are_not_packed_or_cut_off(tmp_path: Path) -> None:
    counts = random_counts(3, 4, 1)
    write_folder(tmp_path / "m", counts, barcodes(3))
    for path in sorted((tmp_path / "m").iterdir()):  # plain text under a packed file's name is read as what it is
        path.write_bytes(gzip.decompress(path.read_bytes()))
    assert np.array_equal(read_feature_matrix(tmp_path / "m").counts.toarray(), counts.toarray())
    (tmp_path / "m" / "barcodes.tsv.gz").write_text("one\n")
    with pytest.raises(ExpressionError, match="3 barcodes x 4 features, but there are 1 barcodes"):
        read_feature_matrix(tmp_path / "m")
    (tmp_path / "m" / "matrix.mtx.gz").write_bytes(gzip.compress(b"x" * 4000)[:20])
    with pytest.raises(ExpressionError, match="cannot be read whole"):
        read_feature_matrix(tmp_path / "m")
