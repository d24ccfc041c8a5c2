"""The source's files of stage 4: metrics.json, confusion_matrix.csv, prediction_samples, evaluation_report.txt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lamella.formats.atomic import whole_file, write_json, write_text
from lamella.formats.label_values import NOT_LABELLED
from lamella.formats.tables import write_csv
from lamella.metrics.report import Row, span
from lamella.metrics.segments.confusion import dice_per_class, mean_of_present
from lamella.metrics.segments.measures import MEAN_DICE, MEAN_IOU, MEAN_IOU_ALL, MEAN_PRECISION, MEAN_RECALL
from lamella.metrics.segments.summary import summary
from lamella.slides.slide import open_slide
from lamella.verbs.evaluation.segment_report import chosen_ranks
from lamella.verbs.weak_stages.evaluation_counts import Work, kept_map
from lamella.verbs.weak_stages.evaluation_judged import Judged, judged_truth
from lamella.verbs.weak_stages.evaluation_maps import reduced_pixels, stretched
from lamella.verbs.weak_stages.evaluation_report import weights_sentence
from lamella.verbs.weak_stages.evaluation_studies import Found, Tables
from lamella.view.class_colours import class_table
from lamella.view.confusion import draw_confusion
from lamella.view.panels import write_sheet
from lamella.view.segment_overlays import Overlay, draw_segment_overlays

METRICS, CONFUSION_CSV, REPORT_TXT = "metrics.json", "confusion_matrix.csv", "evaluation_report.txt"
SAMPLES, SAMPLES_CSV, LABELS_CSV = "prediction_samples", "samples.csv", "image_labels.csv"
CONFUSION_PNG, OVERLAYS = "confusion.png", "best_median_worst.png"
# The source's names of the headline numbers -> what they are here.
_HEADLINES = {
    "val_iou": (MEAN_IOU, "iou"),
    "val_dice": (MEAN_DICE, "dice"),
    "val_precision": (MEAN_PRECISION, "precision"),
    "val_recall": (MEAN_RECALL, "recall"),
    "val_f1": (MEAN_DICE, "f1"),
    "val_iou_with_background": (MEAN_IOU_ALL, None),
}
_AVERAGES = ("macro", "weighted", "macro_with_background", "weighted_with_background")
_DRAWN_PX = 1024  # a sample's longer side: a screen's height
_NOT_JUDGED = (255, 255, 255)


def write_metrics(folder: Path, found: Found, tables: Tables) -> Path:
    """metrics.json: the judged row with intervals and baseline, every class, and all other rows."""
    study = tables.weak
    whole = summary(study.scored[study.judged].matrices.sum(0), study.classes, study.background)
    headline: dict[str, Any] = {}
    details: dict[str, Any] = {}
    for name, (measure, key) in _HEADLINES.items():
        if name == "val_iou_with_background" and study.background is None:
            continue
        part = whole["macro_with_background"]["iou"] if key is None else whole["macro"][key]
        headline[name] = part
        row = _row(tables, measure, study.judged)
        details[name] = None if row is None else _detail(row)
    write_json(
        folder / METRICS,
        {
            **headline,
            "per_class_metrics": whole["per_class"],
            **{name: whole[name] for name in _AVERAGES},
            "n_present": f"{whole['n_present']} of {whole['n_classes']} classes; null: in neither truth nor prediction",
            "row": f"{study.judged}: no label at test, no post-processing",
            "judged_part": _part(found),
            "weights": weights_sentence(found),
            "intervals_95": details,
            "rows": {name: _of_row(tables, name) for name in study.scored},
            "protocol": study.protocol.tree(),
        },
    )
    return folder / METRICS


def _part(found: Found) -> str:
    parts = sorted({bag.part or "in no part" for bag in found.bags})
    return f"{', '.join(parts)} ({len(found.bags)} slides); the names begin with val_ as in the source's file"


def _detail(row: Row) -> dict[str, Any]:
    found = row.estimate
    baseline = {"name": row.baseline.name, "value": row.baseline.value}
    return {"low": found.low, "high": found.high, "n": found.n, "groups": found.groups, "baseline": baseline}


def _of_row(tables: Tables, name: str) -> dict[str, Any]:
    study = tables.weak
    whole = summary(study.scored[name].matrices.sum(0), study.classes, study.background)
    return {"told": study.protocol_of(name).prompt, "macro": whole["macro"], "weighted": whole["weighted"]}


def _row(tables: Tables, measure: str, name: str) -> Row | None:
    question = tables.weak.question
    return next(
        (row for row in tables.rows if (row.question, row.measure, row.encoder) == (question, measure, name)), None
    )


def write_confusion(folder: Path, tables: Tables) -> list[Path]:
    """confusion_matrix.csv and its picture: true classes in rows, predicted ones in columns, pixels."""
    study = tables.weak
    matrix = study.scored[study.judged].matrices.sum(0)
    columns = ["true \\ predicted", *study.classes, "not looked at"]
    rows = [
        dict(zip(columns, [name, *map(int, line)], strict=True))
        for name, line in zip(study.classes, matrix, strict=True)
    ]
    write_csv(folder / CONFUSION_CSV, rows, columns)
    title = f"{study.judged}, no label at test: {len(study.items)} slides, all pixels pooled"
    area = (study.protocol.mpp or 0) ** 2 * 1e-6
    draw_confusion(matrix, study.classes, folder / CONFUSION_PNG, title=title, area_px_mm2=area or None)
    return [folder / CONFUSION_CSV, folder / CONFUSION_PNG]


def write_image_labels(folder: Path, found: Found) -> list[Path]:
    """image_labels.csv: what the model says of every whole slide, and what is true; none without weak labels."""
    looked = found.looked[found.judged.name]
    if not np.isfinite(looked[0].probability_M).all():
        return []
    columns = ["slide_id", "group", "class", "probability", "predicted", "true", "true_from"]
    rows = [
        {
            "slide_id": bag.slide_id,
            "group": bag.group,
            "class": name,
            "probability": round(float(each.probability_M[number]), 4),
            "predicted": int(each.probability_M[number] > found.work.settings.label_threshold),
            "true": int(each.true_M[number]),
            "true_from": "label" if each.labelled else "mask",
        }
        for bag, each in zip(found.bags, looked, strict=True)
        for number, name in enumerate(found.work.study.classes)
    ]
    write_csv(folder / LABELS_CSV, rows, columns)
    return [folder / LABELS_CSV]


# ---- text ------------------------------------------------------------------------------------------------------------


def write_text_report(folder: Path, found: Found, tables: Tables) -> Path:
    """evaluation_report.txt: every row with its interval and baseline, then the classes, then the confusion."""
    write_text(folder / REPORT_TXT, "\n".join(_lines(found, tables)) + "\n")
    return folder / REPORT_TXT


def _lines(found: Found, tables: Tables) -> Iterator[str]:
    study = tables.weak
    yield f"{study.question}"
    yield f"{len(study.items)} slides of {len(set(study.groups))} {found.work.study.group_noun}s; {_part(found)}"
    yield f"weights: {weights_sentence(found)}"
    yield f"protocol: {study.protocol.table}"
    for measure in (MEAN_IOU, MEAN_IOU_ALL, MEAN_DICE, MEAN_PRECISION, MEAN_RECALL):
        yield from _measure_lines(tables, measure)
    yield from ("", f"Classes of {study.judged} (no label at test); '-': in neither truth nor prediction")
    whole = summary(study.scored[study.judged].matrices.sum(0), study.classes, study.background)
    yield _cells("", "IoU", "Dice", "precision", "recall", "F1", "true px", "predicted px")
    for name, numbers in whole["per_class"].items():
        yield _cells(name, *(_number(numbers[key]) for key in _KEYS), numbers["true_px"], numbers["predicted_px"])
    for name in _AVERAGES:
        yield _cells(name.replace("_", " "), *(_number(whole[name][key]) for key in _KEYS))
    yield "macro: mean of the tissues; weighted: by their true pixels. F1 of pixels is their Dice."
    yield from ("", "Confusion in pixels, true classes in rows")
    yield _cells("", *study.classes, "not looked at")
    for name, line in zip(study.classes, study.scored[study.judged].matrices.sum(0), strict=True):
        yield _cells(name, *map(int, line))


_KEYS = ("iou", "dice", "precision", "recall", "f1")


def _measure_lines(tables: Tables, measure: str) -> Iterator[str]:
    rows = [row for row in tables.rows if row.measure == measure]
    for question in dict.fromkeys(row.question for row in rows):
        own = [row for row in rows if row.question == question]
        baseline = own[0].baseline
        yield from ("", f"{measure} [95 % interval], {question}; n = {own[0].estimate.n} slides")
        yield f"  baseline {baseline.name}: {baseline.value:.3f}"
        for row in own:
            note = f"  ({row.estimate.note})" if row.estimate.note else ""
            yield f"  {span(row.estimate)}  {row.encoder}{note}"


def _cells(*cells: object) -> str:
    first, *rest = map(str, cells)
    return f"{first:<26}" + "".join(f"{cell:>14}" for cell in rest)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


# ---- pictures --------------------------------------------------------------------------------------------------------


def write_samples(folder: Path, found: Found, tables: Tables, count: int) -> list[tuple[str, str]]:
    """prediction_samples/sample_i_{input,gt,pred}.png, best first, and a page of them; (page, what it shows).

    gt and pred are images of class numbers with a palette: value = channel, 255 where nothing is judged.
    """
    study = tables.weak
    dice_N = mean_of_present(dice_per_class(study.scored[study.judged].matrices), study.background)
    order = [row for row in np.argsort(-dice_N, kind="stable") if np.isfinite(dice_N[row])]
    overlays, lines = [], []
    for number, (place, rank) in enumerate(chosen_ranks(len(order), -(-count // 3))[:count], start=1):
        bag, dice = found.bags[order[place]], float(dice_N[order[place]])
        pixels, truth, called = _drawn(found.work, found.work.judged(bag))
        _write_sample(folder / SAMPLES / f"sample_{number}", pixels, truth, called, found)
        name = f"{rank}: {bag.slide_id} ({found.work.study.group_noun} {bag.group})"
        caption = f"mean per-class Dice {dice:.2f}; rank {place + 1} of {len(order)}"
        um = found.work.judged(bag).frame.size_um[0] / pixels.shape[1]
        overlays.append(Overlay(pixels, truth, called, name, caption, um))
        lines.append({"sample": number, "slide_id": bag.slide_id, "rank": rank, "mean_dice": round(dice, 4)})
    if not overlays:
        return []
    write_csv(folder / SAMPLES / SAMPLES_CSV, lines, list(lines[0]))
    facts = [f"No label at test, no post-processing. By the mean per-class Dice of a slide, of {len(order)} slides."]
    heading = f"{study.judged} on {found.title}"
    page = draw_segment_overlays(overlays, study.classes, study.background, heading=heading, facts=facts)
    write_sheet(page, folder / OVERLAYS)
    return [(OVERLAYS, "Best, median and worst slides: truth, prediction, errors")]


def _drawn(work: Work, judged: Judged) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels, truth and prediction of a slide, small enough for a screen and of one shape."""
    frame = judged.frame
    with open_slide(judged.bag.wsi_path, mpp=judged.bag.mpp_stated) as slide:
        mpp = frame.mpp * max(1.0, max(frame.width_px, frame.height_px) / _DRAWN_PX)
        box_px0 = frame.box_in(slide.frame, frame.bounds_px)
        pixels = reduced_pixels(slide.read(box_px0, mpp).pixels, _DRAWN_PX)
    height, width = pixels.shape[:2]
    step = max(1, max(frame.width_px, frame.height_px) // (2 * _DRAWN_PX))
    truth = np.concatenate([judged_truth(judged, y0, y1)[-y0 % step :: step, ::step] for y0, y1 in judged.bands])
    return pixels, stretched(truth, height, width), stretched(kept_map(work, judged.bag), height, width)


def _write_sample(stem: Path, pixels: np.ndarray, truth: np.ndarray, called: np.ndarray, found: Found) -> None:
    colours, _ = class_table(found.work.study.channels, found.work.study.background)
    colours = colours.copy()
    colours[NOT_LABELLED] = _NOT_JUDGED
    for kind, values in (("input", pixels), ("gt", truth), ("pred", called)):
        image = Image.fromarray(values)
        if kind != "input":
            image.putpalette(colours.ravel().tolist())
        with whole_file(stem.with_name(f"{stem.name}_{kind}.png")) as part:
            image.save(part, format="PNG")
