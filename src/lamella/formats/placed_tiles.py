"""The tiles of one slide as the field's files keep them: square, in level-0 pixels, often with features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import h5py
import numpy as np

from lamella.errors import LamellaError, SlideError, first_line

Attribute = str | int | float

# What h5py raises on a damaged file; a shape that was damaged asks for absurd memory.
DAMAGE = (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError, MemoryError)

_LARGEST_PX0 = 1e9  # no slide has a side of a thousand million pixels

# Rows read at once from a file: 4096 rows of 2560 numbers are 40 MB.
_ROWS = 4096


@dataclass(frozen=True)
class FeatureRows:
    """(N, D) features that are read batch by batch, so that memory need not hold a slide's features whole."""

    rows: int
    dim: int
    half: bool
    """Kept with 16 bits."""
    read: Callable[[], Iterator[np.ndarray]]
    """Yields (B, D) batches, in order."""

    @classmethod
    def of(cls, array: np.ndarray) -> FeatureRows:
        """Features that are in memory already."""
        return cls(len(array), array.shape[1], array.dtype == np.float16, lambda: iter((array,)))

    @classmethod
    def in_h5(cls, path: Path, name: str = "features") -> FeatureRows:
        """A dataset of an HDF5 file, which is opened when it is read."""
        with h5py.File(path, "r") as file:
            shape, half = file[name].shape, file[name].dtype == np.float16

        def read() -> Iterator[np.ndarray]:
            with h5py.File(path, "r") as file:
                for row in range(0, shape[0], _ROWS):
                    yield file[name][row : row + _ROWS]

        return cls(shape[0], shape[1], half, read)

    def checked(self, name: object) -> Iterator[np.ndarray]:
        """The batches.

        Raises:
            SlideError: A feature cannot be read, or is not a finite number.
        """
        batches = self.read()
        while True:
            try:
                batch = next(batches, None)
            except DAMAGE as error:
                raise SlideError(
                    name, f"its features cannot be read ({first_line(error)})", "Make the features again."
                ) from error
            if batch is None:
                return
            if not np.isfinite(batch).all():
                raise SlideError(name, "it holds a feature that is not a number", "Make the features again.")
            yield batch

    def whole(self, name: object) -> np.ndarray:
        """(N, D), float16 or float32.

        Raises:
            SlideError: A feature is not a finite number.
        """
        batches = list(self.checked(name))
        dtype = np.float16 if self.half else np.float32
        return np.concatenate(batches).astype(dtype) if batches else np.zeros((0, self.dim), dtype)


@dataclass(frozen=True)
class PlacedTiles:
    """Square tiles of one slide; None where the file is silent."""

    source: Path
    name: str
    """What the file calls the slide."""
    places_px0: np.ndarray
    """(N, 2), whole or fractional."""
    place: Literal["corner", "centre"] | None = "corner"
    """What a place is of its tile: the top-left corner or the centre."""
    side_px0: float | None = None
    tile_px: int | None = None
    """Side of a tile as it is read for an encoder."""
    overlap_px: int = 0
    """Of a tile as it is read."""
    level0_mpp: float | None = None
    """Micrometres per pixel of level 0."""
    level0_size_px: tuple[int, int] | None = None
    features: FeatureRows | None = None
    own: Mapping[str, Attribute] = field(default_factory=dict)
    """Lamella's attributes: encoder, encoder_fingerprint, version, ..."""
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Further numbers of each tile, such as tissue_fraction."""

    def __len__(self) -> int:
        return len(self.places_px0)

    @property
    def side(self) -> float:
        """`side_px0` of tiles that were settled."""
        return _known(self, self.side_px0, "how large its tiles are")

    @property
    def pixels(self) -> int:
        """`tile_px` of tiles that were settled."""
        return int(_known(self, self.tile_px, "with how many pixels its tiles are read"))

    @property
    def mpp0(self) -> float:
        """`level0_mpp` of tiles that were settled."""
        return _known(self, self.level0_mpp, "the micrometres per pixel of its slide")

    @property
    def mpp(self) -> float:
        """Micrometres per pixel of a tile as it is read."""
        return self.side * self.mpp0 / self.pixels


def _known(tiles: PlacedTiles, value: float | None, what: str) -> float:
    if value is None:
        raise LamellaError(
            tiles.source, f"it does not say {what}", "Add --index INDEX, and mpp=... tile_px=... for its tiles."
        )
    return value


def checked_places(path: Path | str, places: np.ndarray) -> np.ndarray:
    """(N, 2) finite numbers, whole ones as int64.

    Raises:
        LamellaError: They have another shape or type, or are not finite.
    """
    places = np.asarray(places)
    if places.ndim != 2 or places.shape[1] != 2 or places.dtype.kind not in "iuf":
        raise LamellaError(
            path, f"its coordinates {places.shape} of {places.dtype} are not (N, 2) numbers", "Make it again."
        )
    if not (np.abs(places.astype(np.float64)) < _LARGEST_PX0).all():
        raise LamellaError(path, "it holds a coordinate that is not a finite number of pixels", "Make it again.")
    whole = np.rint(places).astype(np.int64)
    return whole if np.array_equal(whole, places) else places.astype(np.float64)


def whole_px0(places_px0: np.ndarray) -> np.ndarray:
    """(N, 2) int64: the nearest pixel, for formats that know whole ones only."""
    whole: np.ndarray = np.rint(places_px0).astype(np.int64)
    return whole
