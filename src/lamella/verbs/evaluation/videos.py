"""`lamella evaluate MODEL DATASET -o results` on a data set of films: what the labels of whole films say."""

from __future__ import annotations

from functools import partial
from typing import Literal

from lamella.config import Request
from lamella.engine.rundir import claim
from lamella.engine.world import choose_device
from lamella.errors import LamellaError
from lamella.imaging.datasets.collection import Collection
from lamella.imaging.datasets.identity import item_digest
from lamella.models.hub import load_encoder
from lamella.models.pretraining_record import pretraining_record
from lamella.models.volume_encoder import VolumeEncoder
from lamella.verbs.evaluation.label_questions import LABEL_MEANINGS, label_questions
from lamella.verbs.evaluation.label_study import counts_of, items_digest, study_report
from lamella.verbs.evaluation.report import (
    FAILED,
    RESULTS,
    ask_all,
    command_of,
    finish,
    record_failures,
    write_embedding,
    write_tables,
)
from lamella.verbs.evaluation.scope import scope_of
from lamella.verbs.evaluation.space_time_study import LabelSettings, label_tasks, space_time_study
from lamella.verbs.evaluation.space_time_views import FilmViewSettings, film_views

_IGNORED = ("batch_size", "cache_mb", "device")


class Config(FilmViewSettings, LabelSettings):
    """Settings of `lamella evaluate` on films."""

    tasks: tuple[Literal["linear", "knn", "nshot", "efficiency", "multilabel", "sites"], ...] = ()
    """What is asked; empty asks linear, knn and nshot of labelled data, multilabel and sites where the data have
    them. efficiency is asked only by name: it takes longer."""


def run(request: Request, collection: Collection) -> int:
    """Judge an encoder on a collection of films, or of volumes in time; writes results.md, results.json and tables.

    Raises:
        LamellaError: The model is not one of films, no film has a label, or none can be read.
    """
    resolved = request.resolve(Config)
    config, model = resolved.config, str(request.paths[0])
    config.refuse_supervised()
    encoder = load_encoder(model)
    if not isinstance(encoder, VolumeEncoder) or encoder.contract.kind != "video":
        raise LamellaError(model, "it is no encoder of films, and the data are films", "Give one that is.")
    if all(item.labels is None for item in collection.items):
        raise LamellaError(
            collection.name,
            "no film has a label, and all that is asked of films needs labels",
            "Name the column of labels (dataset.label), or put the films into a folder for each class.",
        )
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
    views = film_views(collection, encoder.contract, config, model)
    study, scope, failed = space_time_study(encoder, scope, collection, views, config, out, device)
    record_failures(out, failed)
    tasks = config.tasks or label_tasks(collection)
    answers, unasked = ask_all(label_questions(tasks, study, config.nshot, config.efficiency))
    report = study_report(study, scope, answers, unasked, (), command_of(request), collection, LABEL_MEANINGS)
    return finish(report, out, [*write_tables(out, answers), write_embedding(out, study)], failed, "films")
