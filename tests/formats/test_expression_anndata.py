from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from tests.tiny_space_ranger import Run

from lamella.errors import MissingExtraError
from lamella.formats.expression_anndata import read_expression_anndata, write_expression_anndata
from lamella.formats.expression_h5ad import ExpressionH5ad
from lamella.formats.spatial_counts import ExpressionError, SpatialCounts
from lamella.formats.visium_hd import read_visium_hd


def spots(places: int = 4, genes: int = 3, seed: int = 0) -> SpatialCounts:
    rng = np.random.default_rng(seed)
    return SpatialCounts(
        name="s1",
        source=Path("s1"),
        counts=sparse.csr_array(rng.poisson(0.7, (places, genes)).astype(np.int32)),
        genes=tuple(f"G{number}" for number in range(genes)),
        places_px0=rng.random((places, 2)) * 900,
        shape="spot",
        size_um=100.0,
        mpp=0.7,
        barcodes=np.array([f"spot{number}" for number in range(places)], "S"),
    )


@settings(max_examples=5, deadline=None)
@given(places=st.integers(1, 6), genes=st.integers(1, 5), seed=st.integers(0, 99))
def test_spots_come_back(tmp_path_factory: pytest.TempPathFactory, places: int, genes: int, seed: int) -> None:
    counts, path = spots(places, genes, seed), tmp_path_factory.mktemp("a") / "a.h5ad"
    write_expression_anndata(path, counts)
    read = read_expression_anndata(path, name="s1")
    assert np.array_equal(read.counts.toarray(), counts.counts.toarray())
    assert read.counts.dtype == np.int32
    assert np.array_equal(read.places_px0, counts.places_px0)
    assert (read.genes, read.names, read.shape, read.size_um, read.mpp) == (
        counts.genes,
        counts.names,
        "spot",
        100.0,
        0.7,
    )


def test_bins_come_back_with_their_lattice(tmp_path: Path) -> None:
    counts = read_visium_hd(Run(rows=7, cols=5).write_hd(tmp_path))
    write_expression_anndata(tmp_path / "a.h5ad", counts)
    read = read_expression_anndata(tmp_path / "a.h5ad")
    assert np.array_equal(read.counts.toarray(), counts.counts.toarray())
    assert np.array_equal(read.array_rc, counts.array_rc)
    assert np.allclose(read.grid.place_px0(3, 4), counts.grid.place_px0(3, 4))
    assert read.grid.mirrored
    assert (read.captured_rc, read.all_measured, read.gene_ids) == (counts.captured_rc, False, counts.gene_ids)
    assert np.array_equal(read.flagged, counts.flagged)
    with pytest.raises(ExpressionError, match=r"the image or manifest says 1 um per pixel"):
        read_expression_anndata(tmp_path / "a.h5ad", mpp=1.0)


def test_anndata_opens_it_as_scanpy_and_squidpy_expect(tmp_path: Path) -> None:
    counts = spots()
    write_expression_anndata(tmp_path / "a.h5ad", counts)
    data = anndata.read_h5ad(tmp_path / "a.h5ad")
    assert sparse.issparse(data.X)
    assert np.array_equal(data.X.toarray(), counts.counts.toarray())
    assert np.array_equal(data.obsm["spatial"], counts.places_px0)
    assert data.obs_names.tolist() == counts.names
    assert data.uns["spatial"]["s1"]["scalefactors"]["spot_diameter_fullres"] == pytest.approx(100 / 0.7)


def foreign(path: Path, change: Callable[[anndata.AnnData], None] = lambda data: None) -> Path:
    """Visium as scanpy keeps it: normalised X, raw counts in a layer, the run's scale file in uns."""
    rc = np.array([(row, col) for row in range(4) for col in range(row % 2, 8, 2)])
    counts = np.random.default_rng(0).poisson(2, (len(rc), 3)).astype(np.float32)
    data = anndata.AnnData(
        np.log1p(counts),
        obs=pandas.DataFrame(
            {"array_row": rc[:, 0], "array_col": rc[:, 1], "in_tissue": 1}, index=[f"b{n}" for n in range(len(rc))]
        ),
        var=pandas.DataFrame(index=["A", "B", "C"]),
        obsm={"spatial": rc[:, ::-1] * [100.0, 173.2]},
        layers={"counts": counts},
        uns={"spatial": {"lib": {"scalefactors": {"spot_diameter_fullres": 130.0, "tissue_hires_scalef": 0.1}}}},
    )
    change(data)
    data.write_h5ad(path)
    return path


def test_visium_of_scanpy_reads_raw_counts_before_normalised_ones(tmp_path: Path) -> None:
    path = foreign(tmp_path / "a.h5ad")
    read = read_expression_anndata(path, mpp=0.5)
    assert read.are_counts
    assert (read.shape, read.size_um, read.mpp) == ("spot", 55.0, 0.5)
    assert read.counts.dtype == np.int32
    with pytest.raises(ExpressionError, match="nothing says how many micrometres"):  # bad input: image without mpp
        read_expression_anndata(path)
    with pytest.raises(ExpressionError, match="no layer smoothed"):
        read_expression_anndata(path, mpp=0.5, layer="smoothed")


def test_values_that_are_no_counts_stay_values(tmp_path: Path) -> None:
    path = foreign(tmp_path / "a.h5ad", lambda data: data.layers.pop("counts"))
    read = read_expression_anndata(path, mpp=0.5)
    assert not read.are_counts
    assert read.counts.dtype == np.float32


def drop(data: anndata.AnnData, column: str) -> None:
    del data.obs[column]


def to_nan(data: anndata.AnnData) -> None:
    data.obsm["spatial"][0, 0] = np.nan


def bins_without_rows(data: anndata.AnnData) -> None:
    drop(data, "array_row")
    data.uns["lamella"] = {"shape": "bin", "size_um": 2.0}


def fraction(data: anndata.AnnData) -> None:
    data.obs["array_row"] = data.obs["array_row"] + 0.5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data.obsm.pop("spatial"), r"no obsm\[\"spatial\"\]"),
        (to_nan, "not finite"),
        (lambda data: drop(data, "array_col"), "bins or spots"),
        (lambda data: data.uns.pop("spatial") and drop(data, "array_row"), "bins or spots"),
        (bins_without_rows, "say how the chip lies"),
        (fraction, "no whole number"),
        (lambda data: setattr(data, "obs_names", ["a"] * data.n_obs), "stand twice"),
        (lambda data: data.layers["counts"].__setitem__((0, 0), np.inf), "not a finite number"),
    ],
)
def test_what_does_not_say_its_places_is_refused(tmp_path: Path, change: Callable[..., None], said: str) -> None:
    path = foreign(tmp_path / "a.h5ad", change)
    with pytest.raises(ExpressionError, match=said):
        read_expression_anndata(path, mpp=0.5)


def test_a_prediction_is_not_read_as_measured(tmp_path: Path) -> None:
    with ExpressionH5ad(tmp_path / "p.h5ad", ["A"], name="s", bin_um=2, mpp=(0.5, 0.5), units="counts") as file:
        file.append(np.ones((2, 1)), np.array([[0, 0], [1, 1]]))
    with pytest.raises(ExpressionError, match="holds a prediction, no measured counts"):
        read_expression_anndata(tmp_path / "p.h5ad")


def test_cut_and_missing_files_are_refused(tmp_path: Path) -> None:
    path = foreign(tmp_path / "a.h5ad")
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(ExpressionError, match="cannot be read whole"):
        read_expression_anndata(path)
    with pytest.raises(ExpressionError, match="does not exist"):
        read_expression_anndata(tmp_path / "no.h5ad")


def test_shared_gene_names_are_told_apart(tmp_path: Path) -> None:
    def twice(data: anndata.AnnData) -> None:
        data.var_names = ["A", "A", "C"]

    read = read_expression_anndata(foreign(tmp_path / "a.h5ad", twice), mpp=0.5)
    assert read.genes == ("A_0", "A_1", "C")
    assert "1 gene names" in read.notes[0]


def test_without_anndata_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anndata", None)
    with pytest.raises(MissingExtraError, match=r"lamella\[spatial\]"):
        read_expression_anndata(tmp_path / "a.h5ad")
