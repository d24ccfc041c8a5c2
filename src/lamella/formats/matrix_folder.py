"""A feature-barcode matrix as 10x keeps it in a folder: matrix.mtx, features.tsv and barcodes.tsv, packed or not."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from scipy import io as scipy_io
from scipy import sparse

from lamella.errors import first_line
from lamella.formats.feature_names import GENES
from lamella.formats.sparse_counts import damaged
from lamella.formats.spatial_counts import ExpressionError

_GZIP = b"\x1f\x8b"


class MatrixFolder(NamedTuple):
    """As read: (N, F) counts of all features, N barcodes, and F names, ids and kinds."""

    counts: sparse.csr_array
    barcodes: list[str]
    names: list[str]
    ids: list[str]
    kinds: list[str]


def read_matrix_folder(folder: Path) -> MatrixFolder:
    """Read the three files.

    Raises:
        ExpressionError: One is missing or damaged, or they do not belong together.
    """
    matrix = _file(folder, "matrix.mtx")
    features = _file(folder, "features.tsv", "genes.tsv")  # genes.tsv: Cell Ranger 2
    counts = _matrix(matrix)
    rows, places = _table(features), folder_barcodes(folder)
    if counts.shape != (len(places), len(rows)):
        raise ExpressionError(
            folder,
            f"its matrix is {counts.shape[0]} barcodes x {counts.shape[1]} features, but there are {len(places)} "
            f"barcodes and {len(rows)} features",
            "Give the three files of the same run.",
        )
    short = [row for row in rows if len(row) < 2]
    if short:
        raise damaged(features, f"a line is {short[0]}, without a name")
    kinds = [row[2] if len(row) > 2 else GENES for row in rows]
    return MatrixFolder(counts, places, [row[1] for row in rows], [row[0] for row in rows], kinds)


def folder_barcodes(folder: Path) -> list[str]:
    """The barcodes alone.

    Raises:
        ExpressionError: Their file is missing or damaged.
    """
    return [row[0] for row in _table(_file(folder, "barcodes.tsv"))]


def _file(folder: Path, *names: str) -> Path:
    for name in names:
        for ending in (".gz", ""):
            if (folder / f"{name}{ending}").is_file():
                return folder / f"{name}{ending}"
    raise ExpressionError(
        folder, f"it has no {' or '.join(names)}, packed or not", "Give the folder that Space Ranger made."
    )


@contextmanager
def unpacked(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file that may be packed, whatever its name says."""
    with open(path, "rb") as file:
        packed = file.read(2) == _GZIP
    if packed:
        with gzip.open(path, "rb") as plain:
            yield plain  # type: ignore[misc]  # a file of bytes that only typeshed tells apart
    else:
        with open(path, "rb") as file:
            yield file


def _matrix(path: Path) -> sparse.csr_array:
    try:
        with unpacked(path) as file:
            head, rest = file.readline(), file.read()
        # scipy cuts fractions off in a file of integers without a word; read as numbers they are seen.
        whole = b"integer" in head
        read = scipy_io.mmread(io.BytesIO(head.replace(b"integer", b"real") + rest))
    except (OSError, EOFError, zlib.error, ValueError, OverflowError) as error:
        raise damaged(path, first_line(error)) from error
    counts = sparse.csr_array(read.T)
    if whole and not np.array_equal(counts.data, np.rint(counts.data)):
        raise ExpressionError(
            path, "it says that it holds whole numbers, and holds others", "Give the counts as they were sequenced."
        )
    return counts.astype(np.int64) if whole else counts


def _table(path: Path) -> list[list[str]]:
    try:
        with unpacked(path) as file, io.TextIOWrapper(file, "utf-8", newline="") as text:
            return [row for row in csv.reader(text, delimiter="\t") if row]
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise damaged(path, first_line(error)) from error
