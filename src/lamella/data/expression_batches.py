"""Batches of views and expression as a pure function of the step.

Shapes: B samples of a step, D_v width of view v, t_v tokens along its side, G genes, n bins along a sample's side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field

from lamella.config import Settings
from lamella.data.expression_samples import SlideSamples
from lamella.data.expression_views import SlideViews
from lamella.data.order import Order
from lamella.data.sample import Batch

# What a random number is for: each use has its own stream at every position. Other first numbers than other samples of
# the package have, so that two methods of one seed share no draws by accident.
_PLACE, _TURN, _SHUFFLE = range(40, 43)

Count = Annotated[int, Field(ge=1)]


class ExpressionBatchSettings(Settings):
    """How samples are drawn for training."""

    batch_size: Count = 16
    """Samples of one optimiser step, over all processes together: tiles, or spots."""
    centres: Literal["random", "cover"] = "random"
    """random: tiles around bins on tissue, any of which is equally likely. cover: tiles side by side, each once an
    epoch. Spots are drawn each once an epoch, either way."""
    augment: bool = True
    """Turn and mirror a sample's views and labels together, in any of the eight ways."""
    samples_per_epoch: Count | None = None
    """Samples of an epoch; null: as many as tiles cover the tissue, or all spots."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that read ahead; 0 reads in the training process. The samples are the same either way."""


@dataclass(frozen=True)
class _Drawn:
    """One sample: where its views are read, and where its labels are, which differ only where labels are shuffled."""

    slide: int
    centre_rc: tuple[float, float]
    label_slide: int
    label_rc: tuple[float, float]
    turn: int


class ExpressionBatches:
    """The batches of some slides.

    Args:
        samples: Of each slide; all of one kind, with the same genes and number of bins.
        views: Of the same slides.
        settings: How samples are drawn.
        seed: Of every draw.
        shuffle_labels: Every sample is given the labels of another, the same one each time: the control that is trained
            anew. Tiles are drawn as with `centres=cover` then.

    Raises:
        ValueError: There is no slide, or they do not go together.
    """

    def __init__(
        self,
        samples: Sequence[SlideSamples],
        views: Sequence[SlideViews],
        settings: ExpressionBatchSettings,
        seed: int,
        *,
        shuffle_labels: bool = False,
    ) -> None:
        if not samples or len(samples) != len(views):
            raise ValueError(f"{len(samples)} slides with samples and {len(views)} with views")
        if len({(one.kind, one.genes, one.bins) for one in samples}) > 1:
            raise ValueError("the slides differ in kind, genes or size of a sample")
        self.samples, self.views, self.settings, self.seed = tuple(samples), tuple(views), settings, seed
        self.kind = samples[0].kind
        self._all = [(number, place) for number, one in enumerate(samples) for place in range(len(one))]
        self._order = Order(len(self._all), seed)
        judged = np.cumsum([one.judged for one in samples], dtype=np.float64)
        self._share = judged / judged[-1]
        self._labels = _exchanged(len(self._all), seed) if shuffle_labels else None

    def __len__(self) -> int:
        """Tiles that cover the tissue, or spots."""
        return len(self._all)

    @property
    def samples_per_epoch(self) -> int:
        return self.settings.samples_per_epoch or len(self)

    def positions(self, step: int, rank: int = 0, world_size: int = 1) -> range:
        """Positions of a rank's share of a step; the ranks' shares follow each other."""
        batch = self.settings.batch_size
        return range(step * batch + rank * batch // world_size, step * batch + (rank + 1) * batch // world_size)

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> Batch:
        """The rank's share of the batch of a step.

        Returns:
            view0, view1, ...: float32 (B, D_v, t_v, t_v); seen0, seen1, ...: bool (B, t_v, t_v).
            Of bins: counts float32 (B, G, n, n), mask bool (B, n, n), library float32 (B, n, n).
            Of spots: spots float32 (B, G), disk float32 (B, n, n), library float32 (B,).
            slide: int64 (B,) number of the slide; position: int64 (B,).

        Raises:
            LamellaError: Features cannot be read; nothing is put in their place.
        """
        return self.at(self.positions(step, rank, world_size))

    def at(self, positions: Sequence[int]) -> Batch:
        """The samples of some positions; see `batch`."""
        drawn = [self._drawn(position) for position in positions]
        rows = [self._row(one) for one in drawn]
        batch = {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}
        batch["slide"] = torch.tensor([one.slide for one in drawn])
        batch["position"] = torch.tensor(list(positions))
        return batch

    def _row(self, one: _Drawn) -> dict[str, np.ndarray]:
        own, labels = self.samples[one.slide], self.samples[one.label_slide]
        features, seen = self.views[one.slide].at(own.grid, *one.centre_rc, own.bins)
        row = {f"view{number}": turned(each, one.turn) for number, each in enumerate(features)}
        row |= {f"seen{number}": turned(each, one.turn) for number, each in enumerate(seen)}
        values, where = labels.sample(*one.label_rc)
        library = labels.library(*one.label_rc)
        if self.kind == "spot":
            return row | {"spots": values, "disk": turned(where, one.turn), "library": np.asarray(library)}
        return row | {
            "counts": turned(values, one.turn),
            "mask": turned(where, one.turn),
            "library": turned(library, one.turn),
        }

    def _drawn(self, position: int) -> _Drawn:
        rng = np.random.default_rng((_TURN, position, 0, self.seed))
        turn = int(rng.integers(8)) if self.settings.augment else 0
        if self.kind == "bin" and self.settings.centres == "random" and self._labels is None:
            rng = np.random.default_rng((_PLACE, position, 0, self.seed))
            slide = int(np.searchsorted(self._share, rng.random(), side="right"))
            centre = self.samples[slide].random_centre(rng)
            return _Drawn(slide, centre, slide, centre, turn)
        number = self._order.at(position)[1]
        other = number if self._labels is None else int(self._labels[number])
        return _Drawn(*self._where(number), *self._where(other), turn)

    def _where(self, number: int) -> tuple[int, tuple[float, float]]:
        slide, place = self._all[number]
        row, col = self.samples[slide].centres_rc[place]
        return slide, (float(row), float(col))


def turned(values: np.ndarray, turn: int) -> np.ndarray:
    """The last two axes in one of eight orientations: 4 and more are mirrored first, then by quarters of a turn."""
    if turn >= 4:
        values = values[..., ::-1]
    return np.ascontiguousarray(np.rot90(values, turn % 4, axes=(-2, -1)))


def _exchanged(count: int, seed: int) -> np.ndarray:
    """(count,) int64: whose labels each sample gets, never its own where there are two: the next in a random ring."""
    order = np.random.default_rng((_SHUFFLE, 0, 0, seed)).permutation(count)
    labels = np.empty(count, np.int64)
    labels[order] = np.roll(order, -1)
    return labels
