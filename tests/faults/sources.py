"""Small sound slides of every kind that is read: the originals that the fault tests damage.

At level 0 no two tiles are alike and none is of one colour, so that a tile in the wrong place or a blank one shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import tifffile
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit
from tests.slides.readers.test_dicom import write_dicom
from tests.slides.readers.test_tiff import rgb_jpeg, split_tables

MPP = 0.5
TILE_PX = 64
WIDTH, HEIGHT = 240, 176  # 4 x 3 tiles, the last row and column reach over the edge
SVS_TEXT = f"Aperio Image Library v12\r\n{WIDTH}x{HEIGHT} ({TILE_PX}x{TILE_PX}) Q=80|AppMag = 20|MPP = {MPP}"
REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "slides"
_PLAIN = {"tile": (TILE_PX, TILE_PX), "photometric": "rgb", "metadata": None}
_SPACING = {"resolution": (1e4 / MPP, 1e4 / MPP), "resolutionunit": "CENTIMETER"}


@cache
def picture() -> np.ndarray:
    """(HEIGHT, WIDTH, 3) uint8: purple and pink at several scales, with a little noise."""
    rng = np.random.default_rng(7)
    sum_ = np.zeros((HEIGHT, WIDTH, 3))
    for grain_px, strength in ((40, 55), (12, 35), (4, 20)):
        coarse = rng.uniform(-1, 1, (HEIGHT // grain_px + 1, WIDTH // grain_px + 1))
        grown = Image.fromarray(coarse.astype(np.float32)).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        sum_ += np.asarray(grown)[..., None] * strength
    pixels = np.array((165, 110, 160)) + sum_ * (0.8, 1.0, 0.5) + rng.normal(0, 2, sum_.shape)
    return pixels.clip(0, 255).astype(np.uint8)


def half(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).reduce(2))


def padded_tiles(pixels: np.ndarray) -> Iterator[np.ndarray]:
    height, width, _ = pixels.shape
    padded = np.pad(pixels, ((0, -height % TILE_PX), (0, -width % TILE_PX), (0, 0)), mode="edge")
    for y in range(0, height, TILE_PX):
        for x in range(0, width, TILE_PX):
            yield np.ascontiguousarray(padded[y : y + TILE_PX, x : x + TILE_PX])


def pyramid(path: Path, *, bigtiff: bool = False, byteorder: str = "<", **options: object) -> Path:
    """Two levels of tiles, as a generic tiled TIFF."""
    with tifffile.TiffWriter(path, bigtiff=bigtiff, byteorder=byteorder) as tiff:
        tiff.write(picture(), **_PLAIN, **_SPACING, **options)
        tiff.write(half(picture()), **_PLAIN, subfiletype=1, **options)
    return path


def subifds(path: Path) -> Path:
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(picture(), **_PLAIN, **_SPACING, subifds=1, compression="lzw")
        tiff.write(half(picture()), **_PLAIN, subfiletype=1, compression="lzw")
    return path


def svs_jpeg(path: Path) -> Path:
    """Aperio's way: RGB in JPEG without a colour transform, the tables once for the page, a thumbnail in strips."""
    streams = [rgb_jpeg(tile) for tile in padded_tiles(picture())]
    tables, abbreviated = zip(*map(split_tables, streams), strict=True)
    extra = [(347, 7, len(tables[0]), tables[0], True)]
    return _encoded_svs(path, abbreviated, "jpeg", extratags=extra, compressionargs={"outcolorspace": "rgb"})


def svs_jpeg2000_rgb(path: Path) -> Path:
    streams = [imagecodecs.jpeg2k_encode(tile, level=40, codecformat="j2k") for tile in padded_tiles(picture())]
    return _encoded_svs(path, streams, "aperio_jp2000_rgb")


def svs_jpeg2000_ycbcr(path: Path) -> Path:
    to_ycbcr = [np.asarray(Image.fromarray(tile).convert("YCbCr")) for tile in padded_tiles(picture())]
    streams = [imagecodecs.jpeg2k_encode(tile, level=40, mct=False, codecformat="j2k") for tile in to_ycbcr]
    return _encoded_svs(path, streams, "aperio_jp2000_ycbc")


def svs_real(path: Path) -> Path:
    """The top left 4 x 3 tiles of Aperio's CMU-1 as they were compressed by the scanner."""
    with tifffile.TiffFile(REAL / "CMU-1-Small-Region.svs") as tiff:
        page = tiff.pages.first
        columns = -(-page.imagewidth // page.tilewidth)
        chosen = [row * columns + column for row in range(3) for column in range(4)]
        streams = []
        for index in chosen:
            tiff.filehandle.seek(page.dataoffsets[index])
            streams.append(tiff.filehandle.read(page.databytecounts[index]))
        with tifffile.TiffWriter(path) as writer:
            writer.write(
                iter(streams), shape=(720, 960, 3), dtype=np.uint8, tile=(240, 240), photometric="rgb",
                compression="jpeg", compressionargs={"outcolorspace": "rgb"}, description=page.description,
                metadata=None, extratags=[(347, 7, len(page.jpegtables), page.jpegtables, True)],
            )  # fmt: skip
    return path


def dicom(path: Path) -> Path:
    return write_dicom(path, picture(), spacing_mm=(MPP / 1000, MPP / 1000))


def dicom_jpeg(path: Path) -> Path:
    header = pydicom.dcmread(dicom(path))
    header.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    header.PixelData = encapsulate([_jpeg(tile) for tile in padded_tiles(picture())])
    header.PhotometricInterpretation = "YBR_FULL_422"
    header.LossyImageCompression = "01"
    header.save_as(path, enforce_file_format=True)
    return path


def dicom_real(path: Path) -> Path:
    volume = max((REAL / "dicom").iterdir(), key=lambda file: file.stat().st_size)
    path.write_bytes(volume.read_bytes())
    return path


SOURCES: dict[str, Callable[[Path], Path]] = {
    "jpeg.tif": lambda path: pyramid(path, compression="jpeg", compressionargs={"level": 85}),
    "big_endian_deflate.tif": lambda path: pyramid(path, byteorder=">", compression="deflate", predictor=True),
    "bigtiff_jpeg.tif": lambda path: pyramid(path, bigtiff=True, compression="jpeg"),
    "subifds_lzw.tif": subifds,
    "webp.tif": lambda path: pyramid(path, compression="webp", compressionargs={"level": 90, "lossless": False}),
    "raw.tif": pyramid,
    "jpeg_rgb.svs": svs_jpeg,
    "jpeg2000_rgb.svs": svs_jpeg2000_rgb,
    "jpeg2000_ycbcr.svs": svs_jpeg2000_ycbcr,
    "raw.dcm": dicom,
    "jpeg.dcm": dicom_jpeg,
}
REAL_SOURCES: dict[str, Callable[[Path], Path]] = {"real.svs": svs_real, "real.dcm": dicom_real}


def written(folder: Path, *, real: bool) -> dict[str, Path]:
    """Write every source; the real ones only where the real data lie beside the checkout."""
    chosen = SOURCES | (REAL_SOURCES if real and REAL.is_dir() else {})
    return {name: write(folder / name) for name, write in chosen.items()}


# ---- streams by hand ------------------------------------------------------------------------------------------------


def _encoded_svs(path: Path, streams: list[bytes], compression: str, **options: object) -> Path:
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            iter(streams), **_PLAIN, **options, shape=picture().shape, dtype=np.uint8, compression=compression,
            description=SVS_TEXT,
        )  # fmt: skip
        thumbnail = f"Aperio Image Library v12\r\n{WIDTH}x{HEIGHT} -> {WIDTH // 2}x{HEIGHT // 2} - "
        tiff.write(half(picture()), photometric="rgb", metadata=None, description=thumbnail)
    return path


def _jpeg(tile: np.ndarray) -> bytes:
    return imagecodecs.jpeg8_encode(tile, level=85)
