"""Rasters over a slide as OME-Zarr, written band by band: class labels, probabilities, maps of values.

A raster is a folder: zarr arrays `0`, `1`, ... each half as fine as the one before, and OME-NGFF metadata with the
scale in micrometres. Version 0.4 on zarr format 2 with Blosc is written: Bio-Formats and QuPath, which read through
JZarr, know neither format 3 nor other codecs, and whatever reads 0.5 reads 0.4.
Source: OME-NGFF 0.4, ngff.openmicroscopy.org/0.4.

While a raster is being written a hidden journal lies in its folder and the metadata is missing, so that no program
takes it for a whole one. The journal names the bands whose chunks are in their files; a killed run goes on from there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr

from lamella.errors import LamellaError, OutputConflictError, first_line, storage_faults
from lamella.formats.atomic import write_json
from lamella.formats.halving import majority_halved, mean_halved
from lamella.formats.journal import Journal
from lamella.formats.label_values import NOT_LABELLED
from lamella.formats.zarr_chunks import Chunks
from lamella.geometry import Frame

Kind = Literal["labels", "probabilities", "values"]
Spacing = float | tuple[float, float]
"""Micrometres per pixel: one number, or (x, y)."""

_JOURNAL, _ATTRIBUTES, _OWN = ".unfinished.jsonl", ".zattrs", "lamella"
_VERSION = "0.4"


class _Store:
    """A raster that is being written; see the subclasses.

    Attributes:
        folder: Where it lies.
        frame: Its size and its micrometres per pixel.
        done_px: Rows from the top that are written for good; a resumed run goes on here.
    """

    def __init__(
        self, folder: Path | str, facts: dict[str, Any], dtype: np.dtype[Any], size: tuple[int, int], mpp: Spacing
    ) -> None:
        self.folder = Path(folder)
        mpp_x, mpp_y = mpp if isinstance(mpp, tuple) else (mpp, mpp)
        height, width = size
        self.frame = Frame(int(width), int(height), float(mpp_x), float(mpp_y))
        self._facts = {**facts, "dtype": dtype.str, "frame": [self.frame.width_px, self.frame.height_px, mpp_x, mpp_y]}
        self._chunk_px: int = facts["chunk_px"]
        if self._chunk_px % 2:
            raise ValueError("sides of chunks must be even: levels are halved chunk by chunk")
        self._whole = _attributes(self.folder) is not None
        self._journal = Journal(self.folder / _JOURNAL)
        self._check_same()
        self.done_px = self.frame.height_px if self._whole else self._journalled_px()
        if not self._whole:
            self._array = Chunks.make(self.folder / "0", self._shape(height, width), dtype, self._chunk_px, self._fill)
            if not self._journal.entries:
                self._journal.add({"facts": self._facts})

    _fill: float = 0

    @property
    def finished(self) -> bool:
        """Whether the raster is whole: all bands, all levels, its metadata."""
        return self._whole

    def write(self, y0: int, band: np.ndarray) -> None:
        """Write the rows from `y0` on; return when their chunks are in their files and the journal says so.

        Args:
            y0: First row, a multiple of the chunk's side.
            band: (h, W) or (C, h, W) of the store's type; h a multiple of the chunk's side, or up to the last row.

        Raises:
            StorageError: The disk refused the write; what was finished stays.
        """
        if self._whole:
            raise ValueError(f"{self.folder} is finished")
        height, shape = self.frame.height_px, band.shape
        y1 = y0 + shape[-2]
        if shape != self._shape(shape[-2], self.frame.width_px) or band.dtype != self._array.dtype:
            raise ValueError(f"a band of {band.dtype} {shape} for a raster of {self._array.dtype} {self._array.shape}")
        if y0 % self._chunk_px or not (y1 == height or (y1 < height and y1 % self._chunk_px == 0)):
            raise ValueError(f"rows {y0} to {y1} of {height} are no whole rows of chunks")
        with storage_faults(self.folder):
            self._array.write_rows(y0, band)
        self._journal.add({"y0": y0, "y1": y1})
        if y0 <= self.done_px:
            self.done_px = max(self.done_px, y1)

    def finish(self) -> None:
        """Make the coarser levels and the metadata; from now on the raster is whole.

        Raises:
            StorageError: The disk refused the write.
        """
        if self._whole:
            return
        if self.done_px < self.frame.height_px:
            raise ValueError(f"{self.folder}: only {self.done_px} of {self.frame.height_px} rows are written")
        with storage_faults(self.folder):
            levels = [self._array]
            while max(levels[-1].shape[-2:]) > self._chunk_px:
                levels.append(self._halved(levels[-1], len(levels)))
            write_json(self.folder / ".zgroup", {"zarr_format": 2})
            write_json(self.folder / _ATTRIBUTES, self._metadata(len(levels)))
            self._journal.end()
        self._whole = True

    def _halve(self, window: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _shape(self, height: int, width: int) -> tuple[int, ...]:
        names = self._facts["names"]
        return (height, width) if self._facts["kind"] == "labels" else (len(names), height, width)

    def _halved(self, fine: Chunks, number: int) -> Chunks:
        height, width = (math.ceil(side / 2) for side in fine.shape[-2:])
        place = self.folder / str(number)
        coarse = Chunks.make(place, self._shape(height, width), fine.dtype, self._chunk_px, self._fill)
        coarse.fill_from(fine, self._halve)
        return coarse

    def _check_same(self) -> None:
        entries = self._journal.entries
        made = _attributes(self.folder)
        before = made[_OWN] if made is not None else entries[0].get("facts") if entries else self._facts
        if before != json.loads(json.dumps(self._facts)):
            raise OutputConflictError(
                self.folder,
                "it holds a raster of another size, scale or set of classes",
                "Choose another output folder, or remove this one.",
            )

    def _journalled_px(self) -> int:
        done = 0
        for entry in sorted((entry for entry in self._journal.entries if "y1" in entry), key=lambda item: item["y0"]):
            if entry["y0"] <= done:
                done = max(done, entry["y1"])
        return int(done)

    def _metadata(self, levels: int) -> dict[str, Any]:
        labels = self._facts["kind"] == "labels"
        axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
        multiscale = {
            "version": _VERSION,
            "name": self.folder.name.split(".")[0],
            "axes": axes if labels else [{"name": "c", "type": "channel"}, *axes],
            "datasets": [_dataset(number, self.frame, labels) for number in range(levels)],
            "type": "majority of 2 x 2" if labels else "mean of 2 x 2",
        }
        return {"multiscales": [multiscale], **self._naming(), _OWN: self._facts}

    def _naming(self) -> dict[str, Any]:
        """How other programs are told the names."""
        window = {"min": 0, "max": 255, "start": 0, "end": 255}
        channels = [
            {"label": name, "color": "FFFFFF", "active": True, "window": window} for name in self._facts["names"]
        ]
        return {"omero": {"version": _VERSION, "channels": channels}}


class LabelStore(_Store):
    """Class labels, uint8 (H, W): the number of a class, or NOT_LABELLED where nobody looked.

    Args:
        folder: The raster's folder, named `*.ome.zarr` so that other programs know it.
        classes: Names by value, from 0.
        height: In pixels.
        width: In pixels.
        mpp: Micrometres per pixel.
        chunk_px: Side of a chunk, even.

    Raises:
        OutputConflictError: The folder holds a raster of other facts.
    """

    _fill = NOT_LABELLED

    def __init__(
        self,
        folder: Path | str,
        classes: Sequence[str],
        height: int,
        width: int,
        mpp: Spacing,
        chunk_px: int = 512,
    ) -> None:
        facts = {"kind": "labels", "names": list(classes), "chunk_px": chunk_px}
        super().__init__(folder, facts, np.dtype("u1"), (height, width), mpp)

    def _halve(self, window: np.ndarray) -> np.ndarray:
        return majority_halved(window)

    def _naming(self) -> dict[str, Any]:
        properties = [{"label-value": value, "class": name} for value, name in enumerate(self._facts["names"])]
        return {"image-label": {"version": _VERSION, "properties": properties}}


class ProbabilityStore(_Store):
    """Probabilities, uint8 (C, H, W), p = value / 255; all channels 0 where nobody looked. Arguments as `LabelStore`.

    Raises:
        OutputConflictError: The folder holds a raster of other facts.
    """

    def __init__(
        self, folder: Path | str, channels: Sequence[str], height: int, width: int, mpp: Spacing, chunk_px: int = 512
    ) -> None:
        facts = {"kind": "probabilities", "names": list(channels), "chunk_px": chunk_px}
        super().__init__(folder, facts, np.dtype("u1"), (height, width), mpp)

    def _halve(self, window: np.ndarray) -> np.ndarray:
        return mean_halved(window)


class ValueStore(_Store):
    """Maps of numbers, float16 or float32 (C, H, W); NaN where nobody looked. Arguments as `LabelStore`.

    Raises:
        OutputConflictError: The folder holds a raster of other facts.
    """

    _fill = math.nan

    def __init__(
        self,
        folder: Path | str,
        channels: Sequence[str],
        height: int,
        width: int,
        mpp: Spacing,
        chunk_px: int = 512,
        dtype: Literal["float16", "float32"] = "float16",
    ) -> None:
        facts = {"kind": "values", "names": list(channels), "chunk_px": chunk_px}
        super().__init__(folder, facts, np.dtype(dtype), (height, width), mpp)

    def _halve(self, window: np.ndarray) -> np.ndarray:
        return mean_halved(window)

    def _naming(self) -> dict[str, Any]:
        return {}  # omero's windows need the range, which nobody knows


@dataclass(frozen=True)
class StoredRaster:
    """A whole raster, to be read in parts.

    Attributes:
        folder: Where it lies.
        kind: What its values are.
        names: Of classes by value, or of channels in order.
        frame: Of the finest level.
        levels: Arrays (H, W) or (C, H, W), finest first; read by slicing.
    """

    folder: Path
    kind: Kind
    names: tuple[str, ...]
    frame: Frame
    chunk_px: int
    levels: tuple[zarr.Array[Any], ...]

    def level_frame(self, level: int) -> Frame:
        """Pixels of a level are exactly 2^level as wide as the finest; its last ones may reach over the edge."""
        height, width = self.levels[level].shape[-2:]
        return Frame(width, height, self.frame.mpp_x * 2**level, self.frame.mpp_y * 2**level)

    def bands(self, level: int = 0, height_px: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, rows) of a level from top to bottom, a row of chunks at a time."""
        array, step = self.levels[level], height_px or self.chunk_px
        for y0 in range(0, array.shape[-2], step):
            yield y0, np.asarray(array[..., y0 : y0 + step, :])


def open_raster(folder: Path | str) -> StoredRaster:
    """Open a raster that was written to its end.

    Raises:
        LamellaError: There is none, it is unfinished, or its metadata is damaged.
    """
    folder = Path(folder)
    again = "Run the same prediction again: it goes on where it stopped."
    if (folder / _JOURNAL).exists():
        raise LamellaError(folder, "the raster is unfinished", again)
    attributes = _attributes(folder)
    if attributes is None:
        raise LamellaError(folder, "there is no finished raster", again)
    try:
        facts = attributes[_OWN]
        names = tuple(str(name) for name in facts["names"])
        frame = Frame(*facts["frame"])
        paths = [entry["path"] for entry in attributes["multiscales"][0]["datasets"]]
        levels = tuple(zarr.open_array(folder / path, mode="r") for path in paths)
        return StoredRaster(folder, facts["kind"], names, frame, facts["chunk_px"], levels)
    except (KeyError, IndexError, TypeError, ValueError, OSError) as error:
        cause = f"its metadata is damaged or not Lamella's ({first_line(error)})"
        raise LamellaError(folder, cause, "Remove the folder and predict again.") from error


def _dataset(number: int, frame: Frame, labels: bool) -> dict[str, Any]:
    factor = 2**number
    scale = [frame.mpp_y * factor, frame.mpp_x * factor]
    # Places are those of pixel centres: the first of a coarser level lies between its finer ones.
    shift = [frame.mpp_y * (factor - 1) / 2, frame.mpp_x * (factor - 1) / 2]
    transformations: list[dict[str, Any]] = [{"type": "scale", "scale": scale if labels else [1.0, *scale]}]
    if number:
        transformations.append({"type": "translation", "translation": shift if labels else [0.0, *shift]})
    return {"path": str(number), "coordinateTransformations": transformations}


def _attributes(folder: Path) -> Mapping[str, Any] | None:
    """The metadata of a whole raster; None while it is unfinished."""
    path = folder / _ATTRIBUTES
    if (folder / _JOURNAL).exists() or not path.is_file():
        return None
    try:
        attributes = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LamellaError(
            folder, f"its metadata is damaged ({first_line(error)})", "Remove the folder and predict again."
        ) from error
    if not isinstance(attributes, dict) or _OWN not in attributes:
        raise LamellaError(folder, "it holds a zarr of another program", "Choose another folder.")
    return attributes
