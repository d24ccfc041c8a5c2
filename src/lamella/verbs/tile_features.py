"""From a tile table to a feature file: what `embed` and `evaluate` share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch

from lamella import __version__
from lamella.data.tiles import TileBatches
from lamella.errors import LamellaError, OutputConflictError
from lamella.formats.h5 import TridentAttributes, read_attributes, trident_attributes, write_features
from lamella.models.encoders import Encoder, InputContract
from lamella.slides.grid import one_tile_px, tile_corners_px0
from lamella.slides.index import IndexedSlide

_CHANGED = {"tiles": "set of tiles", "source": "state of the slide or its mask", "encoder_fingerprint": "model"}
# How pixels change their spacing, kept in every feature file; see slides/resample.py.
RESAMPLE_DCT = "JPEG decoded at 1/2 or 1/4 in the DCT domain, then as usual"
RESAMPLE = "area average down, bilinear up; a level within 5 % of the mpp counts as being at it"


def tile_size(contract: InputContract, mpp: float | None, tile_px: int | None) -> tuple[float, int]:
    """The spacing and side of the tiles: the encoder's own unless others are asked for.

    Raises:
        LamellaError: The side is not a whole number of the encoder's patches.
    """
    mpp, side = mpp or contract.mpp, tile_px or contract.size_px
    whole_image = contract.patch_px == contract.size_px  # an encoder without patches takes any size
    if side % contract.patch_px and not whole_image:
        raise LamellaError(
            "tile_px",
            f"{side} is not a multiple of the encoder's {contract.patch_px} px patches",
            f"Set it to {contract.size_px}, the size the encoder was trained with, or another multiple.",
        )
    return mpp, side


def embedded(
    batches: Iterable[torch.Tensor],
    encoder: Encoder,
    mpp: float,
    device: torch.device,
    precision: Literal["bf16", "fp32"] = "fp32",
) -> Iterator[np.ndarray]:
    """(B, D) float32 features of uint8 (B, 3, H, W) batches at `mpp`, in their order.

    A batch is handed to the device before the features of the one before are waited for, so that it does not stand
    still in between.
    """
    before: torch.Tensor | None = None
    for images in batches:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            features = encoder.pooled(images.to(device, non_blocking=True), mpp)
        if before is not None:
            yield before.float().cpu().numpy()
        before = features
    if before is not None:
        yield before.float().cpu().numpy()


def write_slide(
    path: Path,
    slide: IndexedSlide,
    table: pa.Table,
    batches: TileBatches,
    encoder: Encoder,
    *,
    device: torch.device,
    overlap_px: int = 0,
    half: bool = False,
    precision: Literal["bf16", "fp32"] = "fp32",
) -> None:
    """Embed the tiles of one slide and write them in TRIDENT's layout, rows in the table's order.

    Tiles that `batches` leaves out because they cannot be decoded have no row, and are listed in the file; features
    are then held in memory until all are there.

    Raises:
        LamellaError: The tiles have more than one mpp.
        SlideError: A tile cannot be read, or a feature is not a number.
        StorageError: The disk refused the write.
    """
    mpp = one_mpp(table, slide.slide_id) if table.num_rows else encoder.contract.mpp
    own = {
        "mpp": mpp,
        "resample": RESAMPLE_DCT if batches.dct_scaling else RESAMPLE,
        "precision": precision,
        "reader": slide.reader,
        "encoder": encoder.name,
        "encoder_fingerprint": encoder.fingerprint,
        "version": __version__,
        "tiles": tiles_digest(table),
        "source": slide.source_hash,
    }
    trident = _trident(path, slide, table, encoder, mpp, overlap_px)
    features = embedded(batches, encoder, mpp, device, precision)
    corners_px0, dim = tile_corners_px0(table), encoder.contract.dim
    if batches.skip_unreadable:
        features = iter(list(features))  # which tiles are left out is only known at the end
    skipped = _left_out(batches, corners_px0)
    corners_px0 = np.delete(corners_px0, list(batches.skipped), axis=0)
    write_features(path, corners_px0, features, dim=dim, trident=trident, own=own, half=half, skipped=skipped)


def _left_out(batches: TileBatches, corners_px0: np.ndarray) -> list[dict[str, Any]]:
    """The tiles that were left out, with their reasons.

    Raises:
        SlideError: These are all tiles.
    """
    if batches.skipped and len(batches.skipped) == len(corners_px0):
        raise next(iter(batches.skipped.values()))
    places = {row: corners_px0[row].tolist() for row in batches.skipped}
    return [
        {"x_px0": places[row][0], "y_px0": places[row][1], "error": str(error)}
        for row, error in sorted(batches.skipped.items())
    ]


def is_embedded(path: Path, slide: IndexedSlide, table: pa.Table, encoder: Encoder) -> bool:
    """Whether the file is there and holds these tiles of this slide by this encoder.

    Raises:
        OutputConflictError: It is there, but of other tiles, another slide or another encoder.
    """
    if not path.exists():
        return False
    attributes = read_attributes(path)
    now = {"tiles": tiles_digest(table), "source": slide.source_hash, "encoder_fingerprint": encoder.fingerprint}
    changed = [name for name, value in now.items() if attributes.get(name) != value]
    if changed:
        raise OutputConflictError(
            path,
            f"it was made from another {' and another '.join(_CHANGED[name] for name in changed)} than asked for now",
            "Give another folder with -o, or delete this file.",
        )
    return True


def tiles_digest(table: pa.Table) -> str:
    """16 hex digits that change with any tile's place, size or order."""
    digest = hashlib.sha256()
    for name in ("x_px0", "y_px0", "fov_um", "mpp"):
        digest.update(np.ascontiguousarray(table.column(name).to_numpy(), np.float64).tobytes())
    return digest.hexdigest()[:16]


def one_mpp(table: pa.Table, slide_id: str) -> float:
    """The spacing that all tiles of a file share: the file states one, and positions are in micrometres."""
    found = np.unique(table.column("mpp").to_numpy())
    if len(found) > 1:
        raise LamellaError(
            slide_id,
            f"its tiles have {len(found)} spacings ({found[0]:g} to {found[-1]:g} um per pixel)",
            "Give one tile table for each mpp, and embed each into its own folder.",
        )
    return float(found[0])


def _trident(
    path: Path, slide: IndexedSlide, table: pa.Table, encoder: Encoder, mpp: float, overlap_px: int
) -> TridentAttributes:
    return trident_attributes(
        slide_id=slide.slide_id,
        folder=path.parent,
        tile_px=one_tile_px(table, slide.slide_id) if table.num_rows else encoder.contract.size_px,
        mpp=mpp,
        overlap_px=overlap_px,
        level0_mpp=slide.frame.mpp,
        level0_size_px=(slide.frame.width_px, slide.frame.height_px),
    )
