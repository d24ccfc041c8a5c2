"""The size that a JPEG 2000 or WebP stream states, read before its decoder takes memory for it."""

from __future__ import annotations

# JPEG 2000 (ITU-T T.800, A.5.1): SOC and SIZ markers, then length, capabilities, four corners of the image and four of
# its own tiles as 32-bit numbers, and the number of components.
_J2K_START = b"\xff\x4f\xff\x51"
_J2K_CORNERS, _J2K_COMPONENTS = 8, 40
_MOST_COMPONENTS = 4  # RGB and transparency; the format allows 16,384, each with memory of its own
# A JP2 file wraps the stream in a few boxes (signature, type, header, colour) of some dozen bytes each.
_J2K_WITHIN = 4096
# WebP (RFC 9649): "RIFF", size, "WEBP", then one chunk of these.
_RIFF, _WEBP = b"RIFF", b"WEBP"


def check_size(data: bytes, width: int, height: int) -> None:
    """Refuse a stream that states more pixels than its tile has.

    Raises:
        ValueError: It does, or it is neither JPEG 2000 nor WebP.
    """
    stated = _webp_size(data) if data.startswith(_RIFF) else _jpeg_2000_size(data)
    if stated is None:
        raise ValueError("it is no JPEG 2000 or WebP stream")
    if not (0 < stated[0] <= width and 0 < stated[1] <= height):
        raise ValueError(f"its stream has {stated[0]} x {stated[1]} pixels instead of {width} x {height}")


def _jpeg_2000_size(data: bytes) -> tuple[int, int] | None:
    at = data.find(_J2K_START, 0, _J2K_WITHIN)
    corners = data[at + _J2K_CORNERS : at + _J2K_CORNERS + 16]
    components = int.from_bytes(data[at + _J2K_COMPONENTS : at + _J2K_COMPONENTS + 2], "big")
    if at < 0 or not 0 < components <= _MOST_COMPONENTS:
        return None
    right, bottom, left, top = (int.from_bytes(corners[i : i + 4], "big") for i in range(0, 16, 4))
    return right - left, bottom - top


def _webp_size(data: bytes) -> tuple[int, int] | None:
    kind, chunk = data[12:16], data[20:30]
    if data[8:12] != _WEBP or len(chunk) < 10:
        return None
    if kind == b"VP8X":  # 24 bits each, less one
        return int.from_bytes(chunk[4:7], "little") + 1, int.from_bytes(chunk[7:10], "little") + 1
    if kind == b"VP8L":  # 14 bits each, less one, after a signature byte
        bits = int.from_bytes(chunk[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":  # 14 bits each, after a frame tag and a start code
        return int.from_bytes(chunk[6:8], "little") & 0x3FFF, int.from_bytes(chunk[8:10], "little") & 0x3FFF
    return None
