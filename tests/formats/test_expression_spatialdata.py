"""SpatialData in and out. The library wants an older dask than this checkout is pinned to, so that it is not among the
`test` extra: where it is absent only what needs no library is tested. With it: `pip install lamella[spatialdata]`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy import sparse
from tests.tiny_space_ranger import Run

from lamella.errors import MissingExtraError
from lamella.formats.expression_source import read_expression
from lamella.formats.expression_spatialdata import (
    is_spatialdata,
    read_expression_spatialdata,
    write_expression_spatialdata,
)
from lamella.formats.spatial_counts import ExpressionError, SpatialCounts
from lamella.formats.visium_hd import read_visium_hd


def test_stores_are_known_by_what_their_metadata_say(tmp_path: Path) -> None:
    assert not is_spatialdata(tmp_path)
    (tmp_path / "zarr.json").write_text(json.dumps({"attributes": {"ome": {}}}))
    assert not is_spatialdata(tmp_path)
    (tmp_path / "zarr.json").write_text(json.dumps({"attributes": {"spatialdata_attrs": {"version": "0.2"}}}))
    assert is_spatialdata(tmp_path)
    (tmp_path / "zarr.json").write_text("{")
    assert not is_spatialdata(tmp_path)
    (tmp_path / "zarr.json").unlink()
    (tmp_path / ".zattrs").write_text(json.dumps({"spatialdata_attrs": {}}))  # zarr 2
    assert is_spatialdata(tmp_path)


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spatialdata", None)
    (tmp_path / "zarr.json").write_text(json.dumps({"attributes": {"spatialdata_attrs": {}}}))
    with pytest.raises(MissingExtraError, match=r"lamella\[spatialdata\]"):
        read_expression(tmp_path)


@pytest.mark.filterwarnings("ignore")
class TestWithTheLibrary:
    @pytest.fixture(autouse=True)
    def library(self) -> None:
        pytest.importorskip("spatialdata")

    def test_bins_come_back(self, tmp_path: Path) -> None:
        counts = read_visium_hd(Run(rows=7, cols=6).write_hd(tmp_path))
        write_expression_spatialdata(tmp_path / "a.zarr", counts)
        read = read_expression(tmp_path / "a.zarr", name=counts.name)
        assert (read.counts != counts.counts).nnz == 0
        assert np.allclose(read.places_px0, counts.places_px0)
        assert (read.names, read.genes, read.gene_ids) == (counts.names, counts.genes, counts.gene_ids)
        assert (read.size_um, read.mpp, read.grid.mirrored) == (2.0, counts.mpp, True)
        with pytest.raises(ExpressionError, match="there already"):
            write_expression_spatialdata(tmp_path / "a.zarr", counts)
        with pytest.raises(ExpressionError, match="none of its tables"):
            read_expression_spatialdata(tmp_path / "a.zarr", bin_um=3)

    def test_spots_come_back(self, tmp_path: Path) -> None:
        counts = SpatialCounts(
            "a b", Path("s"), sparse.csr_array(np.eye(3, dtype=np.int32)), ("A", "B", "C"), np.eye(3, 2) * 90, "spot",
            100.0, 0.5, np.array(["x", "y", "z"], "S"),
        )  # fmt: skip
        write_expression_spatialdata(tmp_path / "a.zarr", counts)
        read = read_expression_spatialdata(tmp_path / "a.zarr")
        assert np.array_equal(read.counts.toarray(), np.eye(3))
        assert np.allclose(read.places_px0, counts.places_px0)
        assert (read.shape, read.size_um, read.mpp) == ("spot", 100.0, 0.5)

    def test_stores_of_spatialdata_io_are_read_as_the_run_is(self, tmp_path: Path) -> None:
        """Independent reader of the same run: spatialdata-io, whose store we read again."""
        readers = pytest.importorskip("spatialdata_io")
        run = Run(rows=7, cols=6)
        square = run.write_hd(tmp_path)
        with h5py.File(tmp_path / "feature_slice.h5", "w") as file:  # of which only this is looked at
            file.attrs["metadata_json"] = json.dumps({"hd_layout_json": json.dumps({"file_format": "1.0"})})
        store = readers.visium_hd(tmp_path, dataset_id="", bin_size=2, load_segmentations_only=False)
        store.write(tmp_path / "io.zarr")
        ours, theirs = read_visium_hd(square), read_expression(tmp_path / "io.zarr", mpp=0.25)
        assert ours.names == theirs.names
        assert (ours.counts != theirs.counts).nnz == 0
        assert np.allclose(ours.places_px0, theirs.places_px0)
        assert np.array_equal(ours.array_rc, theirs.array_rc)
