"""`lamella evaluate SEGMENTER DATA -o results`: how well does a model label every pixel by itself?

No truth is used at test time. Each image is judged by a model that has seen nothing of its group.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from lamella.config import Request
from lamella.engine.rundir import claim
from lamella.engine.world import choose_device
from lamella.errors import LamellaError
from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.datasets.identity import item_digest
from lamella.imaging.datasets.mask_channels import channels_of
from lamella.imaging.datasets.requirements import masked
from lamella.metrics.segments.protocol import split_digest
from lamella.models.dense_contract import DenseContract, DenseModel
from lamella.models.segmenter_hub import load_segmenter
from lamella.verbs.evaluation.report import FAILED, RESULTS, record_failures
from lamella.verbs.evaluation.scope import refuse_split_groups
from lamella.verbs.evaluation.scoring import Scoring
from lamella.verbs.evaluation.segment_counts import count, predict
from lamella.verbs.evaluation.segment_models import Judges, judges_of, segmenters_in
from lamella.verbs.evaluation.segment_report import JudgedStudy, study_of_counts, write_report
from lamella.verbs.evaluation.segment_settings import Config

_IGNORED = ("batch_size", "device", "overlays")


class _Model(NamedTuple):
    """What must be known of a model before it is run; models of many folds are not all held in memory."""

    name: str
    fingerprint: str
    contract: DenseContract

    @classmethod
    def of(cls, model: DenseModel) -> _Model:
        return cls(model.name, model.fingerprint, model.contract)


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
    judged = JudgedStudy(scoring, counted, items, study_of_counts(scoring, counted, items, name, config))
    return write_report(judged, models[0].contract, config, request, failed)


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
