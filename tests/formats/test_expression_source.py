from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.formats.test_spot_tables import write_section
from tests.formats.test_visium_spots import write_run
from tests.tiny_space_ranger import Run

from lamella.formats.expression_anndata import write_expression_anndata
from lamella.formats.expression_source import read_expression
from lamella.formats.spatial_counts import ExpressionError
from lamella.formats.tiled_labels import write_tiled_labels


def test_the_same_bins_from_whatever_they_are_kept_in(tmp_path: Path) -> None:
    square = Run().write_hd(tmp_path / "case" / "outs")
    counts = read_expression(tmp_path / "case")
    write_expression_anndata(tmp_path / "case.h5ad", counts)
    write_tiled_labels(tmp_path / "case_precomputed_labels_v2", counts, tile_bins=4)
    for path in (square, tmp_path / "case.h5ad", tmp_path / "case_precomputed_labels_v2"):
        read = read_expression(path, mpp=(0.25, 0.25))
        order = np.lexsort(read.array_rc.T[::-1])
        known = np.lexsort(counts.array_rc.T[::-1])
        assert np.allclose(read.places_px0[order], counts.places_px0[known])
        assert np.array_equal(read.counts.toarray()[order], counts.counts.toarray()[known])
        assert (read.name, read.size_um, read.mpp) == ("case", 2.0, 0.25)
        assert read_expression(path, name="other").name == "other"


def test_spots_of_folders_and_tables(tmp_path: Path) -> None:
    write_run(tmp_path / "visium")
    write_section(tmp_path / "st")
    assert read_expression(tmp_path / "visium").size_um == 55
    assert read_expression(tmp_path / "st" / "A1_counts.npz").size_um == 100


def test_the_message_lists_what_was_tried(tmp_path: Path) -> None:
    with pytest.raises(ExpressionError, match=r"no expression that Lamella reads.*Visium HD.*AnnData.*patches\.json"):
        read_expression(tmp_path)
    with pytest.raises(ExpressionError, match="no such file or folder"):
        read_expression(tmp_path / "no")
    (tmp_path / "a.xlsx").touch()
    with pytest.raises(ExpressionError, match="no expression that Lamella reads"):
        read_expression(tmp_path / "a.xlsx")
