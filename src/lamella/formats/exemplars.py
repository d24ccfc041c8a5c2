"""Exemplars: tiles of known classes with their features, from which prototypes are made.

exemplars.npz holds `features` (N, D) float32, `class_names` and `wsi_sources` (text) as the source of the method names
them; exemplars.parquet the tiles, row by row. The table is written last: a folder that has one is whole.

Shapes: N exemplars, D numbers each.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from lamella.errors import LamellaError, first_line
from lamella.formats.atomic import whole_file
from lamella.formats.digests import file_digest
from lamella.formats.placed_tiles import DAMAGE
from lamella.formats.tables import parquet_metadata, read_parquet, write_parquet

FEATURES_FILE, TABLE_FILE = "exemplars.npz", "exemplars.parquet"
CLASS = "class"  # column of the exemplars' tables
COLUMNS = ("slide_id", "x_px0", "y_px0", "fov_um", "mpp", CLASS)
_DIGEST = "features_digest"
_AGAIN = "Run `lamella weak features` again."


@dataclass(frozen=True)
class Exemplars:
    """Features and where they are from.

    Attributes:
        features_ND: float32, finite.
        table: A tile table with a column `class`; N rows.
        record: Texts: `encoder` as `load_encoder` takes it, its `fingerprint`, and more.
    """

    features_ND: np.ndarray
    table: pa.Table
    record: Mapping[str, str]

    @property
    def classes(self) -> np.ndarray:
        """(N,) the name of each one's class."""
        return np.asarray(self.table.column(CLASS).to_pylist(), np.str_)

    def rows(self, name: str) -> np.ndarray:
        """Rows of a class."""
        return np.flatnonzero(self.classes == name)

    def of_slides(self, slide_ids: Collection[str]) -> Exemplars:
        """Those of some slides only, in their order."""
        kept = np.flatnonzero([each in slide_ids for each in self.table.column("slide_id").to_pylist()])
        return Exemplars(self.features_ND[kept], self.table.take(pa.array(kept, pa.int64())), self.record)


def write_exemplars(folder: Path | str, exemplars: Exemplars) -> None:
    """Write both files.

    Raises:
        LamellaError: A feature is not finite; nothing was written.
        StorageError: The disk refused the write.
    """
    folder, features_ND = Path(folder), np.ascontiguousarray(exemplars.features_ND, np.float32)
    refuse_not_finite(folder, features_ND)
    (folder / TABLE_FILE).unlink(missing_ok=True)
    slides = np.asarray(exemplars.table.column("slide_id").to_pylist(), np.str_)
    with whole_file(folder / FEATURES_FILE) as part, open(part, "wb") as file:
        np.savez(file, features=features_ND, class_names=exemplars.classes, wsi_sources=slides)
    digest = file_digest(folder / FEATURES_FILE)
    table = exemplars.table.replace_schema_metadata(None)  # of the file that it was read from
    write_parquet(folder / TABLE_FILE, table, {**exemplars.record, _DIGEST: digest})


def read_exemplars(folder: Path | str) -> Exemplars:
    """Read both files.

    Raises:
        LamellaError: One is missing or damaged, or they were not written together.
    """
    folder = Path(folder)
    read_parquet(folder / TABLE_FILE, COLUMNS)  # they are there; other columns go along
    table = read_parquet(folder / TABLE_FILE)
    record = parquet_metadata(folder / TABLE_FILE)
    path = folder / FEATURES_FILE
    if not path.is_file():
        raise LamellaError(path, "the file does not exist", _AGAIN)
    if file_digest(path) != record.pop(_DIGEST, None):
        raise LamellaError(folder, f"{FEATURES_FILE} and {TABLE_FILE} were not written together", _AGAIN)
    features_ND = _features(path)
    if len(features_ND) != table.num_rows:
        raise LamellaError(folder, f"it has {len(features_ND)} features for {table.num_rows} tiles", _AGAIN)
    return Exemplars(features_ND, table.replace_schema_metadata(None), record)


def refuse_not_finite(thing: object, features_ND: np.ndarray) -> None:
    """Features that overflowed or are not numbers would turn a whole prototype into nothing.

    Raises:
        LamellaError: There are some.
    """
    wrong = int((~np.isfinite(features_ND)).any(axis=1).sum())
    if wrong:
        raise LamellaError(
            thing,
            f"{wrong} of {len(features_ND)} features are not finite numbers",
            "Check the encoder; compute with features.precision=fp32. Nothing was clipped or left out.",
        )


def _features(path: Path) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            features_ND: np.ndarray = arrays["features"]
    except (*DAMAGE, EOFError) as error:
        raise LamellaError(path, f"it cannot be read ({first_line(error)})", _AGAIN) from error
    if features_ND.ndim != 2 or features_ND.dtype != np.float32:
        raise LamellaError(path, f"its features are {features_ND.dtype} {features_ND.shape}", _AGAIN)
    refuse_not_finite(path, features_ND)
    return features_ND
