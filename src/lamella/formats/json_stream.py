"""The features of a GeoJSON file one at a time, so that memory holds one feature and never the file.

Takes a FeatureCollection, a plain array of features (older QuPath, and its clipboard) and a single feature or geometry;
plain, gzip or in a ZIP archive (as QuPath packs its exports), told by the first bytes and not by the name.
"""

from __future__ import annotations

import gzip
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from lamella.errors import LamellaError, first_line

_GZIP_MAGIC, _ZIP_MAGIC = b"\x1f\x8b", b"PK\x03\x04"
_CHUNK = 1 << 16  # characters read at once; doubled while one value does not fit
# One feature may hold this many characters: some three million corners, beyond any outline. A broken file, whose first
# string never ends, is refused here instead of being read into memory whole.
_LONGEST_FEATURE = 1 << 26
# A number or a literal that is cut by the end of the buffer fails this close to it; a fault further left is real.
_LONGEST_TOKEN = 64
_EXPORT_AGAIN = "Export it again."
_EMPTY, _SPACE = "", " \t\n\r"


def iterate_features(path: Path | str, taken: Callable[[int], None] | None = None) -> Iterator[tuple[int, Any]]:
    """Yield (number, value) of each feature, counted from 1; the value is as the json module gives it.

    Args:
        path: The file.
        taken: Is told now and then how many of the file's bytes were taken, packed as they are.

    Raises:
        LamellaError: The file is missing, cut short, no JSON or no GeoJSON; the feature at fault is named by number.
    """
    try:
        with _unpacked(path) as file:
            yield from _Stream(path, file, taken).features()
    except FileNotFoundError as error:
        raise LamellaError(path, "the file does not exist", "Correct the path.") from error
    except EOFError as error:
        raise LamellaError(path, "it is cut short: its gzip stream has no end", _EXPORT_AGAIN) from error
    except UnicodeDecodeError as error:
        raise LamellaError(path, f"it is not text in UTF-8 ({first_line(error)})", _EXPORT_AGAIN) from error
    except (OSError, zlib.error, zipfile.BadZipFile, RuntimeError) as error:  # the last: encrypted, unknown method
        raise LamellaError(path, f"it cannot be read ({first_line(error)})", _EXPORT_AGAIN) from error


@contextmanager
def _unpacked(path: Path | str) -> Iterator[_Text]:
    with ExitStack() as stack:
        raw = stack.enter_context(open(path, "rb"))
        magic = raw.read(len(_ZIP_MAGIC))
        raw.seek(0)
        stream: IO[bytes] = raw
        if magic.startswith(_GZIP_MAGIC):
            stream = cast("IO[bytes]", stack.enter_context(gzip.GzipFile(fileobj=raw)))
        elif magic == _ZIP_MAGIC:
            archive = stack.enter_context(zipfile.ZipFile(raw))
            names = [name for name in archive.namelist() if name.lower().endswith((".geojson", ".json"))]
            if len(names) != 1:
                raise LamellaError(path, f"the archive holds {len(names)} GeoJSON files", "Give one slide's file.")
            stream = stack.enter_context(archive.open(names[0]))
        # utf-8-sig: some programs put a byte-order mark before the text.
        text = stack.enter_context(io.TextIOWrapper(stream, encoding="utf-8-sig"))
        yield _Text(text.read, raw.tell)


class _Text(NamedTuple):
    """The file unpacked, and how far it was taken packed."""

    read: Callable[[int], str]
    raw_bytes: Callable[[], int]


class _Stream:
    """A window that slides over the text."""

    def __init__(self, path: Path | str, file: _Text, taken: Callable[[int], None] | None = None) -> None:
        self.path = path
        self._taken = taken
        self._file = file
        self._text = ""
        self._at = 0
        self._ended = False
        self._number = 0
        self._decoder = json.JSONDecoder()

    def features(self) -> Iterator[tuple[int, Any]]:
        first = self._peek()
        if first == "[":
            yield from self._array()
        elif first == "{":
            yield from self._document()
        else:
            raise LamellaError(self.path, "it is empty" if not first else "it is no GeoJSON", _EXPORT_AGAIN)
        if self._peek():
            raise self._fault("something follows the end")

    def _array(self) -> Iterator[tuple[int, Any]]:
        self._take("[")
        if self._peek() == "]":
            self._take("]")
            return
        while True:
            self._number += 1
            yield self._number, self._value()
            if self._peek() != ",":
                break
            self._take(",")
        self._take("]")

    def _document(self) -> Iterator[tuple[int, Any]]:
        """A FeatureCollection, whose other members are passed over; or one feature or geometry, which is yielded."""
        members: dict[str, Any] = {}
        self._take("{")
        while self._peek() != "}":
            if members:
                self._take(",")
            name = self._value() if self._peek() == '"' else None
            if not isinstance(name, str) or name in members:
                raise self._fault("a member has no name" if name is None else f"its member {name!r} stands twice")
            self._take(":")
            if name == "features" and self._peek() == "[":
                yield from self._array()
                members[name] = ()
            else:
                members[name] = self._value()
        self._take("}")
        if "features" not in members:
            yield 1, members

    def _value(self) -> Any:
        """The JSON value that starts here."""
        self._peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                unterminated = "Unterminated string" in error.msg
                if self._ended or not (unterminated or error.pos >= len(self._text) - _LONGEST_TOKEN):
                    cut = unterminated or error.pos >= len(self._text.rstrip())
                    raise self._fault("" if cut else f"it is no JSON ({error.msg})") from error
            except (RecursionError, ValueError) as error:  # nested without end; a number of thousands of digits
                raise self._fault("it is nested too deeply or holds an absurd number") from error
            else:
                # A number that touches the end of the window may go on behind it.
                if end < len(self._text) or self._ended or not isinstance(value, int | float):
                    self._at = end
                    return value
            self._read_on()

    def _peek(self) -> str:
        """The next character that is no blank, which stays; empty at the end of the file."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended:
                return _EMPTY
            self._read_on()

    def _take(self, expected: str) -> None:
        found = self._peek()
        if found != expected:
            raise self._fault(f"{expected!r} is expected where {found!r} stands" if found else "")
        self._at += 1

    def _read_on(self) -> None:
        """Forget what was taken and read more: as much again as is kept, so that a long value is scanned few times."""
        kept = self._text[self._at :]
        if len(kept) > _LONGEST_FEATURE:
            raise self._fault(f"it holds more than {_LONGEST_FEATURE >> 20} million characters, or a string has no end")
        more = self._file.read(max(_CHUNK, len(kept)))
        self._ended = not more
        if self._taken is not None:
            self._taken(self._file.raw_bytes())
        self._text, self._at = kept + more, 0

    def _fault(self, cause: str) -> LamellaError:
        """An error at the present feature; without a cause, the file ends too early."""
        cause = cause or "the file ends in it or behind it: it is cut short"
        return LamellaError(self.path, f"feature {self._number}: {cause}", _EXPORT_AGAIN)
