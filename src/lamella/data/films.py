"""Films as bytes: a film, or the slices of a volume in time; which frames a clip takes, and which part of them.

Shapes: T frames, Y rows, X columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lamella.errors import ImageError
from lamella.imaging.datasets.collection import Measured
from lamella.imaging.intensity import IntensitySettings, video_bytes
from lamella.imaging.measured import Video, Volume
from lamella.imaging.reading import slice_over_time
from lamella.imaging.spacing import resize_image


@dataclass(frozen=True)
class PreparedFilm:
    """A film, or the slices of a volume in time.

    Attributes:
        slices: uint8 (T, Y, X, 3) each, all of one size.
        frame_ms: Milliseconds from frame to frame, where known.
    """

    slices: tuple[np.ndarray, ...]
    frame_ms: float | None

    @cached_property
    def nbytes(self) -> int:
        return sum(frames.nbytes for frames in self.slices)


def prepared_film(
    measured: Measured, item_id: str, intensity: IntensitySettings, max_side_px: int | None
) -> PreparedFilm:
    """What a reader returned, as bytes.

    Args:
        measured: A film, or a volume in time.
        item_id: For messages.
        intensity: How measured values become bytes.
        max_side_px: Larger frames are reduced to this longest side.

    Raises:
        ImageError: It is neither, or shows nothing.
    """
    if isinstance(measured, Volume):
        films = _films_of(measured)
    elif isinstance(measured, Video):
        films = [measured]
    else:
        raise ImageError(item_id, "it is a picture, not a film", "Leave it out.")
    slices = tuple(_reduced(video_bytes(film, intensity), max_side_px) for film in films)
    for frames in slices:
        frames.setflags(write=False)
    return PreparedFilm(slices, films[0].frame_ms)


def frame_offsets(
    film: PreparedFilm, item_id: str, frames: int, frame_stride: int, frame_ms: float | None
) -> np.ndarray:
    """(frames,) int: numbers of a clip's frames, counted from its first.

    Args:
        film: Says how fast its frames follow.
        item_id: For messages.
        frames: Of the clip.
        frame_stride: Take every so many, unless `frame_ms` is given.
        frame_ms: Milliseconds from one to the next.

    Raises:
        ImageError: Milliseconds are asked for, and the film does not say how fast its frames follow.
    """
    step = float(frame_stride)
    if frame_ms is not None:
        if film.frame_ms is None:
            raise ImageError(
                item_id, "it does not say how fast its frames follow", "Set data.frame_stride, not frame_ms."
            )
        step = frame_ms / film.frame_ms
    return np.rint(np.arange(frames) * step).astype(np.int64)


def largest_window(shape: Sequence[int], aspect: tuple[float, float]) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the largest part of these aspects in the middle of an image."""
    rows, columns = shape
    ratio = min(max(columns / rows, aspect[0]), aspect[1])
    height, width = max(1, min(rows, round(columns / ratio))), max(1, min(columns, round(rows * ratio)))
    return (rows - height) // 2, (columns - width) // 2, height, width


def _films_of(volume: Volume) -> list[Video]:
    """The slices of a volume in time that show something."""
    if volume.fourth != "time":
        raise ImageError(
            volume.source,
            "it is one volume, without points in time",
            "Set method.name=volume, or data.dataset.fourth=time if its fourth axis is time.",
        )
    slices = range(volume.values_CZYX.shape[1])
    seen = [z for z in slices if np.ptp(volume.values_CZYX[:, z]) > 0]
    if not seen:
        raise ImageError(volume.source, "all its slices are constant: there is nothing to see", "Leave it out.")
    return [slice_over_time(volume, z) for z in seen]


def _reduced(frames_TYXC: np.ndarray, max_side_px: int | None) -> np.ndarray:
    """Frames no larger than that on their longest side."""
    longest = max(frames_TYXC.shape[1:3])
    if max_side_px is None or longest <= max_side_px:
        return frames_TYXC
    height, width = (max(1, round(side * max_side_px / longest)) for side in frames_TYXC.shape[1:3])
    return np.stack([resize_image(frame, height, width) for frame in frames_TYXC])
