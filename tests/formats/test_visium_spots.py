from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse
from tests.tiny_space_ranger import write_h5

from lamella.formats.spatial_counts import ExpressionError
from lamella.formats.visium_spots import read_visium_spots

MPP = 0.5


def write_run(outs: Path, *, header: bool = True, fullres_um: float = 65.0, columns: int = 6) -> np.ndarray:
    """A hexagonal array of 100 um, mirrored; returns (P, 2) x and y of its spots."""
    rc = np.array([(row, col) for row in range(5) for col in range(row % 2, 2 * columns, 2)])
    x_um = 4000 - rc[:, 1] * 50.0
    y_um = 500 + rc[:, 0] * 100 * np.sqrt(0.75)
    places = np.stack([x_um, y_um], 1) / MPP
    counts = sparse.csr_array(np.random.default_rng(0).poisson(1.0, (len(rc), 3)).astype(np.int32))
    (outs / "spatial").mkdir(parents=True)
    names = [f"AAAC{number:04d}-1" for number in range(len(rc))]
    write_h5(outs / "filtered_feature_bc_matrix.h5", counts, names)
    lines = ["barcode,in_tissue,array_row,array_col,pxl_row_in_fullres,pxl_col_in_fullres"] if header else []
    for name, (row, col), (x, y) in zip(names, rc.tolist(), places.tolist(), strict=True):
        lines.append(f"{name},1,{row},{col},{y},{x}")
    file = "tissue_positions.csv" if header else "tissue_positions_list.csv"
    (outs / "spatial" / file).write_text("\n".join(lines) + "\n")
    scales = {"spot_diameter_fullres": fullres_um / MPP, "tissue_hires_scalef": 0.1}
    (outs / "spatial" / "scalefactors_json.json").write_text(json.dumps(scales))
    return places


@pytest.mark.parametrize("header", [True, False])
def test_spots_are_read_with_micrometres_of_the_scale_file(tmp_path: Path, header: bool) -> None:
    """`spot_diameter_fullres` is of a theoretical spot of 65 um; a spot has 55."""
    places = write_run(tmp_path / "case" / "outs", header=header)
    read = read_visium_spots(tmp_path / "case" / "outs")
    assert np.allclose(read.places_px0, places)
    assert (read.shape, read.size_um, read.name, read.grid) == ("spot", 55.0, "case", None)
    assert read.mpp == pytest.approx(MPP)
    assert read.all_measured


def test_micrometres_that_contradict_the_distance_of_the_spots_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path, fullres_um=55.0)
    with pytest.raises(ExpressionError, match=r"scalefactors_json\.json says 0\.5909 um per pixel"):
        read_visium_spots(tmp_path)
    assert read_visium_spots(tmp_path, mpp=0.5).mpp == 0.5


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExpressionError, match="no such folder"):
        read_visium_spots(tmp_path / "no")
    write_run(tmp_path)
    (tmp_path / "filtered_feature_bc_matrix.h5").unlink()
    with pytest.raises(ExpressionError, match=r"no filtered_feature_bc_matrix\.h5, nor a folder"):
        read_visium_spots(tmp_path)
