"""Segmentation and detection as table rows: every encoder's head, the best constant answer, the differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from lamella.metrics.comparison import Asked, Comparison
from lamella.metrics.detection import RATES, RULE, sensitivity
from lamella.metrics.dice import dice, mean_dice, pooled_dice
from lamella.metrics.image_study import ImageAnswer
from lamella.metrics.report import Reference, Row
from lamella.metrics.resamples import Resamples, WeightedStatistic
from lamella.metrics.segmented import Segmented
from lamella.metrics.study import CannotAsk

SEGMENTATION, DETECTION = "Segmentation", "Detection"
MEANINGS = {
    SEGMENTATION: "A small head on frozen tokens labels every pixel of images whose groups it never saw, on the mask's "
    "own grid. Dice is pooled over all pixels of all images, and averaged over images; an image in which a class is "
    "neither true nor predicted has no Dice of it and is left out, not counted as 1.",
    DETECTION: f"Share of lesions found at so many false alarms an image; {RULE}. Candidates are connected components "
    "of the segmentation above a probability of 0.5 (lower where it stays below), ranked by their largest.",
}


@dataclass(frozen=True)
class MaskStudy:
    """What every head did on the same judged rows.

    Attributes:
        done: Encoder name -> replicates; the judged one first.
        constants: (C, N, C, 3) counts of the constant answers.
        class_names: C.
        items: (N,) ids of the judged rows.
        groups: (N,) their groups.
        head: What the heads are called.
    """

    done: Mapping[str, Sequence[Segmented]]
    constants: np.ndarray
    class_names: tuple[str, ...]
    items: np.ndarray
    groups: np.ndarray
    head: str
    twin: str | None
    noun: str
    seed: int = 0

    def comparison(self, question: str) -> Comparison:
        resamples = Resamples(self.groups, seed=self.seed)
        return Comparison(question, resamples, next(iter(self.done)), self.twin, self.noun)


def answer_segmentation(study: MaskStudy) -> ImageAnswer:
    """Dice of each class, pooled and per image, and their mean over the classes.

    Raises:
        CannotAsk: No class occurs in a judged mask.
    """
    present = study.constants[0, :, :, 1].sum(0) > 0
    if not present.any():
        raise CannotAsk("no class occurs in any judged mask")
    columns = np.flatnonzero(present).tolist()
    names = [study.class_names[column] for column in columns]
    comparison = study.comparison(SEGMENTATION)
    rows: list[Row] = []
    measures: list[tuple[str, Callable[[np.ndarray], WeightedStatistic]]] = []
    if len(columns) > 1:
        measures.append(("Dice, mean of the classes", lambda counts: _mean([pooled_dice(counts, c) for c in columns])))
    for column, name in zip(columns, names, strict=True):
        measures.append((f"Dice, {name}", partial(pooled_dice, column=column)))
        measures.append((f"Dice per image, {name}", partial(mean_dice, column=column)))
    first = None
    for name, measure in measures:
        constant = max(float(measure(each)(np.ones((1, len(each))))[0]) for each in study.constants)
        asked = Asked(name, Reference("best constant", constant))
        first = first or asked
        found = {
            encoder: comparison.resamples.of([measure(one.counts) for one in each])
            for encoder, each in study.done.items()
        }
        notes = {encoder: each[0].note for encoder, each in study.done.items()}
        rows += comparison.rows(asked, study.head, found, notes=notes)
    assert first is not None
    gaps, conclusions = comparison.differences(first, study.head)
    absent = [name for name, there in zip(study.class_names, present, strict=True) if not there]
    notes = [f"{SEGMENTATION}: {', '.join(absent)} occurs in no judged mask and is in no mean"] if absent else []
    for column, name in zip(columns, names, strict=True):
        counts = next(iter(study.done.values()))[0].counts
        empty = int((~np.isfinite(dice(counts[:, column]))).sum())
        if empty:
            notes.append(
                f"{SEGMENTATION}: {name} is neither true nor predicted in {empty} of {len(counts)} {study.noun}"
            )
    return ImageAnswer((*gaps, *rows), tuple(conclusions), tuple(notes), tables={"dice": _table(study, columns)})


def answer_detection(study: MaskStudy) -> ImageAnswer:
    """Sensitivity at several rates of false alarms.

    Raises:
        CannotAsk: There is no lesion.
    """
    first = next(iter(study.done.values()))[0]
    lesions = sum(len(image.lesions) for image in first.found)
    if not lesions:
        raise CannotAsk("no judged item has a lesion")
    comparison = study.comparison(DETECTION)
    rows: list[Row] = []
    table, gaps, conclusions = [], [], []
    for rate in RATES:
        asked = Asked(f"sensitivity at {rate:g} false alarms an image", Reference("no candidates", 0.0))
        found = {
            encoder: comparison.resamples.of([partial(sensitivity, one.found, rate) for one in each])
            for encoder, each in study.done.items()
        }
        made = comparison.rows(asked, study.head, found)
        rows += made
        table += [
            {
                "encoder": row.encoder, "false_alarms_per_image": rate, "sensitivity": row.estimate.value,
                "low": row.estimate.low, "high": row.estimate.high, "lesions": lesions,
            }
            for row in made
        ]  # fmt: skip
        if rate == RATES[1]:
            gaps, conclusions = comparison.differences(asked, study.head)
    notes = (f"{DETECTION}: {lesions} lesions in {len(first.found)} {study.noun}; {RULE}",)
    return ImageAnswer((*gaps, *rows), tuple(conclusions), notes, tables={"froc": table})


def _mean(statistics: Sequence[WeightedStatistic]) -> WeightedStatistic:
    return lambda weights_SN: np.mean([statistic(weights_SN) for statistic in statistics], axis=0)


def _table(study: MaskStudy, columns: Sequence[int]) -> list[dict[str, object]]:
    """Dice of every judged item by each encoder's first replicate; empty where undefined."""
    lines: list[dict[str, object]] = []
    for encoder, (first, *_) in study.done.items():
        each = dice(first.counts)
        for number, item in enumerate(study.items):
            for column in columns:
                value = each[number, column]
                lines.append(
                    {
                        "encoder": encoder,
                        "item_id": item,
                        "group": study.groups[number],
                        "class": study.class_names[column],
                        "dice": round(float(value), 6) if np.isfinite(value) else "",
                        "true_pixels": int(first.counts[number, column, 1]),
                    }
                )
    return lines
