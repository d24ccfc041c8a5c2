"""`lamella pretrain ANCHORS -o runs/first`: train an encoder without labels."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lamella.config import Request, Resolved, Settings
from lamella.data.cross import CrossDataSettings, CrossSamples
from lamella.data.loader import batches
from lamella.data.strata import training_slides
from lamella.engine.budget import Budget, BudgetSettings
from lamella.engine.checkpoint import CheckpointSettings, steps_done
from lamella.engine.log import LogSettings, StepRow, read_monitors, read_steps
from lamella.engine.loop import Batch, Outcome, TrainSettings, train
from lamella.engine.optim import OptimSettings
from lamella.engine.rundir import claim, settings_hash
from lamella.engine.world import DeviceName, PrecisionName, World, start_world
from lamella.errors import ConfigError, LamellaError
from lamella.methods.cross_jepa import CrossJepa, CrossJepaSettings
from lamella.models.hub import model_card, save_pretrained
from lamella.slides.anchors.catalogue import Catalogue
from lamella.verbs.monitors import alarms, held_views, measure
from lamella.verbs.progress import progress

# They change speed, memory or what is written beside the model, not the model; a rerun may change them.
_IGNORED = ("data.workers", "data.max_open_slides", "device", "log", "checkpoint")
_ENDS_STEPS = 20  # the loss of one step is noisy: start and end are means of so many


class Config(Settings):
    """Settings of `lamella pretrain`."""

    method: CrossJepaSettings = CrossJepaSettings()
    data: CrossDataSettings = CrossDataSettings()
    optim: OptimSettings = OptimSettings()
    budget: BudgetSettings = BudgetSettings()
    log: LogSettings = LogSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    seed: int = 0
    """Seed of the weights, the order of the anchors, the targets and the augmentation."""
    device: DeviceName = "auto"
    """Where to train; under torchrun one process per GPU."""
    precision: PrecisionName = "auto"
    """Arithmetic of the forward pass: bf16 where the GPU has it, else fp32."""


@dataclass(frozen=True)
class _Work:
    """What is trained on what, where."""

    config: Config
    catalogue: Catalogue
    samples: CrossSamples
    method: CrossJepa
    budget: Budget
    world: World

    def describe(self) -> Iterator[str]:
        config, world = self.config, self.world
        slides = training_slides(self.catalogue.index, config.data.exclude_split)
        trained = sum(parameter.numel() for parameter in self.method.parameters() if parameter.requires_grad)
        encoder = sum(parameter.numel() for parameter in self.method.teacher.parameters())
        yield f"device      {world}"
        yield f"slides      {len(slides)} of {len(self.catalogue.index)}{_excluded(config)}"
        yield f"anchors     {len(self.samples):,} of {len(self.catalogue):,}"
        yield (
            f"steps       {self.budget.steps:,} of {self.budget.images_per_step} images: "
            f"{self.budget.images(self.budget.steps):,} images, epochs of {self.budget.images_per_epoch:,}"
        )
        yield f"parameters  {encoder:,} in the encoder, {trained:,} trained"


def run(request: Request) -> int:
    """Train until the budget is spent, then export the encoder; a rerun goes on from the newest checkpoint."""
    resolved = request.resolve(Config)
    config = resolved.config
    catalogue = Catalogue.load(_catalogue_folder(request))
    with start_world(config.device, config.precision) as world:
        work = _work(config, catalogue, world)
        if request.dry_run:
            return _dry_run(resolved, work)
        out, inputs = request.folder(), {"anchors": catalogue.hash}
        tree = resolved.tree()
        claimed = world.on_main(
            lambda: claim(out, tree, resolved.origins, verb="pretrain", ignore=_IGNORED, inputs=inputs)
        )  # None on the other ranks; on this one its lock lasts until the training ends
        folder = out if claimed is None else claimed.folder
        return _train(work, folder, settings_hash(tree, ignore=_IGNORED, inputs=inputs))


def _work(config: Config, catalogue: Catalogue, world: World) -> _Work:
    samples = CrossSamples(catalogue, config.data, config.seed)
    share = len(samples.positions(0, world.rank, world.size))
    if share % config.optim.micro_batches:
        raise ConfigError(
            [
                f"optim.micro_batches: {config.optim.micro_batches} equal parts cannot be made of the {share} images "
                "that each process has of a batch; choose a divisor, or another data.batch_size"
            ],
            "pretrain",
        )
    torch.manual_seed(config.seed)
    method = CrossJepa(config.method, catalogue.sampling)
    budget = config.budget.resolve(samples.samples_per_epoch, config.data.batch_size)
    return _Work(config, catalogue, samples, method, budget, world)


def _train(work: _Work, out: Path, digest: str) -> int:
    """Train in a claimed folder; `digest` is the hash of its settings."""
    world, done = work.world, steps_done(out / "checkpoints")
    if world.is_main:
        print("\n".join(work.describe()))
        if 0 < done < work.budget.steps:
            print(f"resumes     after step {done:,}")
    outcome = _loop(work, out, digest, done)
    if outcome.stopped_by is not None:
        if world.is_main:
            print(f"{outcome.stopped_by}: saved after step {outcome.step:,} in {outcome.checkpoint}.")
            print("The same command goes on from there.")
        return 0
    world.on_main(lambda: _finish(work, out, outcome))
    return 0


def _loop(work: _Work, out: Path, digest: str, done: int) -> Outcome:
    config, world, budget = work.config, work.world, work.budget
    held: list[Batch] = []

    def monitor(images_seen: int) -> Mapping[str, Any]:
        if not held:  # read when first needed: a finished run needs none
            held.extend(held_views(work.samples, config.log.monitor_images))
        values = measure(work.method, held, world)
        first = next(iter(read_monitors(out)), values)
        warnings = alarms(values, first, images_seen / budget.images(budget.steps))
        for warning in warnings:
            print(f"warning: after {images_seen:,} images: {warning}", file=sys.stderr, flush=True)
        return {**values, "warnings": warnings}

    def of_this_rank(first: int, steps: int) -> Iterator[Batch]:
        read = partial(work.samples.batch, rank=world.rank, world_size=world.size)
        return batches(read, first, steps, config.data.workers, pin_memory=world.device.type == "cuda")

    settings = TrainSettings(budget, config.optim, config.log, config.checkpoint, config.seed, digest)
    arguments = (work.method, of_this_rank, settings, out, world)
    if not world.is_main:
        return train(*arguments)
    with progress(budget.steps, "pretrain", done=done) as bar:
        return train(*arguments, monitor=monitor, on_step=lambda _, loss: bar.advance(note=f"loss {loss:.4f}"))


def _finish(work: _Work, out: Path, outcome: Outcome) -> None:
    """Export the encoder unless an earlier call did, and say what there is."""
    model = out / "model"
    trained_now = outcome.step > outcome.resumed_from
    rows, monitors = read_steps(out), read_monitors(out)
    if not rows or not monitors:
        raise LamellaError(
            out, "steps.csv or monitors.jsonl is gone, and the model card needs them", "Train anew, in a new folder."
        )
    if trained_now or not (model / "config.json").exists():
        save_pretrained(
            work.method.encoder(),
            model,
            model_card(_facts(work, out, rows, monitors)),
            pretraining_slides=training_slides(work.catalogue.index, work.config.data.exclude_split),
        )
    last, ends = monitors[-1], _ends(rows)
    print(f"{'trained' if trained_now else 'was trained already:'} {outcome.images_seen:,} images")
    start, end = _loss(rows[:ends]), _loss(rows[-ends:])
    print(f"  loss        {start:.4f} at the start, {end:.4f} at the end (means of {ends} steps)")
    print(f"  held views  {_judged(last)}")
    print(f"  rank        {_rank(monitors[0])} at the start, {_rank(last)} at the end")
    for warning in last["warnings"]:
        print(f"  WARNING     {warning}")
    print(f"wrote {model} (the encoder), steps.csv, log.jsonl, monitors.jsonl, checkpoints/ in {out}")
    print(f"next: lamella embed {model} {work.catalogue.index.folder} -o features")


def _facts(work: _Work, out: Path, rows: list[StepRow], monitors: list[dict[str, Any]]) -> dict[str, Any]:
    config, sampling, last = work.config, work.catalogue.sampling, monitors[-1]
    slides = training_slides(work.catalogue.index, config.data.exclude_split)
    warnings = sorted({warning.partition(":")[0] for entry in monitors for warning in entry["warnings"]})
    collapse = (
        [f"During training these monitors gave warnings (monitors.jsonl): {', '.join(warnings)}."] if warnings else []
    )
    return {
        "name": out.resolve().name,
        "licence": "unknown",  # that of the weights is for whoever trained them to state
        "contract": work.method.encoder().contract,
        "data": (
            f"{len(work.samples):,} anchors on {len(slides)} slides{_excluded(config)}; no labels. Contexts of "
            f"{sampling.context_fov_um:g} um at {sampling.context_output_mpp:g} um per pixel, "
            f"{sampling.targets_per_context} targets of {sampling.target_fov_um:g} um at "
            f"{sampling.target_output_mpp:g} (profile {sampling.profile_id}, catalogue {work.catalogue.hash})."
        ),
        "method": (
            f"{config.method.name}, target {config.method.target}, teacher {config.method.teacher}, "
            f"regulariser {config.method.regulariser.name}"
        ),
        "images seen": f"{rows[-1].images_seen:,}",
        "loss": f"{_loss(rows[-_ends(rows) :]):.4f}, mean of the last {_ends(rows)} steps",
        "held views": _judged(last),
        "effective rank": _rank(last),
        "seed": config.seed,
        "limits": [
            *collapse,
            "Loss and effective rank say that training worked, not that the features are useful: `lamella evaluate`.",
            "Not for diagnosis. Not tested on stains, scanners, organs or species other than those of the data above.",
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


def _excluded(config: Config) -> str:
    split = config.data.exclude_split
    return f" (split `{split}` and its patients left out)" if split is not None else ""


def _dry_run(resolved: Resolved[Config], work: _Work) -> int:
    if work.world.is_main:
        print(resolved.text())
        print("\n".join(work.describe()))
        print("dry run: nothing was written")
    return 0


def _catalogue_folder(request: Request) -> Path:
    if len(request.paths) != 1:
        raise LamellaError(
            "lamella pretrain",
            f"it takes one anchors folder, {len(request.paths)} paths were given",
            "Example: `lamella pretrain anchors -p small -o runs/first`.",
        )
    return request.paths[0]
