"""`lamella pretrain DATA -o runs/first method.name=...`: train an encoder without labels.

Slides, images, volumes and video go through the same loop; what differs is made by the files of `pretraining`, each
a `Course`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from lamella.config import Request, Resolved
from lamella.data.loader import batches
from lamella.engine.checkpoint import steps_done
from lamella.engine.log import StepRow, read_monitors, read_steps
from lamella.engine.loop import Batch, Method, Outcome, TrainSettings, train
from lamella.engine.rundir import claim, settings_hash
from lamella.engine.world import World, start_world
from lamella.errors import ConfigError, ImageError, LamellaError
from lamella.models.hub import CONFIG_FILE, model_card
from lamella.verbs.pretraining.course import Course, RunSettings
from lamella.verbs.pretraining.images import JepaConfig, LeJepaConfig, MaskedConfig, images_course
from lamella.verbs.pretraining.monitors import alarms, measure
from lamella.verbs.pretraining.slides import CrossConfig, is_catalogue, slides_course
from lamella.verbs.pretraining.volumes import VideoConfig, VolumeConfig, video_course, volumes_course
from lamella.verbs.progress import progress

# They change speed, memory or what is written beside the model, not the model; a rerun may change them.
_IGNORED = ("data.workers", "data.max_open_slides", "data.cache_mb", "device", "log", "checkpoint")
_ENDS_STEPS = 20  # the loss of one step is noisy: start and end are means of so many
_SLIDES = "cross_jepa"

# method.name -> its settings; `lamella config pretrain` prints them all.
CONFIGS: dict[str, type[RunSettings]] = {
    _SLIDES: CrossConfig,
    "lejepa": LeJepaConfig,
    "ijepa": MaskedConfig,
    "jepa": JepaConfig,
    "volume": VolumeConfig,
    "video": VideoConfig,
}
_COURSES: dict[str, Callable[[Request, Any], Course]] = {
    _SLIDES: slides_course,
    "lejepa": images_course,
    "ijepa": images_course,
    "jepa": images_course,
    "volume": volumes_course,
    "video": video_course,
}


def run(request: Request) -> int:
    """Train until the budget is spent, then export the encoder; a rerun goes on from the newest checkpoint."""
    name = _method_name(request)
    try:
        return _run(request, name)
    except ImageError as error:  # one item ends the run; there may be more of them
        data = " ".join(map(str, request.paths[:1]))
        remedy = f"{error.remedy} `lamella datasets {data} check=true` lists all such items before you train."
        raise ImageError(error.thing, error.cause, remedy) from error


def _run(request: Request, name: str) -> int:
    resolved = request.resolve(CONFIGS[name])
    config = resolved.config
    with start_world(config.device, config.precision) as world:
        torch.manual_seed(config.seed)
        course = _COURSES[name](request, config)
        course.check_share(world.rank, world.size)
        if request.dry_run:
            return _dry_run(resolved, course, world)
        out, tree = request.folder(), resolved.tree()
        claimed = world.on_main(
            lambda: claim(out, tree, resolved.origins, verb="pretrain", ignore=_IGNORED, inputs=course.inputs)
        )  # None on the other ranks; on this one its lock lasts until the training ends
        folder = out if claimed is None else claimed.folder
        return _train(course, world, folder, settings_hash(tree, ignore=_IGNORED, inputs=course.inputs))


def _method_name(request: Request) -> str:
    """The method asked for; on an anchors folder, the one for slides unless another is named.

    Raises:
        LamellaError: A path does not exist.
        ConfigError: No method is named, or there is no such method.
    """
    name = request.chosen("method.name")
    for path in request.paths:
        if not path.exists():
            raise LamellaError(path, "there is no such file or folder", "Check the spelling.")
    if name is None and (is_catalogue(request.paths) or not request.paths):
        return _SLIDES
    if name in CONFIGS:
        return str(name)
    others = ", ".join(method for method in CONFIGS if method != _SLIDES)
    given = "" if name is None else f" {name!r} is none of them;"
    raise ConfigError(
        [f"method.name:{given} an anchors folder is learned from by {_SLIDES}, everything else by one of {others}"],
        "pretrain",
    )


def _describe(course: Course, world: World) -> Iterator[str]:
    budget, method = course.budget, cast(torch.nn.Module, course.method)
    trained = sum(parameter.numel() for parameter in method.parameters() if parameter.requires_grad)
    encoder = sum(parameter.numel() for parameter in course.method.encoder().parameters())
    yield f"device      {world}"
    for label, text in course.sources:
        yield f"{label:<11} {text}"
    yield (
        f"steps       {budget.steps:,} of {budget.images_per_step} images: "
        f"{budget.images(budget.steps):,} images, epochs of {budget.images_per_epoch:,}"
    )
    yield f"parameters  {encoder:,} in the encoder, {trained:,} trained"


def _train(course: Course, world: World, out: Path, digest: str) -> int:
    """Train in a claimed folder; `digest` is the hash of its settings."""
    done = steps_done(out / "checkpoints")
    if world.is_main:
        print("\n".join(_describe(course, world)))
        if 0 < done < course.budget.steps:
            print(f"resumes     after step {done:,}")
    outcome = _loop(course, world, out, digest, done)
    if outcome.stopped_by is not None:
        if world.is_main:
            print(f"{outcome.stopped_by}: saved after step {outcome.step:,} in {outcome.checkpoint}.")
            print("The same command goes on from there.")
        return 0
    world.on_main(lambda: _finish(course, out, outcome))
    return 0


def _loop(course: Course, world: World, out: Path, digest: str, done: int) -> Outcome:
    config, budget = course.config, course.budget
    held: list[Batch] = []

    def monitor(images_seen: int) -> Mapping[str, Any]:
        if not held:  # read when first needed: a finished run needs none
            held.extend(course.held(config.log.monitor_images))
        values = measure(course.method, held, world)
        first = next(iter(read_monitors(out)), values)
        warnings = alarms(values, first, images_seen / budget.images(budget.steps))
        for warning in warnings:
            print(f"warning: after {images_seen:,} images: {warning}", file=sys.stderr, flush=True)
        return {**values, "warnings": warnings}

    def of_this_rank(first: int, steps: int) -> Iterator[Batch]:
        read = partial(course.samples.batch, rank=world.rank, world_size=world.size)
        return batches(read, first, steps, course.workers, pin_memory=world.device.type == "cuda")

    settings = TrainSettings(budget, config.optim, config.log, config.checkpoint, config.seed, digest)
    arguments = (cast(Method, course.method), of_this_rank, settings, out, world)
    if not world.is_main:
        return train(*arguments)
    with progress(budget.steps, "pretrain", done=done) as bar:
        return train(*arguments, monitor=monitor, on_step=lambda _, loss: bar.advance(note=f"loss {loss:.4f}"))


def _finish(course: Course, out: Path, outcome: Outcome) -> None:
    """Export the encoder unless an earlier call did, and say what there is."""
    model = out / "model"
    trained_now = outcome.step > outcome.resumed_from
    rows, monitors = read_steps(out), read_monitors(out)
    if not rows or not monitors:
        raise LamellaError(
            out, "steps.csv or monitors.jsonl is gone, and the model card needs them", "Train anew, in a new folder."
        )
    if trained_now or not (model / CONFIG_FILE).exists():
        course.save(model, model_card(_facts(course, out, rows, monitors)))
    last, ends = monitors[-1], _ends(rows)
    print(f"{'trained' if trained_now else 'was trained already:'} {outcome.images_seen:,} images")
    start, end = _loss(rows[:ends]), _loss(rows[-ends:])
    print(f"  loss        {start:.4f} at the start, {end:.4f} at the end (means of {ends} steps)")
    if judged := _judged(last):
        print(f"  held views  {judged}")
    print(f"  rank        {_rank(monitors[0])} at the start, {_rank(last)} at the end")
    for warning in last["warnings"]:
        print(f"  WARNING     {warning}")
    print(f"wrote {model} (the encoder), steps.csv, log.jsonl, monitors.jsonl, checkpoints/ in {out}")
    print(f"next: {course.next_command.format(model=model)}")


def _facts(course: Course, out: Path, rows: list[StepRow], monitors: list[dict[str, Any]]) -> dict[str, Any]:
    last = monitors[-1]
    warnings = sorted({warning.partition(":")[0] for entry in monitors for warning in entry["warnings"]})
    collapse = (
        [f"During training these monitors gave warnings (monitors.jsonl): {', '.join(warnings)}."] if warnings else []
    )
    held = {"held views": _judged(last)} if _judged(last) else {}
    return {
        "name": out.resolve().name,
        "licence": "unknown",  # that of the weights is for whoever trained them to state
        "contract": course.method.encoder().contract,
        "data": course.card["data"],
        "method": course.card["method"],
        "images seen": f"{rows[-1].images_seen:,}",
        "loss": f"{_loss(rows[-_ends(rows) :]):.4f}, mean of the last {_ends(rows)} steps",
        **held,
        "effective rank": _rank(last),
        "seed": course.config.seed,
        "limits": [
            *collapse,
            "Loss and effective rank say that training worked, not that the features are useful: `lamella evaluate`.",
            f"Not for diagnosis. {course.card['limits']}",
        ],
    }


def _judged(last: Mapping[str, Any]) -> str:
    """The loss on the held views beside those of the trivial predictors."""
    names = {
        "loss_prediction": "prediction loss",
        "loss_mean_predictor": "mean embedding",
        "loss_same_slide": "same slide's other anchors",
    }
    known = [f"{text} {last[name]:.4f}" for name, text in names.items() if last.get(name) is not None]
    return ", ".join(known)


def _rank(entry: Mapping[str, Any]) -> str:
    if entry["rankme"] is None:
        return "not a number"
    return f"RankMe {entry['rankme']:.1f}, centred {entry['rankme_centred']:.1f}"


def _ends(rows: list[StepRow]) -> int:
    """How many steps are the start, and how many the end, of a run."""
    return min(_ENDS_STEPS, max(1, len(rows) // 2))


def _loss(rows: list[StepRow]) -> float:
    return sum(row.loss for row in rows) / len(rows)


def _dry_run(resolved: Resolved[Any], course: Course, world: World) -> int:
    if world.is_main:
        print(resolved.text())
        print("\n".join(_describe(course, world)))
        print("dry run: nothing was written")
    return 0
