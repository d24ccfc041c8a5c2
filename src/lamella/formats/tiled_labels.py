"""Labels cut into tiles, as studies of Visium HD prepare them: `P1_precomputed_labels_v2`.

`patch_XXX_YYY.npy` (128, 128, G) with rows first, `patches.json` (patch_id, patch_row, patch_col), and `metadata.json`
with the genes and `coordinate_scale`, the micrometres per pixel of the full-resolution image. Tile (row, col) begins at
pixel (col, row) * 256 / coordinate_scale: the bins lie on an upright lattice from the image's corner. Ours add
`lattice` to the metadata, for chips that lie turned or mirrored, and `measured/patch_XXX_YYY.npy`, (128, 128) bool, of
tiles that reach over the chip's border: these are padded with zeros, never stretched.
Shapes: N bins, G genes, T bins along the side of a tile.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from tokenize import TokenError
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from lamella.errors import first_line
from lamella.formats.atomic import whole_file, write_json
from lamella.formats.expression_h5ad import lattice_facts
from lamella.formats.lattice import agreed_mpp, no_mpp
from lamella.formats.sparse_counts import checked_counts, damaged
from lamella.formats.spatial_counts import ExpressionError, SpatialCounts
from lamella.geometry import BinGrid

TILE_BINS, BIN_UM = 128, 2.0
TILES, METADATA, MEASURED = "patches.json", "metadata.json", "measured"

_NAME = "patch_{:03d}_{:03d}"
_PLAIN = re.compile(r"\w[\w.-]*")  # names of tiles that are no paths elsewhere
_GENES = ("genes", "gene_names", "gene_list")
_SCALE = "coordinate_scale"
_SUFFIX = re.compile(r"_precomputed_labels(_v\d+)?$")


class Tile(NamedTuple):
    """A tile of the list: its name, and its row and column among the tiles."""

    name: str
    row: int
    col: int


def is_tiled_labels(path: Path) -> bool:
    """Whether the path is a folder of labels in tiles."""
    return (path / TILES).is_file()


def read_tiles(folder: Path) -> tuple[Tile, ...]:
    """The list of the tiles.

    Raises:
        ExpressionError: It is missing or damaged, or two tiles have the same name or place.
    """
    path = folder / TILES
    listed = _json(path)
    if isinstance(listed, dict):
        listed = listed.get("patches")
    try:
        tiles = tuple(Tile(_name(entry), int(entry["patch_row"]), int(entry["patch_col"])) for entry in listed)
    except (TypeError, KeyError, ValueError) as error:
        raise ExpressionError(
            path, f"it is no list of patch_id, patch_row and patch_col ({first_line(error)})", "Make it again."
        ) from error
    if not tiles:
        raise ExpressionError(path, "it lists no tile", "Make it again.")
    for what, keys in (("name", [tile.name for tile in tiles]), ("place", [tile[1:] for tile in tiles])):
        if len(set(keys)) < len(keys):
            raise ExpressionError(path, f"several tiles have the same {what}", "Give every tile once.")
    return tiles


def _name(entry: dict[str, Any]) -> str:
    row, col = int(entry["patch_row"]), int(entry["patch_col"])
    given = entry.get("patch_id")
    name = given if isinstance(given, str) else _NAME.format(row, col)  # a number says nothing about the file
    if not _PLAIN.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a tile")
    return name


def read_tiled_labels(
    folder: Path | str, *, mpp: float | tuple[float, float] | None = None, name: str | None = None
) -> SpatialCounts:
    """Read all tiles; every bin of theirs is a place, those with zeros too.

    Args:
        folder: With `patches.json`, `metadata.json` and the tiles.
        mpp: Micrometres per pixel of the full-resolution image as the image says; the metadata say it too, and both
            must agree.
        name: Of the slide; the folder's, if None.

    Raises:
        ExpressionError: A file is missing, damaged, or of another shape, or nothing gives micrometres.
    """
    folder = Path(folder)
    tiles, facts = read_tiles(folder), _metadata(folder)
    genes = facts["genes"]
    own = facts.get(_SCALE)
    grid = _lattice(folder, facts, own, mpp)
    side = int(facts.get("tile_bins", TILE_BINS))
    blocks, places = [], []
    for tile in tiles:
        values, measured = _tile(folder, tile, len(genes), side)
        row, col = np.nonzero(measured)
        blocks.append(sparse.csr_array(values[row, col]))
        places.append(np.stack([row + tile.row * side, col + tile.col * side], 1).astype(np.int32))
    rc = np.concatenate(places)
    names = np.char.add(np.char.add(rc[:, 0].astype("S6"), b"_"), rc[:, 1].astype("S6"))
    x, y = grid.place_px0(rc[:, 0].astype(np.float64), rc[:, 1].astype(np.float64))
    return SpatialCounts(
        name=name or _SUFFIX.sub("", folder.absolute().name),
        source=folder,
        counts=checked_counts(folder, sparse.vstack(blocks, format="csr")),
        genes=genes,
        places_px0=np.stack([x, y], 1),
        shape="bin",
        size_um=grid.bin_um,
        mpp=agreed_mpp(folder, grid, mpp, own),
        barcodes=names,
        array_rc=rc,
        grid=grid,
        all_measured=False,
        notes=(
            f"prepared labels of {len(tiles)} tiles: nothing is known outside them, and nothing of the library size",
        ),
    )


def _lattice(folder: Path, facts: dict[str, Any], own: float | None, mpp: Any) -> BinGrid:
    stored = facts.get("lattice")
    if stored is not None:
        try:
            corner, row, col = (
                tuple(map(float, stored[key])) for key in ("origin_px0", "row_step_px0", "col_step_px0")
            )
            return BinGrid(corner, row, col, float(stored["size_um"]))  # type: ignore[arg-type]
        except (TypeError, KeyError, ValueError) as error:
            raise ExpressionError(folder / METADATA, "its lattice cannot be read", "Make it again.") from error
    if own is None and mpp is None:
        raise no_mpp(folder)
    mpp_x, mpp_y = (own, own) if own is not None else mpp if isinstance(mpp, tuple) else (mpp, mpp)
    return BinGrid.upright(float(facts.get("bin_um", BIN_UM)), mpp_x, mpp_y)


def _metadata(folder: Path) -> dict[str, Any]:
    path = folder / METADATA
    facts = _json(path)
    genes = next((facts[key] for key in _GENES if key in facts), None) if isinstance(facts, dict) else None
    if not isinstance(genes, list) or not all(isinstance(gene, str) for gene in genes) or not genes:
        raise ExpressionError(path, "it does not name the genes", "Add a list `genes`, in the order of the labels.")
    if len(set(genes)) < len(genes):
        raise ExpressionError(path, "a gene stands twice", "Give each gene its own name.")
    scale = facts.get(_SCALE)
    if scale is not None and not (isinstance(scale, int | float) and 0 < scale < 100):
        raise ExpressionError(path, f"{_SCALE} is {scale!r}", "Give micrometres per full-resolution pixel.")
    return {**facts, "genes": tuple(genes)}


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ExpressionError(path, "the file does not exist", "Copy the folder whole.") from error
    except (OSError, ValueError) as error:
        raise damaged(path, first_line(error)) from error


def _tile(folder: Path, tile: Tile, genes: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """(h, w, G) values, and (h, w) bool: which bins were measured. A tile cut at the border has fewer than T bins."""
    path = folder / f"{tile.name}.npy"
    values = _array(path)
    if values.ndim != 3 or values.shape[2] != genes or not (0 < values.shape[0] <= side >= values.shape[1] > 0):
        raise ExpressionError(
            path,
            f"it is {' x '.join(map(str, values.shape))} instead of {side} x {side} bins x {genes} genes",
            "Give the labels with rows first, and the metadata of the same run.",
        )
    mask_path = folder / MEASURED / f"{tile.name}.npy"
    if not mask_path.is_file():
        return values, np.ones(values.shape[:2], bool)
    mask = _array(mask_path)
    if mask.shape != values.shape[:2] or mask.dtype != bool:
        raise damaged(mask_path, f"it is {mask.shape} of {mask.dtype}")
    return values, mask


def _array(path: Path) -> np.ndarray:
    try:
        with open(path, "rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except FileNotFoundError as error:
        raise ExpressionError(path, "the file does not exist", "Copy the folder whole.") from error
    except (OSError, ValueError, EOFError, SyntaxError, TokenError) as error:  # the last two: of a damaged head
        raise damaged(path, first_line(error)) from error
    if array.dtype.kind not in "biuf":
        raise damaged(path, "it holds no numbers")
    return array


def write_tiled_labels(folder: Path | str, counts: SpatialCounts, *, tile_bins: int = TILE_BINS) -> tuple[Tile, ...]:
    """Write bins as tiles along their lattice; the list is written last, so that a half-written folder has none.

    Args:
        folder: New or empty.
        counts: Bins of one slide, as few genes as are wanted: the tiles are dense.
        tile_bins: T.

    Returns:
        The tiles that hold a measured bin.

    Raises:
        ExpressionError: These are spots.
        StorageError: The disk refused a write.
    """
    folder = Path(folder)
    if counts.grid is None or counts.array_rc is None:
        raise ExpressionError(counts.source, "its places are spots, which have no tiles of bins", "Give bins.")
    tiles = []
    for tile, rows in _rows_by_tile(counts.array_rc, tile_bins):
        values = np.zeros((tile_bins, tile_bins, len(counts.genes)), counts.counts.dtype)
        measured = np.zeros((tile_bins, tile_bins), bool)
        row, col = (counts.array_rc[rows] - [tile.row * tile_bins, tile.col * tile_bins]).T
        values[row, col], measured[row, col] = counts.counts[rows].toarray(), True
        _save(folder / f"{tile.name}.npy", values)
        if not measured.all():
            _save(folder / MEASURED / f"{tile.name}.npy", measured)
        tiles.append(tile)
    facts = {
        "genes": list(counts.genes),
        _SCALE: counts.mpp,
        "bin_um": counts.size_um,
        "tile_bins": tile_bins,
        "lattice": lattice_facts(counts.grid, counts.mpp),
    }
    write_json(folder / METADATA, facts)
    entries = [{"patch_id": tile.name, "patch_row": tile.row, "patch_col": tile.col} for tile in tiles]
    write_json(folder / TILES, entries)
    return tuple(tiles)


def _rows_by_tile(array_rc: np.ndarray, tile_bins: int) -> Iterator[tuple[Tile, np.ndarray]]:
    """Each tile with a bin, and the numbers of its bins."""
    tile_rc, number = np.unique(array_rc // tile_bins, axis=0, return_inverse=True)
    order = np.argsort(number.ravel(), kind="stable")
    ends = np.cumsum(np.bincount(number.ravel(), minlength=len(tile_rc)))
    for (row, col), rows in zip(tile_rc.tolist(), np.split(order, ends[:-1]), strict=True):
        yield Tile(_NAME.format(row, col), row, col), rows


def _save(path: Path, array: np.ndarray) -> None:
    with whole_file(path) as part:
        np.save(part, array, allow_pickle=False)
