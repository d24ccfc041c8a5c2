"""`lamella evaluate SEGMENTER DATA -o results`: how well does a model label every pixel by itself?

No truth is used at test time. Each image is judged by a model that has seen nothing of its group.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field, field_validator

from lamella import __version__
from lamella.config import Request, Settings
from lamella.dense.blending import BlendSettings
from lamella.engine.rundir import claim
from lamella.engine.world import DeviceName, choose_device
from lamella.errors import LamellaError
from lamella.formats.label_values import NOT_LABELLED
from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.datasets.identity import item_digest
from lamella.imaging.datasets.mask_channels import channels_of
from lamella.imaging.datasets.opening import DatasetSettings
from lamella.imaging.datasets.requirements import masked
from lamella.imaging.intensity import IntensitySettings
from lamella.metrics.image_study import ImageAnswer
from lamella.metrics.report import Report, Unasked
from lamella.metrics.segments.confusion import dice_per_class, mean_of_present
from lamella.metrics.segments.protocol import NO_PROMPT, Protocol, split_digest
from lamella.metrics.segments.scored import SegmentStudy
from lamella.metrics.segments.tables import image_table, segment_rows
from lamella.models.dense_contract import DenseContract, DenseModel
from lamella.models.segmenter_hub import load_segmenter
from lamella.verbs.evaluation.report import (
    FAILED,
    RESULTS,
    cautions,
    command_of,
    finish,
    record_failures,
    write_tables,
)
from lamella.verbs.evaluation.scope import refuse_split_groups
from lamella.verbs.evaluation.segment_counts import PREDICTIONS, Counted, Scoring, count, predict
from lamella.verbs.evaluation.segment_models import Judges, judges_of, segmenters_in
from lamella.view.confusion import draw_confusion
from lamella.view.panels import write_sheet
from lamella.view.segment_overlays import Overlay, draw_segment_overlays

CONFUSION, OVERLAYS, IMAGES = "confusion.png", "best_median_worst.png", "segment_images"
_IGNORED = ("batch_size", "device", "overlays")
_SAME_MPP = 1e-3  # relative; spacings that differ by less are one

Positive = Annotated[float, Field(gt=0)]


class Config(Settings):
    """Settings of `lamella evaluate` on a model that labels pixels."""

    dataset: DatasetSettings = DatasetSettings()
    """How the folder or file is read as a data set."""
    judge: Literal["auto", "all", "train", "val", "test"] = "auto"
    """Images of which split are judged. auto: test where the data set states one and the model is a single one, else
    all."""
    seen: Literal["refuse", "leave_out"] = "refuse"
    """Images of groups that every model has seen in training: refuse, or leave_out."""
    ensemble: bool = False
    """Average the models of a run with folds that have not seen an image; otherwise exactly one must be left."""
    blend: BlendSettings = BlendSettings()
    """How tiles become one map, and whether each is also shown mirrored and turned (blend.tta)."""
    intensity: IntensitySettings = IntensitySettings()
    """How measured values become bytes."""
    outlines: bool = True
    """Score boundaries and objects too; of images without a spacing they cannot be."""
    tolerance_um: Positive = 3.0
    """Outlines this far apart are one (boundary F1): about the width of a membrane drawn by hand."""
    object_um2: tuple[Positive, ...] = (500.0, 5000.0)
    """Ends of the sizes by which the recall of objects is told; the last size is open."""
    overlays: Annotated[int, Field(ge=0, le=10)] = 2
    """Images drawn of the best, of the median and of the worst."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the resamples and of the colour baseline."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Tiles shown at once."""
    device: DeviceName = "auto"
    """Where the model runs."""

    @field_validator("object_um2")
    @classmethod
    def _rising(cls, sizes: tuple[float, ...]) -> tuple[float, ...]:
        if list(sizes) != sorted(set(sizes)):
            raise ValueError("sizes must rise")
        return sizes


class _Model(NamedTuple):
    """What must be known of a model before it is run; models of many folds are not all held in memory."""

    name: str
    fingerprint: str
    contract: DenseContract

    @classmethod
    def of(cls, model: DenseModel) -> _Model:
        return cls(model.name, model.fingerprint, model.contract)


@dataclass(frozen=True)
class _Judged:
    """What a finished evaluation rests on."""

    scoring: Scoring
    counted: Counted
    items: tuple[Item, ...]
    study: SegmentStudy


def run(request: Request, collection: Collection) -> int:
    """Judge a segmenter on a collection of images with masks; writes results.md, results.json, tables and pictures.

    Raises:
        LamellaError: The data have no masks or other classes, or no image may be judged.
    """
    resolved = request.resolve(Config)
    config = resolved.config
    if collection.kind != "image":
        raise LamellaError(collection.name, f"it holds {collection.kind}s", "A segmenter is judged on images.")
    collection = masked(collection)
    refuse_split_groups(collection)
    folders = segmenters_in(request.paths[0]) or (request.paths[0],)
    models = [_Model.of(load_segmenter(folder)) for folder in folders]
    _refuse_other_classes(models, collection)
    judges = judges_of(
        folders,
        collection,
        _asked(collection, config, single=len(folders) == 1),
        seen=config.seen,
        ensemble=config.ensemble,
        digest=partial(item_digest, collection),
    )
    print("\n".join([*judges.warnings, *judges.notes, _counts(collection, judges)]))
    if request.dry_run:
        print(resolved.text())
        return 0
    out = request.folder()
    items = tuple(judges.judged)
    fingerprints = [model.fingerprint for model in models]
    inputs = {
        # What `lamella release` compares with the model that is released.
        "encoder_fingerprint": fingerprints[0] if len(models) == 1 else "+".join(fingerprints),
        "items": split_digest((item.item_id, item.group) for item in items),
    }
    claimed = claim(out, resolved.tree(), resolved.origins, verb="evaluate", ignore=_IGNORED, inputs=inputs)
    if claimed.resumed and (out / RESULTS).exists() and not (out / FAILED).exists():
        print(f"nothing to do: {out / RESULTS} holds these results already")
        return 0
    device, reason = choose_device(config.device)
    name = _name_of(models)
    print(f"evaluate {name} on {device.type} ({reason})")
    scoring = _scoring(config, collection, judges, out, device)
    failed = predict(scoring)
    record_failures(out, failed)
    items = tuple(item for item in items if item.item_id not in failed)
    if not items:
        raise LamellaError(collection.name, f"no image could be judged ({next(iter(failed.values()))})", "See above.")
    counted = count(scoring, items, name, seed=config.seed)
    judged = _Judged(scoring, counted, items, _study(scoring, counted, items, name, config))
    return _report(judged, models, config, request, failed)


def _scoring(config: Config, collection: Collection, judges: Judges, out: Path, device: torch.device) -> Scoring:
    def load(folder: Path) -> DenseModel:
        model: DenseModel = load_segmenter(folder)
        model.to(device)
        return model

    return Scoring(
        collection,
        judges,
        out,
        load,
        config.blend,
        config.batch_size,
        config.intensity,
        config.tolerance_um,
        config.object_um2,
        config.outlines,
    )


def _asked(collection: Collection, config: Config, *, single: bool) -> list[Item]:
    """The items that the settings name.

    Raises:
        LamellaError: There are none.
    """
    stated = {item.split for item in collection.items}
    part = config.judge
    if part == "auto":
        part = "test" if single and "test" in stated else "all"
    items = [item for item in collection.items if part in ("all", item.split)]
    if not items:
        splits = ", ".join(sorted(split for split in stated if split)) or "none"
        raise LamellaError(collection.name, f"it has no {part} images with masks (splits: {splits})", "Set judge=all.")
    return items


def _refuse_other_classes(models: Sequence[_Model], collection: Collection) -> None:
    """Classes are matched by name, never by number.

    Raises:
        LamellaError: The models have other classes than the masks, or differ among themselves.
    """
    model, *others = models
    for other in others:
        if other.contract != model.contract:
            what = "the models of this run were made for different images or classes"
            raise LamellaError(other.name, what, "Train all folds with the same settings.")
    theirs, ours = model.contract.channels, channels_of(collection)
    if set(theirs) != set(ours):
        raise LamellaError(
            model.name,
            f"its classes are {', '.join(theirs)}; the masks have {', '.join(ours)}",
            "Name the masks' values alike: dataset.mask_classes.gland=1, or dataset.class_map.",
        )


def _name_of(models: Sequence[_Model]) -> str:
    """`segformer-fpn (5 models)`: models of folds are named after their fold, which is not what is judged."""
    if len(models) == 1:
        return models[0].name
    return f"{re.sub(r'[-_ ]?fold[0-9]+$', '', models[0].name)} ({len(models)} models)"


def _counts(collection: Collection, judges: Judges) -> str:
    groups = len({item.group for item in judges.judged})
    names = ", ".join(channels_of(collection))
    return f"{len(judges.judged)} images of {groups} {collection.group_noun}s are judged; classes: {names}"


# ---- from counts to the report --------------------------------------------------------------------------------------


def _study(scoring: Scoring, counted: Counted, items: Sequence[Item], name: str, config: Config) -> SegmentStudy:
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


def _report(judged: _Judged, models: Sequence[_Model], config: Config, request: Request, failed: dict[str, str]) -> int:
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
            *_grid_notes(models, config),
            *cautions(groups, noun),
        ],
        facts={
            "data set": collection.name,
            "images": f"{len(study.items)} judged, of {len(collection)} with masks",
            "groups": f"{groups} judged (by {noun})",
            "licence of the data": collection.licence or "not stated",
            "licence of the model": models[0].contract.licence,
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


def _grid_notes(models: Sequence[_Model], config: Config) -> list[str]:
    mpp = models[0].contract.mpp
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


def _drawn_confusion(judged: _Judged) -> list[tuple[str, str]]:
    study, spacings = judged.study, judged.counted.spacings_um
    matrix = study.scored[study.judged].matrices.sum(0)
    area_mm2 = study.protocol.mpp and float(spacings[0].prod()) * 1e-6
    title = f"{study.judged}: {len(study.items)} images, all pixels pooled"
    draw_confusion(matrix, study.classes, judged.scoring.folder / CONFUSION, title=title, area_px_mm2=area_mm2)
    return [(CONFUSION, "Confusion of pixels: of each true class (row), the share that was called each class")]


def _drawn_overlays(judged: _Judged, each: int) -> list[tuple[str, str]]:
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
