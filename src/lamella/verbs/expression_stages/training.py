"""Stage `train` of `lamella expression`: every cell of the grid, every fold, every seed, with one command.

Each cell is a run folder of its own, so that a grid can grow; each model is trained in a folder of its own, goes on
from its checkpoint after a stop, and is left alone when it is done.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from lamella.data.expression_batches import ExpressionBatches, ExpressionBatchSettings
from lamella.data.expression_digest import study_digest
from lamella.data.loader import batches
from lamella.engine.budget import Budget
from lamella.engine.checkpoint import Checkpoints
from lamella.engine.loop import Batch, Method, Outcome, TrainSettings, train
from lamella.engine.rundir import Claim, claim, settings_hash
from lamella.engine.world import World, start_world
from lamella.methods.expression import ExpressionMethod
from lamella.models.expression.network import ExpressionNetwork
from lamella.verbs.expression_stages.features import view_shapes, with_spacings
from lamella.verbs.expression_stages.grid import Cell
from lamella.verbs.expression_stages.stage import MODELS, Stage
from lamella.verbs.expression_stages.training_export import RECORD, TABLE, export, facts_of, told, write_table
from lamella.verbs.expression_stages.training_inputs import TrainingFacts, TrainingInputs, training_facts
from lamella.verbs.expression_stages.training_jobs import train_in_processes
from lamella.verbs.expression_stages.training_plan import TrainingPart, cell_folder, planned, trained_models
from lamella.verbs.expression_stages.training_validation import ExpressionValidation
from lamella.verbs.progress import progress

__all__ = ["run_training", "train_part", "trained_models"]

# Settings that decide a cell's models; those below change speed, memory, or how many models there are.
_BLOCKS = ("data", "panel", "features", "train", "seed")
_IGNORED = (
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


def run_training(stage: Stage) -> int:
    """Train the models of a study; those that are there are left as they are.

    Raises:
        LamellaError: The data, the features or the settings cannot be used; see the classes of `lamella.errors`.
    """
    parts, settings = planned(stage), stage.config.train
    inputs = {"study": study_digest(stage.study)}
    with start_world(settings.device, settings.precision) as world:
        left = [part for part in parts if not part.is_done]
        for cell in _cells(tuple(left)):
            view_shapes(stage, cell.config.features)  # an encoder that is not to be had ends the run before it begins
        # Every cell is claimed before anything is trained: what does not fit a folder shows at once.
        claims = world.on_main(lambda: [_claim(stage, cell, inputs) for cell in _cells(parts)])
        if world.is_main:
            print(_plan_text(parts, left), flush=True)
        if settings.jobs > 1 and world.size == 1 and len(left) > 1:
            finished = train_in_processes(stage, left, settings.jobs)
        else:
            finished = _in_order(stage, left, world)
        if finished:
            world.on_main(lambda: _close(stage, parts))
        del claims  # their locks last until here
    return 0


def train_part(stage: Stage, part: TrainingPart, inputs: TrainingInputs, world: World, *, bar: bool = True) -> bool:
    """Train one model and export it; returns whether the next may begin."""
    ready = _Ready.of(stage, part, inputs, world)
    digest = settings_hash(_tree(part.cell), ignore=_IGNORED) + f"-{part.fold.name}-{part.seed}"
    outcome = _loop(ready, part, world, digest, bar=bar)
    if outcome.stopped_by is not None:
        if world.is_main:
            print(f"{outcome.stopped_by}: {part.title} is saved after step {outcome.step:,}; the same command goes on")
        return False
    world.on_main(lambda: _finish(stage, part, ready, outcome, digest))
    return True


def _in_order(stage: Stage, left: list[TrainingPart], world: World) -> bool:
    inputs = TrainingInputs(stage, stage.config.train.memory_mb)
    return all(train_part(stage, part, inputs, world) for part in left)


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


def _close(stage: Stage, parts: tuple[TrainingPart, ...]) -> None:
    """The table of all models."""
    facts = [json.loads((part.folder / RECORD).read_text(encoding="utf-8")) for part in parts]
    table = stage.folder(MODELS) / TABLE
    write_table(parts, table, facts)
    print(f"wrote {table}: {len(parts)} models of {len(_cells(parts))} cells", flush=True)


def _cells(parts: tuple[TrainingPart, ...]) -> list[Cell]:
    """Each once, in order."""
    return list({part.cell.name: part.cell for part in parts}.values())


def _claim(stage: Stage, cell: Cell, inputs: dict[str, str]) -> Claim:
    """Take the folder of a cell.

    Raises:
        OutputConflictError: It holds models of other settings or slides, or another process is writing there.
    """
    origins = {key: origin for key, origin in stage.resolved.origins.items() if key.split(".")[0] in _BLOCKS}
    folder: Path = cell_folder(stage, cell)
    return claim(folder, _tree(cell), origins, verb="expression train", ignore=_IGNORED, inputs=inputs)


def _tree(cell: Cell) -> dict[str, Any]:
    tree = cell.config.model_dump(mode="json")
    return {key: tree[key] for key in _BLOCKS}


def _plan_text(parts: tuple[TrainingPart, ...], left: list[TrainingPart]) -> str:
    cells, folds = {part.cell.name for part in parts}, {part.fold.name for part in parts}
    done = len(parts) - len(left)
    said = f", {done} of them done already" if done else ""
    return f"{len(parts)} models: {len(cells)} cells x {len(folds)} folds x seeds{said}"
