"""NIfTI-1 and NIfTI-2 files, packed or not: nibabel reads them; what the bytes are decides, not the file's name."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from pathlib import Path
from typing import Literal

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from lamella.errors import ImageError, first_line
from lamella.imaging.measured import Volume
from lamella.imaging.orientation import to_ras
from lamella.imaging.silence import silence

_GZIP = b"\x1f\x8b"
# Size of the header, which opens the file in either byte order, and the mark of a file that holds the voxels too.
_NIFTI_1 = (348, 344, b"n+1\x00")
_NIFTI_2 = (540, 4, b"n+2\x00")
_PAIR = (b"ni1\x00", b"ni2\x00")
_HEAD_BYTES = 348
_DEFLATE_MOST = 1032  # how far deflate can shrink; a header that states more bytes than this is damage
_FAULTS = (
    ImageFileError, HeaderDataError, WrapStructError, OSError, EOFError,
    ValueError, TypeError, LookupError, ArithmeticError,
    AttributeError, MemoryError, NotImplementedError, struct.error, zlib.error,
)  # fmt: skip
_AGAIN = "Fetch the file again from its source."
_TO_MM = {"unknown": 1.0, "mm": 1.0, "meter": 1000.0, "micron": 1e-3}


def is_nifti(path: Path) -> bool:
    """Whether the file is NIfTI by its first bytes, unpacked where it is gzip."""
    return _kind(_head(path)) is not None


def read_nifti(path: Path, fourth: Literal["channel", "time"] | None = None) -> Volume:
    """Read a 3-D or 4-D NIfTI file in RAS+ order.

    Args:
        path: The file; gzip is recognised by its bytes.
        fourth: What the fourth axis is. By the header it is time where a unit of time is stated, else channels.

    Raises:
        ImageError: It is no NIfTI, 2-D, damaged, of a kind that is no grey volume, has no spacing or no orientation,
            or holds NaN or infinity.
    """
    if not path.is_file():
        raise ImageError(path, "the file does not exist", "Correct the path.")
    head = _head(path)
    kind = _kind(head)
    if kind is None:
        packed = "gzip, but what it packs is no NIfTI" if path.read_bytes()[:2] == _GZIP else "no NIfTI file"
        raise ImageError(path, f"it is {packed}", "Give a .nii or .nii.gz file.")
    if kind in ("ni1", "ni2"):
        raise ImageError(path, "it is one half of a pair .hdr and .img", "Convert the pair to one .nii file.")
    spacing = _stated_spacing(head)
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        said = ", ".join(f"{one:g}" for one in spacing)
        raise ImageError(path, f"its voxel spacing is {said} mm", "Write the true spacing into its header.")
    try:
        with silence:  # nibabel's word on odd headers; what cannot be used raises
            return _read(path, nibabel.Nifti1Image if kind == "n+1" else nibabel.Nifti2Image, fourth)
    except _FAULTS as error:
        raise ImageError(path, f"its NIfTI content is damaged ({first_line(error)})", _AGAIN) from error


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        start = file.read(_HEAD_BYTES)
        if not start.startswith(_GZIP):
            return start
        file.seek(0)
        try:
            with gzip.GzipFile(fileobj=file) as packed:
                return packed.read(_HEAD_BYTES)
        except (OSError, EOFError, zlib.error):
            return b""


def _kind(head: bytes) -> str | None:
    if len(head) < _HEAD_BYTES:
        return None
    for size, at, mark in (_NIFTI_1, _NIFTI_2):
        stated = {struct.unpack(order + "i", head[:4])[0] for order in "<>"}
        found = head[at : at + 4]
        if size in stated and (found == mark or found in _PAIR):
            return found[:3].decode()
    return None


def _stated_spacing(head: bytes) -> np.ndarray:
    """The lengths that the header states for its first axes, at most 3: nibabel silently puts 1 for 0."""
    first = head[:4] in (struct.pack("<i", _NIFTI_1[0]), struct.pack(">i", _NIFTI_1[0]))
    order = "<" if struct.unpack("<i", head[:4])[0] in (_NIFTI_1[0], _NIFTI_2[0]) else ">"
    # Number of axes and their spacings: NIfTI-1 in 16 and 32 bits, NIfTI-2 in 64 and 64.
    axes = struct.unpack_from(order + ("h" if first else "q"), head, 40 if first else 16)[0]
    spacing = np.frombuffer(head, order + ("f4" if first else "f8"), 3, 80 if first else 112)
    return spacing[: max(2, min(axes, 3))].astype(float)


def _read(path: Path, reader: type[nibabel.Nifti1Image], fourth: Literal["channel", "time"] | None) -> Volume:
    data = path.read_bytes()
    packed = data.startswith(_GZIP)
    stream = gzip.GzipFile(fileobj=io.BytesIO(data)) if packed else io.BytesIO(data)
    image = reader.from_stream(stream)
    header = image.header
    shape = _shape(path, image.shape)
    stated = int(np.prod(shape, dtype=object)) * header.get_data_dtype().itemsize
    if stated > len(data) * (_DEFLATE_MOST if packed else 1):
        raise ImageError(
            path, f"it is truncated: {stated:,} bytes of voxels are stated, {len(data):,} are there", _AGAIN
        )
    if header.get_data_dtype().kind not in "iuf":
        raise ImageError(
            path, f"its voxels are {header.get_data_dtype()}, not grey values", "Convert it to grey values."
        )
    affine = _affine_mm(path, header)
    values = np.asarray(image.get_fdata(dtype=np.float32, caching="unchanged")).reshape(shape)
    if not np.isfinite(values).all():
        broken = int(values.size - np.isfinite(values).sum())
        raise ImageError(path, f"{broken:,} of its values are NaN or infinite", "Correct them where it was made.")
    placed = to_ras(values, affine)
    in_time = header.get_xyzt_units()[1] in ("sec", "msec", "usec")
    return Volume(
        values_CZYX=placed.values_CZYX,
        unit="stored",
        spacing_mm=placed.spacing_mm,
        affine=placed.affine,
        fourth=fourth or ("time" if shape[3] > 1 and in_time else "channel"),
        source=str(path),
    )


def _shape(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """(X, Y, Z, C) of a file of 3 or 4 axes; a fifth counts for the fourth where that has length 1 (vectors)."""
    if len(shape) > 4 and all(length == 1 for length in (shape[3], *shape[5:])):
        shape = (*shape[:3], shape[4])
    if len(shape) not in (3, 4) or 0 in shape:
        if len(shape) == 2:
            raise ImageError(path, f"it is a 2-D image of {shape[0]} x {shape[1]}, not a volume", "Give a 3-D file.")
        raise ImageError(path, f"it has {len(shape)} axes of lengths {shape}", "Give a 3-D or 4-D file.")
    if len(shape) == 3 and 1 in shape:
        raise ImageError(path, f"it is a 2-D image stored as {shape}, not a volume", "Give the whole volume.")
    return (*shape, 1)[:4]  # type: ignore[return-value]


def _affine_mm(path: Path, header: nibabel.Nifti1Header) -> np.ndarray:
    if not (header["sform_code"] or header["qform_code"]):
        cause = "it does not say which way its axes point (sform_code and qform_code are 0)"
        raise ImageError(path, cause, "Write its orientation into the header, for example with nibabel's set_sform.")
    scale = _TO_MM.get(header.get_xyzt_units()[0], 1.0)
    return np.diag([scale, scale, scale, 1.0]) @ header.get_best_affine()
