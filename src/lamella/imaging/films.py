"""Video files through PyAV (FFmpeg), and animated GIFs through Pillow."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageSequence

from lamella.errors import ImageError, MissingExtraError, first_line
from lamella.imaging.measured import Video
from lamella.imaging.pictures import PILLOW_FAULTS, bytes_of
from lamella.imaging.silence import silence

_AGAIN = "Fetch the file again from its source."
_SECOND_MS, _MICROSECONDS = 1000.0, 1e6
# The last frame begins one frame before the end; files are off by a frame or two, and uneven ones by a few percent.
_SPARE_FRAMES, _SPARE_SHARE = 3, 0.02
# An hour at 1 s a frame is not meant to fit; 8 GB of frames are not taken by mistake.
_MOST_BYTES = 8 * 2**30
# Where the marks of video files lie and what they are.
_MARKS = (
    (4, b"ftyp"), (8, b"AVI "), (0, b"\x1a\x45\xdf\xa3"), (0, b"\x00\x00\x01\xba"), (0, b"\x00\x00\x01\xb3"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"), (0, b"FLV\x01"), (0, b"OggS"), (4, b"moov"), (4, b"mdat"), (4, b"wide"),
)  # fmt: skip
_PICTURES = (b"avif", b"heic", b"heix", b"mif1")  # still pictures in the clothes of MP4
_TRANSPORT, _TRANSPORT_BYTES = b"\x47", 188  # MPEG transport stream: this byte opens every packet


def is_film(head: bytes) -> bool:
    """Whether a file that starts so is a video, by the marks of MP4, MOV, AVI, MKV, WebM, MPEG, WMV, FLV and Ogg."""
    if head[4:8] == b"ftyp" and head[8:12] in _PICTURES:
        return False
    transport = head[:1] == _TRANSPORT and head[_TRANSPORT_BYTES : _TRANSPORT_BYTES + 1] == _TRANSPORT
    return transport or any(head[at : at + len(mark)] == mark for at, mark in _MARKS)


def read_film(path: Path) -> Video:
    """Read all frames of a video file.

    Raises:
        ImageError: It holds no video, is damaged or cut short, or is too long for memory.
        MissingExtraError: PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("av", "video") from error
    av.logging.set_level(av.logging.PANIC)  # what cannot be used raises; FFmpeg's lines tell users nothing
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ImageError(path, "it holds no video", "Give a video file.")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise ImageError(
                    path, "nothing here decodes its video, or it is damaged", "Convert it to MP4 with H.264."
                )
            # Damage in the stream raises; by itself FFmpeg paints over it.
            stream.codec_context.options = {"err_detect": "explode"}
            frames, end_s = _frames(path, container.decode(stream))
            check_length(path, stated_length_s(container, stream), end_s, float(stream.average_rate or 0))
            return _video(path, frames, stream.frames, frame_ms_of(stream))
    except (*PILLOW_FAULTS, av.error.FFmpegError) as error:
        # FFmpeg's whole line holds a number, its own functions and the file's name once more.
        said = first_line(getattr(error, "strerror", None) or error)
        raise ImageError(path, f"it is a damaged video ({said})", _AGAIN) from error


def _frames(path: Path, decoded: Iterable[Any]) -> tuple[list[np.ndarray], float]:
    """All frames as RGB, and when the last one begins."""
    frames: list[np.ndarray] = []
    total, end_s = 0, 0.0
    for frame in decoded:
        if frame.is_corrupt:
            raise ImageError(path, f"its frame {len(frames) + 1} is damaged", _AGAIN)
        pixels = frame.to_ndarray(format="rgb24")
        total += pixels.nbytes
        if total > _MOST_BYTES:
            raise ImageError(path, "its frames take more than 8 GB of memory", "Cut it into shorter files.")
        frames.append(pixels)
        end_s = max(end_s, float(frame.time or 0))
    return frames, end_s


def frame_ms_of(stream: Any) -> float | None:
    return _SECOND_MS / float(stream.average_rate) if stream.average_rate else None


def stated_length_s(container: Any, stream: Any) -> float:
    """How long the file says that its video is; 0 where it does not (or speaks of its sound too)."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    tag = stream.metadata.get("DURATION", "")  # Matroska: hours:minutes:seconds
    if tag.count(":") == 2:
        hours, minutes, seconds = tag.split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    return container.duration / _MICROSECONDS if container.duration and len(container.streams) == 1 else 0.0


def check_length(path: Path, stated_s: float, end_s: float, rate: float) -> None:
    """Matroska and others tell no number of frames, but their length: FFmpeg takes a cut for the end."""
    spare_s = max(_SPARE_FRAMES / rate if rate else 1.0, _SPARE_SHARE * stated_s)
    if end_s < stated_s - spare_s:
        raise ImageError(path, f"it is truncated: {end_s:.2f} of {stated_s:.2f} s could be read", _AGAIN)


def _video(path: Path, frames: list[np.ndarray], stated: int, frame_ms: float | None) -> Video:
    if not frames:
        raise ImageError(path, "it holds no frames", _AGAIN)
    if len({frame.shape for frame in frames}) > 1:
        raise ImageError(path, "its frames change their size", "Convert it to one size.")
    if stated and len(frames) < stated:
        raise ImageError(path, f"it is truncated: {len(frames)} of {stated} frames could be read", _AGAIN)
    return Video(np.stack(frames), "byte", frame_ms, source=str(path))


def is_animated(path: Path) -> bool:
    """Whether Pillow sees an image of several frames with a time each (GIF, animated PNG and WebP)."""
    try:
        with silence, Image.open(path) as image:
            return bool(getattr(image, "is_animated", False)) and image.format in ("GIF", "PNG", "WEBP")
    except PILLOW_FAULTS:
        return False  # whoever reads it learns what is wrong


def read_animation(path: Path) -> Video:
    """Read an animated GIF, PNG or WebP.

    Raises:
        ImageError: It is damaged or has one frame.
    """
    try:
        with silence, Image.open(io.BytesIO(path.read_bytes())) as image:
            frames, times_ms = [], []
            for frame in ImageSequence.Iterator(image):
                frame.load()  # only then is its mode that of its pixels
                pixels = bytes_of(frame.convert("RGBA") if frame.mode == "P" else frame)
                frames.append(np.repeat(pixels[..., None], 3, axis=-1) if pixels.ndim == 2 else pixels)
                times_ms.append(float(frame.info.get("duration") or 0))
    except PILLOW_FAULTS as error:
        raise ImageError(path, f"it is a damaged animation ({first_line(error)})", _AGAIN) from error
    if len(frames) < 2:
        raise ImageError(path, "it holds one frame, not a video", "Read it as an image.")
    # One duration for all, or none is told: frames shown for unlike times have no one spacing.
    even = len(set(times_ms)) == 1 and times_ms[0] > 0
    return _video(path, frames, 0, times_ms[0] if even else None)
