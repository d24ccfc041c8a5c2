"""`lamella evaluate MODEL DATASET -o results` on a data set of 2-D images."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lamella import __version__
from lamella.config import Request
from lamella.data.splits import group_folds, refuse_shared_groups
from lamella.engine.rundir import claim
from lamella.engine.world import choose_device
from lamella.errors import LamellaError
from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.datasets.identity import item_digest
from lamella.metrics.image_study import ImageAnswer, ImageStudy
from lamella.metrics.report import Report, Unasked
from lamella.metrics.representation import per_dimension_std, rankme
from lamella.models.colour_statistics import COLOUR_STATS
from lamella.models.hub import load_encoder
from lamella.models.pretraining_record import pretraining_record
from lamella.models.volume_encoder import VolumeEncoder
from lamella.verbs.evaluate_report import (
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
from lamella.verbs.image_features import Embedded, ItemViews, embed_items, is_grey
from lamella.verbs.image_questions import MEANINGS, Work, questions_of
from lamella.verbs.image_scope import Scope, parts_of, scope_of
from lamella.verbs.image_settings import Config
from lamella.verbs.judged_tiles import slug
from lamella.verbs.rival_encoders import COLOUR, PIXELS, RANDOM, Makers, encoders_beside

__all__ = ["Config", "run"]

_IGNORED = ("batch_size", "device", "cache_mb")


def run(request: Request, collection: Collection) -> int:
    """Judge an encoder on a collection of images and write results.md, results.json and tables."""
    resolved = request.resolve(Config)
    config, model = resolved.config, str(request.paths[0])
    encoder = load_encoder(model)
    if isinstance(encoder, VolumeEncoder):
        raise LamellaError(model, "it is an encoder of volumes, and the data are images", "Give an encoder of images.")
    scope = scope_of(
        collection,
        pretraining_record(model),
        seen=config.seen,
        digest=partial(item_digest, collection),
        known=model == COLOUR_STATS,
    )
    print("\n".join([*scope.warnings, *scope.notes, *_counts(collection, scope)]))
    if request.dry_run:
        print(resolved.text())
        return 0
    out = request.folder()
    inputs = {"encoder_fingerprint": encoder.fingerprint, "items": _items_digest(scope)}
    claimed = claim(out, resolved.tree(), resolved.origins, verb="evaluate", ignore=_IGNORED, inputs=inputs)
    if claimed.resumed and (out / RESULTS).exists() and not (out / FAILED).exists():
        print(f"nothing to do: {out / RESULTS} holds these results already")
        return 0
    device, reason = choose_device(config.device)
    views = ItemViews(collection, config.view, encoder, config.cache_mb)
    encoders, missing = encoders_beside(encoder, config.random_inits, config.imagenet, grey=is_grey(views, scope.items))
    print(f"encoders: {', '.join(encoders)}, on {device.type} ({reason})")
    study, scope, failed = _embedded_study(encoders, scope, collection, views, config, out, device)
    record_failures(out, failed)
    work = Work(encoder, encoders, study, scope, collection, views, config, out, device)
    answers, unasked = ask_all(questions_of(work))
    report = _report(study, scope, answers, unasked, missing, command_of(request), collection)
    files = [*write_tables(out, answers), write_embedding(out, study)]
    return finish(report, out, files, failed, "images")


# ---- features --------------------------------------------------------------------------------------------------------


def _embedded_study(
    encoders: Makers,
    scope: Scope,
    collection: Collection,
    views: ItemViews,
    config: Config,
    out: Path,
    device: torch.device,
) -> tuple[ImageStudy, Scope, dict[str, str]]:
    """Features of all items by all encoders; the items that failed are left out everywhere."""
    found: dict[str, list[Embedded]] = {}
    for number, (name, makers) in enumerate(encoders.items()):
        for replicate, make in enumerate(makers):
            encoder = make()
            encoder.to(device)
            wanted = number == 0 or name == RANDOM  # statistics have no layers, and a strong rival needs no help
            embedded = embed_items(
                encoder,
                scope.items,
                views,
                out / "features" / slug(f"{name} {replicate}"),
                label=name,
                size_px=config.imagenet_px if number and name not in (RANDOM, PIXELS, COLOUR) else None,
                last_layers=wanted and "last4" in config.pooling,
                tokens=wanted and "attentive" in config.pooling,
                batch_size=config.batch_size,
                device=device,
            )
            found.setdefault(name, []).append(embedded)
    failed = {item_id: error for each in found.values() for one in each for item_id, error in one.failed.items()}
    scope = scope.keep(failed)
    return _study(found, scope, collection, config), scope, failed


def _study(found: Mapping[str, Sequence[Embedded]], scope: Scope, collection: Collection, config: Config) -> ImageStudy:
    """The plain arrays that the questions work on."""
    ids = [item.item_id for item in scope.items]

    def arrays(name: str) -> dict[str, tuple[np.ndarray, ...]]:
        kept = {encoder: tuple(getattr(one, name) for one in each) for encoder, each in found.items()}
        return {
            encoder: tuple(np.stack([one[item_id] for item_id in ids]) for one in each)
            for encoder, each in kept.items()
            if all(each)
        }

    labels, labelled = labels_of(scope.items, collection)
    strata = labels if labels.ndim == 1 else np.where(labels.any(1), labels.argmax(1), -1)
    sites = sorted({item.site for item in scope.items if item.site is not None})
    number = {site: index for index, site in enumerate(sites)}
    return ImageStudy(
        features=arrays("pooled"),
        last_layers=arrays("last"),
        tokens=arrays("tokens"),
        items=np.array(ids),
        groups=np.array([item.group for item in scope.items]),
        parts=parts_of(scope, strata, config.probes.folds, config.seed),
        make_folds=partial(_folds, noun=collection.group_noun, seed=config.seed),
        labels=labels,
        class_names=collection.classes,
        labelled=labelled,
        sites=np.array([number.get(item.site or "", -1) for item in scope.items]) if sites else None,
        site_names=tuple(sites),
        probes=config.probes,
        seed=config.seed,
        twin=RANDOM if RANDOM in found else None,
        group_noun=collection.group_noun,
    )


def labels_of(items: Sequence[Item], collection: Collection) -> tuple[np.ndarray, np.ndarray]:
    """((N,) class numbers or (N, C) bool, (N,) whether an item is labelled)."""
    labelled = np.array([item.labels is not None for item in items])
    number = {name: index for index, name in enumerate(collection.classes)}
    if collection.multi_label:
        marks = np.zeros((len(items), len(number)), bool)
        for row, item in enumerate(items):
            for label in item.labels or ():
                marks[row, number[label]] = True
        return marks, labelled
    return np.array([number[item.labels[0]] if item.labels else -1 for item in items], np.int64), labelled


def _folds(groups: np.ndarray, labels: np.ndarray, folds: int, *, noun: str, seed: int) -> np.ndarray:
    dealt = group_folds(groups, labels, folds, seed=seed)
    refuse_shared_groups(groups, dealt, noun=noun)
    return dealt


# ---- what is said ---------------------------------------------------------------------------------------------------


def _report(
    study: ImageStudy,
    scope: Scope,
    answers: Sequence[ImageAnswer],
    unasked: Sequence[Unasked],
    missing: Sequence[str],
    command: str,
    collection: Collection,
) -> Report:
    rows = study.test_rows
    groups = len(np.unique(study.groups[rows]))
    facts: dict[str, Any] = {
        "data set": collection.name,
        "images": f"{len(study.items)} ({len(rows)} judged)",
        "groups": f"{len(np.unique(study.groups))} (by {study.group_noun}); {groups} judged",
        "licence of the data": collection.licence or "not stated",
        "version": __version__,
    }
    for name, (features, *_) in study.features.items():
        spread = per_dimension_std(features[rows])
        facts[f"effective rank of {name}"] = (
            f"{rankme(features[rows]):.1f} of {features.shape[1]} (RankMe on {len(rows)} judged images); standard "
            f"deviation of a dimension: median {np.median(spread):.3g}, smallest {spread.min():.3g}"
        )
    notes = [note for answer in answers for note in answer.notes]
    return Report(
        title=f"What did {study.judged} learn from {collection.name}?",
        rows=[row for answer in answers for row in answer.rows],
        meanings=MEANINGS,
        warnings=scope.warnings,
        conclusions=[text for answer in answers for text in answer.conclusions],
        unasked=unasked,
        notes=[*scope.notes, *dict.fromkeys(notes), *missing, *cautions(groups, study.group_noun)],
        facts=facts,
        command=command,
    )


def _counts(collection: Collection, scope: Scope) -> list[str]:
    parts = ", ".join(f"{part} {count}" for part, count in Counter(scope.parts).items())
    labels = Counter(label for item in scope.items for label in item.labels or ())
    classes = ", ".join(f"{name} {labels[name]}" for name in collection.classes) or "none"
    groups = len({item.group for item in scope.items})
    return [f"{len(scope.items)} images of {groups} {collection.group_noun}s ({parts}); classes: {classes}"]


def _items_digest(scope: Scope) -> str:
    facts = [
        (item.item_id, part, item.labels, item.group, item.site)
        for item, part in zip(scope.items, scope.parts, strict=True)
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
