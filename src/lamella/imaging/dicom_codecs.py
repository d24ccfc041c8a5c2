"""Compressed DICOM frames: one frame's bytes to samples that must have the size which the header states.

simplejpeg (libjpeg-turbo, strict about damage) decodes 8-bit JPEG; imagecodecs the rest: libjpeg-turbo for 12-bit and
lossless JPEG, CharLS, OpenJPEG, OpenJPH and run lengths. All are core packages under free licences.
Source of the layouts: DICOM PS3.5, section 8.2 and annexes A and G; ITU-T T.81, B.2; T.800, A.5.1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import imagecodecs
import numpy as np
import simplejpeg
from pydicom import uid

_J2K_START = b"\xff\x4f\xff\x51"  # start of a JPEG 2000 stream and of its size
_SOF_LOSSLESS = 0xC3
# Start of a frame: all codes C0 to CF but the tables C4, C8 and CC; F7 is JPEG-LS.
_SOF = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_END = b"\xff\xd9"


@dataclass(frozen=True)
class Shape:
    """What the header says of one frame."""

    rows: int
    columns: int
    samples: int
    bits_allocated: int
    colour: str
    """PhotometricInterpretation."""


@dataclass(frozen=True)
class Stream:
    """What a JPEG or JPEG-LS stream says of itself."""

    rows: int
    columns: int
    samples: int
    precision: int
    kind: int
    """Second byte of its start-of-frame marker."""
    ids: bytes
    """The components' names."""
    jfif: bool
    adobe_at: int
    """Where Adobe's marker says whether colours are YCbCr; 0 where it is absent."""


def decode_frame(data: bytes, syntax: uid.UID, shape: Shape) -> tuple[np.ndarray, int]:
    """Decode one compressed frame.

    Args:
        data: The frame.
        syntax: Its transfer syntax.
        shape: Size that the header states; anything else is an error before memory is taken.

    Returns:
        (rows, columns) or (rows, columns, 3) of integers, colours as RGB where the stream itself carries YCbCr, and
        the number of bits that are meant.

    Raises:
        NotImplementedError: Nothing here decodes this transfer syntax.
        ValueError: The frame is damaged or of another size (also RuntimeError and kin of the codecs).
    """
    decode = _DECODERS.get(syntax)
    if decode is None:
        raise NotImplementedError(f"transfer syntax {syntax.name}")
    decoded, bits = decode(data, shape)
    expected = (shape.rows, shape.columns) + ((shape.samples,) if shape.samples > 1 else ())
    if decoded.shape != expected:
        raise ValueError(f"a frame of shape {decoded.shape} where the header states {expected}")
    return decoded, bits


def decodes(syntax: uid.UID) -> bool:
    """Whether frames of this transfer syntax can be read; uncompressed ones always can."""
    return syntax in _DECODERS or not syntax.is_encapsulated


# ---- JPEG -----------------------------------------------------------------------------------------------------------


def _jpeg(data: bytes, shape: Shape) -> tuple[np.ndarray, int]:
    stream = _checked(data, shape)
    if shape.samples == 3 and not stream.jfif:  # JFIF is always YCbCr
        named_rgb = shape.colour == "RGB" or stream.ids in (b"RGB", b"rgb")
        # libjpeg changes no colours of lossless streams; whoever asked for the frame does.
        data = _with_colour(data, stream.adobe_at, ycbcr=not named_rgb and stream.kind != _SOF_LOSSLESS)
    if stream.precision == 8 and stream.kind != _SOF_LOSSLESS:
        decoded = simplejpeg.decode_jpeg(data, "GRAY" if shape.samples == 1 else "RGB", strict=True)
        return decoded[..., 0] if shape.samples == 1 else decoded, 8
    # Not strict: an end before the end would leave the rest of the picture grey.
    if data.find(_END, _scan_start(data)) < len(data.rstrip(b"\x00\xff")) - len(_END) or _END not in data:
        raise ValueError("its JPEG stream ends early")
    return imagecodecs.jpeg8_decode(data), stream.precision


def _checked(data: bytes, shape: Shape) -> Stream:
    stream = jpeg_stream(data)
    if (stream.rows, stream.columns, stream.samples) != (shape.rows, shape.columns, shape.samples):
        raise ValueError(
            f"its JPEG stream is {stream.rows} x {stream.columns} x {stream.samples} where the header states "
            f"{shape.rows} x {shape.columns} x {shape.samples}"
        )
    return stream


def jpeg_stream(data: bytes) -> Stream:
    """Read the markers of a JPEG or JPEG-LS stream up to its frame.

    Raises:
        ValueError: It is none, or ends before its size is told.
    """
    at, jfif, adobe_at = 2, False, 0
    if not data.startswith(b"\xff\xd8"):
        raise ValueError("its frame is no JPEG stream")
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            break
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xFF:  # filling
            at += 1
            continue
        body = data[at + 4 : at + 2 + length]
        jfif |= marker == 0xE0 and body.startswith(b"JFIF")
        if marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12:
            adobe_at = at + 4 + 11  # behind the name, a version and two words of flags
        if marker in _SOF and len(body) >= 6 and len(body) >= 6 + 3 * body[5]:
            ids = body[6 : 6 + 3 * body[5] : 3]
            rows, columns = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
            return Stream(rows, columns, body[5], body[0], marker, ids, jfif, adobe_at)
        at += 2 + length
    raise ValueError("its JPEG stream is damaged")


def _with_colour(data: bytes, adobe_at: int, *, ycbcr: bool) -> bytes:
    """Put in Adobe's marker what DICOM's own header tells: libjpeg goes by the marker, DICOM by its header."""
    if adobe_at:
        return data[:adobe_at] + bytes([ycbcr]) + data[adobe_at + 1 :]
    return data[:2] + b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([ycbcr]) + data[2:]


def _scan_start(data: bytes) -> int:
    return max(0, data.find(b"\xff\xda"))


def _jpeg_ls(data: bytes, shape: Shape) -> tuple[np.ndarray, int]:
    stream = _checked(data, shape)
    return imagecodecs.jpegls_decode(data), stream.precision


# ---- JPEG 2000 ------------------------------------------------------------------------------------------------------


def _jpeg_2000(data: bytes, shape: Shape) -> tuple[np.ndarray, int]:
    return imagecodecs.jpeg2k_decode(data, numthreads=1), _j2k_precision(data, shape)


def _htj2k(data: bytes, shape: Shape) -> tuple[np.ndarray, int]:
    return imagecodecs.htj2k_decode(data, planar=False), _j2k_precision(data, shape)


def _j2k_precision(data: bytes, shape: Shape) -> int:
    """Check the size that the stream states (four corners of 32 bits behind length and capabilities).

    Raises:
        ValueError: It is another one.
    """
    at = data.find(_J2K_START, 0, 4096)
    head = data[at + 8 : at + 36]
    if at < 0 or len(head) < 28 or len(data) < at + 43:
        raise ValueError("its frame is no JPEG 2000 stream")
    right, bottom, left, top = (int.from_bytes(head[i : i + 4], "big") for i in range(0, 16, 4))
    components = int.from_bytes(data[at + 40 : at + 42], "big")
    if (bottom - top, right - left, components) != (shape.rows, shape.columns, shape.samples):
        raise ValueError(
            f"its JPEG 2000 stream is {bottom - top} x {right - left} x {components} where the header states "
            f"{shape.rows} x {shape.columns} x {shape.samples}"
        )
    return (data[at + 42] & 0x7F) + 1


# ---- run lengths ----------------------------------------------------------------------------------------------------


def _run_lengths(data: bytes, shape: Shape) -> tuple[np.ndarray, int]:
    kind = np.dtype(f"<u{shape.bits_allocated // 8}")
    count = shape.rows * shape.columns * shape.samples
    segments = int.from_bytes(data[:4], "little")
    if segments != shape.samples * kind.itemsize:
        raise ValueError(f"its frame has {segments} runs where the header asks for {shape.samples * kind.itemsize}")
    out = bytearray(count * kind.itemsize)
    decoded = imagecodecs.dicomrle_decode(data, kind, out=out)
    if len(decoded) != len(out):
        raise ValueError("its run lengths give too few pixels")
    planes = np.frombuffer(decoded, kind).reshape(shape.samples, shape.rows, shape.columns)
    return planes[0] if shape.samples == 1 else np.moveaxis(planes, 0, -1), shape.bits_allocated


_DECODERS: dict[str, Callable[[bytes, Shape], tuple[np.ndarray, int]]] = {
    uid.JPEGBaseline8Bit: _jpeg,
    uid.JPEGExtended12Bit: _jpeg,
    uid.JPEGLossless: _jpeg,
    uid.JPEGLosslessSV1: _jpeg,
    uid.JPEGLSLossless: _jpeg_ls,
    uid.JPEGLSNearLossless: _jpeg_ls,
    uid.JPEG2000Lossless: _jpeg_2000,
    uid.JPEG2000: _jpeg_2000,
    uid.HTJ2KLossless: _htj2k,
    uid.HTJ2KLosslessRPCL: _htj2k,
    uid.HTJ2K: _htj2k,
    uid.RLELossless: _run_lengths,
}
