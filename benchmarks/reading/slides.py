"""The slides that reading is measured on: large enough that no cache holds them, with the texture of real tissue.

Where the real data lie beside the checkout, level 0 is a piece of the TCGA slide, compressed anew; else a texture at
several scales. All of them are 40x (0.25 um per pixel) with levels at 1/4 and 1/16, as Aperio writes them: 20x is not
among the levels.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
import simplejpeg
import tifffile
from PIL import Image

REAL = Path(__file__).parents[3] / "shared" / "data" / "slides"
TCGA, CMU = REAL / "TCGA-AA-3562-region.tif", REAL / "CMU-1-Small-Region.svs"
MPP = 0.25
SIDE_PX = 8192  # 200 MB decoded: more than any reader's cache
# A JPEG 2000 tile takes 20 ms to compress: these are compressed, and each is used several times.
_JPEG_2000_TILES = 128


def texture(side_px: int) -> np.ndarray:
    """(side_px, side_px, 3) uint8."""
    if TCGA.exists():
        with tifffile.TiffFile(TCGA) as tiff:
            return np.ascontiguousarray(tiff.pages.first.asarray()[:side_px, 1000 : 1000 + side_px])
    rng = np.random.default_rng(0)
    pixels = np.full((side_px, side_px, 3), (200, 150, 190), np.int16)
    for grain_px in (4, 32, 256):
        noise = rng.integers(93, 163, (side_px // grain_px + 1,) * 2 + (3,), dtype=np.uint8)
        grown = Image.fromarray(noise).resize((side_px, side_px), Image.Resampling.BICUBIC)
        pixels += np.asarray(grown).astype(np.int16) - 128
    return pixels.clip(0, 255).astype(np.uint8)


def write_ycbcr(path: Path, pixels: np.ndarray, quality: int, repeat: int = 1) -> Path:
    """256 px tiles of JPEG with halved chroma; `repeat` times the picture a side."""
    with tifffile.TiffWriter(path) as tiff:
        for shrink in (1, 4, 16):
            level = pixels if shrink == 1 else np.asarray(Image.fromarray(pixels).reduce(shrink))
            streams = _compressed(level, 256, lambda tile: simplejpeg.encode_jpeg(tile, quality))
            columns = level.shape[1] // 256
            rows = [streams[start : start + columns] * repeat for start in range(0, len(streams), columns)]
            tiff.write(
                itertools.chain.from_iterable(rows * repeat),
                shape=(level.shape[0] * repeat, level.shape[1] * repeat, 3), dtype=np.uint8, tile=(256, 256),
                photometric="ycbcr", subsampling=(2, 2), compression="jpeg", subfiletype=int(shrink > 1),
                resolution=(1e4 / (MPP * shrink),) * 2, resolutionunit="CENTIMETER", metadata=None,
            )  # fmt: skip
    return path


def write_svs(path: Path, pixels: np.ndarray, tile_px: int, kind: str) -> Path:
    """Aperio's three ways: `jpeg` (RGB kept in JPEG, quality 80), `aperio_jp2000_rgb`, `aperio_jp2000_ycbc`."""
    encode = {"jpeg": _rgb_jpeg, "aperio_jp2000_rgb": _rgb_jpeg_2000, "aperio_jp2000_ycbc": _ycbcr_jpeg_2000}[kind]
    colours = {"compressionargs": {"outcolorspace": "rgb"}} if kind == "jpeg" else {}
    with tifffile.TiffWriter(path) as tiff:
        for shrink in (1, 4, 16):
            level = pixels if shrink == 1 else np.asarray(Image.fromarray(pixels).reduce(shrink))
            height, width, _ = level.shape
            count = -(-height // tile_px) * -(-width // tile_px)
            streams = _compressed(level, tile_px, encode, count if kind == "jpeg" else _JPEG_2000_TILES)
            tiff.write(
                itertools.islice(itertools.cycle(streams), count), **colours, shape=level.shape, dtype=np.uint8,
                tile=(tile_px, tile_px), photometric="rgb", compression=kind, metadata=None,
                description=f"Aperio Image Library v12\r\n{width}x{height} ({tile_px}x{tile_px})|MPP = {MPP}",
            )  # fmt: skip
    return path


def _compressed(
    pixels: np.ndarray, tile_px: int, encode: Callable[[np.ndarray], bytes], most: int | None = None
) -> list[bytes]:
    """The tiles of a picture, row by row; the first `most` of them."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(encode, itertools.islice(_tiles(pixels, tile_px), most)))


def _tiles(pixels: np.ndarray, tile_px: int) -> Iterator[np.ndarray]:
    height, width, _ = pixels.shape
    padded = np.pad(pixels, ((0, -height % tile_px), (0, -width % tile_px), (0, 0)), mode="edge")
    for y, x in itertools.product(range(0, height, tile_px), range(0, width, tile_px)):
        yield np.ascontiguousarray(padded[y : y + tile_px, x : x + tile_px])


def _rgb_jpeg(tile: np.ndarray) -> bytes:
    """RGB without the Adobe marker that would say so: only the TIFF's photometric tag tells."""
    stream = imagecodecs.jpeg8_encode(tile, level=80, colorspace="rgb", outcolorspace="rgb")
    return stream[:2] + stream[4 + int.from_bytes(stream[4:6], "big") :]


def _rgb_jpeg_2000(tile: np.ndarray) -> bytes:
    return imagecodecs.jpeg2k_encode(tile, level=38, codecformat="j2k")  # 38 dB: about Aperio's quality 70


def _ycbcr_jpeg_2000(tile: np.ndarray) -> bytes:
    ycbcr = np.asarray(Image.fromarray(tile).convert("YCbCr"))
    return imagecodecs.jpeg2k_encode(ycbcr, level=38, mct=False, codecformat="j2k")
