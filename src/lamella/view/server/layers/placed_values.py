"""Numbers of places - tiles, spots, bins - each shown over what it covers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from lamella.geometry import Box
from lamella.view.server.layers.contract import LayerInfo
from lamella.view.server.layers.tile_index import index_under
from lamella.view.server.layers.value_maps import ValueLayer


class PlacedValues(ValueLayer):
    """Channels of numbers at places.

    Args:
        info: As for `ValueLayer`.
        names: Of the channels.
        bounds_px0: (N, 4) x0, y0, x1, y1 of the places, in level-0 pixels.
        column: (N,) the numbers of a channel; NaN where there is none.
        disks: Places are round.
        shared: Whether `info.legend` states the range of all channels.
    """

    def __init__(
        self,
        info: LayerInfo,
        names: Sequence[str],
        bounds_px0: np.ndarray,
        column: Callable[[int], np.ndarray],
        *,
        disks: bool = False,
        shared: bool = False,
    ) -> None:
        super().__init__(info, names, shared=shared)
        self.bounds_px0, self.column, self.disks = bounds_px0, column, disks

    def values(self, channel: int) -> np.ndarray:
        return self.column(channel)

    def under(self, box_px0: Box, width_px: int, height_px: int, channel: int) -> np.ndarray | None:
        owners = index_under(self.bounds_px0, box_px0, width_px, height_px, disks=self.disks)
        if owners is None:
            return None
        return np.where(owners >= 0, self.column(channel)[owners], np.nan)


def squares_px0(corners_px0: np.ndarray, width_px0: float, height_px0: float) -> np.ndarray:
    """(N, 4) boxes of one size from their top-left corners (N, 2)."""
    corners = np.asarray(corners_px0, np.float64)
    return np.concatenate([corners, corners + np.array([width_px0, height_px0])], axis=1)
