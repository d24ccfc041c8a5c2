"""Runs of Space Ranger with a few dozen places, written after 10x's description of the files, not by our writers."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import io as scipy_io
from scipy import sparse

MPP = 0.25


@dataclass
class Run:
    """A chip of `rows` x `cols` places: mirrored (columns run to the left) and turned.

    Attributes:
        counts: (N, G) of the barcodes in the matrix, in their order there.
        kept: (N,) numbers of their places, row by row.
    """

    rows: int = 6
    cols: int = 8
    genes: int = 5
    bin_um: int = 2
    turn_deg: float = 1.2
    mirrored: bool = True
    seed: int = 0
    flagged: np.ndarray = field(init=False)
    kept: np.ndarray = field(init=False)
    counts: sparse.csr_array = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.flagged = rng.random(self.rows * self.cols) < 0.7
        self.flagged[:2] = True
        self.kept = rng.permutation(np.flatnonzero(self.flagged))
        counts = rng.poisson(0.5, (len(self.kept), self.genes))
        counts[:, 0] += counts.sum(1) == 0  # every barcode was seen
        self.counts = sparse.csr_array(counts.astype(np.int32))

    @property
    def rc(self) -> np.ndarray:
        """(P, 2) rows and columns of all places."""
        return np.stack([each.ravel() for each in np.indices((self.rows, self.cols))], 1)

    @property
    def steps_px0(self) -> np.ndarray:
        """x and y of a row's step and of a column's step."""
        step, turn = self.bin_um / MPP, math.radians(self.turn_deg)
        row = np.array([-math.sin(turn), math.cos(turn)]) * step
        col = np.array([math.cos(turn), math.sin(turn)]) * step
        return np.stack([row, -col if self.mirrored else col])

    @property
    def places_px0(self) -> np.ndarray:
        """(P, 2) x and y."""
        return [500.0, 300.0] + self.rc @ self.steps_px0

    @property
    def barcodes(self) -> list[str]:
        return [f"s_{self.bin_um:03d}um_{row:05d}_{col:05d}-1" for row, col in self.rc.tolist()]

    @property
    def positions(self) -> dict[str, Any]:
        """Columns of tissue_positions, in an order of their own."""
        order, names = np.random.default_rng(self.seed + 1).permutation(len(self.rc)), self.barcodes
        return {
            "barcode": [names[number] for number in order],
            "in_tissue": self.flagged[order].astype(np.int32),
            "array_row": self.rc[order, 0].astype(np.int32),
            "array_col": self.rc[order, 1].astype(np.int32),
            "pxl_row_in_fullres": self.places_px0[order, 1],
            "pxl_col_in_fullres": self.places_px0[order, 0],
        }

    def write_hd(self, outs: Path, *, name: str = "filtered_feature_bc_matrix") -> Path:
        """`outs/binned_outputs/square_XXXum`; returns it."""
        square = outs / "binned_outputs" / f"square_{self.bin_um:03d}um"
        (square / "spatial").mkdir(parents=True)
        names = self.barcodes
        write_h5(square / f"{name}.h5", self.counts, [names[number] for number in self.kept])
        pq.write_table(pa.table(self.positions), square / "spatial" / "tissue_positions.parquet")
        scales = {
            "spot_diameter_fullres": self.bin_um / MPP,
            "bin_size_um": float(self.bin_um),
            "microns_per_pixel": MPP,
            "tissue_hires_scalef": 0.1,
            "tissue_lowres_scalef": 0.01,
        }
        (square / "spatial" / "scalefactors_json.json").write_text(json.dumps(scales))
        return square


def feature_names(genes: int) -> list[str]:
    return [f"Gene{number}" for number in range(genes)]


def write_h5(
    path: Path, counts: sparse.csr_array, barcodes: list[str], replaced: Mapping[str, Any] | None = None
) -> None:
    """10x's HDF5: genes x barcodes by columns, indices of 64 bits. `replaced`: other values of a dataset."""
    genes = counts.shape[1]
    arrays = {
        "barcodes": np.array(barcodes, "S"),
        "data": counts.data.astype(np.int32),
        "indices": counts.indices.astype(np.int64),
        "indptr": counts.indptr.astype(np.int64),
        "shape": np.array([genes, len(barcodes)], np.int32),
        "features/id": np.array([f"ENSG{number:011d}" for number in range(genes)], "S"),
        "features/name": np.array(feature_names(genes), "S"),
        "features/feature_type": np.array(["Gene Expression"] * genes, "S"),
    }
    with h5py.File(path, "w") as file:
        for name, values in {**arrays, **(replaced or {})}.items():
            if values is not None:
                file.create_dataset(f"matrix/{name}", data=values, compression="gzip" if np.size(values) > 1 else None)


def write_folder(folder: Path, counts: sparse.csr_array, barcodes: list[str]) -> None:
    """The same matrix as a Matrix Market folder, packed as 10x packs it."""
    folder.mkdir(parents=True)
    with gzip.open(folder / "matrix.mtx.gz", "wb") as file:
        scipy_io.mmwrite(file, sparse.coo_array(counts.T), field="integer")
    names = feature_names(counts.shape[1])
    features = "".join(f"ENSG{number:011d}\t{name}\tGene Expression\n" for number, name in enumerate(names))
    (folder / "features.tsv.gz").write_bytes(gzip.compress(features.encode()))
    (folder / "barcodes.tsv.gz").write_bytes(gzip.compress("".join(f"{name}\n" for name in barcodes).encode()))
