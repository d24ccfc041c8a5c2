"""The readers and the order in which they are tried. A reader decides by content; a name proves nothing.

1. `tiff`, the own reader: exact at non-integer downsamples, thread-safe, and its errors name the tile. It refuses what
   is not plainly tiled.
2. `openslide`: every vendor layout.
3. `dicom`: after OpenSlide, which is asked for everything but DICOM; this one first makes sure the file is the slide.
4. `image`: last, because it would also take the thumbnail page of a damaged slide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from lamella.errors import DamagedSlideError, LamellaError, SlideError
from lamella.slides.readers.dicom import DicomReader, is_dicom, series_files
from lamella.slides.readers.image import IMAGE_SUFFIXES, ImageReader
from lamella.slides.readers.openslide import OpenSlideReader
from lamella.slides.readers.protocol import Reader
from lamella.slides.readers.tiff import TiffReader
from lamella.slides.readers.tile_cache import TileCache

READERS: dict[str, Callable[[Path], Reader]] = {
    "tiff": TiffReader,
    "openslide": OpenSlideReader,
    "dicom": DicomReader,
    "image": ImageReader,
}

# Suffixes of the formats that OpenSlide 4 reads, DICOM aside (its files are recognised by content).
_VENDOR_SUFFIXES = (".svs", ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".bif", ".svslide", ".czi")
SLIDE_SUFFIXES = (*_VENDOR_SUFFIXES, *IMAGE_SUFFIXES)

# First bytes -> what the file is, for the message when nobody takes it.
_MARKS = {
    b"\x89PNG\r\n\x1a\n": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"II*\0": "a TIFF",
    b"MM\0*": "a TIFF",
    b"II+\0": "a BigTIFF",
    b"MM\0+": "a BigTIFF",
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"<!DOCTYPE": "a web page",
    b"<html": "a web page",
    b"<?xml": "an XML text",
    b"version https://git-lfs": "a Git LFS pointer, not the slide itself",
}


def open_reader(path: Path | str, names: Sequence[str] | None = None, cache: TileCache | None = None) -> Reader:
    """Open a slide with the first reader that takes it.

    Args:
        path: A file, or the folder of one DICOM series.
        names: Which readers to try, in this order; all by default.
        cache: Where readers that decode tiles themselves keep them; each its own by default.

    Raises:
        SlideError: None takes it; what each of them said is listed.
        DamagedSlideError: One knows the format and found it damaged.
        LamellaError: There is no reader of that name.
    """
    path = Path(path)
    names = tuple(READERS) if names is None else tuple(names)
    unknown = [name for name in names if name not in READERS]
    if unknown:
        raise LamellaError(f"reader {unknown[0]}", "there is no such reader", f"Choose from {', '.join(READERS)}.")
    if path.is_dir():
        return DicomReader(path)  # only a DICOM series is a folder, so only its refusal is worth reading
    kind = content(path)
    refusals: list[str] = []
    remedy = "Fetch the file again from its source, or remove it from the list."
    for name in names:
        try:
            return TiffReader(path, cache) if READERS[name] is TiffReader else READERS[name](path)
        except DamagedSlideError:
            raise  # a reader that does not check would take memory that is not there, or paint what is missing white
        except SlideError as error:
            refusals.append(f"{name}: {error.cause}")
            if name == "dicom" and is_dicom(path):
                remedy = error.remedy
    raise SlideError(path, f"it is {kind} and no reader takes it ({'; '.join(refusals)})", remedy)


def content(path: Path) -> str:
    """What a file is by its first bytes, in words.

    Raises:
        SlideError: The file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(64)
    except OSError as error:
        raise SlideError(path, f"the file cannot be read ({error.strerror})", "Check its permissions.") from error
    if not start:
        return "empty (0 bytes)"
    if is_dicom(path):
        return "a DICOM file"
    named = [kind for mark, kind in _MARKS.items() if start.lower().startswith(mark.lower())]
    return named[0] if named else f"of an unknown format (starts with {start[:4]!r})"


def slide_files(folder: Path | str) -> list[Path]:
    """The slides that lie directly in a folder, sorted by name.

    Other files are known by suffix. DICOM files are known by content, in the folder itself and in its direct
    subfolders (one folder per series is how archives ship them); one file stands for each series.
    """
    folder = Path(folder)
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    slides = [path for path in entries if path.is_file() and path.suffix.lower() in SLIDE_SUFFIXES]
    for place in (folder, *(path for path in entries if path.is_dir())):
        slides += series_files(path for path in place.iterdir() if _may_be_dicom(path))
    return sorted(slides)


def _may_be_dicom(path: Path) -> bool:
    if path.name.startswith(".") or not path.is_file():
        return False
    return path.suffix.lower() == ".dcm" or (not path.suffix and is_dicom(path))
