"""The file of one author on one slide, and every version that it had.

<slide>/<author>.geojson is what counts: a file that was put there by hand, or edited in QuPath, is the next version.
<slide>/history/<author>/000001.geojson.gz and so on hold the same bytes, packed. The file is written first and its
version after it: if a machine dies between, the file is a version that is not in the history yet, and nothing is lost.
"""

from __future__ import annotations

import gzip
import threading
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from lamella.errors import LamellaError, storage_faults
from lamella.formats.annotation_folder import SUFFIX
from lamella.formats.atomic import whole_file
from lamella.formats.geojson import GeoObject, write_geojson
from lamella.formats.json_stream import iterate_features
from lamella.view.server.annotations.merge import Objects
from lamella.view.server.annotations.objects import check_size, read_objects

# A file of this many bytes is beyond what a page can edit, whatever it holds; it is not even read.
MAX_BYTES = 64 << 20
_NOTHING = b""
_REMEMBERED = 8  # files; the largest takes some 100 MB as objects, most take a few kB
_Mark = tuple[int, int, int] | None


@dataclass(frozen=True)
class Version:
    """What one author had drawn on one slide at one time.

    Attributes:
        number: 1 for the first; 0: nothing was saved yet.
        objects: By id.
    """

    number: int
    objects: Objects


class Remembered:
    """What was read or written last, so that a save of one object among thousands does not read the others again."""

    def __init__(self) -> None:
        self._files: OrderedDict[Path, tuple[_Mark, Version]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: Path, mark: _Mark) -> Version | None:
        with self._lock:
            found = self._files.get(path)
            return found[1] if found is not None and mark is not None and found[0] == mark else None

    def put(self, path: Path, mark: _Mark, version: Version) -> None:
        with self._lock:
            self._files.pop(path, None)
            self._files[path] = (mark, version)
            while len(self._files) > _REMEMBERED:
                self._files.popitem(last=False)


class AuthorFile:
    """Reads and writes one author's file. Writers must hold the folder's lock.

    Args:
        folder: Of the slide.
        author: A safe name.
        remembered: Of all files of the store.
    """

    def __init__(self, folder: Path, author: str, remembered: Remembered) -> None:
        self.path = folder / f"{author}{SUFFIX}"
        self._history = folder / "history" / author
        self._remembered = remembered

    def now(self) -> Version:
        """The present version.

        Raises:
            LamellaError: The file is no GeoJSON that can be edited.
        """
        while True:
            mark = self._mark()
            known = self._remembered.get(self.path, mark)
            if known is not None and self._kept(known.number).is_file():
                return known
            version = Version(self._number(self._bytes()), self._objects(self.path))
            if mark == self._mark():  # else it was replaced between the two looks
                self._remembered.put(self.path, mark, version)
                return version

    def at(self, number: int) -> Version:
        """An earlier version; one that is not there any more has no objects."""
        kept = self._kept(number)
        return Version(number, self._objects(kept) if kept.is_file() else {})

    def write(self, objects: dict[str, GeoObject]) -> Version:
        """Write the next version; what stands there now is kept.

        Raises:
            LamellaError: There are too many objects.
            StorageError: The disk refused the write.
        """
        check_size(self.path.name, objects)
        found = self._bytes()
        number = self._number(found)
        if found and not self._kept(number).is_file():
            self._keep(number, found)
        with whole_file(self.path) as part:
            write_geojson(part, objects.values())
            if part.stat().st_size > MAX_BYTES:
                raise LamellaError(
                    self.path.name, f"it would be larger than {MAX_BYTES >> 20} MB", "Nothing was saved."
                )
        self._keep(number + 1, self._bytes())
        version = Version(number + 1, objects)
        self._remembered.put(self.path, self._mark(), version)
        return version

    def _mark(self) -> _Mark:
        """Another one after every write: each makes a new file."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _bytes(self) -> bytes:
        with storage_faults(self.path):
            if not self.path.is_file():
                return _NOTHING
            if self.path.stat().st_size > MAX_BYTES:
                raise LamellaError(self.path, f"it is larger than {MAX_BYTES >> 20} MB", "Show it as a layer instead.")
            return self.path.read_bytes()

    def _number(self, found: bytes) -> int:
        """Of the version with these bytes: the last one of the history, or the next if they are not the last one's."""
        numbers = [int(path.name.partition(".")[0]) for path in self._history.glob("[0-9]*.geojson.gz")]
        last = max(numbers, default=0)
        return last if found == (self._unpacked(last) if last else _NOTHING) else last + 1

    def _unpacked(self, number: int) -> bytes | None:
        """The bytes of a version; None if the disk has damaged them: then they are not those of the file."""
        try:
            return gzip.decompress(self._kept(number).read_bytes())
        except (gzip.BadGzipFile, EOFError, zlib.error):
            return None

    def _kept(self, number: int) -> Path:
        return self._history / f"{number:06d}{SUFFIX}.gz"

    def _keep(self, number: int, text: bytes) -> None:
        with whole_file(self._kept(number)) as part:
            part.write_bytes(gzip.compress(text, compresslevel=6, mtime=0))

    def _objects(self, path: Path) -> Objects:
        if not path.is_file():
            return {}
        return read_objects(path, (feature for _, feature in iterate_features(path)))
