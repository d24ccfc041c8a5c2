"""Seeded damage to files: the same seed always makes the same broken file.

Blind damage (flips, blocks, cuts, splices anywhere) is what disks and networks do. Aimed damage (the tags of a TIFF or
DICOM, the middle of a compressed tile) reaches the code that blind damage rarely meets.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pydicom
import tifffile

from lamella.slides.readers.dicom import is_dicom

_INTERESTING = (0, 1, 2, 3, 7, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 65_500, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**40, 2**64 - 1)
_MARKERS = (b"\xff\xd8", b"\xff\xd9", b"\xff\xda", b"\xff\xc0", b"\xff\xc4", b"\xff\xd0", b"\xff\x00", b"\xff\x93")


@dataclass(frozen=True, slots=True)
class Field:
    """A number in the structure of a file."""

    at: int
    size: int
    byteorder: str


@dataclass(frozen=True, slots=True)
class Anatomy:
    """Where the parts of a file lie."""

    data: bytes
    fields: tuple[Field, ...]
    """Codes, types, counts and values of tags; offsets and byte counts of tiles."""
    tiles: tuple[tuple[int, int], ...]
    """(start, length) of compressed tiles."""


@dataclass(frozen=True, slots=True)
class Mutation:
    seed: int
    source: str
    kind: str
    data: bytes


def anatomy(path: Path) -> Anatomy:
    return _dicom_anatomy(path) if is_dicom(path) else _tiff_anatomy(path)


def mutate(seed: int, sources: dict[str, Anatomy]) -> Mutation:
    """The mutation of a number: which file, which kind of damage and where, all from the seed."""
    names, kinds = sorted(sources), sorted(KINDS)
    name = names[seed % len(names)]  # every file and every kind equally often
    kind = kinds[seed // len(names) % len(kinds)]
    dice = random.Random(seed)
    original = sources[name]
    data = bytes(KINDS[kind](bytearray(original.data), original, dice))
    while data == original.data:  # a byte replaced by itself
        data = bytes(KINDS[kind](bytearray(original.data), original, dice))
    return Mutation(seed, name, kind, data)


# ---- kinds of damage ------------------------------------------------------------------------------------------------


def flip_bits(data: bytearray, _: Anatomy, dice: random.Random) -> bytearray:
    for _flip in range(dice.choice((1, 1, 2, 8, 64))):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    return data


def overwrite(data: bytearray, _: Anatomy, dice: random.Random) -> bytearray:
    length = min(dice.choice((4, 32, 512, 4096)), len(data))
    start = dice.randrange(len(data) - length + 1)
    data[start : start + length] = _filling(length, dice)
    return data


def truncate(data: bytearray, _: Anatomy, dice: random.Random) -> bytearray:
    return data[: dice.randrange(len(data))]


def splice(data: bytearray, _: Anatomy, dice: random.Random) -> bytearray:
    """A stretch is lost, doubled, or lands in another place."""
    length = dice.choice((1, 3, 64, 1000))
    start, target = (dice.randrange(max(1, len(data) - length)) for _end in range(2))
    piece = data[start : start + length]
    how = dice.choice(("lost", "doubled", "moved"))
    if how == "lost":
        del data[start : start + length]
    elif how == "doubled":
        data[start:start] = piece
    else:
        data[target : target + length] = piece
    return data


def edit_tag(data: bytearray, original: Anatomy, dice: random.Random) -> bytearray:
    """One to three numbers of the structure become another plausible or absurd number."""
    for _edit in range(dice.choice((1, 1, 1, 2, 3))):
        field = dice.choice(original.fields)
        place = slice(field.at, field.at + field.size)
        now = int.from_bytes(data[place], field.byteorder)
        elsewhere = dice.choice(original.fields)
        near = (now + 1, now - 1, now * 2, now // 2, now + 256, dice.randrange(len(data)), elsewhere.at)
        value = dice.choice((*_INTERESTING, *near)) % 2 ** (8 * field.size)
        data[place] = value.to_bytes(field.size, field.byteorder)
    return data


def damage_tile(data: bytearray, original: Anatomy, dice: random.Random) -> bytearray:
    """Inside one compressed tile: zeros, noise, single bits, a marker, or its tail gone."""
    start, length = dice.choice([tile for tile in original.tiles if tile[1] > 64])
    at = start + dice.randrange(length - 8)
    span = min(dice.choice((2, 8, 50, 400)), start + length - at)
    how = dice.choice(("fill", "bits", "marker", "tail"))
    if how == "fill":
        data[at : at + span] = _filling(span, dice)
    elif how == "bits":
        for _flip in range(dice.choice((1, 4))):
            data[start + dice.randrange(length)] ^= 1 << dice.randrange(8)
    elif how == "marker":
        data[at : at + 2] = dice.choice(_MARKERS)
    else:
        data[at : start + length] = bytes(start + length - at)
    return data


KINDS: dict[str, Callable[[bytearray, Anatomy, random.Random], bytearray]] = {
    "bits flipped": flip_bits,
    "block overwritten": overwrite,
    "cut short": truncate,
    "spliced": splice,
    "tag edited": edit_tag,
    "tile damaged": damage_tile,
}


def _filling(length: int, dice: random.Random) -> bytes:
    return dice.choice((bytes(length), b"\xff" * length, dice.randbytes(length)))


# ---- where the parts lie --------------------------------------------------------------------------------------------


def _tiff_anatomy(path: Path) -> Anatomy:
    fields: list[Field] = []
    tiles: list[tuple[int, int]] = []
    with tifffile.TiffFile(path) as tiff:
        order = "little" if tiff.byteorder == "<" else "big"
        big = tiff.is_bigtiff
        word = 8 if big else 4
        fields.append(Field(8 if big else 4, word, order))  # where the first directory lies
        pages = [*tiff.pages, *(page for first in tiff.pages for page in first.pages or [])]
        for page in pages:
            fields.append(Field(page.offset, 8 if big else 2, order))  # how many tags
            for tag in page.tags:
                fields += [Field(tag.offset, 2, order), Field(tag.offset + 2, 2, order)]
                fields += [Field(tag.offset + 4, word, order), Field(tag.offset + 4 + word, word, order)]
                if tag.code in (324, 325, 330) and tag.count > 1:  # tiles: places and lengths; directories below
                    size = tag.valuebytecount // tag.count
                    fields += [Field(tag.valueoffset + size * index, size, order) for index in range(tag.count)]
            last = max(tag.offset for tag in page.tags)
            fields.append(Field(last + (20 if big else 12), word, order))  # where the next directory lies
            tiles += [*zip(page.dataoffsets, page.databytecounts, strict=True)]
    return Anatomy(path.read_bytes(), tuple(fields), tuple(tiles))


def _dicom_anatomy(path: Path) -> Anatomy:
    data = path.read_bytes()
    header = pydicom.dcmread(path)
    fields: list[Field] = []
    for dataset in (header, header.file_meta):
        for tag in dataset.keys():  # noqa: SIM118 (a Dataset iterates over its elements)
            element = dataset.get_item(tag)
            at, length = getattr(element, "value_tell", None), getattr(element, "length", 0)
            if at and length != 0xFFFFFFFF and length < 64:
                fields += [Field(at - 8, 4, "little"), Field(at - 2, 2, "little")]  # tag; length of a short element
                fields += [Field(at, min(2, length), "little")] if length else []
    start = int(header.get_item("PixelData").value_tell or 0)
    items = _dicom_items(data, start)
    if items:  # the first is the table of the frames' offsets; each has its length before it
        table, length = items[0]
        fields += [Field(at, 4, "little") for at in range(table, table + length, 4)]
        fields += [Field(begin - 4, 4, "little") for begin, _ in items]
    tiles = items[1:] or [(start, len(data) - start)]
    return Anatomy(data, tuple(fields), tuple(tiles))


def _dicom_items(data: bytes, at: int) -> list[tuple[int, int]]:
    """(start, length) of each item of an encapsulated stream; none if the pixels are not compressed."""
    items = []
    while data[at : at + 4] == b"\xfe\xff\x00\xe0":
        (length,) = struct.unpack_from("<I", data, at + 4)
        items.append((at + 8, length))
        at += 8 + length
    return items
