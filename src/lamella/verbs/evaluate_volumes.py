"""`lamella evaluate MODEL DATASET -o results` on a data set of volumes: segmentation, and finding lesions.

Each group (patient) is left out in turn, or the data set's own test part is judged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field

from lamella import __version__
from lamella.config import Request, Settings
from lamella.data.volumes import PreparedVolumes, VolumeDataSettings
from lamella.engine.rundir import claim
from lamella.engine.world import DeviceName, choose_device
from lamella.errors import ImageError, LamellaError
from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.datasets.identity import item_digest
from lamella.imaging.datasets.opening import DatasetSettings
from lamella.imaging.intensity import IntensitySettings
from lamella.metrics.ask_masks import MEANINGS
from lamella.metrics.image_study import Part
from lamella.metrics.report import Report
from lamella.metrics.segmented import SegmentationSettings, Windows
from lamella.metrics.study import CannotAsk
from lamella.models.encoders import random_twin
from lamella.models.hub import load_encoder
from lamella.models.pretraining_record import pretraining_record
from lamella.models.volume_encoder import VolumeEncoder
from lamella.verbs.evaluate_masks import TokenMakers, mask_questions
from lamella.verbs.evaluate_report import (
    FAILED,
    RESULTS,
    ask_all,
    cautions,
    command_of,
    finish,
    record_failures,
    write_tables,
)
from lamella.verbs.image_masks import cached_tokens
from lamella.verbs.image_scope import Scope, Seen, parts_of, scope_of
from lamella.verbs.judged_tiles import slug
from lamella.verbs.rival_encoders import RANDOM
from lamella.verbs.volume_windows import VolumeWindows

_IGNORED = ("cache_mb", "device")
_EACH_GROUP = 10**6  # more folds than groups: one is left out at a time
RAW = "raw voxels"  # of each patch, as tokens: what a head makes of them without any encoder


class Config(Settings):
    """Settings of `lamella evaluate` on volumes."""

    dataset: DatasetSettings = DatasetSettings()
    """How the folder or file is read as a data set."""
    tasks: tuple[Literal["segmentation", "detection"], ...] = ("segmentation",)
    """What is asked; detection reads lesions out of the segmentation."""
    intensity: IntensitySettings | None = None
    """How measured values are normalised; the model's own rule unless given."""
    seen: Seen = "refuse"
    """Judged items whose group was in pretraining: refuse, leave_out, or train (fit on them, never judge them)."""
    segmentation: SegmentationSettings = SegmentationSettings(batch_size=2)
    """The head and its training; side_px does not apply to volumes."""
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share by which neighbouring windows overlap."""
    folds: Annotated[int, Field(ge=2)] | None = None
    """Folds over the groups where the data set states no test split; null leaves out one group at a time."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of folds, heads and intervals."""
    cache_mb: Annotated[int, Field(ge=0)] = 2048
    """Prepared volumes kept in memory."""
    device: DeviceName = "auto"
    """Where the encoders run."""


def run(request: Request, collection: Collection) -> int:
    """Judge an encoder on a collection of volumes and write results.md, results.json and tables.

    Raises:
        LamellaError: The model is not one of volumes, or a setting does not apply.
    """
    resolved = request.resolve(Config)
    config, model = resolved.config, str(request.paths[0])
    encoder = load_encoder(model)
    if not isinstance(encoder, VolumeEncoder) or encoder.contract.kind != "volume":
        raise LamellaError(model, "it is no encoder of volumes, and the data are volumes", "Give one that is.")
    if config.segmentation.side_px is not None:
        raise LamellaError("segmentation.side_px", "it does not apply to volumes", "Leave it out.")
    scope = scope_of(
        collection,
        pretraining_record(model),
        seen=config.seen,
        digest=partial(item_digest, collection),
        known=False,
    )
    groups = len({item.group for item in scope.items})
    counts = f"{len(scope.items)} volumes of {groups} {collection.group_noun}s"
    print("\n".join([*scope.warnings, *scope.notes, counts]))
    if request.dry_run:
        print(resolved.text())
        return 0
    out = request.folder()
    inputs = {"encoder_fingerprint": encoder.fingerprint, "items": [item.item_id for item in scope.items]}
    claimed = claim(out, resolved.tree(), resolved.origins, verb="evaluate", ignore=_IGNORED, inputs=inputs)
    if claimed.resumed and (out / RESULTS).exists() and not (out / FAILED).exists():
        print(f"nothing to do: {out / RESULTS} holds these results already")
        return 0
    device, reason = choose_device(config.device)
    print(f"{encoder.name} on {device.type} ({reason})")
    failed: dict[str, str] = {}
    ready = partial(_ready, encoder, scope, collection, config, out, device, failed)
    names = tuple(collection.mask_classes)
    questions = mask_questions(
        config.tasks, ready, names, config.segmentation, twin=RANDOM, noun="volumes", seed=config.seed
    )
    answers, unasked = ask_all(questions)
    record_failures(out, failed)
    notes = [note for answer in answers for note in answer.notes]
    report = Report(
        title=f"What did {encoder.name} learn from {collection.name}?",
        rows=[row for answer in answers for row in answer.rows],
        meanings=MEANINGS,
        warnings=scope.warnings,
        conclusions=[text for answer in answers for text in answer.conclusions],
        unasked=unasked,
        notes=[*scope.notes, *dict.fromkeys(notes), *cautions(groups, collection.group_noun)],
        facts={
            "data set": collection.name,
            "volumes": len(scope.items) - len(failed),
            "groups": f"{groups} (by {collection.group_noun})",
            "licence of the data": collection.licence or "not stated",
            "version": __version__,
        },
        command=command_of(request),
    )
    return finish(report, out, write_tables(out, answers), failed, "volumes")


def _ready(
    encoder: VolumeEncoder,
    scope: Scope,
    collection: Collection,
    config: Config,
    out: Path,
    device: torch.device,
    failed: dict[str, str],
) -> tuple[Windows, TokenMakers, Sequence[Item], tuple[Part, ...]]:
    """Windows, tokens, items and parts of the volumes that have a mask.

    Raises:
        CannotAsk: There are no masks, or no class is named in them.
    """
    without = {item.item_id: "it has no mask" for item in scope.items if item.mask is None}
    if collection.read_mask is None or len(without) == len(scope.items):
        raise CannotAsk("no volume has a mask")
    if not collection.mask_classes:
        raise CannotAsk("the data set does not say what the values of its masks mean")
    volumes = PreparedVolumes(collection, _data_settings(encoder, config))
    for item in scope.items:
        if item.item_id not in without:
            try:
                volumes.mask(item)
            except ImageError as error:
                failed[item.item_id] = str(error)
    scope = scope.keep(without | failed)
    shown = VolumeWindows(volumes, scope.items, encoder, config.overlap)

    def tokens(name: str, number: int) -> np.ndarray:
        one = encoder if name == encoder.name else random_twin(encoder, number)
        one.to(device)
        facts = repr((one.fingerprint, config.overlap, volumes.settings.model_dump(), [i.item_id for i in scope.items]))
        key = hashlib.sha256(facts.encode()).hexdigest()[:16]
        path = out / "features" / f"{slug(f'{name} {number}')}-tokens.safetensors"
        return cached_tokens(path, key, lambda: shown.tokens(one, device))

    makers: TokenMakers = {
        encoder.name: [partial(tokens, encoder.name, 0)],
        RANDOM: [partial(tokens, RANDOM, number) for number in range(config.segmentation.random_inits)],
        RAW: [shown.raw_tokens],
    }
    strata = np.zeros(len(scope.items), np.int64)
    parts = parts_of(scope, strata, config.folds or _EACH_GROUP, config.seed)
    return shown.windows(), makers, scope.items, parts


def _data_settings(encoder: VolumeEncoder, config: Config) -> VolumeDataSettings:
    """Prepared as in pretraining: the model's spacing and, unless another is given, its intensity rule."""
    contract = encoder.contract
    own = IntensitySettings.model_validate(dict(contract.intensity)) if contract.intensity else IntensitySettings()
    return VolumeDataSettings(
        spacing_mm=contract.spacing_mm,
        crop=contract.size,
        intensity=config.intensity or own,
        cache_mb=config.cache_mb,
    )
