"""Numbers that a table gives for tiles of a slide, such as how unsure a model was of each."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lamella.errors import LamellaError, first_line
from lamella.formats.tables import read_parquet
from lamella.geometry import Box, Frame
from lamella.view.server.layers.contract import LayerInfo, Legend
from lamella.view.server.layers.placed_values import PlacedValues, squares_px0

_PLACE = ("x_px0", "y_px0", "fov_um", "mpp")


class TileScores(PlacedValues):
    """The numbers of a tile table; read when they are first looked at.

    Args:
        path: Parquet with x_px0, y_px0, fov_um and columns of numbers, of one slide.
        group: The heading.
        slide: Level 0 as the table was made for it.

    Raises:
        LamellaError: It is no such table.
    """

    def __init__(self, path: Path, group: str, slide: Frame) -> None:
        try:
            schema = pq.read_schema(path)
        except (OSError, pa.ArrowException) as error:
            raise LamellaError(path, f"it cannot be read ({first_line(error)})", "Make it again.") from error
        names = [name for name in schema.names if name not in _PLACE and pa.types.is_floating(schema.field(name).type)]
        if not names or any(name not in schema.names for name in _PLACE[:3]):
            raise LamellaError(path, "it has no tiles with numbers", "Make it again.")
        self._path, self._slide = path, slide
        self._columns: dict[str, np.ndarray] | None = None
        self._reading = threading.Lock()
        info = LayerInfo("scores", "tile scores", group, Legend(bare="where there are no tiles"), note=path.name)
        super().__init__(info, names, np.zeros((0, 4)), self._column)

    def under(self, box_px0: Box, width_px: int, height_px: int, channel: int) -> np.ndarray | None:
        self._column(channel)
        return super().under(box_px0, width_px, height_px, channel)

    def _column(self, channel: int) -> np.ndarray:
        with self._reading:
            if self._columns is None:
                table = read_parquet(self._path, [*_PLACE[:3], *self.names])
                columns = {name: table.column(name).to_numpy() for name in table.column_names}
                sides = np.unique(columns["fov_um"])
                side = Box(0, 0, float(sides.max()), float(sides.max())) if len(sides) else Box(0, 0, 1, 1)
                if len(sides) > 1:
                    raise LamellaError(self._path, "its tiles are of several sizes", "Make it again.")
                side = self._slide.box_px(side)
                corners = np.stack([columns["x_px0"], columns["y_px0"]], axis=1)
                self.bounds_px0 = squares_px0(corners, side.width, side.height)
                self.info = replace(self.info, note=f"{len(corners):,} tiles")
                self._columns = columns
            return self._columns[self.names[channel]]
