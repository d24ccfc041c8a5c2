"""Predictions of all images, and the counts that every table of a segmentation is made of.

Predictions are written to files as they are made: a run that was cut short goes on from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lamella.errors import ImageError
from lamella.formats.label_values import NOT_LABELLED
from lamella.imaging.datasets.collection import Item
from lamella.metrics.segments.boundary import Outlines
from lamella.metrics.segments.confusion import confusion_of
from lamella.metrics.segments.objects import TrueObjects
from lamella.metrics.segments.scored import Scored
from lamella.models.dense_contract import DenseModel
from lamella.verbs.evaluation.colour_baseline import colour_rules
from lamella.verbs.evaluation.scoring import Scoring
from lamella.verbs.evaluation.segment_images import (
    JudgedImage,
    predicted_channels,
    read_channels,
    write_channels,
)
from lamella.verbs.progress import progress

COLOUR = "colour alone (logistic regression)"


def predict(scoring: Scoring) -> dict[str, str]:
    """Predict every item whose prediction is not there yet; item id -> error of those that could not be read.

    Items of one model follow each other, so that no more models are held than judge one image together.
    """
    failed: dict[str, str] = {}
    held: dict[int, DenseModel] = {}
    items = sorted(scoring.judges.judged, key=lambda item: scoring.judges.judged[item])  # stable: the order stays
    for item in progress(items, "predict"):
        numbers = scoring.judges.judged[item]
        try:
            image = scoring.image(item)
            if not _labelled(image):
                raise ImageError(item.mask or item.item_id, "its mask has no labelled pixel", "Leave it out.")
            if read_channels(scoring.place(item), image.channels_YX.shape) is not None:
                continue
            held = {number: held.get(number) or scoring.load(scoring.judges.folders[number]) for number in numbers}
            channels = predicted_channels(
                list(held.values()), image, scoring.collection, item, scoring.blend, scoring.batch_size
            )
        except ImageError as error:
            failed[item.item_id] = str(error)
            continue
        write_channels(channels, scoring.place(item))
    return failed


@dataclass(frozen=True)
class Counted:
    """What all predictors did on the judged items, in one order.

    Attributes:
        scored: Name -> counts; the judged model first.
        constants: Names of the constant answers.
        control: The judged model's predictions of other groups' images.
        spacings_um: (N, 2); NaN where nobody states one.
        longest_um: Diagonal of the largest image; NaN where a spacing is missing.
        notes: On the baselines.
    """

    scored: dict[str, Scored]
    constants: tuple[str, ...]
    control: Scored | None
    spacings_um: np.ndarray
    longest_um: float
    notes: tuple[str, ...]


def count(scoring: Scoring, items: Sequence[Item], name: str, *, seed: int) -> Counted:
    """Count the predictions of every item, and those of the baselines.

    Args:
        scoring: How.
        items: Judged and predicted, in the order of the table.
        name: Of the judged model.
        seed: Of the colours that are drawn.
    """
    rules, note = colour_rules(scoring, items, seed=seed)
    constants = tuple(f"all {label}" for label in scoring.classes)
    counts: dict[str, list[_Counts]] = {label: [] for label in (name, *((COLOUR,) if rules else ()), *constants)}
    exchanged: list[_Counts] = []
    spacings, longest_um = np.full((len(items), 2), np.nan), 0.0
    partners = _partners(items)
    for row, item in enumerate(progress(items, "score")):
        image = scoring.image(item)
        truth, shape = _Truth(image, scoring), image.channels_YX.shape
        if image.spacing_um is not None:
            spacings[row] = image.spacing_um
        longest_um = max(longest_um, float(np.hypot(*(shape * spacings[row]))))
        counts[name].append(truth.compared(scoring.stored(item, shape)))
        if rules:
            counts[COLOUR].append(truth.compared(rules[item].predict(image.pixels_YXC)))
        for number, label in enumerate(constants):
            counts[label].append(truth.compared(np.full(shape, number, np.uint8)))
        if partners is not None:
            exchanged.append(truth.overlap(_fitted(scoring.stored(partners[row]), shape)))
    return Counted(
        {label: _scored(found) for label, found in counts.items()},
        constants,
        _scored(exchanged) if exchanged else None,
        spacings,
        longest_um if np.isfinite(spacings).all() else np.nan,
        (note,),
    )


class _Truth:
    """One image's truth, made ready once for all predictors."""

    def __init__(self, image: JudgedImage, scoring: Scoring) -> None:
        self._channels, self._count = image.channels_YX, len(scoring.classes)
        self._um = image.spacing_um if scoring.outlines else None
        self._tolerance_um = scoring.tolerance_um
        if self._um is not None:
            self._unknown = self._channels == NOT_LABELLED
            self._outlines = Outlines(self._channels, self._unknown, self._um, self._count)
            area_um2 = self._um[0] * self._um[1]
            self._objects = TrueObjects(self._channels, self._count, area_um2, scoring.sizes_um2, scoring.background)

    def overlap(self, predicted: np.ndarray) -> tuple[np.ndarray, None, None]:
        """The confusion alone."""
        return confusion_of(self._channels, predicted, self._count), None, None

    def compared(self, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Confusion, boundary scores and objects found; the latter two None where a pixel's size is unknown."""
        matrix, *_ = self.overlap(predicted)
        if self._um is None:
            return matrix, None, None
        called = Outlines(predicted, self._unknown, self._um, self._count)
        return matrix, self._outlines.scores(called, self._tolerance_um), self._objects.found(predicted)


_Counts = tuple[np.ndarray, np.ndarray | None, np.ndarray | None]


def _scored(counts: Sequence[_Counts]) -> Scored:
    matrices, boundaries, objects = zip(*counts, strict=True)
    return Scored(np.stack(matrices), _stacked(boundaries), _stacked(objects))


def _stacked(found: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """None where any image has none: a mean over the rest would be of other images than the rest of the table."""
    there = [each for each in found if each is not None]
    return np.stack(there) if there and len(there) == len(found) else None


def _labelled(image: JudgedImage) -> bool:
    return bool((image.channels_YX != NOT_LABELLED).any())


def _partners(items: Sequence[Item]) -> list[Item] | None:
    """For each item the next one of another group, round the end; None where there is one group."""
    if len({item.group for item in items}) < 2:
        return None
    count = len(items)
    return [
        next(other for step in range(1, count) if (other := items[(row + step) % count]).group != item.group)
        for row, item in enumerate(items)
    ]


def _fitted(channels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Another image's prediction stretched over an image, by nearest pixels."""
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * old / new).astype(np.int64), old - 1)
        for old, new in zip(channels.shape, shape, strict=True)
    )
    return channels[np.ix_(rows, columns)]
