"""Slides with expression made in memory: a small image with a given tissue mask, and counts at bins or spots."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import sparse

from lamella.data.expression import ExpressionSlide, ExpressionStudy
from lamella.data.expression_settings import ExpressionDataSettings
from lamella.formats.spatial_counts import SpatialCounts
from lamella.geometry import BinGrid, Frame

MPP = 0.5
GRID = BinGrid((150.0, 12.0), (0.07, 4.0), (-4.0, 0.07), 2.0)
"""2 um bins of a chip that is mirrored and turned by a degree, over an image of 0.5 um per pixel."""
UPRIGHT = BinGrid((12.0, 12.0), (0.0, 4.0), (4.0, 0.0), 2.0)


def counts_of(
    table: np.ndarray,
    array_rc: np.ndarray,
    *,
    grid: BinGrid = GRID,
    genes: tuple[str, ...] = (),
    source: Path | str = "made",
    **changes: object,
) -> SpatialCounts:
    """Bins of a lattice with a dense table (N, G) of counts."""
    rc = np.asarray(array_rc)
    px0 = np.stack(grid.place_px0(rc[:, 0].astype(float), rc[:, 1].astype(float)), axis=1)
    whole = np.asarray(table)
    facts: dict[str, object] = {
        "name": "made",
        "source": Path(source),
        "counts": sparse.csr_array(whole.astype(np.int32 if whole.dtype.kind in "iu" else np.float32)),
        "genes": genes or tuple(f"G{number}" for number in range(whole.shape[1])),
        "places_px0": px0,
        "shape": "bin",
        "size_um": grid.bin_um,
        "mpp": MPP,
        "barcodes": np.array([f"b{number}".encode() for number in range(len(rc))]),
        "array_rc": rc.astype(np.int32),
        "grid": grid,
    }
    return SpatialCounts(**{**facts, **changes})  # type: ignore[arg-type]


def spots_of(table: np.ndarray, places_px0: np.ndarray, diameter_um: float, **changes: object) -> SpatialCounts:
    """Spots at any places."""
    rc = np.stack([np.arange(len(places_px0)), np.zeros(len(places_px0))], axis=1)
    own = {"places_px0": np.asarray(places_px0, float), "shape": "spot", "size_um": diameter_um}
    return replace(counts_of(table, rc), **{**own, "grid": None, **changes})  # type: ignore[arg-type]


def full_rc(rows: int, columns: int, row0: int = 0, col0: int = 0) -> np.ndarray:
    """(N, 2) all rows and columns of a chip."""
    row, col = np.mgrid[row0 : row0 + rows, col0 : col0 + columns]
    return np.stack([row.ravel(), col.ravel()], axis=1)


def slide_of(
    folder: Path,
    counts: SpatialCounts,
    *,
    name: str = "s0",
    patient: str = "P0",
    size_px: tuple[int, int] = (160, 160),
    tissue: np.ndarray | None = None,
    pixels: np.ndarray | None = None,
) -> ExpressionSlide:
    """A slide of these counts; a mask file says where tissue is (all of it unless given)."""
    width, height = size_px
    if pixels is None:
        pixels = np.full((height, width, 3), (200, 120, 180), np.uint8)
        pixels[0, 0] = len(name), sum(map(ord, name)) % 256, 7  # no two slides are the same file
    height, width = pixels.shape[:2]
    mask = np.ones((height, width), bool) if tissue is None else tissue
    image_path, mask_path = folder / f"{name}.png", folder / f"{name}_mask.png"
    Image.fromarray(pixels).save(image_path, compress_level=0)
    Image.fromarray(mask.astype(np.uint8) * 255).save(mask_path, compress_level=0)
    frame = Frame(width, height, MPP, MPP)
    return ExpressionSlide(name, image_path, frame, patient, lambda: counts, None, mask_path)


def study_of(*slides: ExpressionSlide, tile_bins: int = 8, bin_um: float = 2.0) -> ExpressionStudy:
    return ExpressionStudy(tuple(slides), slides[0].counts.shape, bin_um, tile_bins)


def settings_of(**changes: object) -> ExpressionDataSettings:
    return ExpressionDataSettings(**{"slides": Path("made.csv"), "tile_bins": 8, **changes})  # type: ignore[arg-type]


@dataclass(frozen=True)
class SpotFiles:
    """A study of spots in files: images, masks, tables, manifest."""

    folder: Path
    manifest: Path


def write_spot_study(
    folder: Path, tables: dict[str, tuple[str, np.ndarray]], *, extra: dict[str, str] | None = None
) -> SpotFiles:
    """Write slides of 16 spots in a square: name -> (patient, (16, G) counts)."""
    genes = [f"G{number}" for number in range(next(iter(tables.values()))[1].shape[1])]
    (folder / "meta.json").write_text(json.dumps({"genes": genes}))
    head = ["slide_id", "wsi_path", "expression_path", "patient", "mpp", "mask_path", *(extra or {})]
    lines = [",".join(head)]
    for number, (name, (patient, table)) in enumerate(tables.items()):
        x, y = np.meshgrid(np.arange(4) * 30 + 35, np.arange(4) * 30 + 35)
        # Ground of one colour, and dark where counts are high: what registration looks for.
        pixels = np.full((160, 160, 3), (230, 200, 220), np.uint8)
        shade = np.argsort(np.argsort(table.sum(axis=1), kind="stable"), kind="stable") * 10
        for place, (cx, cy) in enumerate(zip(x.ravel(), y.ravel(), strict=True)):
            pixels[cy - 12 : cy + 12, cx - 12 : cx + 12] -= np.uint8(shade[place])
        pixels[0, 0] = 3, number, 5
        Image.fromarray(pixels).save(folder / f"{name}.png")
        Image.fromarray(np.full((160, 160), 255, np.uint8)).save(folder / f"{name}_mask.png")
        rows = ["id,array_x,array_y,px,py"]
        rows += [f"{i % 4}x{i // 4},{i % 4},{i // 4},{x.ravel()[i]},{y.ravel()[i]}" for i in range(16)]
        (folder / f"{name}_spots.csv").write_text("\n".join(rows) + "\n")
        parts = sparse.csr_array(table)
        np.savez(
            folder / f"{name}_counts.npz",
            data=parts.data,
            indices=parts.indices,
            indptr=parts.indptr,
            shape=np.array(parts.shape),
        )
        own = [name, f"{name}.png", f"{name}_spots.csv", patient, "4", f"{name}_mask.png", *(extra or {}).values()]
        lines.append(",".join(own))
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(lines) + "\n")
    return SpotFiles(folder, manifest)
