"""`lamella evaluate MODEL DATASET -o results` on a data set of volumes: what labels say, segmentation, finding lesions.

The data set's own test part is judged; without one, groups (patients) are dealt to folds, or left out one at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field

from lamella import __version__
from lamella.config import Request
from lamella.data.volumes import PreparedVolumes
from lamella.engine.rundir import claim
from lamella.engine.world import choose_device
from lamella.errors import ImageError, LamellaError
from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.datasets.identity import item_digest
from lamella.metrics.ask_masks import MEANINGS
from lamella.metrics.image_study import ImageAnswer, Part
from lamella.metrics.report import Report, Unasked
from lamella.metrics.segmented import SegmentationSettings, Windows
from lamella.metrics.study import CannotAsk
from lamella.models.encoders import random_twin
from lamella.models.hub import load_encoder
from lamella.models.pretraining_record import pretraining_record
from lamella.models.volume_encoder import VolumeEncoder
from lamella.verbs.evaluation import videos
from lamella.verbs.evaluation.image_masks import cached_tokens
from lamella.verbs.evaluation.judged_tiles import slug
from lamella.verbs.evaluation.label_questions import LABEL_MEANINGS, label_questions
from lamella.verbs.evaluation.label_study import counts_of, items_digest, study_report
from lamella.verbs.evaluation.masks import TokenMakers, mask_questions
from lamella.verbs.evaluation.report import (
    FAILED,
    RESULTS,
    ask_all,
    cautions,
    command_of,
    finish,
    record_failures,
    write_embedding,
    write_tables,
)
from lamella.verbs.evaluation.rival_encoders import RANDOM
from lamella.verbs.evaluation.scope import Scope, parts_of, scope_of
from lamella.verbs.evaluation.space_time_study import LabelSettings, label_tasks, space_time_study
from lamella.verbs.evaluation.space_time_views import VolumeViewSettings, volume_views
from lamella.verbs.evaluation.volume_windows import VolumeWindows

_IGNORED = ("batch_size", "cache_mb", "device")
_EACH_GROUP = 10**6  # more folds than groups: one is left out at a time
Task = Literal["linear", "knn", "nshot", "efficiency", "multilabel", "sites", "segmentation", "detection"]
_MEANINGS = {**LABEL_MEANINGS, **MEANINGS}
RAW = "raw voxels"  # of each patch, as tokens: what a head makes of them without any encoder


class Config(VolumeViewSettings, LabelSettings):
    """Settings of `lamella evaluate` on volumes."""

    tasks: tuple[Task, ...] = ()
    """What is asked; empty asks linear, knn and nshot of labelled data, multilabel, sites and segmentation where the
    data have them. efficiency and detection (lesions read out of the segmentation) are asked only by name."""
    segmentation: SegmentationSettings = SegmentationSettings(batch_size=2)
    """The head and its training; side_px does not apply to volumes."""
    folds: Annotated[int, Field(ge=2)] | None = None
    """Folds of the segmentation over the groups where the data set states no test split; null leaves out one group at a
    time. Folds of the probes are probes.folds."""


def run(request: Request, collection: Collection) -> int:
    """Judge an encoder on a collection of volumes and write results.md, results.json and tables.

    Raises:
        LamellaError: The model is not one of volumes, or a setting does not apply.
    """
    model = str(request.paths[0])
    encoder = load_encoder(model)
    if isinstance(encoder, VolumeEncoder) and encoder.contract.kind == "video":  # it takes slices of volumes in time
        return videos.run(request, collection)
    if not isinstance(encoder, VolumeEncoder):
        raise LamellaError(model, "it is no encoder of volumes, and the data are volumes", "Give one that is.")
    resolved = request.resolve(Config)
    config = resolved.config
    config.refuse_supervised()
    if config.segmentation.side_px is not None:
        raise LamellaError("segmentation.side_px", "it does not apply to volumes", "Leave it out.")
    digest = partial(item_digest, collection)
    scope = scope_of(collection, pretraining_record(model), seen=config.seen, digest=digest, known=False)
    print("\n".join([*scope.warnings, *scope.notes, counts_of(collection, scope)]))
    if request.dry_run:
        print(resolved.text())
        return 0
    out = request.folder()
    inputs = {"encoder_fingerprint": encoder.fingerprint, "items": items_digest(scope)}
    claimed = claim(out, resolved.tree(), resolved.origins, verb="evaluate", ignore=_IGNORED, inputs=inputs)
    if claimed.resumed and (out / RESULTS).exists() and not (out / FAILED).exists():
        print(f"nothing to do: {out / RESULTS} holds these results already")
        return 0
    device, reason = choose_device(config.device)
    print(f"{encoder.name} on {device.type} ({reason})")
    return _judged(Work(encoder, scope, collection, config, out, device), request)


@dataclass(frozen=True)
class Work:
    """What the questions are asked of."""

    encoder: VolumeEncoder
    scope: Scope
    collection: Collection
    config: Config
    out: Path
    device: torch.device
    failed: dict[str, str] = field(default_factory=dict)


def _judged(work: Work, request: Request) -> int:
    """Ask, and write what was answered."""
    config, collection = work.config, work.collection
    tasks = config.tasks or _tasks(collection)
    views = volume_views(collection, work.encoder.contract, config)
    labelled = [task for task in tasks if task not in ("segmentation", "detection")]
    questions, study, scope, unasked = [], None, work.scope, []
    if labelled and any(item.labels is not None for item in scope.items):
        study, scope, failed = space_time_study(work.encoder, scope, collection, views, config, work.out, work.device)
        work.failed.update(failed)
        questions = label_questions(labelled, study, config.nshot, config.efficiency)
    else:
        unasked = [Unasked(task, "no volume has a label") for task in labelled]
    ready = partial(_ready, work, views.volumes)
    names = tuple(collection.mask_classes)
    questions += mask_questions(tasks, ready, names, config.segmentation, twin=RANDOM, noun="volumes", seed=config.seed)
    answers, skipped = ask_all(questions)
    record_failures(work.out, work.failed)
    unasked += skipped
    files = write_tables(work.out, answers)
    if study is not None:
        files.append(write_embedding(work.out, study))
        report = study_report(study, scope, answers, unasked, (), command_of(request), collection, _MEANINGS)
    else:
        report = _masks_report(work, answers, unasked, command_of(request))
    return finish(report, work.out, files, work.failed, "volumes")


def _tasks(collection: Collection) -> tuple[Task, ...]:
    """What the data can answer at once; of neither labels nor masks, what then says that there are none."""
    tasks: list[Any] = label_tasks(collection)
    if not tasks or (collection.read_mask is not None and any(item.mask is not None for item in collection.items)):
        tasks.append("segmentation")
    return tuple(tasks)


def _masks_report(work: Work, answers: Sequence[ImageAnswer], unasked: Sequence[Unasked], command: str) -> Report:
    """What was found where no labels were asked about."""
    scope, collection = work.scope, work.collection
    groups = len({item.group for item in scope.items})
    notes = [note for answer in answers for note in answer.notes]
    return Report(
        title=f"What did {work.encoder.name} learn from {collection.name}?",
        rows=[row for answer in answers for row in answer.rows],
        meanings=_MEANINGS,
        warnings=scope.warnings,
        conclusions=[text for answer in answers for text in answer.conclusions],
        unasked=unasked,
        notes=[*scope.notes, *dict.fromkeys(notes), *cautions(groups, collection.group_noun)],
        facts={
            "data set": collection.name,
            "volumes": len(scope.items) - len(work.failed),
            "groups": f"{groups} (by {collection.group_noun})",
            "licence of the data": collection.licence or "not stated",
            "version": __version__,
        },
        command=command,
    )


def _ready(work: Work, volumes: PreparedVolumes) -> tuple[Windows, TokenMakers, Sequence[Item], tuple[Part, ...]]:
    """Windows, tokens, items and parts of the volumes that have a mask.

    Raises:
        CannotAsk: There are no masks, or no class is named in them.
    """
    encoder, collection, config, scope = work.encoder, work.collection, work.config, work.scope
    without = {item.item_id: "it has no mask" for item in scope.items if item.mask is None}
    if collection.read_mask is None or len(without) == len(scope.items):
        raise CannotAsk("no volume has a mask")
    if not collection.mask_classes:
        raise CannotAsk("the data set does not say what the values of its masks mean")
    for item in scope.items:
        if item.item_id not in without:
            try:
                volumes.mask(item)
            except ImageError as error:
                work.failed[item.item_id] = str(error)
    scope = scope.keep(without | work.failed)
    shown = VolumeWindows(volumes, scope.items, encoder, config.overlap)

    def tokens(name: str, number: int) -> np.ndarray:
        one = encoder if name == encoder.name else random_twin(encoder, number)
        one.to(work.device)
        facts = repr((one.fingerprint, config.overlap, volumes.settings.model_dump(), [i.item_id for i in scope.items]))
        key = hashlib.sha256(facts.encode()).hexdigest()[:16]
        path = work.out / "features" / f"{slug(f'{name} {number}')}-tokens.safetensors"
        return cached_tokens(path, key, lambda: shown.tokens(one, work.device))

    makers: TokenMakers = {
        encoder.name: [partial(tokens, encoder.name, 0)],
        RANDOM: [partial(tokens, RANDOM, number) for number in range(config.segmentation.random_inits)],
        RAW: [shown.raw_tokens],
    }
    strata = np.zeros(len(scope.items), np.int64)
    parts = parts_of(scope, strata, config.folds or _EACH_GROUP, config.seed)
    return shown.windows(), makers, scope.items, parts
