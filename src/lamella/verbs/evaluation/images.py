"""`lamella evaluate MODEL DATASET -o results` on a data set of 2-D images."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from lamella.config import Request
from lamella.engine.rundir import claim
from lamella.engine.world import choose_device
from lamella.errors import LamellaError
from lamella.imaging.datasets.collection import Collection
from lamella.imaging.datasets.identity import item_digest
from lamella.metrics.image_study import ImageStudy
from lamella.models.colour_statistics import COLOUR_STATS
from lamella.models.hub import load_encoder
from lamella.models.pretraining_record import pretraining_record
from lamella.models.volume_encoder import VolumeEncoder
from lamella.verbs.evaluation.image_features import Embedded, ItemViews, embed_items, is_grey
from lamella.verbs.evaluation.image_questions import MEANINGS, Work, questions_of
from lamella.verbs.evaluation.image_settings import Config
from lamella.verbs.evaluation.judged_tiles import slug
from lamella.verbs.evaluation.label_study import counts_of, items_digest, study_of, study_report
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
from lamella.verbs.evaluation.rival_encoders import COLOUR, PIXELS, RANDOM, Makers, encoders_beside
from lamella.verbs.evaluation.scope import Scope, scope_of
from lamella.verbs.own_intensity import with_own_intensity

__all__ = ["Config", "run"]

_IGNORED = ("batch_size", "device", "cache_mb")


def run(request: Request, collection: Collection) -> int:
    """Judge an encoder on a collection of images and write results.md, results.json and tables."""
    model = str(request.paths[0])
    encoder = load_encoder(model)
    if isinstance(encoder, VolumeEncoder):
        what = f"it is an encoder of {encoder.contract.kind}s, and the data are images"
        raise LamellaError(model, what, "Give an encoder of images.")
    resolved = with_own_intensity(request.resolve(Config), model)
    config = resolved.config
    scope = scope_of(
        collection,
        pretraining_record(model),
        seen=config.seen,
        digest=partial(item_digest, collection),
        known=model == COLOUR_STATS,
    )
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
    views = ItemViews(collection, config.view, encoder, config.cache_mb)
    grey = is_grey(views, scope.items)
    encoders, missing = encoders_beside(encoder, config.random_inits, config.imagenet, config.imagenet_px, grey=grey)
    print(f"encoders: {', '.join(encoders)}, on {device.type} ({reason})")
    study, scope, failed = _embedded_study(encoders, scope, collection, views, config, out, device)
    record_failures(out, failed)
    work = Work(encoder, encoders, study, scope, collection, views, config, out, device)
    answers, unasked = ask_all(questions_of(work))
    report = study_report(study, scope, answers, unasked, missing, command_of(request), collection, MEANINGS)
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
    return study_of(found, scope, collection, config.probes, config.seed), scope, failed
