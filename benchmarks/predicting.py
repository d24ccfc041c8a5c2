"""Slides and a model for `predict_slide.py`: a TIFF of any size, written in a second, and maps that cost nothing."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from lamella.models.dense_contract import DenseContract

TILE_PX, MPP, CLASSES = 512, 0.5, 6
_JPEG_PX = 256  # side of the file's own tiles


def tissue_tile(seed: int = 0) -> np.ndarray:
    """(256, 256, 3) uint8: coarse purple texture."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(90, 200, (8, 8, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((_JPEG_PX, _JPEG_PX), Image.Resampling.BICUBIC)).copy()
    pixels[..., 1] //= 2
    return pixels


def write_repeating_slide(path: Path, width_px: int, height_px: int) -> None:
    """A tiled JPEG BigTIFF of one level whose tiles all point to the same bytes: 60,000 px take under a megabyte.

    Readers decode each of them anew.
    """
    stream = io.BytesIO()
    Image.fromarray(tissue_tile()).save(stream, "JPEG", quality=80, subsampling=0)
    jpeg = stream.getvalue()
    count = -(-width_px // _JPEG_PX) * -(-height_px // _JPEG_PX)
    at_jpeg = 16
    at_offsets = at_jpeg + len(jpeg) + (-len(jpeg)) % 16
    at_counts, at_bits = at_offsets + 8 * count, at_offsets + 16 * count
    at_spacing = at_bits + 8
    at_entries = at_spacing + 16
    short, long, rational, long8 = 3, 4, 5, 16
    per_cm = struct.pack("<II", round(1e4 / MPP), 1)

    def value(kind: int, number: int) -> tuple[int, int, bytes]:
        return kind, 1, struct.pack("<Q", number)

    entries = {
        256: value(long, width_px),
        257: value(long, height_px),
        258: (short, 3, struct.pack("<HHHH", 8, 8, 8, 0)),
        259: value(short, 7),  # JPEG
        262: value(short, 6),  # YCbCr
        277: value(short, 3),
        282: (rational, 1, per_cm),
        283: (rational, 1, per_cm),
        296: value(short, 3),  # centimetres
        322: value(short, _JPEG_PX),
        323: value(short, _JPEG_PX),
        324: (long8, count, struct.pack("<Q", at_offsets)),
        325: (long8, count, struct.pack("<Q", at_counts)),
        530: (short, 2, struct.pack("<HHHH", 1, 1, 0, 0)),
    }
    with open(path, "wb") as file:
        file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, at_entries) + jpeg)
        file.seek(at_offsets)
        file.write(np.full(count, at_jpeg, "<u8").tobytes() + np.full(count, len(jpeg), "<u8").tobytes())
        file.seek(at_entries)
        file.write(struct.pack("<Q", len(entries)))
        for tag in sorted(entries):
            kind, number, content = entries[tag]
            file.write(struct.pack("<HHQ8s", tag, kind, number, content))
        file.write(struct.pack("<Q", 0))


class NullModel:
    """Maps made once and given for every tile: what is left is the engine's own work.

    They look like a model's: smooth, mostly certain, so that they compress as those do.
    """

    name = "null"
    fingerprint = "0000000000000000"

    def __init__(self, batch_size: int, classes: int = CLASSES, tile_px: int = TILE_PX) -> None:
        self.contract = DenseContract(tuple(f"class {number}" for number in range(classes)), MPP, tile_px)
        coarse = torch.randn(1, classes, 9, 9, generator=torch.Generator().manual_seed(0))
        logits = torch.nn.functional.interpolate(coarse, (tile_px, tile_px), mode="bicubic", align_corners=True)
        self._maps = (6 * logits).softmax(1).expand(batch_size, -1, -1, -1).contiguous()

    def maps(self, images: torch.Tensor) -> torch.Tensor:
        return self._maps[: len(images)]

    def to(self, device: Any) -> NullModel:
        return self
