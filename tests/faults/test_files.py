"""Damaged slide files: an error that names the file, or the right pixels; never a crash, a hang, a blank.

Each is opened in a child process with bounded memory and time (`reading.py`). Where bytes changed that no checksum
guards, other pixels are all that any reader can give; those places say so. `files_report.py` does 2,000 of the seeds
that this file does 156 of.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from tests.faults.files_report import originals, sweep
from tests.faults.mutations import anatomy
from tests.faults.reading import GOOD, Answer, Child
from tests.faults.sources import SOURCES, picture, pyramid

WIDTH_TAG, LENGTH_TAG, COMPRESSION, TILE_WIDTH, TILE_LENGTH = 256, 257, 259, 322, 323
OFFSETS, COUNTS, SUBIFDS, TABLES = 324, 325, 330, 347
TIFFS = [name for name in SOURCES if not name.endswith(".dcm")]
JPEGS = [name for name in TIFFS if "jpeg" in name and "2000" not in name]
STATING_SIZE = [*JPEGS, "jpeg2000_rgb.svs", "jpeg2000_ycbcr.svs", "webp.tif"]  # streams with a size of their own
TILE = 5  # row 1, column 1 of 3 x 4 tiles: not at an edge


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    originals(folder, real=False)
    return folder


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    with Child() as process:
        yield process


@pytest.fixture
def read(sound, child, tmp_path) -> Callable[..., Answer]:
    """read(name, damage) -> what a copy of a sound slide gives after `damage(tiff)` changed it in place."""

    def run(name: str, damage: Callable[[tifffile.TiffFile], None]) -> Answer:
        path = tmp_path / name
        shutil.copy(sound / name, path)
        with tifffile.TiffFile(path, mode="r+b") as tiff:
            damage(tiff)
        assert path.read_bytes() != (sound / name).read_bytes()
        return child.read(path, sound / f"{name}.npy")

    return run


def tile_of(tiff: tifffile.TiffFile, index: int = TILE) -> tuple[int, int]:
    page = tiff.pages.first
    return page.dataoffsets[index], page.databytecounts[index]


def write_at(tiff: tifffile.TiffFile, at: int, data: bytes) -> None:
    tiff.filehandle.seek(at)
    tiff.filehandle.write(data)


def set_entry(tiff: tifffile.TiffFile, code: int, value: int, index: int = TILE) -> None:
    """One of the numbers of a tag with many (tile places and lengths), or the number of a tag with one."""
    tag = tiff.pages.first.tags[code]
    size = tag.valuebytecount // tag.count
    write_at(tiff, tag.valueoffset + size * (index if tag.count > 1 else 0), _packed(tiff, value, size))


def _packed(tiff: tifffile.TiffFile, value: int, size: int) -> bytes:
    return (value % 2 ** (8 * size)).to_bytes(size, "little" if tiff.byteorder == "<" else "big")


# ---- sound ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SOURCES)
def test_the_originals_are_read_rightly(sound, child, name):
    answer = child.read(sound / name, sound / f"{name}.npy")
    assert answer.outcome == "right pixels", answer
    written = np.load(sound / f"{name}.npy")
    assert np.abs(written.astype(int) - picture()).mean() < 4  # JPEG at its worst here: 3.6


# ---- one tile -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TIFFS)
@pytest.mark.parametrize("share", [0, 0.03, 0.5, 0.97])
def test_a_tile_cut_short(read, name, share):
    answer = read(name, lambda tiff: set_entry(tiff, COUNTS, int(tile_of(tiff)[1] * share)))
    assert answer.outcome == "error", answer
    assert f"tile {TILE} (row 1, column 1)" in answer.detail or "no reader takes it" in answer.detail


@pytest.mark.parametrize("name", TIFFS)
def test_the_first_tile_missing(read, name):
    """The first tile may be looked at when the file is opened; that must not hand the file to a reader that pads."""
    answer = read(name, lambda tiff: set_entry(tiff, COUNTS, 0, index=0))
    assert answer.outcome == "error", answer


@pytest.mark.parametrize("name", TIFFS)
@pytest.mark.parametrize("offset", [0, 2**31, 2**32 - 2])
def test_a_tile_placed_nowhere(read, name, offset):
    answer = read(name, lambda tiff: set_entry(tiff, OFFSETS, offset))
    raw = name == "raw.tif" and offset == 0  # the file's first bytes are as good as any others
    assert answer.outcome == ("other pixels" if raw else "error"), answer


@pytest.mark.parametrize("name", TIFFS)
def test_a_tile_placed_in_the_header(read, name):
    answer = read(name, lambda tiff: set_entry(tiff, OFFSETS, 8))
    assert answer.outcome == ("other pixels" if name == "raw.tif" else "error"), answer


@pytest.mark.parametrize("name", TIFFS)
def test_a_tile_placed_on_another_one_gives_that_ones_pixels(read, name):
    """A file may share a tile among places (glass), so this is no fault that shows; OpenSlide says the same."""

    def damage(tiff: tifffile.TiffFile) -> None:
        start, length = tile_of(tiff, 6)
        set_entry(tiff, OFFSETS, start)
        set_entry(tiff, COUNTS, length)

    answer = read(name, damage)
    assert answer.outcome == "other pixels", answer
    assert answer.openslide.split(":")[0] in ("same as ours", "error"), answer


@pytest.mark.parametrize("name", STATING_SIZE)
def test_a_stream_that_states_a_huge_size(read, name):
    """65,500 px a side are 12.9 GB decoded: seen in the stream's header, before memory is taken."""
    answer = read(name, _state_huge_size)
    assert answer.outcome == "error", answer
    assert answer.peak_mb < 50, answer  # 64 px tiles need less than 1 MB


def _state_huge_size(tiff: tifffile.TiffFile) -> None:
    start, length = tile_of(tiff)
    tiff.filehandle.seek(start)
    data = tiff.filehandle.read(length)
    compression = int(tiff.pages.first.compression)
    if compression == 7:  # SOF0: marker, length (2), precision (1), height (2), width (2)
        write_at(tiff, start + data.index(b"\xff\xc0") + 5, struct.pack(">HH", 65_500, 65_500))
    elif compression == 50001:  # VP8: frame tag (3), start code, width (2), height (2), 14 bits each
        write_at(tiff, start + data.index(b"\x9d\x01\x2a") + 3, struct.pack("<HH", 16_383, 16_383))
    else:  # SIZ: marker, length (2), capabilities (2), width (4), height (4), origin (8), tile width and height (4, 4)
        siz = start + data.index(b"\xff\x51")
        write_at(tiff, siz + 6, struct.pack(">II", 65_500, 65_500))
        write_at(tiff, siz + 22, struct.pack(">II", 65_500, 65_500))


@pytest.mark.parametrize("name", JPEGS)
@pytest.mark.parametrize("marker", [b"\xff\xd8", b"\xff\xd9", b"\xff\xc0", b"\xff\x01", b"\xff\xd3"])
def test_a_marker_in_the_middle_of_a_jpeg(read, name, marker):
    def damage(tiff: tifffile.TiffFile) -> None:
        start, length = tile_of(tiff)
        write_at(tiff, start + length * 2 // 3, marker)

    assert read(name, damage).outcome == "error"


@pytest.mark.parametrize("name", JPEGS)
def test_zeros_over_the_end_of_a_jpeg(read, name):
    def damage(tiff: tifffile.TiffFile) -> None:
        start, length = tile_of(tiff)
        write_at(tiff, start + length // 2, bytes(length - length // 2))

    assert read(name, damage).outcome == "error"


@pytest.mark.parametrize("name", JPEGS)
def test_no_damage_in_the_middle_of_a_jpeg_gives_a_blank(read, name):
    """Zeros or one bit: an error where the decoder loses step, else other pixels, which nothing in a JPEG tells."""
    outcomes = []
    for share in np.linspace(0.2, 0.9, 12):

        def damage(tiff: tifffile.TiffFile, share: float = share) -> None:
            start, length = tile_of(tiff)
            at = start + int(length * share)
            tiff.filehandle.seek(at)
            write_at(tiff, at, bytes(40) if share < 0.55 else bytes([tiff.filehandle.read(1)[0] ^ 4]))

        outcomes.append(read(name, damage).outcome)
    assert set(outcomes) <= set(GOOD), outcomes
    assert "error" in outcomes


@pytest.mark.parametrize("frame", [1, TILE, 11])
@pytest.mark.parametrize("offset", [0, 4, 2**14, 2**31, 2**32 - 16])
def test_a_dicom_frame_placed_wrongly(sound, child, tmp_path, frame, offset):
    """OpenSlide's DICOM library follows such an offset out of the file and dies: it must not be given the file."""
    data = bytearray((sound / "jpeg.dcm").read_bytes())
    table = data.index(b"\xe0\x7f\x10\x00OB") + 12 + 8  # the pixels' element, then the header of its first item
    data[table + 4 * frame : table + 4 * frame + 4] = struct.pack("<I", offset)
    (tmp_path / "jpeg.dcm").write_bytes(data)
    answer = child.read(tmp_path / "jpeg.dcm", sound / "jpeg.dcm.npy")
    assert answer.outcome in ("error", "right pixels"), answer


# ---- the structure --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TIFFS)
@pytest.mark.parametrize("back_to", [0, -1], ids=["the first", "itself"])
def test_a_chain_of_directories_that_never_ends(read, name, back_to):
    """The slide is whole; a reader may say so or read it, but not forever."""

    def damage(tiff: tifffile.TiffFile) -> None:
        page = list(tiff.pages)[-1]
        big = tiff.is_bigtiff
        last = max(tag.offset for tag in page.tags) + (20 if big else 12)
        write_at(tiff, last, _packed(tiff, list(tiff.pages)[back_to].offset, 8 if big else 4))

    assert read(name, damage).outcome in ("error", "right pixels")


def test_a_subifd_that_is_its_own_parent(read):
    def damage(tiff: tifffile.TiffFile) -> None:
        set_entry(tiff, SUBIFDS, tiff.pages.first.offset)

    assert read("subifds_lzw.tif", damage).outcome in ("error", "right pixels")


@pytest.mark.parametrize("name", TIFFS)
@pytest.mark.parametrize("code", [WIDTH_TAG, LENGTH_TAG, TILE_WIDTH, TILE_LENGTH])
@pytest.mark.parametrize("side_px", [0, 1, 65_535, 2**31 - 1, 2**32 - 1])
def test_an_absurd_size_of_picture_or_tile(read, name, code, side_px):
    answer = read(name, lambda tiff: set_entry(tiff, code, side_px))
    assert answer.outcome == "error", answer
    assert answer.peak_mb < 100, answer


@pytest.mark.parametrize("name", TIFFS)
def test_a_tile_of_four_gigabytes(read, name):
    answer = read(name, lambda tiff: set_entry(tiff, COUNTS, 2**32 - 1))
    assert answer.outcome in (("error", "right pixels") if name == "raw.tif" else ("error",)), (
        answer
    )  # its size is known
    assert answer.peak_mb < 50, answer


@pytest.mark.parametrize("name", TIFFS)
@pytest.mark.parametrize("code", [OFFSETS, COUNTS])
@pytest.mark.parametrize("count", [0, 1, 11, 13, 2**31])
def test_another_number_of_tiles_than_the_picture_has(read, name, code, count):
    def damage(tiff: tifffile.TiffFile) -> None:
        tag = tiff.pages.first.tags[code]
        write_at(tiff, tag.offset + 4, _packed(tiff, count, 8 if tiff.is_bigtiff else 4))

    answer = read(name, damage)
    assert answer.outcome in ("error", "right pixels"), answer  # one entry too many can be passed over


@pytest.mark.parametrize("name", TIFFS)
@pytest.mark.parametrize("code", [OFFSETS, COUNTS, WIDTH_TAG, TILE_WIDTH, COMPRESSION])
@pytest.mark.parametrize("type_", [0, 2, 11, 99])
def test_a_tag_of_the_wrong_type(read, name, code, type_):
    def damage(tiff: tifffile.TiffFile) -> None:
        write_at(tiff, tiff.pages.first.tags[code].offset + 2, _packed(tiff, type_, 2))

    assert read(name, damage).outcome in ("error", "right pixels")


@pytest.mark.parametrize("code", [WIDTH_TAG, COMPRESSION, TILE_WIDTH, OFFSETS, COUNTS, TABLES])
def test_a_missing_tag(read, code):
    """Its number becomes a private one, so that nobody finds it. Without the JPEG tables a tile cannot be decoded."""

    def damage(tiff: tifffile.TiffFile) -> None:
        write_at(tiff, tiff.pages.first.tags[code].offset, struct.pack("<H", 65_000))

    assert read("jpeg_rgb.svs", damage).outcome == "error"


@pytest.mark.parametrize("side", [WIDTH_TAG, LENGTH_TAG])
def test_a_level_of_no_size(read, side):
    """The second level; the first is whole."""

    def damage(tiff: tifffile.TiffFile) -> None:
        write_at(tiff, tiff.pages[1].tags[side].valueoffset, bytes(2))

    assert read("jpeg.tif", damage).outcome in ("error", "right pixels")


def test_a_page_without_tiles(sound, child, tmp_path):
    pyramid(tmp_path / "jpeg.tif", compression="jpeg", compressionargs={"level": 85})
    with tifffile.TiffFile(tmp_path / "jpeg.tif", mode="r+b") as tiff:
        for index in range(12):
            set_entry(tiff, OFFSETS, 0, index)
            set_entry(tiff, COUNTS, 0, index)
    answer = child.read(tmp_path / "jpeg.tif", sound / "jpeg.tif.npy")
    assert answer.outcome == "error", answer


# ---- seeds ----------------------------------------------------------------------------------------------------------


def test_seeded_mutations(sound):
    """Every kind of damage twice on every source; the outcome of a seed is the same on every machine."""
    sources = {name: anatomy(sound / name) for name in SOURCES}
    found = sweep(range(12 * len(sources)), sources, sound)
    bad = [(mutation.seed, mutation.source, mutation.kind, answer) for mutation, answer in found
           if answer.outcome not in GOOD]  # fmt: skip
    assert not bad, bad
    assert {answer.outcome for _, answer in found} == set(GOOD)


def test_the_judge_sees_what_it_must_see(child, sound, tmp_path):
    """A blank tile and a changed one, written by a sound encoder, are told apart; else nothing above means much."""
    blank, other = picture().copy(), picture().copy()
    blank[64:128, 64:128] = 255
    other[64:128, 64:128] = other[64:128, 64:128][::-1]
    for name, pixels, outcome in (("blank.tif", blank, "blank"), ("other.tif", other, "other pixels")):
        tifffile.imwrite(tmp_path / name, pixels, tile=(64, 64), photometric="rgb")
        assert child.read(tmp_path / name, sound / "raw.tif.npy").outcome == outcome
    stream = imagecodecs.jpeg8_encode(picture())
    (tmp_path / "no.tif").write_bytes(stream)
    assert child.read(tmp_path / "no.tif", sound / "raw.tif.npy").outcome in GOOD
