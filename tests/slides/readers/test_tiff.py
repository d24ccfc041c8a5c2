"""The own TIFF reader: every pixel against the array that was written, every fault with its place."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import imagecodecs
import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.errors import SlideError
from lamella.slides.readers.mpp import resolve_mpp
from lamella.slides.readers.tiff import TiffReader
from lamella.slides.readers.tile_cache import TileCache

HEIGHT, WIDTH, TILE = 150, 203, 64
NOISE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
# JPEG needs something smooth, or its error hides a misplaced tile.
# Tiles that reach over the edge are filled with black by tifffile, which rings into the picture.
FULL_TILES = np.s_[:128, :192]
Y, X = np.mgrid[:HEIGHT, :WIDTH]
SMOOTH = np.stack([X, Y, (X + Y) // 2], axis=-1).astype(np.uint8)


def write(path, pixels=NOISE, **options):
    settings = {"tile": (TILE, TILE), "photometric": "rgb" if pixels.ndim == 3 else "minisblack", "metadata": None}
    with tifffile.TiffWriter(
        path, bigtiff=options.pop("bigtiff", False), byteorder=options.pop("byteorder", "<")
    ) as tiff:
        tiff.write(pixels, **{**settings, **options})
    return path


def whole(reader, level=0):
    return reader.read_level(level, 0, 0, *reader.level_sizes[level])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "lzw"},
        {"compression": "lzw", "predictor": True},
        {"compression": "deflate"},
        {"compression": "deflate", "predictor": True},
        {"compression": "zstd"},
        {"compression": "webp", "compressionargs": {"lossless": True}},
        {"compression": "jpeg2000", "compressionargs": {"reversible": True, "level": 0}},
        {"compression": "aperio_jp2000_rgb", "compressionargs": {"reversible": True, "level": 0, "codecformat": "j2k"}},
        {"bigtiff": True, "compression": "lzw"},
        {"byteorder": ">", "compression": "deflate", "predictor": True},
        {"tile": (32, 96)},
    ],
    ids=str,
)
def test_lossless_tiles_come_back_exactly(tmp_path, options):
    reader = TiffReader(write(tmp_path / "a.tif", **options))
    assert reader.level_sizes == [(WIDTH, HEIGHT)]
    assert (whole(reader) == NOISE).all()
    reader.close()


def test_grey_becomes_three_equal_channels(tmp_path):
    reader = TiffReader(write(tmp_path / "a.tif", NOISE[..., 0], compression="lzw"))
    assert (whole(reader) == NOISE[..., :1]).all()


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 1), (2, 2)])
def test_ycbcr_jpeg_equals_openslide_and_lies_near_the_source(tmp_path, subsampling):
    path = write(
        tmp_path / "a.tif", SMOOTH, compression="jpeg", subsampling=subsampling, compressionargs={"level": 95}
    )  # fmt: skip
    pixels = whole(TiffReader(path))
    with openslide.OpenSlide(path) as slide:
        assert (pixels == np.asarray(slide.read_region((0, 0), 0, (WIDTH, HEIGHT)))[..., :3]).all()
    assert np.abs(pixels.astype(int) - SMOOTH)[FULL_TILES].max() <= 6


def test_jpeg_stored_as_rgb_is_not_turned_into_rgb_again(tmp_path):
    """Aperio's way: photometric RGB, no colour transform in the stream."""
    padded = np.pad(SMOOTH, ((0, -HEIGHT % TILE), (0, -WIDTH % TILE), (0, 0)), mode="edge")
    path = write_encoded(tmp_path / "a.svs", [rgb_jpeg(tile) for tile in tiles_of(padded)])
    assert np.abs(whole(TiffReader(path)).astype(int) - SMOOTH).max() <= 6


def test_abbreviated_jpeg_tiles_use_the_tables_of_the_page(tmp_path):
    padded = np.pad(SMOOTH, ((0, -HEIGHT % TILE), (0, -WIDTH % TILE), (0, 0)), mode="edge")
    streams = [rgb_jpeg(tile) for tile in tiles_of(padded)]
    tables, abbreviated = zip(*map(split_tables, streams), strict=True)
    assert len(set(tables)) == 1
    path = write_encoded(tmp_path / "a.svs", abbreviated, extratags=[(347, 7, len(tables[0]), tables[0], True)])
    assert (whole(TiffReader(path)) == whole(TiffReader(write_encoded(tmp_path / "b.svs", streams)))).all()
    with openslide.OpenSlide(path) as slide:
        region = np.asarray(slide.read_region((0, 0), 0, (WIDTH, HEIGHT)))[..., :3]
    assert (whole(TiffReader(path)) == region).all()


def test_aperio_jpeg_2000_in_ycbcr_is_turned_into_rgb(tmp_path):
    padded = np.pad(SMOOTH, ((0, -HEIGHT % TILE), (0, -WIDTH % TILE), (0, 0)), mode="edge")
    streams = [
        imagecodecs.jpeg2k_encode(ycbcr_of(tile), reversible=True, level=0, mct=False, codecformat="j2k")
        for tile in tiles_of(padded)
    ]
    path = write_encoded(tmp_path / "a.svs", streams, compression="aperio_jp2000_ycbc")
    assert np.abs(whole(TiffReader(path)).astype(int) - SMOOTH).max() <= 2  # YCbCr itself is rounded to 8 bits
    with openslide.OpenSlide(path) as slide:
        region = np.asarray(slide.read_region((0, 0), 0, (WIDTH, HEIGHT)))[..., :3].astype(int)
    assert np.abs(whole(TiffReader(path)) - region).max() <= 1


@settings(max_examples=60, deadline=None)
@given(st.integers(0, WIDTH - 1), st.integers(0, HEIGHT - 1), st.data())
def test_any_rectangle_equals_the_slice(tmp_path_factory, x, y, data):
    path = tmp_path_factory.getbasetemp() / "rectangles.tif"
    if not path.exists():
        write(path, compression="lzw")
    width, height = data.draw(st.integers(1, WIDTH - x)), data.draw(st.integers(1, HEIGHT - y))
    reader = TiffReader(path)
    assert (reader.read_level(0, x, y, width, height) == NOISE[y : y + height, x : x + width]).all()
    reader.close()


# ---- levels ---------------------------------------------------------------------------------------------------------


def test_levels_in_pages_and_in_subifds_are_the_same(tmp_path):
    half, quarter = NOISE[::2, ::2].copy(), NOISE[::4, ::4].copy()
    options = {"tile": (TILE, TILE), "photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(tmp_path / "pages.tif") as tiff:
        for level, pixels in enumerate((NOISE, half, quarter)):
            tiff.write(pixels, **options, subfiletype=int(level > 0))
    with tifffile.TiffWriter(tmp_path / "subifds.tif") as tiff:
        tiff.write(NOISE, **options, subifds=2)
        tiff.write(half, **options, subfiletype=1)
        tiff.write(quarter, **options, subfiletype=1)
    for name in ("pages.tif", "subifds.tif"):
        reader = TiffReader(tmp_path / name)
        assert reader.level_sizes == [(203, 150), (102, 75), (51, 38)]
        assert (whole(reader, 1) == half).all()
        assert (whole(reader, 2) == quarter).all()


def test_an_svs_leaves_thumbnail_label_and_macro_out(tmp_path):
    text = "Aperio Image Library v11\r\n203x150 (64x64) JPEG/RGB Q=30|AppMag = 20|MPP = 0.4990|Filename = CMU-1"
    tiled = {"tile": (TILE, TILE), "photometric": "rgb", "metadata": None}
    strips = {"photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(tmp_path / "a.svs") as tiff:
        tiff.write(NOISE, **tiled, description=text)
        tiff.write(NOISE[::3, ::3].copy(), **strips, description="Aperio Image Library v11\r\n203x150 -> 68x50 -")
        tiff.write(NOISE[::4, ::4].copy(), **tiled, description="Aperio Image Library v11\r\n203x150 -> 51x38")
        tiff.write(NOISE[:40, :30].copy(), **strips, subfiletype=1, description="Aperio\r\nlabel 30x40")
        tiff.write(NOISE[::5, ::5].copy(), **tiled, subfiletype=9, description="Aperio\r\nmacro 41x30")
    reader = TiffReader(tmp_path / "a.svs")
    assert reader.level_sizes == [(203, 150), (51, 38)]
    assert reader.properties["aperio.MPP"] == "0.4990"
    assert reader.properties["aperio.AppMag"] == "20"
    assert resolve_mpp("a.svs", reader.properties).mpp_y == 0.499


def test_another_picture_in_the_file_is_not_a_level(tmp_path):
    options = {"tile": (TILE, TILE), "photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(NOISE, **options)
        tiff.write(NOISE[::2, ::2].copy(), **options)  # same aspect, but not marked as a smaller version
        tiff.write(NOISE[:50, :60].copy(), **options, subfiletype=1)  # marked, but of another aspect
        tiff.write(NOISE[..., 0][::2, ::2].astype(np.uint16), tile=(TILE, TILE), metadata=None, subfiletype=1)
    assert TiffReader(tmp_path / "a.tif").level_sizes == [(203, 150)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"resolution": (20000, 40000), "resolutionunit": "CENTIMETER"}, (0.5, 0.25)),
        ({"resolution": (50800, 25400), "resolutionunit": "INCH"}, (0.5, 1.0)),
        ({"description": '<OME><Pixels PhysicalSizeX="0.25" PhysicalSizeY="0.5"/></OME>'}, (0.25, 0.5)),
        (
            {
                "description": '<OME><Pixels PhysicalSizeX="250" PhysicalSizeXUnit="nm" PhysicalSizeY="0.0005" '
                'PhysicalSizeYUnit="mm"/></OME>'
            },
            (0.25, 0.5),
        ),
    ],
)
def test_the_resolution_reaches_resolve_mpp(tmp_path, options, expected):
    reader = TiffReader(write(tmp_path / "a.tif", **options))
    found = resolve_mpp("a.tif", reader.properties)
    assert (found.mpp_x, found.mpp_y) == pytest.approx(expected)


# ---- faults ---------------------------------------------------------------------------------------------------------


def damage(path, index, change, pages=0):
    """Change one tile's bytes in place; a change to None sets its byte count to zero."""
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        page = tiff.pages[pages]
        offset, counts = page.dataoffsets[index], list(page.databytecounts)
        if change is None:
            counts[index] = 0
            page.tags[325].overwrite(counts)
            return
        tiff.filehandle.seek(offset)
        data = change(tiff.filehandle.read(counts[index]))
        tiff.filehandle.seek(offset)
        tiff.filehandle.write(data)
        counts[index] = len(data)
        page.tags[325].overwrite(counts)


@pytest.mark.parametrize(
    ("compression", "change"),
    [
        ("jpeg", None),
        ("jpeg", lambda data: data[: len(data) // 2]),
        ("jpeg", lambda data: data[: len(data) // 2] + bytes(len(data) - len(data) // 2)),
        ("jpeg", lambda data: bytes(len(data))),
        ("jpeg", lambda data: data[:2] + b"\x00" * 40 + data[42:]),
        ("lzw", lambda data: data[: len(data) // 2]),
        ("deflate", lambda data: data[: len(data) // 2]),
        ("deflate", lambda data: data[:9] + b"\xa5" * 200 + data[209:]),
        ("aperio_jp2000_rgb", lambda data: data[: len(data) // 2]),
        ("zstd", lambda data: b"\x00" * len(data)),
        (None, lambda data: data[:1000]),
    ],
)
def test_a_bad_tile_is_an_error_that_names_slide_level_and_tile(tmp_path, compression, change):
    options = {"compressionargs": {"codecformat": "j2k"}} if str(compression).startswith("aperio") else {}
    path = write(tmp_path / "bad.tif", SMOOTH, compression=compression, **options)
    damage(path, 5, change)  # row 1, column 1 of 3 x 4 tiles
    reader = TiffReader(path)
    with pytest.raises(SlideError) as caught:
        whole(reader)
    for words in ("bad.tif", "level 0", "tile 5 (row 1, column 1)"):
        assert words in str(caught.value)
    sound = reader.read_level(0, 0, 0, 3 * TILE, TILE).astype(int)
    assert np.abs(sound - SMOOTH[:TILE, : 3 * TILE]).max() <= 12


def test_a_file_cut_short_names_the_first_tile_that_is_gone(tmp_path):
    path = write(tmp_path / "cut.tif")
    path.write_bytes(path.read_bytes()[:-20_000])
    reader = TiffReader(path)
    assert (reader.read_level(0, 0, 0, TILE, TILE) == NOISE[:TILE, :TILE]).all()
    with pytest.raises(SlideError, match=r"cut.tif: level 0, tile \d+ .*the file ends"):
        whole(reader)


@pytest.mark.parametrize(
    ("pixels", "options", "word"),
    [
        (NOISE, {"tile": None}, "strips"),
        (NOISE.astype(np.uint16), {}, "uint16"),
        (np.dstack([NOISE, NOISE[..., :1]]), {"extrasamples": ["unassalpha"]}, "neither interleaved RGB nor grey"),
        (np.moveaxis(NOISE, -1, 0).copy(), {"planarconfig": "separate"}, "neither interleaved RGB nor grey"),
        (NOISE, {"compression": "packbits"}, "compression"),
        (NOISE, {"software": "MedScan 5"}, "Trestle"),
        (NOISE, {"description": "<x></DataObject>", "software": "Philips DP v1.0"}, "Philips"),
    ],
)
def test_what_it_cannot_read_rightly_it_refuses(tmp_path, pixels, options, word):
    write(tmp_path / "a.tif", pixels, **({"photometric": "rgb"} | options))
    with pytest.raises(SlideError, match=word):
        TiffReader(tmp_path / "a.tif")


@pytest.mark.parametrize("data", [b"", b"II*\0", b"II*\0\x08\0\0\0", b"no tiff at all" * 10])
def test_what_is_no_tiff_is_refused(tmp_path, data):
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(SlideError, match=r"a\.tif: it is not a readable TIFF"):
        TiffReader(tmp_path / "a.tif")


# ---- cache ----------------------------------------------------------------------------------------------------------


def test_the_cache_stays_within_its_bytes_and_changes_no_pixel(tmp_path):
    tile_bytes = TILE * TILE * 3
    reader = TiffReader(write(tmp_path / "a.tif", compression="lzw"), TileCache(3 * tile_bytes))
    for x, y in itertools.product(range(0, WIDTH - 40, 17), range(0, HEIGHT - 40, 23)):
        assert (reader.read_level(0, x, y, 40, 40) == NOISE[y : y + 40, x : x + 40]).all()
        assert 0 < reader.cached_bytes <= 3 * tile_bytes
    reader.close()
    assert reader.cached_bytes == 0


def test_a_cached_tile_is_not_read_again(tmp_path):
    path = write(tmp_path / "a.tif")
    reader = TiffReader(path)
    first = reader.read_level(0, 1, 0, TILE - 1, TILE)  # a tile that one view wants as a whole is not kept
    path.write_bytes(b"")
    assert (reader.read_level(0, 1, 0, TILE - 1, TILE) == first).all()
    with pytest.raises(SlideError, match="the file ends"):
        reader.read_level(0, TILE, 0, TILE, TILE)
    reader.close()
    with pytest.raises(SlideError, match="the disk did not give it"):
        reader.read_level(0, TILE, 0, TILE, TILE)


def test_threads_share_one_reader(tmp_path):
    reader = TiffReader(write(tmp_path / "a.tif", compression="lzw"), TileCache(2 * TILE * TILE * 3))
    places = [(x, y) for x in range(0, WIDTH - 50, 13) for y in range(0, HEIGHT - 50, 19)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda place: reader.read_level(0, *place, 50, 50), places))
    assert all((pixels == NOISE[y : y + 50, x : x + 50]).all() for pixels, (x, y) in zip(found, places, strict=True))


# ---- streams made by hand -------------------------------------------------------------------------------------------


def tiles_of(pixels):
    for y in range(0, pixels.shape[0], TILE):
        for x in range(0, pixels.shape[1], TILE):
            yield np.ascontiguousarray(pixels[y : y + TILE, x : x + TILE])


def rgb_jpeg(tile):
    """A JPEG of RGB without the Adobe marker that would say so: only the TIFF's photometric tag tells."""
    stream = imagecodecs.jpeg8_encode(tile, level=95, colorspace="rgb", outcolorspace="rgb")
    assert stream[2:4] == b"\xff\xee"
    return stream[:2] + stream[4 + int.from_bytes(stream[4:6], "big") :]


def split_tables(stream):
    """(tables-only stream, abbreviated stream) of a JPEG: DQT and DHT segments moved to the first."""
    tables, rest, at = b"\xff\xd8", b"\xff\xd8", 2
    while stream[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
        if stream[at + 1] in (0xDB, 0xC4):
            tables += stream[at:end]
        else:
            rest += stream[at:end]
        at = end
    return tables + b"\xff\xd9", rest + stream[at:]


def write_encoded(path, streams, compression="jpeg", extratags=()):
    colours = {"compressionargs": {"outcolorspace": "rgb"}} if compression == "jpeg" else {}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            iter(streams), **colours, shape=SMOOTH.shape, dtype=np.uint8, tile=(TILE, TILE), photometric="rgb",
            compression=compression, metadata=None, description="Aperio Image Library|MPP = 0.5", extratags=extratags,
        )  # fmt: skip
    return path


def ycbcr_of(tile):
    """Full-range BT.601, from the definition: Y = .299 R + .587 G + .114 B, Cb and Cr scaled differences to Y."""
    red, green, blue = (tile[..., channel].astype(float) for channel in range(3))
    y = 0.299 * red + 0.587 * green + 0.114 * blue
    cb, cr = (blue - y) / 1.772 + 128, (red - y) / 1.402 + 128
    return np.stack([y, cb, cr], axis=-1).round().clip(0, 255).astype(np.uint8)


def test_a_jpeg_is_handed_out_as_it_is_stored_for_just_one_whole_tile(tmp_path):
    path = write(tmp_path / "a.tif", SMOOTH, compression="jpeg", compressionargs={"level": 95})
    reader = TiffReader(path)
    stored = reader.stored_jpeg(0, TILE, 0, TILE, TILE)
    decoded = imagecodecs.jpeg8_decode(stored)
    assert (decoded == reader.read_level(0, TILE, 0, TILE, TILE)).all()
    others = [(0, 1, TILE, TILE), (0, 0, TILE, 32), (192, 0, TILE, TILE), (192, 0, 11, TILE), (-TILE, 0, TILE, TILE)]
    assert all(reader.stored_jpeg(0, *place) is None for place in others)
    reader.close()
    lossless = TiffReader(write(tmp_path / "b.tif", compression="lzw"))
    assert lossless.stored_jpeg(0, 0, 0, TILE, TILE) is None
    lossless.close()
