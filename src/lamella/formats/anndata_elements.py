"""The elements of AnnData's files on disk, written by h5py alone.

Source: anndata, "On-disk format" (arrays, strings, tables and mappings as of encoding version 0.2.0 / 0.1.0).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np
from scipy import sparse

_TEXT = h5py.string_dtype("utf-8")


def marked(element: h5py.Group | h5py.Dataset, kind: str, version: str) -> Any:
    """State what an element is."""
    element.attrs["encoding-type"], element.attrs["encoding-version"] = kind, version
    return element


def begun(file: h5py.File) -> None:
    """Mark a new file, and make the groups that every one has."""
    marked(file, "anndata", "0.1.0")
    for name in ("layers", "obsm", "obsp", "uns", "varm", "varp"):
        marked(file.create_group(name), "dict", "0.1.0")


def write_texts(group: h5py.Group, name: str, texts: Sequence[str] | np.ndarray) -> None:
    """Write texts: bytes (`S`) with a fixed length, which is far smaller, others as HDF5's texts."""
    if isinstance(texts, np.ndarray) and texts.dtype.kind == "S":
        kind = h5py.string_dtype("utf-8", max(1, texts.dtype.itemsize))
        made = group.create_dataset(name, data=texts.astype(kind), compression="gzip" if len(texts) else None)
    else:
        made = group.create_dataset(name, data=np.array(list(texts), object), dtype=_TEXT)
    marked(made, "string-array", "0.2.0")


def write_frame(file: h5py.File, name: str, index: Sequence[str] | np.ndarray, columns: Mapping[str, Any]) -> None:
    """Write `obs` or `var`: names of the rows, and columns of numbers, truths or texts."""
    group = marked(file.create_group(name), "dataframe", "0.2.0")
    group.attrs["_index"] = "_index"
    order = np.array(list(columns), object)
    group.attrs.create("column-order", order, dtype=_TEXT)
    write_texts(group, "_index", index)
    for key, values in columns.items():
        write_element(group, key, values)


def write_csr(group: h5py.Group, name: str, counts: sparse.csr_array) -> None:
    """Write a sparse matrix."""
    made = marked(group.create_group(name), "csr_matrix", "0.1.0")
    made.attrs["shape"] = np.array(counts.shape, np.int64)
    for part in ("data", "indices", "indptr"):
        values = getattr(counts, part)
        made.create_dataset(part, data=values, compression="gzip" if len(values) else None)


def write_element(group: h5py.Group, name: str, value: Any) -> None:
    """Write a mapping, a text, a number, a truth, or a list or array of them.

    Raises:
        TypeError: The value is none of these; None is left out by the caller.
    """
    if isinstance(value, Mapping):
        made = marked(group.create_group(name), "dict", "0.1.0")
        for key, inner in value.items():
            if inner is not None:
                write_element(made, str(key), inner)
    elif isinstance(value, str):
        marked(group.create_dataset(name, data=value, dtype=_TEXT), "string", "0.2.0")
    elif isinstance(value, bool | int | float | np.generic):
        marked(group.create_dataset(name, data=value), "numeric-scalar", "0.2.0")
    elif isinstance(value, np.ndarray | list | tuple):
        array = np.asarray(value)
        if array.dtype.kind in "SU":
            write_texts(group, name, array if array.dtype.kind == "S" else array.tolist())
        elif array.dtype.kind in "biuf":
            marked(group.create_dataset(name, data=array), "array", "0.2.0")
        else:
            raise TypeError(f"{name}: an array of {array.dtype} cannot be written")
    else:
        raise TypeError(f"{name}: {type(value).__name__} cannot be written")
