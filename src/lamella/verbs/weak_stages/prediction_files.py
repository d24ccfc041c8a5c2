"""The files of stage 5 in the source's form: the mask and the confidence maps of a slide, and the list of all slides.

Small rasters become one PNG and one NPZ, which anything reads; large ones a pyramidal OME-TIFF and a zarr.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lamella.errors import OutputConflictError, first_line
from lamella.formats.atomic import whole_file
from lamella.formats.ome_tiff import class_table, write_ome_tiff
from lamella.formats.ome_zarr import StoredRaster
from lamella.formats.tables import write_csv

MASK_PNG, MASK_TIFF = "segmentation_mask.png", "segmentation_mask.ome.tif"
MAPS_NPZ, MAPS_ZARR = "confidence_maps.npz", "confidence_maps.zarr"
PICTURE, METADATA, BATCH = "visualization.png", "metadata.json", "batch_results.csv"
_BATCH_COLUMNS = ("wsi_name", "num_patches", "processing_time", "model_version")
_PACKING = 1  # of deflate: level 6 takes three times as long for files a tenth smaller


def write_mask(raster: StoredRaster, folder: Path, *, small: bool) -> str:
    """Write a label raster; the name of its file.

    Args:
        raster: Channel numbers, 255 where nobody looked.
        folder: Of the slide.
        small: As a PNG of one byte a pixel, whose values are the channels' numbers; otherwise as an OME-TIFF.

    Raises:
        StorageError: The disk refused the write.
    """
    if small:
        with whole_file(folder / MASK_PNG) as part:
            Image.fromarray(np.asarray(raster.levels[0][:])).save(part, dpi=(25400 / raster.frame.mpp,) * 2)
        return MASK_PNG
    names = class_table(raster.names)
    write_ome_tiff(folder / MASK_TIFF, raster.levels, raster.frame, channels=["class"], annotation=names)
    return MASK_TIFF


def write_maps(raster: StoredRaster, path: Path) -> None:
    """Write probabilities as `class_0`, `class_1`, ...: float32 (H, W) each, one in memory at a time.

    They are multiples of 1 / 255, as they were stored; all are 0 where nobody looked. The same raster gives the same
    bytes.

    Raises:
        StorageError: The disk refused the write.
    """
    with whole_file(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=_PACKING) as archive:
        for channel in range(len(raster.names)):
            shares = np.asarray(raster.levels[0][channel]).astype(np.float32) / np.float32(255)
            with archive.open(f"class_{channel}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, shares, allow_pickle=False)


def now() -> str:
    """The time as the source writes it: 2026-01-12T14:30:00Z."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def write_batch(out: Path) -> int:
    """Write batch_results.csv of all finished slides of the folder, by name; how many there are.

    Raises:
        OutputConflictError: A metadata.json cannot be read.
        StorageError: The disk refused the write.
    """
    rows = [_row(found) for found in read_all(out)]
    write_csv(out / BATCH, rows, list(_BATCH_COLUMNS))
    return len(rows)


def read_all(out: Path) -> list[dict[str, Any]]:
    """metadata.json of all finished slides of a folder, by the names of their folders.

    Raises:
        OutputConflictError: One cannot be read.
    """
    return [_read(path) for path in sorted(out.glob(f"*/{METADATA}"))]


def _row(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "wsi_name": metadata["wsi_name"],
        "num_patches": metadata["num_patches"],
        "processing_time": metadata["processing_time_sec"],
        "model_version": metadata["model_version"],
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        missing = {"wsi_name", "num_patches", "processing_time_sec", "model_version"} - set(found)
    except (OSError, ValueError, TypeError) as error:
        raise OutputConflictError(path, f"it cannot be read ({first_line(error)})", "Remove this folder.") from error
    if missing:
        raise OutputConflictError(path, f"it lacks {', '.join(sorted(missing))}", "Remove this folder.")
    return {**found, "slide_id": path.parent.name}
