"""Single frames of a video file by number, without holding the film: what a viewer asks for."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lamella.errors import ImageError, MissingExtraError, first_line
from lamella.imaging.films import check_length, frame_ms_of, stated_length_s
from lamella.imaging.pictures import PILLOW_FAULTS

_AGAIN = "Fetch the file again from its source."
# A jump ahead by so many frames is decoded through: seeking goes back to a key frame, often some 250 frames apart.
_FEW_FRAMES = 12


class FilmFrames:
    """An open film. Frames are found by their times, which are read once; one frame is held at a time.

    Several threads may ask; they wait for each other.

    Args:
        path: A video file.

    Raises:
        ImageError: It holds no video, is damaged or cut short.
        MissingExtraError: PyAV is not installed.
    """

    def __init__(self, path: Path) -> None:
        try:
            import av
        except ImportError as error:
            raise MissingExtraError("av", "video") from error
        av.logging.set_level(av.logging.PANIC)  # what cannot be used raises; FFmpeg's lines tell users nothing
        self.path = path
        self._faults = (*PILLOW_FAULTS, av.error.FFmpegError)
        self._lock = threading.Lock()
        self._decoded: Iterator[Any] = iter(())
        self._next = -1  # the number of the frame that comes next; -1: seek first
        with self._told():
            self._container = av.open(str(path))
            if not self._container.streams.video:
                raise ImageError(path, "it holds no video", "Give a video file.")
            self._stream = self._container.streams.video[0]
            if self._stream.codec_context is None:
                raise ImageError(
                    path, "nothing here decodes its video, or it is damaged", "Convert it to MP4 with H.264."
                )
            # Damage in the stream raises; by itself FFmpeg paints over it.
            self._stream.codec_context.options = {"err_detect": "explode"}
            self._times = self._read_times()
            self.frame_ms = frame_ms_of(self._stream)
            self.size = (self._stream.codec_context.height, self._stream.codec_context.width)

    def __len__(self) -> int:
        return len(self._times)

    def frame(self, number: int) -> np.ndarray:
        """(Y, X, 3) uint8.

        Raises:
            IndexError: There is no such frame.
            ImageError: It is damaged.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"frame {number} of {len(self)}")
        with self._lock, self._told():
            if not 0 <= self._next <= number < self._next + _FEW_FRAMES:
                self._seek(number)
            return self._decode(number)

    def close(self) -> None:
        with self._lock:
            self._container.close()

    def _read_times(self) -> list[int]:
        """When each frame is shown, in order, by the packets: nothing is decoded."""
        packets = [packet for packet in self._container.demux(self._stream) if packet.size and not packet.is_discard]
        times = [packet.pts for packet in packets]
        if not times:
            raise ImageError(self.path, "it holds no frames", _AGAIN)
        if any(packet.is_corrupt for packet in packets):
            raise ImageError(self.path, "some of its packets are damaged", _AGAIN)
        if len(times) < self._stream.frames:
            cause = f"it is truncated: {len(times)} of {self._stream.frames} frames are there"
            raise ImageError(self.path, cause, _AGAIN)
        # AVI states times of decoding only. Then frames are counted from the first.
        self._timed = None not in times and len(set(times)) == len(times)
        if not self._timed:
            return list(range(len(times)))
        rate = float(self._stream.average_rate or 0)
        end_s = float(max(times) * self._stream.time_base)
        check_length(self.path, stated_length_s(self._container, self._stream), end_s, rate)
        return sorted(times)

    def _place(self, frame: Any) -> int:
        """The number of a decoded frame; -1 for one that is not meant to be shown."""
        if not self._timed:
            return self._next
        at = bisect_left(self._times, frame.pts) if frame.pts is not None else len(self._times)
        return at if at < len(self._times) and self._times[at] == frame.pts else -1

    def _seek(self, number: int) -> None:
        self._next = -1
        self._container.seek(self._times[number] if self._timed else 0, stream=self._stream, backward=True)
        self._decoded = self._container.decode(self._stream)
        if not self._timed:
            self._next = 0

    def _decode(self, number: int) -> np.ndarray:
        """Go on until that frame."""
        for frame in self._decoded:
            at = self._place(frame)
            self._next = at + 1
            if at < number:
                continue
            if at > number or frame.is_corrupt:
                raise ImageError(self.path, f"its frame {number + 1} is damaged", _AGAIN)
            return frame.to_ndarray(format="rgb24")
        self._next = -1
        raise ImageError(self.path, f"its frame {number + 1} is missing", _AGAIN)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except self._faults as error:
            self._next = -1
            # FFmpeg's whole line holds a number, its own functions and the file's name once more.
            said = first_line(getattr(error, "strerror", None) or error)
            raise ImageError(self.path, f"it is a damaged video ({said})", _AGAIN) from error
