"""Clips of whole films, evenly over time, as an encoder of films is shown them when nothing is drawn by chance.

Shapes: K clips, T frames, Y rows, X columns.
"""

from __future__ import annotations

import numpy as np

from lamella.data.clips import VideoDataSettings
from lamella.data.films import PreparedFilm, frame_offsets, largest_window, prepared_film
from lamella.data.kept import Kept
from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.spacing import resize_image


class EvenClips:
    """Clips of a collection's films.

    Each shows the largest square in the middle of its frames. Where a film is shorter than a clip, its last frame is
    repeated, as in pretraining.

    Args:
        collection: Of films, or of volumes in time.
        settings: Frames, their distance and their size.
        clips: Of one film, at most: from its first frame to its last, evenly; the slices of a volume in time take
            turns.
    """

    def __init__(self, collection: Collection, settings: VideoDataSettings, clips: int) -> None:
        self.collection, self.settings, self.count = collection, settings, clips
        self._kept: Kept[PreparedFilm] = Kept(settings.cache_mb)

    def clips(self, item: Item) -> np.ndarray:
        """(K, 3, T, Y, X) uint8.

        Raises:
            ImageError: It cannot be read, is no film, or does not say how fast its frames follow where that is needed.
        """
        settings = self.settings
        film = self._kept.get(
            item.item_id,
            lambda: prepared_film(self.collection.read(item), item.item_id, settings.intensity, settings.max_side_px),
        )
        offsets = frame_offsets(film, item.item_id, settings.frames, settings.frame_stride, settings.frame_ms)
        starts = [(number, start) for number, each in enumerate(film.slices)
                  for start in even_starts(len(each), int(offsets[-1]) + 1, self.count)]  # fmt: skip
        if len(starts) > self.count:
            starts = [starts[round(at)] for at in np.linspace(0, len(starts) - 1, self.count)]
        return np.stack([self._clip(film.slices[number], start + offsets) for number, start in starts])

    def _clip(self, frames_TYXC: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        size = self.settings.size_px
        top, left, height, width = largest_window(frames_TYXC.shape[1:3], (1.0, 1.0))
        numbers = np.minimum(numbers, len(frames_TYXC) - 1)
        parts = frames_TYXC[numbers, top : top + height, left : left + width]
        return np.stack([resize_image(frame, size, size) for frame in parts]).transpose(3, 0, 1, 2)


def even_starts(length: int, span: int, most: int) -> list[int]:
    """First frames of at most `most` clips of `span` frames that cover a film evenly: the ends first, no two alike.

    A film that a few clips cover without overlap gets no more of them than that takes; one alone is its middle.
    """
    room = max(0, length - span)
    count = min(most, -(-length // span))
    if count == 1:
        return [room // 2]
    return sorted({round(at) for at in np.linspace(0, room, count)})
