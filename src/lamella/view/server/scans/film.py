"""A film, frame by frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lamella.imaging.film_frames import FilmFrames
from lamella.imaging.intensity import video_bytes
from lamella.imaging.reading import format_of, read_video

_SECOND_MS = 1000.0


class SeenFilm:
    """An open film: video files are decoded frame by frame; animations and DICOM are held in memory.

    Args:
        path: A video file, an animation, or DICOM of several frames without places.

    Raises:
        ImageError: It cannot be read.
        MissingExtraError: It is a video file and PyAV is not installed.
    """

    def __init__(self, path: Path) -> None:
        self._film: FilmFrames | None = None
        self._held: np.ndarray | None = None
        spacing_mm = None
        if format_of(path) == "film":
            self._film = FilmFrames(path)
            self._count, self._size, frame_ms = len(self._film), self._film.size, self._film.frame_ms
        else:
            video = read_video(path)
            self._held = video_bytes(video)
            self._count, self._size = len(self._held), self._held.shape[1:3]
            frame_ms, spacing_mm = video.frame_ms, video.spacing_mm
        rows, columns = self._size
        row_mm, column_mm = spacing_mm or (1.0, 1.0)
        said = [f"{self._count} frames of {columns} x {rows} px"]
        if frame_ms:
            said.append(f"{frame_ms:.3g} ms a frame, {self._count * frame_ms / _SECOND_MS:.3g} s")
        if spacing_mm:
            said.append(f"{column_mm:.3g} x {row_mm:.3g} mm a pixel")
        self.facts: dict[str, Any] = {
            "mm": {"x": columns * column_mm, "y": rows * row_mm},
            "fourth": "Frame",
            "count": self._count,
            "frame_ms": frame_ms,
            "said": said,
            "refused": [],
        }

    @property
    def nbytes(self) -> int:
        return self._held.nbytes if self._held is not None else 3 * self._size[0] * self._size[1]

    def frame(self, number: int) -> np.ndarray:
        """(Y, X, 3) uint8.

        Raises:
            IndexError: There is no such frame.
            ImageError: It is damaged.
        """
        if not 0 <= number < self._count:
            raise IndexError(f"frame {number} of {self._count}")
        return self._held[number] if self._held is not None else self._film.frame(number)  # type: ignore[union-attr]
