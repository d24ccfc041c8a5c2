"""Stage 4 of `lamella weak`: how good are the maps of a model that never saw a mask? Masks are read only to judge.

Rows: no label at test (what a new slide gives), gated by the labels that the model predicts, and gated by the true
ones, flagged LABEL ORACLE; each as it is and post-processed. Beside them what constants, colour and labels alone give.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lamella.data.bag_digest import study_digest
from lamella.data.bags import Bag
from lamella.dense.runtime import Runtime
from lamella.engine.world import choose_device
from lamella.errors import LamellaError
from lamella.metrics.image_study import ImageAnswer
from lamella.metrics.segments.tables import image_table
from lamella.verbs.evaluation.report import FAILED, command_of, finish, record_failures, write_tables
from lamella.verbs.evaluation.report import RESULTS as RESULTS_JSON
from lamella.verbs.weak_stages.evaluation_colour import COLOUR, colour_counts
from lamella.verbs.weak_stages.evaluation_counts import Looked, Work, exchanged_counts, look
from lamella.verbs.weak_stages.evaluation_files import (
    CONFUSION_PNG,
    write_confusion,
    write_image_labels,
    write_metrics,
    write_samples,
    write_text_report,
)
from lamella.verbs.weak_stages.evaluation_models import Panel, panel_of, trained_models
from lamella.verbs.weak_stages.evaluation_report import report_of
from lamella.verbs.weak_stages.evaluation_studies import Found, Tables
from lamella.verbs.weak_stages.stage import RESULTS, TRAINING, Stage

_BLOCKS = ("class_order", "background", "data", "evaluate", "seed")
_IGNORED = ("evaluate.batch_size", "evaluate.threads", "evaluate.device", "evaluate.samples")
IMAGES = "segment_images"


def run_evaluation(stage: Stage) -> int:
    """Do the stage, or find that it is done.

    Raises:
        LeakageError: A slide was seen in training by every model.
        LamellaError: Nothing was trained, no slide has a mask, or a model has other classes.
    """
    settings = stage.config.evaluate
    bags = judged_bags(stage)
    panels = _panels(stage, bags)
    folder = stage.folder(RESULTS)
    claimed = stage.claim(RESULTS, _BLOCKS, _inputs(stage, bags, panels), ignore=_IGNORED)
    if claimed.resumed and (folder / RESULTS_JSON).exists() and not (folder / FAILED).exists():
        print(f"nothing to do: {folder / RESULTS_JSON} holds these results already")
        return 0
    work = _work(stage, bags)
    failed: dict[str, str] = {}
    for panel in panels:
        failed |= look(work, panel, first=panel is panels[0])
    record_failures(folder, failed)
    found = _found(stage, work, panels, failed)
    print(
        f"{len(found.bags)} slides judged by {', '.join(panel.name for panel in panels)}; "
        f"classes: {', '.join(stage.study.channels)}; weights: {settings.weights}"
    )
    return _write(stage, found, failed)


def judged_bags(stage: Stage) -> tuple[Bag, ...]:
    """The slides that are judged: of the asked part, with a mask.

    Raises:
        LamellaError: There is none.
    """
    study, part = stage.study, stage.config.evaluate.part
    masked = [bag for bag in study.bags if bag.mask_path is not None]
    if part == "auto":
        runs = trained_models(stage.folder(TRAINING), stage.config.evaluate.weights)
        there = {bag.part for bag in masked}
        part = "test" if "test" in there else "all" if len(runs) > 1 or there <= {None} else "val"
    bags = tuple(bag for bag in masked if part in ("all", bag.part))
    if not bags:
        asked = "slide" if part == "all" else f"{part} slide"
        parts = ", ".join(sorted({bag.part or "none" for bag in masked})) or "no part at all"
        raise LamellaError(
            "evaluate",
            f"no {asked} has a mask to be judged by (slides with masks are in: {parts})",
            "Give masks (data.masks, or the manifest's label_mask_path), or name a part that has some (evaluate.part).",
        )
    return bags


def _panels(stage: Stage, bags: Sequence[Bag]) -> tuple[Panel, ...]:
    settings, study = stage.config.evaluate, stage.study
    trained = stage.folder(TRAINING)
    if not trained.exists():
        raise LamellaError(trained, "nothing was trained yet", "Run: lamella weak train study.yaml -o out.")
    judged = panel_of(None, trained, study, bags, weights=settings.weights)
    if not judged.weak:
        raise LamellaError(trained, "it holds a supervised model", "Name it under evaluate.rivals.")
    rivals = [
        panel_of(name, path, study, bags, weights=settings.weights, names=settings.rival_classes)
        for name, path in settings.rivals.items()
    ]
    if judged.name in settings.rivals:
        raise LamellaError("evaluate.rivals", f"{judged.name} is the name of the judged model", "Give another name.")
    return (judged, *rivals)


def _inputs(stage: Stage, bags: Sequence[Bag], panels: Sequence[Panel]) -> dict[str, Any]:
    """Digests of what is read: models, slides, masks, coordinates, labels; of the training slides, too, for colour."""
    return {
        "models": {panel.name: list(panel.fingerprints) for panel in panels},
        "judged": study_digest(stage.study, bags, masks=True),
        "study": study_digest(stage.study),
    }


def _work(stage: Stage, bags: tuple[Bag, ...]) -> Work:
    settings, data = stage.config.evaluate, stage.config.data
    device, reason = choose_device(settings.device)
    print(f"evaluate on {device.type} ({reason})")
    inside = settings.judged_area == "tiles" or (settings.judged_area == "auto" and not data.everywhere)
    per_tile = settings.gate_per == "tile" or (settings.gate_per == "auto" and stage.study.labels_are == "patch")
    runtime = Runtime(device, settings.batch_size, settings.threads)
    return Work(stage.study, bags, settings, stage.folder(RESULTS), runtime, inside, per_tile, stage.config.seed)


def _found(stage: Stage, work: Work, panels: tuple[Panel, ...], failed: dict[str, str]) -> Found:
    """What was counted, of the slides that every model could judge, and the baselines of the same."""
    bags = tuple(bag for bag in work.bags if bag.slide_id not in failed)
    if not bags:
        raise LamellaError("evaluate", f"no slide could be judged ({next(iter(failed.values()))})", "See failed.csv.")
    looked = {panel.name: [Looked.read(work.counts_of(panel.name, bag)) for bag in bags] for panel in panels}
    extra: dict[str, np.ndarray] = {}
    notes: tuple[str, ...] = ()
    if work.settings.colour:
        counts, told = colour_counts(work, panels[0], bags)
        notes = (told,)
        if counts is not None:
            extra[COLOUR] = counts
    control = exchanged_counts(work, bags)
    return Found(work, bags, panels, looked, extra, control, stage.out.resolve().name, notes)


def _write(stage: Stage, found: Found, failed: dict[str, str]) -> int:
    folder, tables = stage.folder(RESULTS), Tables.of(found)
    lines = image_table(tables.weak) + (image_table(tables.supervised) if tables.supervised is not None else [])
    files = write_tables(folder, [ImageAnswer((), tables={IMAGES: lines})])
    files += [
        write_metrics(folder, found, tables),
        *write_confusion(folder, tables),
        *write_image_labels(folder, found),
        write_text_report(folder, found, tables),
    ]
    pictures = [(CONFUSION_PNG, "Confusion of pixels: of each true class (row), the share that was called each class")]
    pictures += write_samples(folder, found, tables, found.work.settings.samples)
    # The configuration is already among the paths.
    report = report_of(found, tables, command_of(replace(stage.request, run=None)), pictures)
    return finish(report, folder, [*files, *(folder / file for file, _ in pictures[1:])], failed, "slides")
