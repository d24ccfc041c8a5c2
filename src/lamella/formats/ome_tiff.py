"""Rasters over a slide as pyramidal, tiled OME-TIFF, streamed from their levels a row of tiles at a time.

The finest level of each channel is a page, its coarser ones lie in the page's SubIFDs, where Bio-Formats and QuPath
look for them; OpenSlide, which does not look there, opens the finest level. The spacing stands twice: in OME-XML and as
pixels per centimetre. Tiles are deflated, which every TIFF reader knows; ZSTD would be smaller and open in fewer.
Source: OME-TIFF specification, docs.openmicroscopy.org/ome-model, "OME-TIFF with sub-resolutions"; schema 2016-06.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile

from lamella import __version__
from lamella.formats.atomic import whole_file
from lamella.formats.halving import majority_halved, mean_halved
from lamella.geometry import Frame

_TILE_PX = 512
_LEVEL = 1  # of libdeflate; level 4 takes nearly twice as long for files a tenth smaller
_CLASSIC_BYTES = 2**32 - 2**25  # offsets of classic TIFF end here; what would not fit uncompressed becomes BigTIFF
_THREADS = 4  # that deflate at once: more would wait for the one that writes


def write_ome_tiff(
    path: Path | str,
    levels: Sequence[Any],
    frame: Frame,
    *,
    channels: Sequence[str] = (),
    annotation: Mapping[str, str] | None = None,
) -> None:
    """Write levels that exist already, whole or not at all.

    Args:
        path: Named `*.ome.tif`.
        levels: uint8 (H, W) or (C, H, W), finest first, each half as fine; arrays or what is sliced like them.
        frame: Of the finest level.
        channels: Names of the channels, as many as there are.
        annotation: Keys and values that go along, such as the names of classes by value.

    Raises:
        StorageError: The disk refused the write.
    """
    shapes = [tuple(int(side) for side in level.shape) for level in levels]
    total = sum(int(np.prod(shape, dtype=np.int64)) for shape in shapes)
    options: dict[str, Any] = {
        "dtype": np.uint8,
        "tile": (_TILE_PX, _TILE_PX),
        "photometric": "minisblack",
        "compression": "zlib",
        "resolutionunit": "CENTIMETER",
    }
    with (
        whole_file(path) as part,
        ThreadPoolExecutor(_THREADS) as pool,
        tifffile.TiffWriter(part, bigtiff=total > _CLASSIC_BYTES, ome=True) as tiff,
    ):
        for number, (level, shape) in enumerate(zip(levels, shapes, strict=True)):
            per_cm = 1e4 / (frame.mpp_x * 2**number), 1e4 / (frame.mpp_y * 2**number)
            base = {"subifds": len(levels) - 1, "metadata": _metadata(path, shape, frame, channels, annotation)}
            coarser = {"subfiletype": 1, "metadata": None}
            tiff.write(_tiles(level, pool), shape=shape, resolution=per_cm, **options, **(coarser if number else base))


def write_labels(path: Path | str, labels: np.ndarray, frame: Frame, classes: Sequence[str]) -> None:
    """Write a label map that is in memory; coarser levels hold the most frequent label of each 2 x 2.

    Args:
        path: Named `*.ome.tif`.
        labels: (H, W) uint8.
        frame: Its size and micrometres per pixel.
        classes: Names by value.
    """
    write_ome_tiff(path, _pyramid(labels, majority_halved), frame, channels=["class"], annotation=class_table(classes))


def write_probabilities(path: Path | str, values: np.ndarray, frame: Frame, channels: Sequence[str]) -> None:
    """Write probabilities that are in memory: (C, H, W) uint8, p = value / 255."""
    write_ome_tiff(path, _pyramid(values, mean_halved), frame, channels=channels)


def class_table(classes: Sequence[str]) -> dict[str, str]:
    """What a label map's annotation says: each value's class."""
    return {str(value): name for value, name in enumerate(classes)} | {"255": "not looked at"}


def _pyramid(raster: np.ndarray, halve: Any) -> list[np.ndarray]:
    levels = [raster]
    while max(levels[-1].shape[-2:]) > _TILE_PX:
        levels.append(halve(levels[-1]))
    return levels


def _metadata(
    path: Path | str,
    shape: tuple[int, ...],
    frame: Frame,
    channels: Sequence[str],
    annotation: Mapping[str, str] | None,
) -> dict[str, Any]:
    """For tifffile's OME-XML. The unit is left out: the schema's default is the micrometre, and its sign no ASCII."""
    name = Path(path).name
    # The same raster gives the same bytes; tifffile would take the UUID from the clock.
    facts = f"{name} {shape} {frame} {list(channels)} {annotation}"
    found: dict[str, Any] = {
        "UUID": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, facts)}",
        "axes": "YX" if len(shape) == 2 else "CYX",
        "Name": name.split(".")[0],
        "Creator": f"Lamella {__version__}",
        "PhysicalSizeX": frame.mpp_x,
        "PhysicalSizeY": frame.mpp_y,
    }
    if channels:
        found["Channel"] = {"Name": list(channels)}
    if annotation:
        found["MapAnnotation"] = {"Namespace": "lamella/classes", **annotation}
    return found


def _tiles(level: Any, pool: ThreadPoolExecutor) -> Iterator[bytes]:
    """The packed tiles of a level, channel by channel, row by row; one row of tiles is in memory."""
    plain: dict[int, bytes] = {}  # most of a slide is one value: packed once

    def packed(tile: np.ndarray) -> bytes:
        value = int(tile[0, 0])
        if not (tile == value).all():
            return _packed(tile)
        if value not in plain:
            plain[value] = _packed(np.full((_TILE_PX, _TILE_PX), value, np.uint8))
        return plain[value]

    height, width = level.shape[-2:]
    for channel in range(level.shape[0]) if len(level.shape) == 3 else [None]:
        for y in range(0, height, _TILE_PX):
            rows = slice(y, y + _TILE_PX)
            band = np.asarray(level[rows] if channel is None else level[channel, rows])
            yield from pool.map(packed, [band[:, x : x + _TILE_PX] for x in range(0, width, _TILE_PX)])


def _packed(tile: np.ndarray) -> bytes:
    if tile.shape != (_TILE_PX, _TILE_PX):  # beyond the edge the last pixels go on: no edge is made that is not there
        tile = np.pad(tile, [(0, _TILE_PX - size) for size in tile.shape], mode="edge")
    return bytes(imagecodecs.deflate_encode(np.ascontiguousarray(tile).tobytes(), level=_LEVEL, raw=False))
