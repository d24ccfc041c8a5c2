"""Features of a slide's tiles: their first three components as colours, and each component alone; scores of a file."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
from scipy import linalg

from lamella.errors import SlideError, first_line
from lamella.formats.placed_tiles import DAMAGE, FeatureRows, PlacedTiles
from lamella.geometry import Box, Frame
from lamella.slides.placing import Stated, settle
from lamella.slides.tile_files import read_tile_file
from lamella.view.server.layers.colours import Indexed
from lamella.view.server.layers.contract import Layer, LayerInfo, Legend, Look
from lamella.view.server.layers.layer import Making, same_slide
from lamella.view.server.layers.placed_values import PlacedValues, squares_px0
from lamella.view.server.layers.tile_index import index_under

# Components are found from this many tiles, evenly chosen: more change no colour, and a slide's features of a large
# encoder would not fit into memory.
_TILES_FITTED = 20_000
_TOGETHER = "components 1 to 3"
# A few odd tiles must not grey out the rest; as in view/maps.py.
_STRETCH = (2, 98)


def feature_layers(path: Path, group: str, slide: Frame) -> Iterator[Making]:
    """The layers of a file of features.

    Args:
        path: Of one slide.
        group: The heading.
        slide: Level 0.

    Raises:
        LamellaError: It cannot be read, or is of another slide.
    """
    tiles = settle(read_tile_file(path), None, Stated())
    if tiles.level0_size_px is not None:
        same_slide(path, replace_size(slide, tiles.level0_size_px), slide)
    if tiles.features is not None and tiles.features.rows >= 3:
        yield lambda: FeatureLayer(path.stem, group, tiles)
    scores = dict(_scores(path, len(tiles)))
    if scores:
        yield lambda: _score_layer(group, tiles, scores)


def replace_size(slide: Frame, size_px: tuple[int, int]) -> Frame:
    return Frame(*size_px, slide.mpp_x, slide.mpp_y)


class FeatureLayer(PlacedValues):
    """Tiles coloured by what their features are like: like colours, like features.

    Args:
        name: For messages.
        group: The heading.
        tiles: Settled, with at least three tiles' features.
    """

    def __init__(self, name: str, group: str, tiles: PlacedTiles) -> None:
        assert tiles.features is not None
        count = min(3, tiles.features.dim)
        encoder = tiles.own.get("encoder", "")
        note = f"{len(tiles):,} tiles, {tiles.features.dim} numbers each{f' of {encoder}' if encoder else ''}"
        names = [f"component {number + 1}" for number in range(count)]
        legend = Legend(bare="where there are no tiles")
        bounds = _bounds(tiles)
        super().__init__(LayerInfo("components", "likeness", group, legend, note=note), names, bounds, self._component)
        together = [(f"more red: {names[0]}", "#ff0000"), ("more green: component 2", "#00ff00")]
        together.append(("more blue: component 3", "#0000ff"))
        channels = (_TOGETHER, *names)
        self.names = channels
        self._together = replace(legend, classes=together[:count], drawable=False)
        self.info = replace(self.info, legend=self._together, channels=channels, channel_count=len(channels))
        self._name, self._features = name, tiles.features
        self._found: tuple[np.ndarray, np.ndarray] | None = None
        self._fitting = threading.Lock()

    def legend(self, look: Look) -> Legend:
        if self.channel(look) in (None, 0):
            return self._together
        return super().legend(look)

    def chosen(self, look: Look) -> int:
        return (self.channel(look) or 0) - 1

    def paint(self, box_px0: Box, width_px: int, height_px: int, look: Look) -> Indexed | np.ndarray | None:
        if self.channel(look) not in (None, 0):
            return super().paint(box_px0, width_px, height_px, look)
        owners = index_under(self.bounds_px0, box_px0, width_px, height_px)
        if owners is None:
            return None
        return self._fitted()[1][owners]

    def _component(self, channel: int) -> np.ndarray:
        return self._fitted()[0][:, channel]

    def _fitted(self) -> tuple[np.ndarray, np.ndarray]:
        """(N, 3) components and (N + 1, 4) uint8 colours of them together; the last colour is none."""
        with self._fitting:
            if self._found is None:
                scores = components(self._features, self._name)
                low, high = np.percentile(scores, _STRETCH, axis=0)
                shares = ((scores - low) / np.where(high > low, high - low, 1)).clip(0, 1)
                colours = np.zeros((len(scores) + 1, 4), np.uint8)
                colours[:-1, : scores.shape[1]] = (shares * 255).astype(np.uint8)
                colours[:-1, 3] = 255
                self._found = scores, colours
            return self._found


def _bounds(tiles: PlacedTiles) -> np.ndarray:
    """(N, 4) of the tiles. Files keep whole pixels: half a pixel more on each side closes cracks that no tile had."""
    slack = 0.5 if tiles.places_px0.dtype.kind == "i" else 0.0
    return squares_px0(tiles.places_px0 - slack, tiles.side + 2 * slack, tiles.side + 2 * slack)


def components(features: FeatureRows, name: object) -> np.ndarray:
    """The first three principal components of standardised features, with a batch of rows in memory.

    The same as `view.maps.pca_colours` before it stretches them. Signs are chosen so that the largest weight of each is
    positive: the same file gives the same colours.

    Args:
        features: (N, D), three rows at least.
        name: For messages.

    Returns:
        (N, min(3, D)) float32.

    Raises:
        SlideError: A feature is missing or not a number.
    """
    step = -(-features.rows // _TILES_FITTED)
    taken, row = [], 0
    for batch in features.checked(name):
        taken.append(np.asarray(batch[-row % step :: step], np.float64))
        row += len(batch)
    sample = np.concatenate(taken)
    mean, spread = sample.mean(axis=0), sample.std(axis=0)
    spread = np.where(spread > 0, spread, 1)
    sample = (sample - mean) / spread
    dim = sample.shape[1]
    count = min(3, dim)
    _, axes = linalg.eigh(sample.T @ sample, subset_by_index=[dim - count, dim - 1])
    axes = axes[:, ::-1]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(count)])
    parts = [((np.asarray(batch, np.float64) - mean) / spread) @ axes for batch in features.checked(name)]
    return np.concatenate(parts).astype(np.float32)


def _scores(path: Path, tiles: int) -> Iterator[tuple[str, np.ndarray]]:
    """Further columns of an HDF5 file with one number a tile, such as attention scores."""
    if path.suffix.lower() not in (".h5", ".hdf5"):
        return
    try:
        with h5py.File(path, "r") as file:
            for name, found in file.items():
                if name in ("coords", "features") or not isinstance(found, h5py.Dataset):
                    continue
                if found.shape in ((tiles,), (tiles, 1), (1, tiles)) and found.dtype.kind in "iuf":
                    yield name, np.asarray(found[...], np.float32).reshape(-1)
    except DAMAGE as error:
        raise SlideError(path, f"it cannot be read ({first_line(error)})", "Make it again.") from error


def _score_layer(group: str, tiles: PlacedTiles, scores: dict[str, np.ndarray]) -> Layer:
    columns = list(scores.values())
    info = LayerInfo("scores", "scores", group, Legend(bare="where there are no tiles"), note=f"{len(tiles):,} tiles")
    return PlacedValues(info, list(scores), _bounds(tiles), lambda channel: columns[channel])
