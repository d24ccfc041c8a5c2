from __future__ import annotations

import sys
from pathlib import Path

import anndata
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.errors import LamellaError, MissingExtraError, SlideError
from lamella.formats.anndata import write_anndata
from lamella.formats.placed_tiles import FeatureRows, PlacedTiles


def tiles_of(features: np.ndarray | None, corners: np.ndarray, **more: object) -> PlacedTiles:
    rows = None if features is None else FeatureRows.of(features)
    return PlacedTiles(
        Path("a.h5"), "a", corners, side_px0=448.5, tile_px=224, level0_mpp=0.25, features=rows, own={"encoder": "e"},
        **more,
    )  # fmt: skip


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(0, 5), dim=st.integers(1, 4), half=st.booleans(), seed=st.integers(0, 99))
def test_anndata_reads_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, rows: int, dim: int, half: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(rows, dim)).astype(np.float16 if half else np.float32)
    corners = rng.integers(0, 10_000, (rows, 2))
    path = tmp_path_factory.mktemp("a") / "a.h5ad"
    fractions = rng.random(rows)
    write_anndata(path, tiles_of(features, corners, columns={"tissue_fraction": fractions}, level0_size_px=(9, 8)))
    data = anndata.read_h5ad(path)
    assert np.array_equal(data.X, features)
    assert data.X.dtype == features.dtype
    assert np.array_equal(data.obsm["spatial"], corners + 224.25)
    assert np.array_equal(data.obs["tissue_fraction"], fractions)
    assert data.obs_names.is_unique
    lamella = data.uns["lamella"]
    assert lamella["fov_um"] == 448.5 * 0.25
    assert lamella["mpp"] == pytest.approx(448.5 * 0.25 / 224)
    assert (lamella["encoder"], lamella["level0_width_px"], lamella["level0_height_px"]) == ("e", 9, 8)


def test_the_same_features_give_the_same_bytes(tmp_path: Path) -> None:
    features, corners = np.eye(3, dtype=np.float32), np.zeros((3, 2), int)
    for name in ("a.h5ad", "b.h5ad"):
        write_anndata(tmp_path / name, tiles_of(features, corners))
    assert (tmp_path / "a.h5ad").read_bytes() == (tmp_path / "b.h5ad").read_bytes()


def test_tiles_without_features_and_bad_features_leave_nothing(tmp_path: Path) -> None:
    corners = np.zeros((2, 2), int)
    with pytest.raises(LamellaError, match="no features"):
        write_anndata(tmp_path / "a.h5ad", tiles_of(None, corners))
    with pytest.raises(SlideError, match="not a number"):
        write_anndata(tmp_path / "a.h5ad", tiles_of(np.full((2, 3), np.nan, np.float32), corners))
    assert list(tmp_path.iterdir()) == []


def test_without_anndata_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anndata", None)
    with pytest.raises(MissingExtraError, match=r"lamella\[spatial\]"):
        write_anndata(tmp_path / "a.h5ad", tiles_of(np.zeros((1, 1), np.float32), np.zeros((1, 2), int)))
