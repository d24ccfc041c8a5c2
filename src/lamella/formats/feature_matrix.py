"""Feature-barcode matrices of 10x: the HDF5 file, and the folder with a Matrix Market file.

The HDF5 file keeps the matrix of genes x barcodes by columns (CSC). The same three arrays are the matrix of barcodes x
genes by rows (CSR), so that it is read as it stands, without a transposed copy. Source of the layout: 10x Genomics,
"Feature-Barcode Matrices, HDF5 format".
Shapes: N barcodes, G genes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from scipy import sparse

from lamella.errors import first_line
from lamella.formats.feature_names import GENES, chosen_genes
from lamella.formats.matrix_folder import folder_barcodes, read_matrix_folder
from lamella.formats.placed_tiles import DAMAGE
from lamella.formats.sparse_counts import checked_counts, damaged
from lamella.formats.spatial_counts import ExpressionError

# Entries read at once where genes are chosen: 4 M x 8 bytes, small beside any matrix worth choosing from.
_ENTRIES = 2**22
_INT32 = 2**31 - 1


class FeatureMatrix(NamedTuple):
    """A matrix as read.

    Attributes:
        counts: (N, G) CSR, int32; float32 where the file has values that are not whole.
        barcodes: (N,) bytes (`S`), unique.
        genes: G names, unique: a name that several features share is followed by the feature's id.
        ids: G ids.
        notes: What was renamed or left aside.
    """

    counts: sparse.csr_array
    barcodes: np.ndarray
    genes: tuple[str, ...]
    ids: tuple[str, ...]
    notes: tuple[str, ...]


def read_feature_matrix(
    path: Path | str, *, genes: Sequence[str] | None = None, barcodes: np.ndarray | None = None
) -> FeatureMatrix:
    """Read a matrix of 10x.

    Args:
        path: The `.h5` file, or the folder of `matrix.mtx.gz`, `features.tsv.gz` and `barcodes.tsv.gz`.
        genes: Only these, in this order; all, if None. Of an `.h5` file only their entries are held in memory.
        barcodes: As `read_barcodes` gave them, known to be unique; they are not read and checked again.

    Raises:
        ExpressionError: The file is missing, damaged, of another layout, has negative counts, or lacks a gene.
    """
    path = Path(path)
    if path.is_dir():
        return _of_folder(path, genes)
    try:
        with h5py.File(path, "r") as file:
            return _of_h5(path, file, genes, barcodes)
    except FileNotFoundError as error:
        raise ExpressionError(path, "the file does not exist", "Correct the path.") from error
    except DAMAGE as error:
        raise damaged(path, first_line(error)) from error


def read_barcodes(path: Path | str) -> np.ndarray:
    """(N,) bytes: the barcodes alone, without the matrix, and not checked to be unique.

    Raises:
        ExpressionError: The file is missing, damaged or of another layout.
    """
    path = Path(path)
    if path.is_dir():
        return np.array(folder_barcodes(path), np.bytes_)
    try:
        with h5py.File(path, "r") as file:
            if "matrix/barcodes" not in file:
                raise ExpressionError(
                    path, "it has no matrix/barcodes", "Give filtered_feature_bc_matrix.h5 as Space Ranger writes it."
                )
            return _bytes(file["matrix/barcodes"])
    except FileNotFoundError as error:
        raise ExpressionError(path, "the file does not exist", "Correct the path.") from error
    except DAMAGE as error:
        raise damaged(path, first_line(error)) from error


def _bytes(dataset: h5py.Dataset) -> np.ndarray:
    if dataset.dtype.kind == "S":
        return np.asarray(dataset[:])
    return np.array(_texts(dataset), np.bytes_)  # text of varying length, as other programs write it


def _of_folder(path: Path, genes: Sequence[str] | None) -> FeatureMatrix:
    found = read_matrix_folder(path)
    wanted = chosen_genes(path, found.names, found.ids, found.kinds, genes)
    counts = found.counts if wanted.whole else found.counts[:, wanted.columns]
    barcodes = refuse_repeated(path, np.array(found.barcodes, np.bytes_))
    return FeatureMatrix(checked_counts(path, counts), barcodes, wanted.names, wanted.ids, wanted.notes)


def _of_h5(path: Path, file: h5py.File, genes: Sequence[str] | None, known: np.ndarray | None) -> FeatureMatrix:
    needed = ("data", "indices", "indptr", "shape", "barcodes", "features/name", "features/id")
    missing = [name for name in needed if f"matrix/{name}" not in file]
    if missing:
        raise ExpressionError(
            path,
            f"it has no {', '.join(f'matrix/{name}' for name in missing)}",
            "Give filtered_feature_bc_matrix.h5 as Space Ranger writes it.",
        )
    group = file["matrix"]
    names, ids = (_texts(group[f"features/{what}"]) for what in ("name", "id"))
    kinds = _texts(group["features/feature_type"]) if "feature_type" in group["features"] else [GENES] * len(names)
    features, places = (int(length) for length in group["shape"][:])
    if not features == len(names) == len(ids) == len(kinds):
        raise damaged(path, f"{features} features, but {len(names)} names and {len(ids)} ids")
    wanted = chosen_genes(path, names, ids, kinds, genes)
    barcodes = refuse_repeated(path, _bytes(group["barcodes"])) if known is None else known
    if len(barcodes) != places:
        raise damaged(path, f"{places} places, but {len(barcodes)} barcodes")
    indptr = _row_starts(path, group, places)
    if wanted.whole:
        counts = _whole(path, group, indptr, features)
    else:
        counts = _columns(path, group, indptr, wanted.columns, features)
    counts = checked_counts(path, counts)
    return FeatureMatrix(counts, barcodes, wanted.names, wanted.ids, wanted.notes)


def _texts(dataset: h5py.Dataset) -> list[str]:
    return [entry.decode() for entry in dataset[:].tolist()]


def refuse_repeated(path: Path, barcodes: np.ndarray) -> np.ndarray:
    """The barcodes (N,), if each stands once.

    Raises:
        ExpressionError: Some stand twice.
    """
    ordered = np.sort(barcodes)
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if len(repeated):
        raise ExpressionError(
            path,
            f"{len(repeated)} barcodes stand twice, such as {repeated[0].decode()}",
            "Give the matrix of one run; matrices of several runs are read one by one.",
        )
    return barcodes


def _row_starts(path: Path, group: h5py.Group, places: int) -> np.ndarray:
    entries = len(group["data"])
    if len(group["indptr"]) != places + 1 or len(group["indices"]) != entries:
        raise damaged(path, f"{places} places, {len(group['indptr'])} row starts, {entries} counts")
    starts: np.ndarray = np.empty(places + 1, np.int32 if entries <= _INT32 else np.int64)
    group["indptr"].read_direct(starts)
    if starts[0] != 0 or starts[-1] != entries or np.less(starts[1:], starts[:-1]).any():
        raise damaged(path, "its row starts do not follow each other")
    return starts


def _whole(path: Path, group: h5py.Group, indptr: np.ndarray, features: int) -> sparse.csr_array:
    # HDF5 converts to these types piece by piece while it reads: no second copy in the file's 64 bits.
    indices: np.ndarray = np.empty(len(group["indices"]), indptr.dtype)
    data: np.ndarray = np.empty(len(group["data"]), _type_of(group["data"]))
    for name, array in (("indices", indices), ("data", data)):
        if len(array):
            group[name].read_direct(array)
    _refuse_outside(path, indices, features)
    return sparse.csr_array((data, indices, indptr), shape=(len(indptr) - 1, features))


def _columns(path: Path, group: h5py.Group, indptr: np.ndarray, columns: np.ndarray, features: int) -> sparse.csr_array:
    """Some columns, read in pieces: the entries of the others are never held together."""
    column_of = np.full(features, -1, np.int32)
    column_of[columns] = np.arange(len(columns), dtype=np.int32)
    kind, entries = _type_of(group["data"]), len(group["data"])
    data: list[np.ndarray] = [np.zeros(0, kind)]
    indices: list[np.ndarray] = [np.zeros(0, np.int32)]
    kept = 0
    starts = np.zeros(len(indptr), np.int64)  # how many entries are kept before each row
    for first in range(0, entries, _ENTRIES):
        last = min(first + _ENTRIES, entries)
        numbers = group["indices"][first:last]
        _refuse_outside(path, numbers, features)
        column = column_of[numbers.astype(np.int64)]
        keep = column >= 0
        running = np.concatenate(([0], np.cumsum(keep)))
        # Rows that begin in this piece; the row starts ascend.
        rows = slice(*np.searchsorted(indptr, [first, last]))
        starts[rows] = kept + running[indptr[rows] - first]
        data.append(group["data"][first:last][keep].astype(kind))
        indices.append(column[keep])
        kept += int(running[-1])
    starts[np.searchsorted(indptr, entries) :] = kept  # rows behind the last entry, and the end
    width = np.int32 if kept <= _INT32 else np.int64
    arrays = np.concatenate(data), np.concatenate(indices).astype(width, copy=False), starts.astype(width)
    return sparse.csr_array(arrays, shape=(len(indptr) - 1, len(columns)))


def _type_of(data: h5py.Dataset) -> type:
    """What a file's numbers are held as until they were looked at."""
    return np.float32 if data.dtype.kind == "f" else np.int32


def _refuse_outside(path: Path, indices: np.ndarray, features: int) -> None:
    if len(indices) and not (indices.min() >= 0 and indices.max() < features):
        raise damaged(path, f"it counts feature number {int(indices.max())}, and has {features}")
