"""Whether the items of a data set are images, volumes or videos."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from lamella.errors import DatasetError
from lamella.imaging.datasets.collection import Kind
from lamella.imaging.datasets.files import kind_by_name
from lamella.imaging.datasets.settings import DatasetSettings
from lamella.imaging.reading import kind_of


def kind_of_all(thing: Path, paths: Sequence[Path], settings: DatasetSettings) -> Kind:
    """The one kind of all files, as set or by names, and by content where a name does not tell.

    Raises:
        DatasetError: There are several kinds.
        ImageError: A file's content is needed and cannot be read.
    """
    if settings.kind != "auto":
        return settings.kind
    found: dict[Kind, list[Path]] = defaultdict(list)
    for path, kind in _each(paths):
        found[kind].append(path)
    if len(found) > 1:
        told = "; ".join(f"{len(of_kind)} {kind}(s) such as {of_kind[0].name}" for kind, of_kind in found.items())
        raise DatasetError(thing, f"it holds more than one kind: {told}", "Set kind=image, volume or video.")
    return next(iter(found))


def _each(paths: Sequence[Path]) -> Iterator[tuple[Path, Kind]]:
    asked: dict[str, Kind] = {}
    for path in paths:
        kind = "volume" if path.is_dir() else kind_by_name(path)
        if kind is None:  # DICOM, GIF: the first file of a suffix speaks for the others; reading each tells the truth
            suffix = path.suffix.lower()
            if suffix not in asked:
                asked[suffix] = kind_of(path)
            kind = asked[suffix]
        yield path, kind
