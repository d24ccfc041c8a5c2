"""What results.md and results.json of stage 4 say around the tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from lamella import __version__
from lamella.metrics.report import Report, Unasked, span
from lamella.metrics.segments.measures import MEAN_IOU
from lamella.verbs.evaluation.report import cautions
from lamella.verbs.weak_stages.evaluation_gates import PREDICTED
from lamella.verbs.weak_stages.evaluation_studies import Found, Tables

_WEAK = (
    "Every pixel gets a class from a model that was trained without masks. Rows differ in what they know of the whole "
    "image: nothing (what a new slide gives), the labels that the model predicts of it, or, named LABEL ORACLE, its "
    "true labels, which nobody has of a new slide: that row is an upper bound of the gate, not a result. The "
    "background competes for every pixel. IoU and Dice are of all judged pixels together, or of each slide and then "
    "averaged, as the row says; a class that is in neither truth nor prediction is left out, one that was missed "
    "counts 0. The baseline is the best of the answers that give every pixel one class."
)
_CRITERIA = {
    "loss": "the image-level loss of the validation slides, no mask",
    "masks": "PIXEL MASKS of the validation slides, which is more than weak supervision",
}
_AUTOMATIC = (
    "Models that were trained with masks, on the same pixels: what the labels of pixels would give. Their numbers are "
    "in a table of their own, because they were paid for with other labels."
)


def report_of(found: Found, tables: Tables, command: str, pictures: Sequence[tuple[str, str]]) -> Report:
    """results.md and results.json."""
    study = found.work.study
    groups = len({bag.group for bag in found.bags})
    meanings = {tables.weak.question: _WEAK}
    if tables.supervised is not None:
        meanings[tables.supervised.question] = _AUTOMATIC
    return Report(
        title=f"How well does {found.judged.name}, trained without masks, segment the slides of {found.title}?",
        rows=tables.rows,
        meanings=meanings,
        warnings=list(_warnings(found)),
        conclusions=[*_headlines(tables), *tables.sentences],
        unasked=list(_unasked(found)),
        notes=[
            *(f"{panel.name}: {text}" for panel in found.panels for text in panel.notes),
            *study.notes,
            *found.notes,
            *_gate_notes(found),
            *_shown_notes(found),
            *cautions(groups, study.group_noun),
        ],
        facts={
            "slides": f"{len(found.bags)} judged, of {sum(bag.mask_path is not None for bag in study.bags)} with masks",
            "groups": f"{groups} judged (by {study.group_noun})",
            "labels of training": f"of each {study.labels_are}",
            "weights": weights_sentence(found),
            **{f"model: {key}": value for key, value in found.judged.facts.items()},
            "version": __version__,
        },
        command=command,
        pictures=pictures,
    )


def _headlines(tables: Tables) -> Iterator[str]:
    """One sentence for each table: the mean IoU of the judged model's rows and of what it is compared with."""
    for study in (tables.weak, tables.supervised):
        if study is None:
            continue
        rows = [row for row in tables.rows if (row.question, row.measure) == (study.question, MEAN_IOU)]
        shown = [
            row
            for row in rows
            if row.encoder not in study.constants
            and (study.against is None or row.encoder.startswith(study.judged) or row.encoder in study.against)
        ]
        if shown:
            baseline = f"best constant ({shown[0].baseline.name}) {shown[0].baseline.value:.2f}"
            numbers = "; ".join([baseline, *(f"{row.encoder} {span(row.estimate)}" for row in shown)])
            yield f"{MEAN_IOU} of {len(study.items)} slides, {study.question}: {numbers}."


def _warnings(found: Found) -> Iterator[str]:
    yield from (f"{panel.name}: {text}" for panel in found.panels for text in panel.warnings)
    masked = [panel.name for panel in found.panels if panel.weak and panel.facts.get("criterion") == "masks"]
    if masked and found.work.settings.weights == "best":
        yield f"Weights of {', '.join(masked)} were chosen by masks of validation slides: more than weak supervision"
    chosen = [bag for bag in found.bags if bag.part == "val"]
    if chosen and found.work.settings.weights == "best":
        yield f"{len(chosen)} of the judged slides are of the val part, by which weights may have been chosen"


def weights_sentence(found: Found) -> str:
    """Which weights are judged, and by what they were chosen."""
    if found.work.settings.weights == "latest":
        return "latest: the last ones, whatever validation said (evaluate.weights=latest)"
    criterion = str(found.judged.facts.get("criterion", "a criterion that the model does not state"))
    return f"best: chosen in training by {_CRITERIA.get(criterion, criterion)}"


def _gate_notes(found: Found) -> Iterator[str]:
    work, looked = found.work, found.looked[found.judged.name]
    if PREDICTED not in looked[0].matrices:
        return
    unit = "each tile by its own labels" if work.per_tile else "the whole slide by its labels"
    yield (
        f"Gates take absent classes out of {unit}, the background never; a label is predicted above "
        f"{work.settings.label_threshold:g}"
    )
    sure = sum(each.labelled for each in looked)
    if sure < len(looked):
        yield f"{len(looked) - sure} of {len(looked)} slides have no label: their true labels are what their masks show"
    said_NM = np.stack([each.probability_M for each in looked]) > work.settings.label_threshold
    true_NM = np.stack([each.true_M for each in looked])
    right = said_NM == true_NM
    yield (
        f"Predicted labels of whole slides: all classes right of {int(right.all(1).sum())} of {len(right)} slides, "
        f"{int(right.sum())} of {right.size} single ones; always the commoner answer of each class would get "
        f"{int(np.maximum(true_NM.sum(0), (~true_NM).sum(0)).sum())}"
    )
    held = np.stack([each.truth_C[: true_NM.shape[1]] > 0 for each in looked])
    denied = int((held & ~true_NM).any(1).sum())
    if denied:
        yield f"The masks of {denied} slides hold a class that their label denies: the oracle's gate is wrong there"


def _shown_notes(found: Found) -> Iterator[str]:
    work = found.work
    yield f"Judged on a raster of {work.study.mpp:g} µm/px over each slide; masks are sampled there, never averaged"
    if work.settings.blend.tta != "none":
        yield f"Test-time augmentation: {work.settings.blend.tta}, probabilities averaged"


def _unasked(found: Found) -> Iterator[Unasked]:
    yield Unasked("boundaries and objects", "weak labels say nothing of outlines; `lamella evaluate` scores them")
    if not found.supervised:
        yield Unasked("supervised upper bound", "evaluate.rivals names no model that was trained with masks")
    if found.work.settings.refine is None:
        yield Unasked("post-processing", "evaluate.refine is null")
