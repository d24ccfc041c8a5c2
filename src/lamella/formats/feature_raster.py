"""Features of a slide on disk: a raster of tokens that lies upright over the image, read where they are asked for.

A folder: features.npy (rows, columns, width) float16, memory-mapped; seen.npy (rows, columns) bool; facts.json, written
last, so that a folder that has one is whole. Pieces of features.npy without tissue are holes of the file, not bytes.

Shapes: P places, D width of a token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lamella.errors import LamellaError, first_line

FEATURES_FILE, SEEN_FILE, FACTS_FILE = "features.npy", "seen.npy", "facts.json"
FORMAT = "lamella-feature-raster-1"
# Numbers gathered at once, of places times features: 13 MB with what they are multiplied by.
_CHUNK = 2**21
# A place counts as seen if at least half of what bilinear interpolation mixes there was made.
_LEAST_SEEN = 0.5
# Half a token, and what rounding may add to it.
_REACH = 0.5 + 1e-6
_REMEDY = "Delete the folder; `lamella expression features` makes it again."


class FeatureRasterError(LamellaError):
    """A raster of features is missing or damaged."""


@dataclass(frozen=True)
class RasterFacts:
    """What a raster holds and where it lies.

    Attributes:
        slide: Name of the slide.
        encoder: Who made it.
        fingerprint: Of the encoder.
        licence: Of its weights.
        level: Of the encoder's levels, finest first.
        mpp: Micrometres per pixel of the image as the encoder was shown it.
        token_um: Side of a token.
        rows: Of tokens.
        columns: Of tokens.
        width: D.
        first_px0: (x, y) of the centre of token (0, 0) in level-0 pixels.
        step_px0: (x, y) from one token to the next, in level-0 pixels.
        slide_px0: (width, height) of the slide; nothing is seen outside.
        mean: (D,) over the slide's tissue.
        std: (D,) over the slide's tissue.
        made: What else it depends on.
    """

    slide: str
    encoder: str
    fingerprint: str
    licence: str
    level: int
    mpp: float
    token_um: float
    rows: int
    columns: int
    width: int
    first_px0: tuple[float, float]
    step_px0: tuple[float, float]
    slide_px0: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    made: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {"format": FORMAT, **asdict(self)}


class FeatureRaster:
    """A raster of tokens. It can be sent to other processes, which open the folder anew.

    Attributes:
        folder: Where it lies.
        facts: What it holds.
        features: (rows, columns, D) float16, on disk.
        seen: (rows, columns) bool: where features were made.
    """

    def __init__(self, folder: Path, facts: RasterFacts, features: np.ndarray, seen: np.ndarray) -> None:
        self.folder, self.facts, self.features, self.seen = folder, facts, features, seen
        self._tokens = np.asarray(features).reshape(-1, facts.width)  # a view: nothing is read yet
        self._seen = seen.reshape(-1).astype(np.float32)

    @classmethod
    def open(cls, folder: Path | str) -> FeatureRaster:
        """Open a raster; its features stay on disk until they are asked for.

        Raises:
            FeatureRasterError: There is none, or its files are damaged or do not belong together.
        """
        folder = Path(folder)
        facts = _read_facts(folder / FACTS_FILE)
        features, seen = _mapped(folder / FEATURES_FILE), _mapped(folder / SEEN_FILE)
        shape = (facts.rows, facts.columns)
        for path, found, expected in (
            (folder / FEATURES_FILE, (features.shape, str(features.dtype)), ((*shape, facts.width), "float16")),
            (folder / SEEN_FILE, (seen.shape, str(seen.dtype)), (shape, "bool")),
        ):
            if found != expected:
                raise FeatureRasterError(
                    path, f"it holds {found[1]} {found[0]}, and {FACTS_FILE} says {expected[1]} {expected[0]}", _REMEDY
                )
        return cls(folder, facts, features, np.array(seen))

    @property
    def nbytes(self) -> int:
        """Of all its tokens in float16, holes included."""
        return int(self.features.nbytes)

    def sample(self, x_px0: Any, y_px0: Any) -> tuple[np.ndarray, np.ndarray]:
        """Features at any places of the slide, bilinear between the tokens' centres.

        Tokens that were not made have no part, and a place that is mixed of those by more than half is not seen. So
        what is seen reaches to the edges of the outermost tokens, and nothing is stretched beyond.

        Args:
            x_px0: In level-0 pixels, of any shape.
            y_px0: As many.

        Returns:
            float32 (..., D), 0 where not seen; bool (...), False outside the slide and where nothing was made.
        """
        x, y = np.broadcast_arrays(np.asarray(x_px0, np.float64), np.asarray(y_px0, np.float64))
        shape, x, y = x.shape, x.reshape(-1), y.reshape(-1)
        values = np.zeros((len(x), self.facts.width), np.float32)
        seen = np.zeros(len(x), bool)
        places = max(1, _CHUNK // self.facts.width)
        for start in range(0, len(x), places):
            part = slice(start, start + places)
            self._gather(x[part], y[part], values[part], seen[part])
        return values.reshape(*shape, -1), seen.reshape(shape)

    def _gather(self, x: np.ndarray, y: np.ndarray, values_PD: np.ndarray, seen_P: np.ndarray) -> None:
        """Fill values and seen of (P,) places."""
        facts = self.facts
        column, right, right_part, in_x = _between((x - facts.first_px0[0]) / facts.step_px0[0], facts.columns)
        row, below, below_part, in_y = _between((y - facts.first_px0[1]) / facts.step_px0[1], facts.rows)
        inside = in_x & in_y & (x >= 0) & (x < facts.slide_px0[0]) & (y >= 0) & (y < facts.slide_px0[1])
        total = np.zeros(len(x), np.float32)
        for at_row, row_part in ((row, 1 - below_part), (below, below_part)):
            for at_column, column_part in ((column, 1 - right_part), (right, right_part)):
                token = at_row * facts.columns + at_column
                weight = row_part * column_part * self._seen[token]
                total += weight
                values_PD += self._tokens[token] * weight[:, None]
        seen_P[:] = inside & (total >= _LEAST_SEEN)
        values_PD /= np.where(seen_P, total, 1)[:, None]
        values_PD[~seen_P] = 0

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return FeatureRaster.open, (self.folder,)


def _between(at: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The token before each place, the one after it, how far it is on the way, and whether it is in any token.

    Beyond the middles of the outermost tokens these speak for themselves, as far as they reach.
    """
    within = (at >= -_REACH) & (at <= count - 1 + _REACH)
    at = np.clip(at, 0, count - 1)
    before = at.astype(np.int64)
    return before, np.minimum(before + 1, count - 1), (at - before).astype(np.float32), within


def _read_facts(path: Path) -> RasterFacts:
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if told.pop("format") != FORMAT:
            raise ValueError("it is of another format")
        told = {key: tuple(value) if isinstance(value, list) else value for key, value in told.items()}
        return RasterFacts(**told)
    except FileNotFoundError as error:
        raise FeatureRasterError(
            path.parent, "there are no features here", "Make them with `lamella expression features`."
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FeatureRasterError(path, f"it cannot be read ({first_line(error)})", _REMEDY) from error


def _mapped(path: Path) -> np.ndarray:
    try:
        mapped: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        return mapped
    except (OSError, ValueError, EOFError) as error:
        raise FeatureRasterError(path, f"it cannot be read ({first_line(error)})", _REMEDY) from error
