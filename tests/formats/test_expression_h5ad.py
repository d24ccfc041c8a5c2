from __future__ import annotations

import errno
import os
import tracemalloc
from pathlib import Path

import anndata
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.errors import StorageError
from lamella.formats.expression_h5ad import ExpressionH5ad
from lamella.formats.spatial_counts import ExpressionError
from lamella.geometry import BinGrid


def writing(path: Path, genes: int = 3, **more: object) -> ExpressionH5ad:
    facts = {"name": "slide 1", "bin_um": 8.0, "mpp": (0.5, 0.4), "units": "expected count per bin of 8 um"}
    return ExpressionH5ad(path, [f"G{number}" for number in range(genes)], **{**facts, **more})


@settings(max_examples=6, deadline=None)
@given(pieces=st.lists(st.integers(0, 5), max_size=4), genes=st.integers(1, 4), seed=st.integers(0, 99))
def test_anndata_reads_what_was_appended(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[int], genes: int, seed: int
) -> None:
    rng, path = np.random.default_rng(seed), tmp_path_factory.mktemp("p") / "p.h5ad"
    rc = np.argwhere(np.ones((4, 5)))[: sum(pieces)]
    values = rng.random((len(rc), genes)).astype(np.float32)
    with writing(path, genes, uns={"model": ["a", "b"], "seed": 3, "nested": {"x": 0.5, "left out": None}}) as file:
        for part in np.split(np.arange(len(rc)), np.cumsum(pieces)[:-1]):
            file.append(values[part], rc[part])
    data = anndata.read_h5ad(path)
    assert data.X is None
    assert np.array_equal(data.layers["predicted"], values)
    grid = BinGrid.upright(8.0, 0.5, 0.4)
    assert np.allclose(data.obsm["spatial"], np.stack(grid.place_px0(rc[:, 0], rc[:, 1]), 1))
    assert np.array_equal(data.obs[["array_row", "array_col"]].to_numpy(), rc)
    assert data.obs_names.is_unique
    assert data.var_names.tolist() == [f"G{number}" for number in range(genes)]
    own = data.uns["lamella"]
    assert (own["units"], own["slide"], own["seed"]) == ("expected count per bin of 8 um", "slide 1", 3)
    assert own["model"].tolist() == ["a", "b"]
    assert dict(own["nested"]) == {"x": 0.5}
    assert own["predicted"]


def test_names_say_row_and_column(tmp_path: Path) -> None:
    with writing(tmp_path / "p.h5ad") as file:
        file.append(np.zeros((1, 3)), np.array([[12, 3456789]]))
    assert anndata.read_h5ad(tmp_path / "p.h5ad").obs_names.tolist() == ["r0000012_c3456789"]


def test_a_turned_lattice(tmp_path: Path) -> None:
    grid = BinGrid((900.0, 10.0), (0.1, 8.0), (-8.0, 0.1), 2.0)
    with writing(tmp_path / "p.h5ad", grid=grid, bin_um=2.0, layer="mean") as file:
        file.append(np.ones((2, 3)), np.array([[0, 0], [1, 2]]))
    data = anndata.read_h5ad(tmp_path / "p.h5ad")
    assert np.allclose(data.obsm["spatial"], [[900, 10], [900.1 - 16, 18.2]])
    assert data.uns["lamella"]["col_step_px0"].tolist() == [-8.0, 0.1]
    assert list(data.layers) == ["mean"]


def test_identical_predictions_give_identical_bytes(tmp_path: Path) -> None:
    for name in ("a.h5ad", "b.h5ad"):
        with writing(tmp_path / name) as file:
            file.append(np.ones((2, 3)), np.array([[0, 0], [1, 2]]))
    assert (tmp_path / "a.h5ad").read_bytes() == (tmp_path / "b.h5ad").read_bytes()


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ExpressionError, match="not a finite number"), writing(tmp_path / "p.h5ad") as file:
        file.append(np.full((1, 3), np.nan), np.zeros((1, 2), int))
    with pytest.raises(ValueError, match="3 genes"), writing(tmp_path / "p.h5ad") as file:
        file.append(np.zeros((1, 2)), np.zeros((1, 2), int))
    with pytest.raises(TypeError, match="cannot be written"), writing(tmp_path / "p.h5ad", uns={"a": object()}):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_met_before_hdf5_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HDF5 ends the process when it cannot write its last bytes; room is taken before each piece."""

    def full(_: int, __: int, size: int) -> None:
        if size > 200_000:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)

    def write() -> None:
        with writing(tmp_path / "p.h5ad") as file:
            for rows in (10, 20_000):
                file.append(np.zeros((rows, 3)), np.zeros((rows, 2), int))

    with pytest.raises(StorageError, match="disk is full"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_memory_does_not_grow_with_the_slide(tmp_path: Path) -> None:
    peaks = []
    for pieces in (2, 12):
        values, rc = np.random.default_rng(0).random((1000, 20)).astype(np.float32), np.zeros((1000, 2), int)
        tracemalloc.start()
        with writing(tmp_path / "p.h5ad", 20) as file:
            for _ in range(pieces):
                file.append(values, rc)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
    with h5py.File(tmp_path / "p.h5ad") as file:
        assert file["layers/predicted"].shape == (12_000, 20)
