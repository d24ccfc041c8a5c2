"""From the counts of a segmenter to results.md, results.json, a table of images, and pictures of what went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lamella import __version__
from lamella.config import Request
from lamella.formats.label_values import NOT_LABELLED
from lamella.imaging.datasets.collection import Item
from lamella.metrics.image_study import ImageAnswer
from lamella.metrics.report import Report, Unasked
from lamella.metrics.segments.confusion import dice_per_class, mean_of_present
from lamella.metrics.segments.protocol import NO_PROMPT, Protocol, split_digest
from lamella.metrics.segments.scored import SegmentStudy
from lamella.metrics.segments.tables import image_table, segment_rows
from lamella.models.dense_contract import DenseContract
from lamella.verbs.evaluation.report import cautions, command_of, finish, write_tables
from lamella.verbs.evaluation.scoring import PREDICTIONS, Scoring
from lamella.verbs.evaluation.segment_counts import Counted
from lamella.verbs.evaluation.segment_settings import Config
from lamella.view.confusion import draw_confusion
from lamella.view.panels import write_sheet
from lamella.view.segment_overlays import Overlay, draw_segment_overlays

CONFUSION, OVERLAYS, IMAGES = "confusion.png", "best_median_worst.png", "segment_images"
_SAME_MPP = 1e-3  # relative; spacings that differ by less are one


@dataclass(frozen=True)
class JudgedStudy:
    """What a finished evaluation rests on."""

    scoring: Scoring
    counted: Counted
    items: tuple[Item, ...]
    study: SegmentStudy


def study_of_counts(
    scoring: Scoring, counted: Counted, items: Sequence[Item], name: str, config: Config
) -> SegmentStudy:
    """The study of all predictors under its protocol."""
    first = counted.spacings_um.ravel()[0]
    same = np.isfinite(first) and np.allclose(counted.spacings_um, first, rtol=_SAME_MPP, atol=0)
    protocol = Protocol(
        task="automatic",
        oracle=False,
        prompt=NO_PROMPT,
        ignored=(f"{NOT_LABELLED} (not labelled)",),
        split=split_digest((item.item_id, item.group) for item in items),
        classes=scoring.classes,
        mpp=round(float(first), 4) if same else None,
        scored="every labelled pixel of the image's own grid",
        n=len(items),
    )
    return SegmentStudy(
        title=scoring.collection.name,
        judged=name,
        scored=counted.scored,
        constants=counted.constants,
        items=np.array([item.item_id for item in items]),
        groups=np.array([item.group for item in items]),
        classes=scoring.classes,
        background=scoring.background,
        protocol=protocol,
        tolerance_um=config.tolerance_um,
        longest_um=counted.longest_um,
        sizes_um2=config.object_um2,
        control=counted.control,
        seed=config.seed,
    )


def write_report(
    judged: JudgedStudy, contract: DenseContract, config: Config, request: Request, failed: dict[str, str]
) -> int:
    """Write everything and say what it says; the exit status."""
    study, scoring, out = judged.study, judged.scoring, judged.scoring.folder
    rows, sentences = segment_rows(study)
    files = write_tables(out, [ImageAnswer((), tables={IMAGES: image_table(study)})])
    pictures = [*_drawn_confusion(judged), *_drawn_overlays(judged, config.overlays)]
    collection = scoring.collection
    groups, noun = len(np.unique(study.groups)), collection.group_noun
    unasked = _unasked(study, config)
    report = Report(
        title=f"How well does {study.judged} segment {collection.name}?",
        rows=rows,
        meanings={study.question: _MEANING},
        warnings=scoring.judges.warnings,
        conclusions=sentences,
        unasked=unasked,
        notes=[
            *scoring.judges.notes,
            *collection.notes,
            *judged.counted.notes,
            *_grid_notes(contract, config),
            *cautions(groups, noun),
        ],
        facts={
            "data set": collection.name,
            "images": f"{len(study.items)} judged, of {len(collection)} with masks",
            "groups": f"{groups} judged (by {noun})",
            "licence of the data": collection.licence or "not stated",
            "licence of the model": contract.licence,
            "predictions": f"{PREDICTIONS}/*.png, value = channel",
            "version": __version__,
        },
        command=command_of(request),
        pictures=pictures,
    )
    return finish(report, out, [*files, *(out / file for file, _ in pictures)], failed, "images")


_MEANING = (
    "Every pixel gets a class from the model alone. Dice and IoU are of all judged pixels together, or of each image "
    "and then averaged, as the row says; a class that is in neither truth nor prediction is left out, one that was "
    "missed counts 0. The baseline is the best of the answers that give every pixel one class."
)


def _grid_notes(contract: DenseContract, config: Config) -> list[str]:
    mpp = contract.mpp
    shown = "as it is (the model states no mpp)" if mpp is None else f"at the model's {mpp:g} µm/px"
    notes = [
        f"The model is shown each image {shown}; its probabilities are brought back to the image's own grid, where the "
        "class is taken and judged"
    ]
    if config.blend.tta != "none":
        notes.append(f"Test-time augmentation: {config.blend.tta}, probabilities averaged")
    return notes


def _unasked(study: SegmentStudy, config: Config) -> list[Unasked]:
    found = []
    if study.scored[study.judged].boundaries is None:
        reason = "set outlines=true" if not config.outlines else "an image states no spacing; dataset.mpp=... states it"
        found.append(Unasked("boundaries and objects", reason))
    found.append(
        Unasked(
            "zero-shot", "SAM 2 finds regions without classes, CLIP names regions it is given: neither is a segmenter"
        )
    )
    if study.background is None:
        found.append(Unasked("any-tissue Dice", "the masks have no background: every labelled pixel is some tissue"))
    return found


def _drawn_confusion(judged: JudgedStudy) -> list[tuple[str, str]]:
    study, spacings = judged.study, judged.counted.spacings_um
    matrix = study.scored[study.judged].matrices.sum(0)
    area_mm2 = study.protocol.mpp and float(spacings[0].prod()) * 1e-6
    title = f"{study.judged}: {len(study.items)} images, all pixels pooled"
    draw_confusion(matrix, study.classes, judged.scoring.folder / CONFUSION, title=title, area_px_mm2=area_mm2)
    return [(CONFUSION, "Confusion of pixels: of each true class (row), the share that was called each class")]


def _drawn_overlays(judged: JudgedStudy, each: int) -> list[tuple[str, str]]:
    """The best, median and worst images by their mean per-class Dice."""
    study, scoring = judged.study, judged.scoring
    dice_N = mean_of_present(dice_per_class(study.scored[study.judged].matrices), study.background)
    order = [row for row in np.argsort(-dice_N, kind="stable") if np.isfinite(dice_N[row])]
    overlays = []
    for row, rank in chosen_ranks(len(order), each):
        number = order[row]
        item = judged.items[number]
        image = scoring.image(item)
        um = None if image.spacing_um is None else image.spacing_um[1]
        predicted = scoring.stored(item, image.channels_YX.shape)
        name = f"{rank}: {item.item_id} ({scoring.collection.group_noun} {item.group})"
        caption = f"mean per-class Dice {dice_N[number]:.2f}; rank {row + 1} of {len(order)}"
        overlays.append(Overlay(image.pixels_YXC, image.channels_YX, predicted, name, caption, um))
    if not overlays:
        return []
    facts = [f"By the mean per-class Dice of an image, of {len(order)} images in which it is defined."]
    heading = f"{study.judged} on {scoring.collection.name}"
    page = draw_segment_overlays(overlays, study.classes, study.background, heading=heading, facts=facts)
    write_sheet(page, scoring.folder / OVERLAYS)
    return [(OVERLAYS, "Best, median and worst images: truth, prediction, errors")]


def chosen_ranks(count: int, each: int) -> list[tuple[int, str]]:
    """(rank, best | median | worst) of the images that are drawn, each once, in order of rank."""
    middle = (count - each) // 2
    wanted = [(rank, "best") for rank in range(each)]
    wanted += [(count - each + rank, "worst") for rank in range(each)]
    wanted += [(middle + rank, "median") for rank in range(each)]
    found: dict[int, str] = {}
    for rank, name in wanted:
        if 0 <= rank < count:
            found.setdefault(rank, name)
    return sorted(found.items())
