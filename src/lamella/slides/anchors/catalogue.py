"""Anchors: the places on the slides to learn from, in a catalogue that is read a slide at a time.

A catalogue folder holds `catalogue.json` (profile, index, shards), one Parquet shard per slide and `report.csv`. Every
anchor in it has been proven to hold its targets at its own tissue threshold, so training never has to skip one.
"""

from __future__ import annotations

import bisect
import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from lamella.errors import LamellaError, OutputConflictError
from lamella.formats.tables import read_parquet
from lamella.geometry import Box, Frame
from lamella.slides.anchors.sampling import CrossSampling
from lamella.slides.index import INDEX_FILE, SlideIndex, absolute_path

CATALOGUE_FILE = "catalogue.json"
FORMAT = "lamella anchors 1"
SHARD_SCHEMA = pa.schema(
    [
        ("number", pa.int64()),
        ("center_x_px0", pa.float64()),
        ("center_y_px0", pa.float64()),
        ("tissue_fraction", pa.float64()),
        ("min_target_tissue_fraction", pa.float64()),
    ]
)
_AGAIN = "Run `lamella anchors` again, into a new folder."
_ROWS_IN_MEMORY = 2**21  # 40 bytes a row: at most about 80 MB of shards in each process


@dataclass(frozen=True, slots=True)
class Anchor:
    """One place to learn from: the centre of a context."""

    anchor_id: str
    slide_id: str
    center_x_px0: float
    center_y_px0: float
    tissue_fraction: float
    min_target_tissue_fraction: float
    """The tissue threshold at which its targets are known to fit."""

    def context_px0(self, frame: Frame, sampling: CrossSampling) -> Box:
        """The context on its slide, in level-0 pixels."""
        side_um = sampling.context_fov_um
        return Box.around(self.center_x_px0, self.center_y_px0, side_um / frame.mpp_x, side_um / frame.mpp_y)


@dataclass(frozen=True, slots=True)
class Shard:
    """The anchors of one slide, as listed in catalogue.json."""

    slide_id: str
    file: str
    anchors: int
    hash: str


class Catalogue:
    """The anchors of many slides. Memory holds the shards in use, whatever the number of anchors.

    Attributes:
        folder: Where it was read from.
        sampling: The profile it was made for.
        index: The slides.
        hash: Changes with the profile, the anchors or the index.
    """

    def __init__(
        self, folder: Path, sampling: CrossSampling, index: SlideIndex, shards: tuple[Shard, ...], digest: str
    ) -> None:
        self.folder = folder
        self.sampling = sampling
        self.index = index
        self.hash = digest
        self._shards = shards
        self._first_rows = [0, *np.cumsum([shard.anchors for shard in shards], dtype=int).tolist()]
        self._columns: OrderedDict[int, dict[str, np.ndarray]] = OrderedDict()

    @classmethod
    def load(cls, folder: Path | str) -> Catalogue:
        """Read a catalogue folder; the shards are read when asked for.

        Raises:
            LamellaError: The folder is no catalogue, is damaged or holds no anchors.
            OutputConflictError: The index was changed after the anchors were made.
        """
        folder = Path(folder)
        listing = _read_listing(folder)
        index_folder = absolute_path(listing["index"], folder)
        index = SlideIndex.load(index_folder)
        if index_hash(index_folder) != listing["index_hash"]:
            raise OutputConflictError(folder, f"its index {index_folder} was changed since", _AGAIN)
        shards = tuple(Shard(**shard) for shard in listing["shards"])
        lost = [shard.file for shard in shards if not (folder / shard.file).is_file()]
        if lost:
            raise LamellaError(folder / lost[0], "this part of the catalogue is gone", "Run `lamella anchors` again.")
        if not sum(shard.anchors for shard in shards):
            raise LamellaError(folder, "the catalogue has no anchors", "report.csv in it says why for each slide.")
        return cls(folder, CrossSampling(**listing["sampling"]), index, shards, listing["hash"])

    def __len__(self) -> int:
        return self._first_rows[-1]

    @property
    def shards(self) -> list[tuple[str, int, int]]:
        """(slide_id, first row, rows) of each slide that has anchors; together they cover every row once."""
        return [
            (shard.slide_id, first, shard.anchors)
            for shard, first in zip(self._shards, self._first_rows, strict=False)
            if shard.anchors
        ]

    def anchor(self, row: int) -> Anchor:
        """The anchor of a row.

        Raises:
            IndexError: There is no such row.
            LamellaError: The shard cannot be read.
        """
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)} anchors")
        number = bisect.bisect_right(self._first_rows, row) - 1
        shard, columns = self._shards[number], self._shard_columns(number)
        inside = row - self._first_rows[number]
        return Anchor(
            anchor_id=anchor_id(shard.slide_id, int(columns["number"][inside])),
            slide_id=shard.slide_id,
            center_x_px0=float(columns["center_x_px0"][inside]),
            center_y_px0=float(columns["center_y_px0"][inside]),
            tissue_fraction=float(columns["tissue_fraction"][inside]),
            min_target_tissue_fraction=float(columns["min_target_tissue_fraction"][inside]),
        )

    def slide_anchors(self, slide_id: str) -> dict[str, np.ndarray]:
        """The columns of one slide's shard; empty arrays if the slide has no anchors."""
        for number, shard in enumerate(self._shards):
            if shard.slide_id == slide_id:
                return self._shard_columns(number)
        return {name: np.zeros(0) for name in SHARD_SCHEMA.names}

    def _shard_columns(self, number: int) -> dict[str, np.ndarray]:
        if number in self._columns:
            self._columns.move_to_end(number)
            return self._columns[number]
        shard = self._shards[number]
        columns = read_shard(self.folder / shard.file)
        if len(columns["number"]) != shard.anchors:
            raise LamellaError(
                self.folder / shard.file,
                f"it holds {len(columns['number'])} anchors, {CATALOGUE_FILE} says {shard.anchors}",
                _AGAIN,
            )
        self._columns[number] = columns
        while len(self._columns) > 1 and sum(len(kept["number"]) for kept in self._columns.values()) > _ROWS_IN_MEMORY:
            self._columns.popitem(last=False)
        return columns

    def __getstate__(self) -> dict[str, Any]:
        """Another process reads its own shards."""
        return {**self.__dict__, "_columns": OrderedDict()}


def anchor_id(slide_id: str, number: int) -> str:
    return f"{slide_id}_{number:07d}"


def read_shard(path: Path) -> dict[str, np.ndarray]:
    """The columns of one Parquet shard."""
    table = read_parquet(path, SHARD_SCHEMA.names)
    return {name: table.column(name).to_numpy() for name in SHARD_SCHEMA.names}


def index_hash(folder: Path) -> str:
    """16 hexadecimal digits of an index's table."""
    return hashlib.sha256((folder / INDEX_FILE).read_bytes()).hexdigest()[:16]


def _read_listing(folder: Path) -> Mapping[str, Any]:
    file = folder / CATALOGUE_FILE
    if not file.is_file():
        raise LamellaError(
            folder,
            f"it is not an anchor catalogue (no {CATALOGUE_FILE})",
            "Make one with `lamella anchors INDEX -o FOLDER`.",
        )
    try:
        listing = json.loads(file.read_text(encoding="utf-8"))
        if listing["format"] == FORMAT:
            CrossSampling(**listing["sampling"])
            return listing
        found = listing["format"]
    except (json.JSONDecodeError, KeyError, TypeError, ValidationError) as error:
        raise LamellaError(file, f"it is damaged ({error})", _AGAIN) from error
    raise LamellaError(
        file, f"it is of format {found!r}, not {FORMAT!r}", "Make the catalogue again, into a new folder."
    )
