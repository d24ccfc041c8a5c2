"""From counts to the rows of a segmentation's table: the judged model, its baselines, their differences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from lamella.metrics.bootstrap import Estimate
from lamella.metrics.compared import verdict
from lamella.metrics.report import Reference, Row
from lamella.metrics.segments.boundary import F1, HD95
from lamella.metrics.segments.confusion import dice_per_class, iou_per_class, mean_of_present, present
from lamella.metrics.segments.measures import (
    IMAGE_DICE,
    MEAN_DICE,
    MEAN_IOU,
    POOLED,
    Measure,
    measures_of,
    overlaps,
    spread,
)
from lamella.metrics.segments.protocol import Protocol
from lamella.metrics.segments.scored import Scored, SegmentStudy

EXCHANGED = "its predictions of other groups' images"
_NO_CONSTANT = "nothing called"


def segment_rows(study: SegmentStudy) -> tuple[list[Row], list[str]]:
    """All rows, and sentences: the spread over the images, and the judged model against each other predictor."""
    values = mean_of_present(dice_per_class(study.scored[study.judged].matrices), study.background)
    differences, sentences = _differences(study)
    rows = [row for measure in measures_of(study) for row in _rows(study, measure)]
    return [*differences, *rows], [f"{study.judged}, Dice of an image: {spread(values, study.items)}.", *sentences]


def image_table(study: SegmentStudy) -> list[dict[str, object]]:
    """One line for each predictor and image, for a CSV: Dice of every class, their mean, outlines where asked."""
    lines = []
    for name, scored in study.scored.items():
        dice_NC = dice_per_class(scored.matrices)
        mean_N, present_N = mean_of_present(dice_NC, study.background), present(dice_NC, study.background)
        for row, (item, group) in enumerate(zip(study.items, study.groups, strict=True)):
            line: dict[str, object] = {"item_id": item, "group": group, "predictor": name}
            line |= {"mean_dice": _cell(mean_N[row]), "n_present": int(present_N[row])}
            line |= {f"dice {label}": _cell(dice_NC[row, number]) for number, label in enumerate(study.classes)}
            if study.protocol.task == "weak":
                iou_NC = iou_per_class(scored.matrices[row : row + 1])
                line |= {f"iou {label}": _cell(iou_NC[0, number]) for number, label in enumerate(study.classes)}
            if scored.boundaries is not None:
                for number, label in study.tissues:
                    line[f"boundary_f1 {label}"] = _cell(scored.boundaries[row, number, F1])
                    line[f"hd95_um {label}"] = _cell(scored.boundaries[row, number, HD95])
            lines.append({**line, "protocol": study.protocol_of(name).hash})
    return lines


def _rows(study: SegmentStudy, measure: Measure) -> Iterator[Row]:
    """One row for each predictor whose number is defined."""
    baseline, control = _baseline(study, measure), None
    if study.control is not None:
        value = _point(study, measure, study.control)
        control = Reference(EXCHANGED, value) if np.isfinite(value) else None
    for name, scored in study.scored.items():
        statistic = measure.of(scored)
        if statistic is None or (name in study.constants and not measure.everyone):
            continue
        found = study.resamples.of([statistic])
        if not np.isfinite(found.point_R).all():
            continue
        estimate = study.resamples.estimate(found, measure.bounds)
        beside = control if name == study.judged else None
        under = study.protocol_of(name)
        yield _row(study, measure, name, estimate, baseline, beside, measure.note(scored), under)


def _row(
    study: SegmentStudy,
    measure: Measure,
    name: str,
    estimate: Estimate,
    baseline: Reference,
    control: Reference | None = None,
    note: str = "",
    under: Protocol | None = None,
) -> Row:
    return Row(
        study.question,
        measure.name,
        measure.probe,
        name,
        estimate if measure.n is None else replace(estimate, n=measure.n),
        baseline,
        measure.better,
        control,
        note,
        under or study.protocol,
    )


def _baseline(study: SegmentStudy, measure: Measure) -> Reference:
    """The best constant answer."""
    values = {name: _point(study, measure, study.scored[name]) for name in study.constants}
    values = {name: value for name, value in values.items() if np.isfinite(value)}
    if not values:
        return Reference(_NO_CONSTANT, 0.0)
    best = (min if measure.better == "lower" else max)(values, key=lambda name: values[name])
    return Reference(best, values[best])


def _point(study: SegmentStudy, measure: Measure, scored: Scored) -> float:
    """The number on the images as they are; NaN where it is undefined."""
    statistic = measure.of(scored)
    return float("nan") if statistic is None else float(statistic(np.ones((1, len(study.items))))[0])


def _differences(study: SegmentStudy) -> tuple[list[Row], list[str]]:
    """The judged model minus each other predictor on the same resamples."""
    rows, sentences = [], []
    # Weakly trained models are compared by IoU in the literature.
    said = MEAN_IOU if study.protocol.task == "weak" else MEAN_DICE
    compared = {MEAN_DICE, IMAGE_DICE, said}
    for measure in overlaps(study):
        if measure.name not in compared:
            continue
        mine = study.resamples.of([measure.statistic(study.scored[study.judged])])
        for other, scored in study.scored.items():
            if other == study.judged or (study.against is not None and other not in study.against):
                continue
            found = mine - study.resamples.of([measure.statistic(scored)])
            if not np.isfinite(found.point_R).all():
                continue
            estimate = study.resamples.estimate(found, (-1.0, 1.0))
            difference = replace(measure, name=f"difference: {measure.name}", better="higher")
            name = f"{study.judged} minus {other}"
            none, under = Reference("no difference", 0.0), study.protocol_of(study.judged, other)
            rows.append(_row(study, difference, name, estimate, none, under=under))
            if measure.name == said:
                reading = f"{said} ({POOLED}; higher is better)"
                sentences.append(
                    verdict(study.question, reading, "higher", study.judged, other, estimate, twin=False, noun="images")
                )
    return rows, sentences


def _cell(value: float) -> float | None:
    return None if not np.isfinite(value) else round(float(value), 6)
