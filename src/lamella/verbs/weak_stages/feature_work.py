"""The work of stage 1: tiles of many slides through an encoder, each once, in parts that outlast a killed run.

Shapes: N rows of the table, T different tiles among them, B tiles of a batch, D numbers of a feature.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch

from lamella.data.tiles import Readable, TileBatches
from lamella.errors import LamellaError, first_line
from lamella.formats.atomic import whole_file
from lamella.formats.placed_tiles import DAMAGE
from lamella.models.encoders import Encoder
from lamella.verbs.progress import progress
from lamella.verbs.tile_features import embedded

# Tiles of a part: what a killed run loses at most; seconds on a GPU, minutes of a large network on a CPU.
_PART_TILES = 1024


@dataclass(frozen=True)
class FeatureWork:
    """What is encoded with what.

    Attributes:
        slides: By name.
        table: A tile table of one spacing, as the encoder is shown the tiles; a tile may stand in it several times.
        device: Where.
        precision: Arithmetic.
        batch_size: Tiles encoded at once.
        threads: Tiles read at once.
        skip_unreadable: Leave tiles out that cannot be decoded, instead of raising.
    """

    slides: Mapping[str, Readable]
    table: pa.Table
    encoder: Encoder
    device: torch.device
    precision: Literal["bf16", "fp32"] = "fp32"
    batch_size: int = 64
    threads: int = 2
    skip_unreadable: bool = False

    @property
    def tiles(self) -> int:
        """T."""
        return len(self._places[0])

    def features(self, parts: Path | None = None) -> tuple[np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """(N, D) float32 features, (N,) bool which of them could be read, and the tiles that could not.

        Args:
            parts: Folder of what an interrupted run has finished, and where this one keeps it.

        Raises:
            SlideError: A tile cannot be read.
            LamellaError: A feature is not finite, or a part is damaged.
            StorageError: The disk refused a write.
        """
        row_T, tile_N = self._places
        features_TD = np.zeros((len(row_T), self.encoder.contract.dim), np.float32)
        done_T = np.zeros(len(row_T), bool)
        for rows, read_BD in _read_parts(parts):
            features_TD[rows], done_T[rows] = read_BD, True
        left_T, keeper = np.flatnonzero(~done_T), _Keeper(parts)
        skipped: list[dict[str, Any]] = []
        with progress(len(row_T), "features", done=int(done_T.sum())) as bar:
            for rows, features_BD in self._encoded(self.table.take(row_T[left_T]), skipped):
                rows = left_T[rows]
                features_TD[rows], done_T[rows] = features_BD, True
                keeper.add(rows, features_BD)
                bar.advance(len(rows))
        return features_TD[tile_N], done_T[tile_N], skipped

    def _encoded(self, table: pa.Table, skipped: list[dict[str, Any]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Rows of the table with their features, in order; what is left out is told at the end."""
        if not table.num_rows:
            return
        batches = TileBatches(
            self.slides,
            table,
            batch_size=self.batch_size,
            threads=self.threads,
            pinned=self.device.type == "cuda",
            skip_unreadable=self.skip_unreadable,
        )
        self.encoder.to(self.device)
        mpp = float(table.column("mpp")[0].as_py())
        # Asked row by row, when the batch that holds the row has been read.
        readable = (row for row in range(table.num_rows) if row not in batches.skipped)
        for features_BD in embedded(batches, self.encoder, mpp, self.device, self.precision):
            rows = np.fromiter(islice(readable, len(features_BD)), np.int64)
            self._refuse_not_finite(features_BD, table, rows)
            yield rows, features_BD
        skipped += [{**_place(table, row), "error": str(error)} for row, error in sorted(batches.skipped.items())]

    @cached_property
    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """(T,) a row of each different tile, slide by slide and downwards; (N,) the tile of each row."""
        names = np.asarray(self.table.column("slide_id").to_pylist(), np.str_)
        slide_N = np.unique(names, return_inverse=True)[1].reshape(-1)
        x_N, y_N = (self.table.column(name).to_numpy() for name in ("x_px0", "y_px0"))
        key_N3 = np.stack([slide_N.astype(np.float64), y_N, x_N], axis=1)
        _, row_T, tile_N = np.unique(key_N3, axis=0, return_index=True, return_inverse=True)
        return row_T, tile_N.reshape(-1)

    def _refuse_not_finite(self, features_BD: np.ndarray, table: pa.Table, rows: np.ndarray) -> None:
        wrong = np.flatnonzero(~np.isfinite(features_BD).all(axis=1))
        if len(wrong):
            place = _place(table, int(rows[wrong[0]]))
            raise LamellaError(
                f"{place['slide_id']} at ({place['x_px0']:g}, {place['y_px0']:g})",
                f"{self.encoder.name} made a feature of it that is not finite ({self.precision})",
                "Set features.precision=fp32, or check the model: it may have diverged. Nothing was clipped.",
            )


class _Keeper:
    """Writes features to disk, some hundred tiles a file."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._rows: list[np.ndarray] = []
        self._features: list[np.ndarray] = []

    def add(self, rows: np.ndarray, features_BD: np.ndarray) -> None:
        if self._folder is None:
            return
        self._rows.append(rows)
        self._features.append(features_BD)
        if sum(map(len, self._rows)) >= _PART_TILES:
            path = self._folder / f"{self._rows[0][0]:09d}.npz"
            with whole_file(path) as part, open(part, "wb") as file:
                np.savez(file, rows=np.concatenate(self._rows), features=np.concatenate(self._features))
            self._rows, self._features = [], []


def _read_parts(folder: Path | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows and features of every part; the folder's claim has made sure that they are of the same tiles and encoder."""
    for path in sorted(folder.glob("*.npz")) if folder is not None else ():
        if path.name.startswith("."):  # half written by a run that was killed
            continue
        try:
            with np.load(path, allow_pickle=False) as arrays:
                yield arrays["rows"], arrays["features"]
        except (*DAMAGE, EOFError) as error:
            raise LamellaError(
                path, f"it cannot be read ({first_line(error)})", "Delete it; it is made again."
            ) from error


def _place(table: pa.Table, row: int) -> dict[str, Any]:
    return {name: table.column(name)[row].as_py() for name in ("slide_id", "x_px0", "y_px0")}
