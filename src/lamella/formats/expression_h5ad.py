"""Predicted expression as AnnData (`.h5ad`), written row by row so that a slide need not fit in memory.

The prediction stands in a named layer, `obsm["spatial"]` holds x and y of the places in level-0 pixels, `obs` their
rows and columns on the lattice, and `uns["lamella"]` says units, model and lattice. X is absent, so that nobody takes a
prediction for measured counts. Written by h5py alone; `anndata.read_h5ad` opens it.
Shapes: N places, G genes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np

from lamella.formats.anndata_elements import begun, marked, write_element, write_texts
from lamella.formats.atomic import whole_file
from lamella.formats.h5_room import h5_with_room, take_room
from lamella.formats.spatial_counts import ExpressionError
from lamella.geometry import BinGrid

PREDICTED = "predicted"

_CHUNK_BYTES = 2**20  # HDF5 keeps a chunk of this size in its cache while rows are added to it
_PACKING = {"compression": "gzip", "compression_opts": 1, "shuffle": True}  # half the size at little time
_NAME = "r{:07d}_c{:07d}"
_NAME_BYTES = len(_NAME.format(0, 0))
_PLACE_BYTES = 16 + 8 + _NAME_BYTES  # of a row besides its values


class ExpressionH5ad:
    """A file that takes rows until it is closed; it appears whole or not at all.

    Args:
        path: `.h5ad`.
        genes: G names.
        name: Of the slide.
        bin_um: Side of a bin of the upright lattice; with `grid`, the lattice's own.
        mpp: x and y micrometres per pixel of level 0.
        units: What the values are, in words.
        grid: A lattice other than the upright one.
        layer: Name of the layer.
        uns: What else `uns["lamella"]` says: model, fingerprint, ... Texts, numbers, truths, and lists and mappings of
            them; None is left out.

    Raises:
        StorageError: The disk refused a write.
    """

    def __init__(
        self,
        path: Path | str,
        genes: Sequence[str],
        *,
        name: str,
        bin_um: float,
        mpp: tuple[float, float],
        units: str,
        grid: BinGrid | None = None,
        layer: str = PREDICTED,
        uns: Mapping[str, Any] | None = None,
    ) -> None:
        self.path, self.genes, self.layer = Path(path), tuple(genes), layer
        self.grid = BinGrid.upright(bin_um, *mpp) if grid is None else grid
        one_mpp = math.sqrt(mpp[0] * mpp[1])
        own = {"layer": layer, "units": units, "predicted": True, "slide": name}
        self._uns = {
            "lamella": {**lattice_facts(self.grid, one_mpp), **(uns or {}), **own},
            "spatial": squidpy_facts(name, self.grid.bin_um / one_mpp),
        }
        self._open = ExitStack()
        self._rows = 0

    def __enter__(self) -> Self:
        with ExitStack() as stack:  # what was opened is closed again if the rest fails
            part = stack.enter_context(whole_file(self.path))
            self._file = stack.enter_context(h5_with_room(part, 64 * len(self.genes)))
            self._begin()
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self._open.__exit__(kind, error, trace)

    def append(self, values: np.ndarray, rc: np.ndarray) -> None:
        """Add places.

        Args:
            values: (N, G) expected counts or values.
            rc: (N, 2) whole rows and columns on the lattice; no place may be given twice.

        Raises:
            ExpressionError: A value is not a finite number.
            ValueError: The shapes do not fit.
        """
        if values.shape != (len(rc), len(self.genes)) or rc.shape != (len(rc), 2):
            raise ValueError(f"values {values.shape} at places {rc.shape}, {len(self.genes)} genes")
        if not np.isfinite(values).all():
            raise ExpressionError(self.path, "a predicted value is not a finite number", "Check the model.")
        x, y = self.grid.place_px0(rc[:, 0].astype(np.float64), rc[:, 1].astype(np.float64))
        names = np.array([_NAME.format(row, col) for row, col in rc.tolist()], f"S{_NAME_BYTES}")
        take_room(self._file, len(rc) * (4 * len(self.genes) + _PLACE_BYTES))
        end = self._rows + len(rc)
        for part, new in zip(self._parts, (values, np.stack([x, y], 1), rc[:, 0], rc[:, 1], names), strict=True):
            part.resize(end, axis=0)
            part[self._rows : end] = new
        self._rows = end

    def _begin(self) -> None:
        file, text = self._file, h5py.string_dtype()
        begun(file)
        for frame, columns in (("obs", ["array_row", "array_col"]), ("var", [])):
            group = marked(file.create_group(frame), "dataframe", "0.2.0")
            group.attrs["_index"] = "_index"
            group.attrs.create("column-order", np.array(columns, object), dtype=text)
        write_texts(file["var"], "_index", self.genes)
        for key, value in self._uns.items():
            write_element(file["uns"], key, value)
        rows = max(1, _CHUNK_BYTES // (4 * max(1, len(self.genes))))
        index = h5py.string_dtype("ascii", _NAME_BYTES)
        self._parts = (
            _growing(file["layers"], self.layer, (len(self.genes),), np.float32, rows),
            _growing(file["obsm"], "spatial", (2,), np.float64, _CHUNK_BYTES // 16),
            _growing(file["obs"], "array_row", (), np.int32, _CHUNK_BYTES // 4),
            _growing(file["obs"], "array_col", (), np.int32, _CHUNK_BYTES // 4),
            marked(_growing(file["obs"], "_index", (), index, _CHUNK_BYTES // _NAME_BYTES), "string-array", "0.2.0"),
        )


def lattice_facts(grid: BinGrid, mpp: float) -> dict[str, Any]:
    """How the places of a file lie, in plain values."""
    return {
        "shape": "bin",
        "size_um": grid.bin_um,
        "mpp": mpp,
        "origin_px0": list(grid.origin_px0),
        "row_step_px0": list(grid.row_step_px0),
        "col_step_px0": list(grid.col_step_px0),
    }


def squidpy_facts(name: str, diameter_px0: float) -> dict[str, Any]:
    """`uns["spatial"]` as squidpy draws it: a place is a spot of this many pixels."""
    return {name: {"images": {}, "scalefactors": {"spot_diameter_fullres": diameter_px0, "tissue_hires_scalef": 1.0}}}


def _growing(group: h5py.Group, name: str, more: tuple[int, ...], dtype: Any, rows: int) -> h5py.Dataset:
    made = group.create_dataset(name, (0, *more), dtype, maxshape=(None, *more), chunks=(rows, *more), **_PACKING)
    return marked(made, "array", "0.2.0")
