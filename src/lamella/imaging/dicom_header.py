"""DICOM files opened with care: pydicom's complaints become one ImageError, its warnings stay silent."""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError

from lamella.errors import ImageError, first_line
from lamella.imaging.silence import silence

# A DICOM file starts with 128 free bytes and these four.
MAGIC_AT, MAGIC = 128, b"DICM"
AGAIN = "Fetch the file again from its source."
# What pydicom lets out on damaged files, beside its own errors.
FILE_FAULTS = (
    InvalidDicomError,
    BytesLengthException,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    NotImplementedError,
    RuntimeError,
    AssertionError,
    MemoryError,  # an element that states gigabytes
    RecursionError,  # sequences in sequences
    struct.error,
    zlib.error,
)
# Values that an error quotes may be names: they are not shown.
_QUOTED = re.compile(r"'[^']*'?|\"[^\"]*\"?")
_NO_LENGTH = 0xFFFFFFFF  # an element that ends by a mark, not after so many bytes
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
# Above this a frame is damage: the largest detectors have 50 million pixels, 8 times fewer.
MOST_PIXELS = 400_000_000


@contextmanager
def file_faults(path: Path) -> Iterator[None]:
    """Turn what damaged bytes provoke into an ImageError that names the file; silence pydicom's warnings.

    pydicom warns of odd values; what cannot be used raises anyway.
    """
    with silence:
        try:
            yield
        except FILE_FAULTS as error:
            said = _QUOTED.sub("...", first_line(error))
            raise ImageError(path, f"its DICOM content is damaged ({said})", AGAIN) from error


def is_dicom(path: Path) -> bool:
    """Whether the file carries DICOM's mark."""
    with open(path, "rb") as file:
        return file.read(MAGIC_AT + len(MAGIC))[MAGIC_AT:] == MAGIC


def read_dataset(path: Path, *, pixels: bool = True, tags: Sequence[str] | None = None) -> Dataset:
    """Read a DICOM file.

    Args:
        path: The file.
        pixels: Whether to read the pixels too.
        tags: Read these elements only.

    Raises:
        ImageError: It is missing, no DICOM file, or damaged.
    """
    if not path.is_file():
        raise ImageError(path, "the file does not exist", "Correct the path.")
    with file_faults(path):
        if not is_dicom(path):
            raise ImageError(path, "it is not a DICOM file (it lacks the mark DICM)", "Give a DICOM file.")
        return pydicom.dcmread(path, stop_before_pixels=not pixels, specific_tags=None if tags is None else list(tags))


def refuse_cut(path: Path, header: Dataset) -> None:
    """Refuse a file that ends before its content does; pydicom takes what is there for the whole.

    Args:
        path: Named in the error.
        header: As read from it, with pixels, and unchanged.

    Raises:
        ImageError: Its end is missing, an element is shorter than it states, or it is an image without pixels.
    """
    if not len(header):  # pydicom forgets all elements where a compressed image ends without its mark
        raise ImageError(path, "it is truncated: its end is missing", AGAIN)
    for tag in header.keys():  # noqa: SIM118  (iterating the data set itself would decode every element)
        element = header.get_item(tag)
        stated = getattr(element, "length", _NO_LENGTH)  # of elements that were not decoded yet
        held = len(getattr(element, "value", None) or b"") if stated != _NO_LENGTH else 0
        if stated != _NO_LENGTH and held < stated:
            raise ImageError(
                path, f"it is truncated: {held} of {stated} bytes of element {element.tag} are there", AGAIN
            )
    is_image = "Rows" in header or pydicom.uid.UID(text(header, "SOPClassUID")).name.endswith("Image Storage")
    if is_image and not any(name in header for name in _PIXELS):
        raise ImageError(path, "it is an image without pixels (element PixelData is missing)", AGAIN)


def text(header: Dataset, name: str) -> str:
    """An element as stripped text; empty where it is absent or has no value."""
    value = header.get(name)
    return "" if value is None else str(value).strip()


def number(header: Dataset, name: str) -> float | None:
    """An element as one finite number; None where it is absent or empty.

    Raises:
        ValueError: It holds no finite number.
    """
    found = numbers(header, name)
    return found[0] if found else None


def numbers(header: Dataset, name: str) -> tuple[float, ...]:
    """All values of an element as finite numbers; () where it is absent or empty.

    Raises:
        ValueError: One of them is no finite number.
    """
    value: Any = header.get(name)
    if value is None or value == "":
        return ()
    values = tuple(float(one) for one in (value if isinstance(value, (list, pydicom.multival.MultiValue)) else [value]))
    if not all(math.isfinite(one) for one in values):
        raise ValueError(f"{name} is not a finite number")
    return values


def frame_count(header: Dataset) -> int:
    """Frames that the header states; 1 where it states none.

    Raises:
        ValueError: It states none or fewer.
    """
    value = header.get("NumberOfFrames")
    count = 1 if value is None or value == "" else int(value)
    if count < 1:
        raise ValueError(f"NumberOfFrames is {count}")
    return count


def syntax_of(header: Dataset) -> pydicom.uid.UID:
    """How the file is encoded.

    Raises:
        ValueError: It does not say.
    """
    syntax = getattr(header, "file_meta", Dataset()).get("TransferSyntaxUID")
    if not syntax:
        raise ValueError("it states no transfer syntax")
    return pydicom.uid.UID(str(syntax))
