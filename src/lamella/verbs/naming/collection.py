"""`lamella name CLIP DATA prompts=... -o results`: how well are given regions named? The masks are the truth's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from lamella import __version__
from lamella.config import Request
from lamella.data.splits import group_folds
from lamella.engine.rundir import claim
from lamella.engine.world import choose_device
from lamella.errors import LamellaError
from lamella.formats.tables import write_csv
from lamella.imaging.datasets.collection import Collection
from lamella.metrics import ask_classes, ask_few_labels
from lamella.metrics.image_study import ImageAnswer, ImageStudy, Part
from lamella.metrics.naming import HEAD, MEANINGS, TABLE, ZERO_SHOT, Ways, ask_zero_shot, headed
from lamella.metrics.report import Report, Unasked
from lamella.metrics.segments.protocol import split_digest
from lamella.models.clip import Clip, load_clip
from lamella.models.colour_statistics import COLOUR_STATS, ColourStatistics
from lamella.models.text_prompts import TextPrompts, read_text_prompts
from lamella.verbs.evaluation.judged_tiles import slug
from lamella.verbs.evaluation.report import (
    FAILED,
    RESULTS,
    Question,
    ask_all,
    cautions,
    command_of,
    finish,
    record_failures,
    write_tables,
)
from lamella.verbs.evaluation.rival_encoders import COLOUR, RANDOM
from lamella.verbs.evaluation.scope import Scope, parts_of, scope_of
from lamella.verbs.naming.embedding import Shown, cosines, embedded_prompts, embedded_regions, ways_of
from lamella.verbs.naming.pictures import PICTURE, draw_named
from lamella.verbs.naming.settings import Config
from lamella.verbs.naming.survey import counts_text, prompts_for, survey

_IGNORED = ("batch_size", "device")
_ORACLE = (
    "Oracle: the regions are cut from the truth masks. These numbers say how well given regions are named, never how "
    "well tissue is found; they belong in no table with automatic segmentation."
)
_FEW, _CLASSES = f"{HEAD}: {ask_few_labels.FEW}", f"{HEAD}: {ask_classes.CLASSES}"
_MEANINGS = {**MEANINGS, _FEW: ask_few_labels.MEANINGS[ask_few_labels.FEW], _CLASSES: ask_classes.MEANING}


def run(request: Request, collection: Collection) -> int:
    """Name the regions of a data set with masks and write results.md, results.json and tables.

    Raises:
        LamellaError: Prompts and data do not belong together, or nothing can be read.
    """
    resolved = request.resolve(Config)
    config = resolved.config
    if collection.kind != "image":
        raise LamellaError(collection.name, f"it holds {collection.kind}s", "Give a data set of images with masks.")
    prompts = prompts_for(collection, [read_text_prompts(each) for each in config.prompts])
    clip = load_clip(str(request.paths[0]))
    texts = embedded_prompts(clip, prompts)  # now: a text that is too long is told before images are read
    with_masks = collection.only([item for item in collection.items if item.mask is not None])
    scope = scope_of(with_masks, None, seen="refuse", digest=lambda _: "", known=False)
    masked = collection.only(scope.items)
    if request.dry_run:
        print(resolved.text())
        print(f"would name the regions of {len(masked)} images by {', '.join(ways_of(prompts, config.modes))}")
        return 0
    out = request.folder()
    inputs = {
        "clip": clip.fingerprint,
        "prompts": {one.name: {name: list(each) for name, each in one.texts.items()} for one in prompts},
        "items": [[item.item_id, item.group, item.split] for item in masked.items],
    }
    claimed = claim(out, resolved.tree(), resolved.origins, verb="name", ignore=_IGNORED, inputs=inputs)
    if claimed.resumed and (out / RESULTS).exists() and not (out / FAILED).exists():
        print(f"nothing to do: {out / RESULTS} holds these results already")
        return 0
    found = survey(masked, prompts[0].classes, config)
    record_failures(out, found.failed)
    if not found.regions:
        reason = next(iter(found.failed.values()), f"none has {config.region.min_px} pixels")
        raise LamellaError(collection.name, f"no region is left ({reason})", "Lower region.min_px, or see failed.csv.")
    rows = list(found.rows())
    write_csv(out / "regions.csv", rows, list(rows[0]))
    print("\n".join([*scope.warnings, *scope.notes, *counts_text(found, collection.group_noun, config.region)]))
    shown = Shown(masked, found, config)
    device, reason = choose_device(config.device)
    print(f"{clip.name} on {device.type} ({reason}); modes: {', '.join(config.modes)}")
    study, ways = _studied(clip.to(device), texts, prompts, shown, scope, out / "features")
    answers, unasked = ask_all(_questions(study, ways, config))
    report = _report(request, study, scope, shown, clip, (answers, unasked))
    files = [out / "regions.csv", *write_tables(out, answers)]
    files += [draw_named(each.tables[TABLE], shown, clip, out / PICTURE) for each in answers if TABLE in each.tables]
    return finish(report, out, files, found.failed, "images")


def _questions(study: ImageStudy, ways: Ways, config: Config) -> list[Question]:
    def few() -> ImageAnswer:
        return headed(ask_few_labels.ask_few_labels(study, config.nshot), ask_few_labels.FEW)

    def all_labels() -> ImageAnswer:
        return headed(ask_classes.ask_classes(study, ["linear"]), ask_classes.CLASSES)

    known: dict[str, Question] = {
        "zero-shot": (ZERO_SHOT, partial(ask_zero_shot, study, ways)),
        "nshot": (_FEW, few),
        "linear": (_CLASSES, all_labels),
    }
    return [known[task] for task in known if task in config.tasks]


def _studied(
    clip: Clip, texts: np.ndarray, prompts: tuple[TextPrompts, ...], shown: Shown, scope: Scope, folder: Path
) -> tuple[ImageStudy, Ways]:
    """What every network makes of every region: features of the first mode for probes, cosines of all for texts."""
    config = shown.config
    vectors: dict[str, list[np.ndarray]] = {}
    scores: dict[str, list[np.ndarray]] = {}
    for seed in range(-1, config.random_inits):  # one network in memory at a time, beside the judged one
        network = clip if seed < 0 else clip.random_twin(seed)
        name = clip.name if seed < 0 else RANDOM
        path = folder / f"{slug(network.name)}-{max(seed, 0)}.safetensors"
        found = embedded_regions(network.images, network, shown, network.fingerprint, path, f"embed, {network.name}")
        own = texts if seed < 0 else embedded_prompts(network, prompts)
        vectors.setdefault(name, []).append(found)
        scores.setdefault(name, []).append(cosines(found, own))
        scale = clip.scale if seed < 0 else network.scale
    colour = ColourStatistics()
    path = folder / "colour.safetensors"
    vectors[COLOUR] = [embedded_regions(colour.pooled, clip, shown, colour.fingerprint, path, f"embed, {COLOUR_STATS}")]
    ways = Ways(
        ways_of(prompts, config.modes),
        {name: tuple(each) for name, each in scores.items()},
        {clip.name: clip.scale, RANDOM: scale},
    )
    return _study(vectors, shown, scope, len(ways.names)), ways


def _parts(rows: Scope, labels: np.ndarray, shown: Shown, ways: int) -> tuple[Part, ...]:
    """The split, or folds; of one patient all are judged, where nothing is fitted and nothing chosen."""
    config = shown.config
    alone = len({item.group for item in rows.items}) == 1 and set(rows.parts) == {"fold"}
    if alone and ways == 1 and config.tasks == ("zero-shot",):
        none = np.array([], np.int64)
        return (Part(none, none, np.arange(len(labels))),)
    return parts_of(rows, labels, config.probes.folds, config.seed)


def _study(vectors: Mapping[str, Sequence[np.ndarray]], shown: Shown, scope: Scope, ways: int) -> ImageStudy:
    """The plain arrays that questions are asked of; a region has the group and the part of its image."""
    regions, config = shown.found.regions, shown.config
    part = {item.item_id: name for item, name in zip(scope.items, scope.parts, strict=True)}
    labels = np.array([each.label for each in regions], np.int64)
    rows = Scope(tuple(each.item for each in regions), tuple(part[each.item.item_id] for each in regions), (), ())
    return ImageStudy(
        features={name: tuple(one[:, 0] for one in each) for name, each in vectors.items()},
        items=np.array([each.region_id for each in regions]),
        groups=np.array([each.item.group for each in regions]),
        parts=_parts(rows, labels, shown, ways),
        make_folds=lambda groups, truth, folds: group_folds(groups, truth, folds, seed=config.seed),
        labels=labels,
        class_names=shown.found.classes,
        labelled=np.ones(len(regions), bool),
        probes=config.probes,
        seed=config.seed,
        twin=RANDOM,
        noun="regions",
        group_noun=shown.collection.group_noun,
    )


def _report(
    request: Request,
    study: ImageStudy,
    scope: Scope,
    shown: Shown,
    clip: Clip,
    asked: tuple[Sequence[ImageAnswer], Sequence[Unasked]],
) -> Report:
    answers, unasked = asked
    collection, config, rows = shown.collection, shown.config, study.test_rows
    groups = len(np.unique(study.groups[rows]))
    said = [note for answer in answers for note in answer.notes]
    modes = f"few labels are asked of the isolation {config.modes[0]}"
    scale = "a region of 20 um and one of 2 mm fill the same square: size says nothing, unless region.margin_um is set"
    return Report(
        title=f"How well does {clip.name} name the regions of {collection.name}?",
        rows=[row for answer in answers for row in answer.rows],
        meanings=_MEANINGS,
        warnings=(_ORACLE, *scope.warnings),
        conclusions=[text for answer in answers for text in answer.conclusions],
        unasked=unasked,
        notes=[
            *(*scope.notes, *counts_text(shown.found, collection.group_noun, config.region), modes, scale),
            *(*dict.fromkeys(said), *cautions(groups, collection.group_noun)),
        ],
        facts={
            "data set": collection.name,
            "regions": f"{len(study.items)} ({len(rows)} judged)",
            "groups": f"{len(np.unique(study.groups))} (by {collection.group_noun}); {groups} judged",
            "judged regions": split_digest((study.items[row], study.groups[row]) for row in rows),
            "licence of the weights": clip.contract.licence,
            "licence of the data": collection.licence or "not stated",
            "version": __version__,
        },
        command=command_of(request),
    )
