"""objects.outlines beside objects.geojson.gz: the same outlines as plain arrays, to be mapped into memory and shown.

Taking half a million outlines out of packed JSON takes between ten seconds and a minute; mapping a file takes none, and
of its corners only those are ever read that come into view. The GeoJSON stays what counts: the file names the GeoJSON
that it was written with, and beside any other it is passed over.

Eight bytes of magic, the length of a JSON header (uint32), the header, then the arrays of `OutlineArrays` in the order
of `COLUMNS`, little-endian, each from a multiple of 64 bytes on. The header has the GeoJSON's digest, the rows of each
array, names and colours of the classes.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from math import prod
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np

from lamella.errors import LamellaError, first_line
from lamella.formats.atomic import whole_file
from lamella.formats.digests import ends_digest
from lamella.formats.geojson import GeoObject, write_geojson
from lamella.formats.outline_arrays import COLUMNS, LINES, GrowingOutlines, OutlineArrays

_MAGIC, _LENGTH = b"lamoutl1", struct.Struct("<I")
_ALIGNED = 64  # bytes: a line of the processor's cache, and a multiple of every number's size
_PACKED = ".geojson.gz"
_HELD = 2**18  # corners in memory while writing: 2 MB
_REMEDY = "Delete it; the same outlines are in the GeoJSON file beside it."


def outlines_beside(path: Path | str) -> Path:
    """Where the outlines of a packed GeoJSON file are: `objects.outlines` for `objects.geojson.gz`."""
    path = Path(path)
    return path.with_name(path.name.removesuffix(_PACKED) + ".outlines")


def write_objects(path: Path | str, objects: Iterable[GeoObject]) -> list[Path]:
    """Write a packed GeoJSON file as `write_geojson` does, and its outlines beside it; memory holds a few thousand.

    The same objects give the same bytes. The GeoJSON takes its place first: a run that is killed between the two leaves
    outlines that name another file, or none.

    Args:
        path: `.geojson.gz`.
        objects: To write.

    Returns:
        The two files.

    Raises:
        ValueError: The name does not end in `.geojson.gz`.
        LamellaError: As for `write_geojson`; nothing was written.
        StorageError: The disk refused the write.
    """
    path, beside = Path(path), outlines_beside(path)
    if not path.name.endswith(_PACKED):
        raise ValueError(f"{path} has no name that ends in {_PACKED}")
    growing = GrowingOutlines()
    with whole_file(beside) as part, _columns(part.parent) as columns:

        def take(number: int, feature: Any) -> None:
            growing.add(path, number, feature)
            if growing.corners - columns.corners > _HELD:
                columns.append(growing.take())

        write_geojson(path, objects, written=take)
        columns.append(growing.take())
        facts = {
            "geojson": ends_digest(path),
            "rows": columns.rows,
            "names": growing.names,
            "colours": growing.colours,
        }
        columns.join(part, facts)
    return [path, beside]


def open_outlines(path: Path | str) -> OutlineArrays | None:
    """The outlines of a GeoJSON file, mapped into memory; None where there are none, or only those of another file.

    Whether the GeoJSON is the one that they were written with is told by its size and its two ends (`ends_digest`). A
    packed file ends in a checksum of all that is in it (RFC 1952), so that a change in its middle shows there; plain
    GeoJSON has none, and so has no such outlines. To digest all of it would take as long as to open a slide.

    Args:
        path: The GeoJSON file.

    Raises:
        LamellaError: The outlines are damaged, or of another version.
    """
    path, beside = Path(path), outlines_beside(path)
    if not path.name.endswith(_PACKED) or not beside.is_file():
        return None
    try:
        facts, columns = _mapped(beside)
        if facts["geojson"] != ends_digest(path):
            return None
        names = tuple(str(name) for name in facts["names"])
        colours = tuple(None if colour is None else _colour(colour) for colour in facts["colours"])
        found = OutlineArrays(**columns, names=names, colours=colours)
        _check(found)
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise LamellaError(beside, f"it is damaged, or of another version ({first_line(error)})", _REMEDY) from error
    return found


class _Columns:
    """Arrays that grow side by side, each in a nameless file of its own: nothing is left of them by whoever is killed.

    Args:
        files: One for each of `COLUMNS`.
    """

    def __init__(self, files: dict[str, IO[bytes]]) -> None:
        self._files = files
        self.rows = dict.fromkeys(COLUMNS, 0)

    @property
    def corners(self) -> int:
        return self.rows["corners"]

    def append(self, rows: dict[str, np.ndarray]) -> None:
        for name, values in rows.items():
            self._files[name].write(values.tobytes())
            self.rows[name] += len(values)

    def join(self, part: Path, facts: dict[str, Any]) -> None:
        header = json.dumps(facts, allow_nan=False, separators=(",", ":")).encode()
        with open(part, "wb") as out:
            out.write(_MAGIC + _LENGTH.pack(len(header)) + header)
            for file in self._files.values():
                out.write(bytes(-out.tell() % _ALIGNED))
                file.seek(0)
                shutil.copyfileobj(file, out, 1 << 20)


@contextmanager
def _columns(folder: Path) -> Iterator[_Columns]:
    with ExitStack() as stack:
        yield _Columns({name: stack.enter_context(TemporaryFile(dir=folder)) for name in COLUMNS})


def _mapped(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header and the arrays. Files are replaced and never rewritten, so that what is mapped stays as it is."""
    with open(path, "rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError("it begins otherwise")
        (length,) = _LENGTH.unpack(file.read(_LENGTH.size).ljust(_LENGTH.size, b"\0"))
        facts = json.loads(file.read(length))
        at, size = len(_MAGIC) + _LENGTH.size + length, path.stat().st_size
    mapped = np.asarray(np.memmap(path, np.uint8, "r"))
    columns: dict[str, np.ndarray] = {}
    for name, (dtype, row) in COLUMNS.items():
        at += -at % _ALIGNED
        behind = at + int(facts["rows"][name]) * prod(row) * np.dtype(dtype).itemsize
        if not at <= behind <= size:
            raise ValueError("it is cut short")
        columns[name] = mapped[at:behind].view(dtype).reshape(-1, *row)
        at = behind
    if at != size:
        raise ValueError("it is longer than it says")
    return facts, columns


def _check(found: OutlineArrays) -> None:
    """Everything but the corners themselves, which stay unread: whoever draws meets no number that leads nowhere."""
    _offsets(found.first_ring, len(found), len(found.outer))
    _offsets(found.first_corner, len(found.outer), len(found.corners))
    if not len(found) == len(found.classes) == len(found.kinds) or len(found.names) != len(found.colours):
        raise ValueError("its arrays are of different lengths")
    if len(found) and not (
        0 <= found.classes.min() <= found.classes.max() < len(found.names)
        and found.kinds.max() <= LINES
        and found.outer.view(np.uint8).max(initial=0) <= 1
        and np.isfinite(found.bounds).all()
    ):
        raise ValueError("it holds impossible numbers")


def _offsets(first: np.ndarray, count: int, end: int) -> None:
    if len(first) != count + 1 or first[0] != 0 or first[-1] != end or (first[1:] < first[:-1]).any():
        raise ValueError("its offsets lead nowhere")


def _colour(value: Any) -> tuple[int, int, int]:
    red, green, blue = (int(part) for part in value)
    if not all(0 <= part <= 255 for part in (red, green, blue)):
        raise ValueError("a colour is none")
    return red, green, blue
