"""What every model of stage 4 did on every judged slide, as counts in files: a run that was cut short goes on there.

Shapes: C channels, M classes (without the background), N tiles of a slide.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from lamella.data.bags import Bag, WeakStudy
from lamella.dense.runtime import Runtime
from lamella.errors import LamellaError
from lamella.formats.atomic import whole_file
from lamella.metrics.segments.confusion import confusion_of
from lamella.models.dense_contract import DenseModel
from lamella.models.weak_contract import WeakModel
from lamella.slides.slide import Slide, open_slide
from lamella.verbs.evaluation.judged_tiles import slug
from lamella.verbs.evaluation.segment_images import read_channels, write_channels
from lamella.verbs.progress import progress
from lamella.verbs.weak_stages.evaluation_gates import NO_LABEL, Gate, alike, gated, gates_of, labels_of
from lamella.verbs.weak_stages.evaluation_judged import Judged, judged_truth, true_labels, true_pixels
from lamella.verbs.weak_stages.evaluation_maps import Rows, predicted, refined_rows, stretched
from lamella.verbs.weak_stages.evaluation_models import Panel, together
from lamella.verbs.weak_stages.evaluation_settings import EvaluationSettings

COUNTS, LABEL_MAPS, RASTERS = "counts", "label_maps", "rasters"
REFINED, ALONE = "+refined", "alone "
# Maps kept for pictures and for the control: nobody looks at more on a screen.
_KEPT_PX = 4096


@dataclass(frozen=True)
class Work:
    """What is judged, how, and where the files go.

    Attributes:
        study: All slides.
        bags: Judged, each with a mask.
        settings: Of the evaluation.
        folder: Of the results.
        runtime: Device, batches, threads.
        inside: Only pixels in the slides' tiles are judged.
        per_tile: A label that gates is of a tile, not of the slide.
        seed: Of every draw.
    """

    study: WeakStudy
    bags: tuple[Bag, ...]
    settings: EvaluationSettings
    folder: Path
    runtime: Runtime
    inside: bool
    per_tile: bool
    seed: int = 0

    @property
    def background(self) -> int | None:
        return None if self.study.background is None else len(self.study.classes)

    def judged(self, bag: Bag) -> Judged:
        return Judged.of(self.study, bag, self.settings, inside=self.inside)

    def place(self, kind: str, bag: Bag, suffix: str) -> Path:
        """A file of a slide; names that differ only in odd characters get different files."""
        mark = hashlib.sha256(bag.slide_id.encode()).hexdigest()[:6]
        return self.folder / kind / f"{slug(bag.slide_id)}-{mark}{suffix}"

    def counts_of(self, name: str, bag: Bag) -> Path:
        mark = hashlib.sha256(name.encode()).hexdigest()[:6]
        return self.place(f"{COUNTS}/{slug(name)}-{mark}", bag, ".npz")


@dataclass(frozen=True)
class Looked:
    """What one panel did on one slide.

    Attributes:
        matrices: Variant (`none`, `predicted`, `true`, each with `+refined` or without) -> (C, C + 1) confusion.
        truth_C: True pixels of each channel that are judged.
        probability_M: That the slide holds each class, as the model says; NaN of a supervised model.
        true_M: Whether it does, by its label or else by its mask.
        labelled: Whether that is its label's word.
    """

    matrices: dict[str, np.ndarray]
    truth_C: np.ndarray
    probability_M: np.ndarray
    true_M: np.ndarray
    labelled: bool

    def write(self, path: Path) -> None:
        arrays = {f"matrix {name}": matrix for name, matrix in self.matrices.items()}
        with whole_file(path) as part:
            np.savez(
                part,
                allow_pickle=False,
                truth=self.truth_C,
                probability=self.probability_M,
                true=self.true_M,
                labelled=np.array(self.labelled),
                **arrays,
            )

    @classmethod
    def read(cls, path: Path) -> Looked:
        with np.load(path, allow_pickle=False) as held:
            matrices = {key[7:]: held[key] for key in held.files if key.startswith("matrix ")}
            return cls(matrices, held["truth"], held["probability"], held["true"], bool(held["labelled"]))


def look(work: Work, panel: Panel, *, first: bool = False) -> dict[str, str]:
    """Judge every slide whose counts are not there yet; slide_id -> error of those that could not be read.

    Slides of one model follow each other, so that no more models are held than judge one slide together.

    Args:
        work: What is judged.
        panel: By which models.
        first: It is the judged one: also keep label maps, and count what labels alone would give.
    """
    failed: dict[str, str] = {}
    held: dict[int, DenseModel] = {}
    for bag in progress(sorted(work.bags, key=lambda bag: panel.judged[bag.slide_id]), f"judge {panel.name}"):
        numbers = panel.judged[bag.slide_id]
        path = work.counts_of(panel.name, bag)
        if path.is_file():
            continue
        held = {number: held.get(number) or panel.load(panel.folders[number]) for number in numbers}
        for model in held.values():
            model.to(work.runtime.device)
        try:
            _look_at(work, panel, bag, list(held.values()), first).write(path)
            shutil.rmtree(_rasters(work, panel, bag), ignore_errors=True)  # counted: nobody reads them again
        except LamellaError as error:
            failed[bag.slide_id] = str(error)
    return failed


def _rasters(work: Work, panel: Panel, bag: Bag) -> Path:
    return work.place(f"{RASTERS}/{slug(panel.name)}", bag, "")


def _look_at(work: Work, panel: Panel, bag: Bag, models: Sequence[DenseModel], first: bool) -> Looked:
    judged = work.judged(bag)
    with open_slide(bag.wsi_path, mpp=bag.mpp_stated) as slide:
        truth_C = true_pixels(judged)
        true_M, labelled = true_labels(judged, truth_C)
        rasters = _rasters(work, panel, bag)
        rows = predicted(together(models, panel.name), judged, slide, rasters, work.runtime)
        gates: dict[str, Gate | None] = {NO_LABEL: None}
        probability_M = np.full(len(true_M), np.nan)
        if panel.weak and work.settings.labels:
            voices = cast(Sequence[WeakModel], models)
            probability_M, gates = gates_of(judged, voices, true_M, work.runtime, per_tile=work.per_tile)
        same = alike(gates)
        asked = {name: gates[name] for name in dict.fromkeys(same.values())}
        matrices = _counted(judged, rows, asked)
        if panel.weak and work.settings.refine is not None:
            matrices |= _refined(judged, rows, asked, slide, rasters)
        endings = ("", REFINED) if f"{NO_LABEL}{REFINED}" in matrices else ("",)
        matrices |= {f"{name}{end}": matrices[f"{other}{end}"] for name, other in same.items() for end in endings}
        if first:
            matrices |= _alone(work, judged, gates)
            write_channels(_kept_map(judged, rows), work.place(LABEL_MAPS, bag, ".png"))
    return Looked(matrices, truth_C, probability_M, true_M, labelled)


# ---- counts ----------------------------------------------------------------------------------------------------------


def _counted(judged: Judged, rows: Rows, gates: dict[str, Gate | None]) -> dict[str, np.ndarray]:
    count = len(judged.study.channels)
    found = {name: np.zeros((count, count + 1), np.int64) for name in gates}
    for y0, y1 in judged.bands:
        truth, maps = judged_truth(judged, y0, y1), rows(y0, y1)
        for name, gate in gates.items():
            shown = maps if gate is None else gated(maps, gate.of_rows(y0, y1, judged.frame.width_px))
            found[name] += confusion_of(truth, labels_of(shown), count)
    return found


def _alone(work: Work, judged: Judged, gates: dict[str, Gate | None]) -> dict[str, np.ndarray]:
    """What the labels give without any model of where: every place is the commonest class that it is said to hold."""
    judged_ids = {bag.slide_id for bag in work.bags}
    others = [bag.labels for bag in work.study.bags if bag.slide_id not in judged_ids]
    labelled = [labels for labels in others if labels is not None]
    shares_M = np.mean(labelled, axis=0) if labelled else np.zeros(len(work.study.classes))
    # The first class wins a tie; the background has less than any class that is there.
    prior_C = np.full(len(work.study.channels), 1e-6, np.float32)
    prior_C[: len(shares_M)] = shares_M + 1e-3

    def rows(y0: int, y1: int) -> np.ndarray:
        return np.broadcast_to(prior_C[:, None, None], (len(prior_C), y1 - y0, judged.frame.width_px))

    return _counted(judged, rows, {f"{ALONE}{name}": gate for name, gate in gates.items() if gate is not None})


def _refined(
    judged: Judged, rows: Rows, gates: dict[str, Gate | None], slide: Slide, folder: Path
) -> dict[str, np.ndarray]:
    count, refine = len(judged.study.channels), judged.settings.refine
    assert refine is not None
    found = {}
    for name, gate in gates.items():
        matrix = np.zeros((count, count + 1), np.int64)
        for y0, y1, labels in refined_rows(rows, gate, judged, refine, slide, folder / name):
            matrix += confusion_of(judged_truth(judged, y0, y1), labels, count)
        found[f"{name}{REFINED}"] = matrix
    return found


def _kept_map(judged: Judged, rows: Rows) -> np.ndarray:
    """The label map, thinned to what a picture can show."""
    step = -(-max(judged.frame.height_px, judged.frame.width_px) // _KEPT_PX)
    return np.concatenate([labels_of(rows(y0, y1))[-y0 % step :: step, ::step] for y0, y1 in judged.bands])


def kept_map(work: Work, bag: Bag) -> np.ndarray:
    """The label map that `look` kept of a slide.

    Raises:
        LamellaError: It was removed.
    """
    path = work.place(LABEL_MAPS, bag, ".png")
    found = read_channels(path)
    if found is None:
        raise LamellaError(
            path, "it was removed or changed since it was written", "Evaluate anew with --redo evaluate."
        )
    return found


def exchanged_counts(work: Work, bags: Sequence[Bag]) -> np.ndarray | None:
    """(N, C, C + 1): each slide judged by the map of the next one of another group; None where there is one group."""
    if len({bag.group for bag in bags}) < 2:
        return None
    count = len(work.study.channels)
    found = []
    for row, bag in enumerate(progress(bags, "control")):
        other = next(each for each in _round(bags, row) if each.group != bag.group)
        judged, called = work.judged(bag), kept_map(work, other)
        size = judged.frame.height_px, judged.frame.width_px
        found.append(
            sum(
                confusion_of(judged_truth(judged, y0, y1), stretched(called, *size, y0, y1), count)
                for y0, y1 in judged.bands
            )
        )
    return np.stack(found)


def _round(bags: Sequence[Bag], row: int) -> Iterator[Bag]:
    """The other slides, from the next one on."""
    return (bags[(row + step) % len(bags)] for step in range(1, len(bags)))
