"""`lamella evaluate PROMPTABLE DATA -o results`: how well does a model answer prompts on known objects?

An oracle: class and prompt come from the truth. Its numbers stand in a table of their own.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np

from lamella import __version__
from lamella.config import Request
from lamella.engine.rundir import claim
from lamella.engine.world import choose_device
from lamella.errors import LamellaError
from lamella.formats.tables import write_csv
from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.datasets.identity import item_digest
from lamella.imaging.datasets.requirements import masked
from lamella.metrics.prompted import PromptedStudy, prompted_rows
from lamella.metrics.report import Report
from lamella.models.promptable import is_promptable, load_promptable
from lamella.verbs.evaluation.prompted_pictures import OVERLAYS, drawn
from lamella.verbs.evaluation.prompted_settings import Config
from lamella.verbs.evaluation.prompted_study import ask_all_images, gathered, object_table
from lamella.verbs.evaluation.prompted_work import Work
from lamella.verbs.evaluation.report import (
    FAILED,
    RESULTS,
    cautions,
    command_of,
    finish,
    record_failures,
)
from lamella.verbs.evaluation.scope import refuse_split_groups
from lamella.verbs.evaluation.segment_models import Judges, judges_of

OBJECTS = "objects.csv"
_IGNORED = ("device", "overlays", "embeddings")
_NOT_SAID = "What SAM 2 was pretrained on is its authors' to say (photographs and films, SA-1B and SA-V)."


def run_prompted_evaluation(request: Request, collection: Collection) -> int:
    """Judge a promptable model on images with masks; writes results.md, results.json, objects.csv and a picture.

    MODEL is what `load_promptable` takes, or the folder of a run with folds: each image is then judged by the model
    that has not seen its group.

    Raises:
        LamellaError: The data have no masks, or no image may be judged.
    """
    resolved = request.resolve(Config)
    config = resolved.config
    if collection.kind != "image":
        raise LamellaError(collection.name, f"it holds {collection.kind}s", "A promptable model is judged on images.")
    collection = masked(collection)
    refuse_split_groups(collection)
    specs = promptables_in(request.paths[0]) or (request.paths[0],)
    digest = partial(item_digest, collection)
    asked = _asked(collection, config, single=len(specs) == 1)
    judges = judges_of(specs, collection, asked, seen=config.seen, ensemble=False, digest=digest)
    print("\n".join([*judges.warnings, *judges.notes, _told(collection, judges)]))
    if request.dry_run:
        print(resolved.text())
        return 0
    device, reason = choose_device(config.device)
    models = [load_promptable(spec).to(device) for spec in specs]
    if config.rival is not None:  # a rival that has seen the images would be flattered, and the judged model wronged
        judges_of([Path(config.rival)], collection, list(judges.judged), seen="refuse", ensemble=False, digest=digest)
    rival = None if config.rival is None else load_promptable(config.rival).to(device)
    out = request.folder()
    inputs = {
        "models": [model.fingerprint for model in models],
        "rival": None if rival is None else rival.fingerprint,
        "items": [item.item_id for item in judges.judged],
    }
    claimed = claim(out, resolved.tree(), resolved.origins, verb="evaluate", ignore=_IGNORED, inputs=inputs)
    if claimed.resumed and (out / RESULTS).exists() and not (out / FAILED).exists():
        print(f"nothing to do: {out / RESULTS} holds these results already")
        return 0
    print(f"{models[0].name} on {device.type} ({reason})")
    work = Work(collection, judges, models, rival, config, out, device)
    return _report(work, request)


def promptables_in(path: Path) -> tuple[Path, ...]:
    """Model folders of a run: `model` in it, or `fold0/model`, ...; none where the path is no run of such models."""
    if not path.is_dir():
        return ()
    folds = [folder for folder in path.glob("fold*/model") if re.fullmatch(r"fold\d+", folder.parent.name)]
    found = sorted((each for each in folds if is_promptable(each)), key=lambda each: int(each.parent.name[4:]))
    return tuple(found) or ((path / "model",) if is_promptable(path / "model") else ())


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
        raise LamellaError(collection.name, f"it has no {part} images with masks", "Set judge=all.")
    return items


def _told(collection: Collection, judges: Judges) -> str:
    groups = len({item.group for item in judges.judged})
    return f"{len(judges.judged)} images of {groups} {collection.group_noun}s are judged: class and prompt are given"


def _report(work: Work, request: Request) -> int:
    found = ask_all_images(work)
    record_failures(work.out, work.failed)
    if not found:
        reason = next(iter(work.failed.values()), f"no object has {work.config.protocol.min_area_px} pixels or more")
        raise LamellaError(work.collection.name, f"no object could be asked about ({reason})", "See failed.csv.")
    study: PromptedStudy = gathered(work, found)
    rows, sentences = prompted_rows(study)
    table = object_table(study)
    write_csv(work.out / OBJECTS, table, list(table[0]))
    pictures = drawn(work, study)
    collection, noun = work.collection, work.collection.group_noun
    groups = len(np.unique(study.groups))
    report = Report(
        title=f"How well does {work.name} answer prompts on {collection.name}?",
        rows=rows,
        meanings={study.question: _MEANING},
        warnings=work.judges.warnings,
        conclusions=sentences,
        notes=[*work.judges.notes, *collection.notes, *_notes(work), *cautions(groups, noun)],
        facts={
            "data set": collection.name,
            "images": f"{len(found)} with objects, of {len(work.judges.judged)} judged",
            "objects": len(study.items),
            "groups": f"{groups} (by {noun})",
            "encoder passes": work.cache.passes,
            "licence of the data": collection.licence or "not stated",
            "licence of the model": work.models[0].licence,
            "version": __version__,
        },
        command=command_of(request),
        pictures=pictures,
    )
    files = [work.out / OBJECTS, *(work.out / file for file, _ in pictures)]
    return finish(report, work.out, files, work.failed, "images")


_MEANING = (
    "The truth says which object is asked about and where it lies: an upper bound of what a user gets who knows what "
    "they look for, not what the model finds by itself. Each answer is compared with its object alone. box: tight. "
    "noisy box: each side off by up to 10 % of the length, at most 20 px. k clicks: the first into the depth of the "
    "object, each further one into the depth of the largest wrong region. centroid, multi-point, box, box + negatives "
    "and + TTA are the source's five prompts. Baselines are answers without a model: the box itself, or around the "
    "first click a disk of the median size of such objects in other groups' images."
)


def _notes(work: Work) -> list[str]:
    protocol = work.config.protocol
    spacing = "as they are" if work.config.mpp is None else f"at {work.config.mpp:g} µm/px"
    notes = [
        f"Images are shown and scored {spacing}; an object is a connected part of a class (8 neighbours) of at least "
        f"{protocol.min_area_px} px, within tiles of at most {work.config.tile_px} px",
        "One click is answered by the mask of three that the model believes in most, every other prompt by one mask",
        *work.models[0].absent,
    ]
    if work.judges.warnings and len(work.models) == 1:
        notes.append(_NOT_SAID)
    return notes


__all__ = ["OVERLAYS", "Config", "Work", "promptables_in", "run_prompted_evaluation"]
