"""What CLAM's and TRIDENT's HDF5 files share: `coords` with attributes, often `features`. Damage is told at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from lamella.errors import LamellaError, first_line
from lamella.formats.placed_tiles import DAMAGE, FeatureRows, checked_places

# A shape beyond these was read from a damaged file: no slide has a hundred million tiles, no encoder a million numbers.
_MOST_TILES, _LARGEST_DIM = 10**8, 10**6


@dataclass(frozen=True)
class H5Tiles:
    """A file as read."""

    places_px0: np.ndarray
    """(N, 2)."""
    attributes: dict[str, object]
    """Of `coords`, as h5py gives them."""
    features: FeatureRows | None
    """Not read yet."""


def read_h5_tiles(path: Path) -> H5Tiles:
    """Read coordinates and attributes.

    Raises:
        LamellaError: The file is missing, no HDF5, damaged, lacks coords, or its features belong to other tiles.
    """
    try:
        with h5py.File(path, "r") as file:
            if "coords" not in file:
                raise LamellaError(path, "it has no dataset coords", "Give a file of CLAM, TRIDENT or Lamella.")
            coords = file["coords"]
            if coords.size > 2 * _MOST_TILES:
                raise ValueError(f"coords of {coords.shape}")
            attributes = dict(coords.attrs)
            places = checked_places(path, coords[:])
            shape = file["features"].shape if "features" in file else None
            if shape is not None and (len(shape) != 2 or shape[0] != len(places)):
                raise LamellaError(
                    path, f"its features {shape} do not belong to its {len(places)} tiles", "Make the features again."
                )
            if shape is not None and shape[1] > _LARGEST_DIM:
                raise ValueError(f"features of {shape}")
            return H5Tiles(places, attributes, None if shape is None else FeatureRows.in_h5(path))
    except FileNotFoundError as error:
        raise LamellaError(path, "the file does not exist", "Correct the path.") from error
    except DAMAGE as error:
        raise LamellaError(path, f"it cannot be read as HDF5 ({first_line(error)})", "Make it again.") from error
