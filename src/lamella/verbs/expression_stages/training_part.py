"""One model of the stage `train`: made ready, trained, exported."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch

from lamella.data.expression_batches import ExpressionBatches, ExpressionBatchSettings
from lamella.data.loader import batches
from lamella.engine.budget import Budget
from lamella.engine.checkpoint import Checkpoints
from lamella.engine.loop import Batch, Method, Outcome, TrainSettings, train
from lamella.engine.rundir import settings_hash
from lamella.engine.world import World
from lamella.methods.expression import ExpressionMethod
from lamella.models.expression.network import ExpressionNetwork
from lamella.verbs.expression_stages.features import view_shapes, with_spacings
from lamella.verbs.expression_stages.grid import Cell
from lamella.verbs.expression_stages.stage import Stage
from lamella.verbs.expression_stages.training_export import export, facts_of, told
from lamella.verbs.expression_stages.training_inputs import TrainingFacts, TrainingInputs, training_facts
from lamella.verbs.expression_stages.training_plan import TrainingPart
from lamella.verbs.expression_stages.training_validation import ExpressionValidation
from lamella.verbs.progress import progress

# Settings that decide a cell's models; those below change speed, memory, or how many models there are.
BLOCKS = ("data", "panel", "features", "train", "seed")
IGNORED = (
    "features.cache",
    "features.batch_size",
    "features.device",
    "train.batches.workers",
    "train.seeds",
    "train.jobs",
    "train.memory_mb",
    "train.device",
    "train.log",
    "train.checkpoint",
)

# An epoch's steps at least. A generated chip of 400 um is nine tiles: a validation after each pass would cost more than
# the training, and thirty passes would end before the network knows anything.
_LEAST_STEPS = 20


def train_part(stage: Stage, part: TrainingPart, inputs: TrainingInputs, world: World, *, bar: bool = True) -> bool:
    """Train one model and export it; returns whether the next may begin."""
    ready = _Ready.of(stage, part, inputs, world)
    digest = settings_hash(settings_of(part.cell), ignore=IGNORED) + f"-{part.fold.name}-{part.seed}"
    outcome = _loop(ready, part, world, digest, bar=bar)
    if outcome.stopped_by is not None:
        if world.is_main:
            print(f"{outcome.stopped_by}: {part.title} is saved after step {outcome.step:,}; the same command goes on")
        return False
    world.on_main(lambda: _finish(stage, part, ready, outcome, digest))
    return True


def settings_of(cell: Cell) -> dict[str, Any]:
    """The settings that decide a cell's models, as plain values."""
    tree = cell.config.model_dump(mode="json")
    return {key: tree[key] for key in BLOCKS}


@dataclass(frozen=True)
class _Ready:
    """All that the training of one part needs."""

    genes: tuple[str, ...]
    method: ExpressionMethod
    samples: ExpressionBatches
    validation: ExpressionValidation | None
    budget: Budget
    facts: TrainingFacts

    @classmethod
    def of(cls, stage: Stage, part: TrainingPart, inputs: TrainingInputs, world: World) -> _Ready:
        """The slides of a fold, and weights as the seed draws them.

        Raises:
            LamellaError: Expression or features cannot be used.
        """
        config, study, fold = part.cell.config, stage.study, part.fold
        settings, target = config.train, config.data.target
        genes = inputs.panel(fold, config.panel)
        samples = inputs.batches(
            part.cell,
            part.learned_from(study),
            genes,
            settings.batches,
            part.seed,
            shuffle_labels=settings.shuffle_labels,
        )
        facts = training_facts(samples.samples, settings.loss.rule(target), target)
        method = _method(stage, part, genes, facts)
        judge = ExpressionBatchSettings(batch_size=settings.batches.batch_size, centres="cover", augment=False)
        # The study's seed: all models are judged on the same samples.
        held = tuple(inputs.batches(part.cell, (slide,), genes, judge, config.seed) for slide in part.chosen_on(study))
        log, limit = target == "counts", settings.validation.samples if study.kind == "bin" else None
        validation = ExpressionValidation(method, held, limit, log, world.device) if held else None
        size = settings.batches.batch_size
        epoch = settings.batches.samples_per_epoch or max(len(samples), _LEAST_STEPS * size)
        budget = settings.budget.resolve(epoch, size)
        return cls(genes, method, samples, validation, budget, facts)


def _method(stage: Stage, part: TrainingPart, genes: tuple[str, ...], facts: TrainingFacts) -> ExpressionMethod:
    config, study = part.cell.config, stage.study
    settings, target = config.train, config.data.target
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(part.seed)
        network = ExpressionNetwork(
            settings.model,
            view_shapes(stage, config.features),
            study.tile_bins,
            len(genes),
            settings.loss.needs,
            settings.loss.rule(target),
            facts.mean_G,
        )
        library = facts.library if settings.library == "offset" else None
        return ExpressionMethod(network, settings.loss, target, library).train()


def _loop(ready: _Ready, part: TrainingPart, world: World, digest: str, *, bar: bool) -> Outcome:
    settings, samples = part.cell.config.train, ready.samples
    asked = TrainSettings(
        ready.budget,
        settings.optim,
        settings.log,
        settings.checkpoint,
        part.seed,
        digest,
        settings.validation.early_stopping(),
    )

    def of_this_rank(first: int, steps: int) -> Iterator[Batch]:
        read = partial(samples.batch, rank=world.rank, world_size=world.size)
        return batches(read, first, steps, settings.batches.workers, pin_memory=world.device.type == "cuda")

    arguments = (cast(Method, ready.method), of_this_rank, asked, part.folder, world)
    if not (world.is_main and bar):
        return train(*arguments, validate=ready.validation)
    with progress(ready.budget.steps, part.title) as shown:
        return train(
            *arguments, validate=ready.validation, on_step=lambda _, loss: shown.advance(note=f"loss {loss:.4f}")
        )


def _finish(stage: Stage, part: TrainingPart, ready: _Ready, outcome: Outcome, digest: str) -> None:
    """Export the best weights, or the last where nothing chose; then what only training needed goes."""
    folder, best = part.folder / "checkpoints", outcome.best
    if best is not None and best.best_step >= 0:
        Checkpoints(folder, part.cell.config.train.checkpoint, digest).restore(ready.method, best.best_step)
    more: dict[str, Any] = {
        "training_places": ready.facts.places,
        "library_median": ready.facts.library,
        "genes_without_counts": list(ready.facts.silent),
        "parameters": sum(each.numel() for each in ready.method.parameters() if each.requires_grad),
    }
    facts = facts_of(stage.study, part, outcome, ready.genes, more)
    # With the spacings that this study chose: another's slides may be coarser.
    features = with_spacings(stage, part.cell.config.features)
    made = features.model_dump(mode="json", exclude={"cache", "batch_size", "device"})
    made["fingerprints"] = [raster.facts.fingerprint for raster in ready.samples.views[0].rasters]
    export(ready.method, stage.study, part, ready.genes, made, facts)
    shutil.rmtree(folder, ignore_errors=True)
    print(told(part, facts), flush=True)
    if ready.facts.silent:
        print(f"  note: without a count on the training slides: {', '.join(ready.facts.silent)}", flush=True)
