"""What is asked of every predictor of a segmentation: how each number comes from the counts, and how to read it.

Letters: N images, S weightings of the images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lamella.metrics.report import Better
from lamella.metrics.resamples import WeightedStatistic
from lamella.metrics.segments.boundary import F1, HD95
from lamella.metrics.segments.confusion import (
    any_tissue_dice,
    class_counts,
    dice_per_class,
    iou_per_class,
    mean_of_present,
    precision_per_class,
    present,
    recall_per_class,
)
from lamella.metrics.segments.objects import ALL, FOUND, size_names
from lamella.metrics.segments.scored import Scored, SegmentStudy

MEAN_DICE, MEAN_IOU = "mean per-class Dice", "mean per-class IoU"
MEAN_IOU_ALL = "mean IoU of all classes, background included"
MEAN_PRECISION, MEAN_RECALL = "mean per-class precision", "mean per-class recall"
IMAGE_DICE = "per-class Dice of an image, mean over images"
ANY_TISSUE = "any-tissue Dice (background against everything; says nothing about classes)"
POOLED, PER_IMAGE = "all pixels pooled", "per image"

Values = Callable[[Scored], np.ndarray]
"""Counts to a number for each image, (N,), NaN where undefined."""


def _silent(scored: Scored) -> str:
    return ""


@dataclass(frozen=True)
class Measure:
    """A number asked of every predictor.

    Attributes:
        name: In the table.
        probe: Over what it is taken.
        better: Which direction is good.
        statistic: Counts to a function of the images' weights.
        needs: Which counts.
        bounds: Smallest and largest value.
        note: What is said beside a predictor's number.
        everyone: Whether the constant answers have rows too; the best of them is the baseline either way.
        n: How many are counted, where that is not images.
    """

    name: str
    probe: str
    better: Better
    statistic: Callable[[Scored], WeightedStatistic]
    needs: Literal["matrices", "boundaries", "objects"] = "matrices"
    bounds: tuple[float, float] = (0.0, 1.0)
    note: Callable[[Scored], str] = _silent
    everyone: bool = False
    n: int | None = None

    def of(self, scored: Scored) -> WeightedStatistic | None:
        """The statistic of a predictor; None where its counts were not made."""
        return None if getattr(scored, self.needs) is None else self.statistic(scored)


def measures_of(study: SegmentStudy) -> list[Measure]:
    """Everything that can be asked of the judged predictor's counts, in the order of the table."""
    judged = study.scored[study.judged]
    found = [*overlaps(study)]
    if judged.boundaries is not None:
        found += _boundaries(study)
    if judged.objects is not None:
        found += _objects(study, judged.objects)
    return [*found, *_false_positives(study, judged)]


def overlaps(study: SegmentStudy) -> Iterator[Measure]:
    """Dice and IoU: the mean over the classes, any tissue, each class, and the mean over images."""
    background = study.background

    def count(scored: Scored) -> str:
        shown = int(present(dice_per_class(scored.matrices.sum(0)), background))
        return f"n_present: {shown} of {len(study.tissues)} classes"

    weak = study.protocol.task == "weak"
    for text, value in ((MEAN_DICE, dice_per_class), (MEAN_IOU, iou_per_class)):
        everyone = weak or text == MEAN_DICE
        yield Measure(text, POOLED, "higher", _pooled(_mean(value, background)), note=count, everyone=everyone)
    if weak:
        yield from _weak_means(study)
    if background is not None:
        any_tissue = _pooled(lambda sums: any_tissue_dice(sums, background))
        same = "one tissue class: the same as its Dice" if len(study.tissues) == 1 else ""
        yield Measure(ANY_TISSUE, POOLED, "neither", any_tissue, note=lambda scored: same, everyone=True)
    for number, name in study.tissues:
        yield Measure(f"Dice of {name}", POOLED, "higher", _pooled(_column(dice_per_class, number)), everyone=True)
        yield Measure(f"IoU of {name}", POOLED, "higher", _pooled(_column(iou_per_class, number)))
    yield per_image(
        IMAGE_DICE,
        "higher",
        lambda scored: mean_of_present(dice_per_class(scored.matrices), background),
        note=lambda values_N: spread(values_N, study.items),
        everyone=True,
    )


def _weak_means(study: SegmentStudy) -> Iterator[Measure]:
    """What papers on weak labels state beside the mean IoU of the tissues."""
    if study.background is not None:
        yield Measure(MEAN_IOU_ALL, POOLED, "higher", _pooled(_mean(iou_per_class, None)), everyone=True)
    for text, value in ((MEAN_PRECISION, precision_per_class), (MEAN_RECALL, recall_per_class)):
        yield Measure(text, POOLED, "higher", _pooled(_mean(value, study.background)))


def per_image(
    name: str,
    better: Better,
    values: Values,
    *,
    needs: Literal["matrices", "boundaries", "objects"] = "matrices",
    bounds: tuple[float, float] = (0.0, 1.0),
    note: Callable[[np.ndarray], str] | None = None,
    everyone: bool = False,
) -> Measure:
    """The mean of a number over the images in which it is defined."""
    said = note or defined

    def statistic(scored: Scored) -> WeightedStatistic:
        value_N = values(scored)
        there_N = np.isfinite(value_N)
        return _share(np.where(there_N, value_N, 0), there_N.astype(np.float64))

    return Measure(
        name, PER_IMAGE, better, statistic, needs, bounds, lambda scored: said(values(scored)), everyone=everyone
    )


def defined(value_N: np.ndarray) -> str:
    """`defined in 37 of 110 images`."""
    return f"defined in {int(np.isfinite(value_N).sum())} of {len(value_N)} images"


def spread(value_N: np.ndarray, items: Sequence[str] | np.ndarray) -> str:
    """`defined in 110 of 110 images; sd 0.08, median 0.91, worst 0.42 (testA_3)`."""
    there = np.flatnonzero(np.isfinite(value_N))
    if not len(there):
        return defined(value_N)
    values = value_N[there]
    worst = items[there[int(values.argmin())]]
    return (
        f"{defined(value_N)}; sd {values.std():.2f}, median {np.median(values):.2f}, worst {values.min():.2f} ({worst})"
    )


def _boundaries(study: SegmentStudy) -> Iterator[Measure]:
    kinds: tuple[tuple[str, int, Better, float], ...] = (
        (f"boundary F1 within {study.tolerance_um:g} µm of", F1, "higher", 1.0),
        ("HD95 in µm of", HD95, "lower", study.longest_um),
    )
    for text, which, better, most in kinds:
        for number, name in study.tissues:
            values = _boundary(number, which)
            yield per_image(f"{text} {name}", better, values, needs="boundaries", bounds=(0.0, most))


def _boundary(number: int, which: int) -> Values:
    def of(scored: Scored) -> np.ndarray:
        assert scored.boundaries is not None
        return scored.boundaries[:, number, which]

    return of


def _objects(study: SegmentStudy, counts_NCK2: np.ndarray) -> Iterator[Measure]:
    for number, name in study.tissues:
        for size, text in enumerate(size_names(study.sizes_um2)):
            total = int(counts_NCK2[:, number, size, ALL].sum())
            if total:
                yield Measure(
                    f"recall of {name} objects {text}",
                    "objects, half of one found",
                    "higher",
                    _recall(number, size),
                    "objects",
                    n=total,
                )


def _recall(number: int, size: int) -> Callable[[Scored], WeightedStatistic]:
    def of(scored: Scored) -> WeightedStatistic:
        assert scored.objects is not None
        return _share(scored.objects[:, number, size, FOUND], scored.objects[:, number, size, ALL])

    return of


def _false_positives(study: SegmentStudy, judged: Scored) -> Iterator[Measure]:
    for number, name in study.tissues:
        values = _called_where_absent(number)
        if np.isfinite(values(judged)).any():
            text = f"false positives: share of an image without {name} that is called {name}"
            yield per_image(text, "lower", values, note=_alarms)


def _called_where_absent(number: int) -> Values:
    def of(scored: Scored) -> np.ndarray:
        """(N,) share of the labelled pixels that were called so, of images without the class; NaN of the others."""
        own_N, called_N = class_counts(scored.matrices)[:, number, 1:].T
        labelled_N = scored.matrices.sum((1, 2))
        asked_N = (own_N == 0) & (labelled_N > 0)
        return np.divide(called_N, labelled_N, out=np.full(len(own_N), np.nan), where=asked_N)

    return of


def _alarms(share_N: np.ndarray) -> str:
    there = share_N[np.isfinite(share_N)]
    return f"absent from {len(there)} images; called in {int((there > 0).sum())} of them"


# ---- arithmetic ------------------------------------------------------------------------------------------------------


def _pooled(value: Callable[[np.ndarray], np.ndarray]) -> Callable[[Scored], WeightedStatistic]:
    return lambda scored: lambda weights_SN: value(np.tensordot(weights_SN, scored.matrices, axes=1))


def _mean(value: Callable[[np.ndarray], np.ndarray], background: int | None) -> Callable[[np.ndarray], np.ndarray]:
    return lambda sums: mean_of_present(value(sums), background)


def _column(value: Callable[[np.ndarray], np.ndarray], number: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda sums: value(sums)[..., number]


def _share(top_N: np.ndarray, bottom_N: np.ndarray) -> WeightedStatistic:
    def of(weights_SN: np.ndarray) -> np.ndarray:
        top, bottom = weights_SN @ top_N, weights_SN @ bottom_N
        return np.divide(top, bottom, out=np.full(len(bottom), np.nan), where=bottom > 0)

    return of
