"""`lamella adapt DATA method.name=prompted model=SPEC`: fine-tune a promptable model on known objects, one a fold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import cast

import torch

from lamella.config import Request, Resolved
from lamella.data.loader import batches
from lamella.data.prompted_objects import PromptedObjects
from lamella.engine.budget import Budget
from lamella.engine.checkpoint import Checkpoints, steps_done
from lamella.engine.loop import Batch, Method, Outcome, TrainSettings, train
from lamella.engine.rundir import claim, settings_hash
from lamella.engine.world import World, start_world
from lamella.errors import ConfigError, ImageError, LamellaError
from lamella.imaging.datasets.collection import Collection
from lamella.methods.prompted import Prompted
from lamella.methods.sam_loss import class_weights
from lamella.models.embedding_cache import EmbeddingCache
from lamella.models.hub import CONFIG_FILE
from lamella.models.promptable import load_promptable
from lamella.verbs.adapting.fold_plan import Part, planned
from lamella.verbs.adapting.prompted_export import export
from lamella.verbs.adapting.prompted_settings import PromptedConfig
from lamella.verbs.adapting.prompted_validation import MONITOR, PromptedValidation
from lamella.verbs.pretraining.collections import collection_inputs, open_collections
from lamella.verbs.progress import Progress, progress

# They change speed, memory, or which part of the run is done now; a rerun may change them.
_IGNORED = ("data.workers", "data.cache_mb", "data.fold", "embeddings", "embeddings_mb", "device", "log", "checkpoint")


def run_prompted(request: Request, resolved: Resolved[PromptedConfig]) -> int:
    """Train the models of a run; those that are there are left as they are.

    Raises:
        LamellaError: The data set, the settings, the model or the folder cannot be used.
    """
    if not request.paths:
        example = "lamella adapt glands/manifest.csv method.name=prompted model=sam2-hiera-tiny -o runs/clicks"
        raise LamellaError("lamella adapt", "no data set is given", f"Example: `{example}`.")
    try:
        return _run(request, resolved)
    except ImageError as error:  # one item ends the run; there may be more of them
        remedy = f"{error.remedy} `lamella datasets {request.paths[0]} check=true` lists all such items."
        raise ImageError(error.thing, error.cause, remedy) from error


def _run(request: Request, resolved: Resolved[PromptedConfig]) -> int:
    config = resolved.config
    with start_world(config.device, config.precision) as world:
        collections = open_collections(request, config.data.dataset)
        out = Path("runs") if request.dry_run and request.out is None else request.folder()
        parts = planned(collections, config.data, config.seed, out)
        _check(config, world)
        start = load_promptable(config.model)
        if request.dry_run:
            print(resolved.text())
            print("\n".join(line for part in parts for line in _told(part)))
            print("dry run: nothing was written")
            return 0
        tree = resolved.tree()
        seen = [(collection, item) for collection in collections for item in collection.items]
        inputs = {**collection_inputs(seen), "model": start.fingerprint}
        alone = config.data.fold is None
        claimed = world.on_main(
            lambda: claim(out, tree, resolved.origins, verb="adapt", ignore=_IGNORED, inputs=inputs, shared=not alone)
        )  # None on the other ranks; on this one its lock lasts until the training ends
        digest = settings_hash(tree, ignore=_IGNORED, inputs=inputs)
        run = _Run(config, collections, digest, world)
        for part in parts:
            if not run.go(part):
                return 0
        world.on_main(lambda: _tell_end(request, config, out))
        del claimed
    return 0


def _check(config: PromptedConfig, world: World) -> None:
    """Refuse what cannot be trained.

    Raises:
        ConfigError: All such settings.
    """
    problems = []
    share = config.data.batch_size // world.size
    if config.data.batch_size % world.size or share % config.optim.micro_batches:
        problems.append(
            f"optim.micro_batches: a batch of {config.data.batch_size} over {world.size} process(es) does not divide "
            f"into {config.optim.micro_batches} equal parts"
        )
    if config.data.views is not None and config.method.encoder != "frozen":
        problems.append(
            f"data.views: embeddings can be kept of a frozen encoder only, and method.encoder={config.method.encoder}; "
            "set data.views=null"
        )
    if config.data.views is not None and config.data.tile_px_stages:
        problems.append("data.tile_px_stages: fixed views (data.views) are of one size")
    if problems:
        raise ConfigError(problems, "adapt")


def _told(part: Part) -> Iterator[str]:
    groups = {name: len({item.group for item in items}) for name, items in (("t", part.train), ("v", part.validate))}
    yield (
        f"{part.title}{len(part.train)} images of {groups['t']} groups to train on, {len(part.validate)} of "
        f"{groups['v']} to validate by, {len(part.held)} held out"
    )


def _tell_end(request: Request, config: PromptedConfig, out: Path) -> None:
    """Say what there is, and what to type next."""
    folders = [out] if config.data.folds is None else [out / f"fold{number}" for number in range(config.data.folds)]
    models = [folder / "model" for folder in folders if (folder / "model" / CONFIG_FILE).is_file()]
    print(f"{len(models)} of {len(folders)} model(s) in {out}")
    read_as = [
        text.removeprefix("data.") for text in request.overrides if text.startswith(("data.dataset.", "data.mpp"))
    ]
    told = " ".join([*read_as, f"rival={config.model}"])
    print(f"next: lamella evaluate {out if config.data.folds else out / 'model'} {request.paths[0]} -o results {told}")


@dataclass
class _Run:
    """The trainings of a run."""

    config: PromptedConfig
    collections: list[Collection]
    digest: str
    world: World
    kept: EmbeddingCache | None = field(default=None, init=False)

    def go(self, part: Part) -> bool:
        """Train and export one part, unless that was done; returns whether the run may go on to the next."""
        model_folder = part.folder / "model"
        if (model_folder / CONFIG_FILE).is_file():
            self._say(f"{part.title}was trained already: {model_folder}")
            return True
        config = self.config
        torch.manual_seed(config.seed)
        model = load_promptable(config.model).to(self.world.device)
        samples = PromptedObjects(self.collections, part.train, config.data, config.seed)
        weights = class_weights(config.method.loss, samples.tiles.class_shares(), self.collections[0].mask_background)
        weights_C = torch.tensor([weights[name] for name in samples.tiles.classes])
        if config.data.views is not None:
            self.kept = self.kept or EmbeddingCache(
                model, config.embeddings, half=True, memory_bytes=config.embeddings_mb << 20
            )
            self.kept.model = model  # the same encoder in every fold: what it made stays valid
        method = Prompted(model, config.method, weights_C, config.seed, self.kept)
        budget = config.budget.resolve(samples.samples_per_epoch, config.data.batch_size)
        for line in (*_told(part), *_described(method, budget, weights, self.world)):
            self._say(line)
        outcome = self._train(method, samples, part, budget)
        if outcome.stopped_by is not None:
            self._say(f"{outcome.stopped_by}: saved after step {outcome.step:,}; the same command goes on from there.")
            return False
        self.world.on_main(lambda: self._finish(method, part, outcome))
        return True

    def _say(self, line: str) -> None:
        if self.world.is_main:
            print(line, flush=True)

    def _train(self, method: Prompted, samples: PromptedObjects, part: Part, budget: Budget) -> Outcome:
        config, world = self.config, self.world
        settings = TrainSettings(
            budget, config.optim, config.log, config.checkpoint, config.seed, self.digest, config.early_stopping
        )

        def of_this_rank(first: int, steps: int) -> Iterator[Batch]:
            read = partial(samples.batch, rank=world.rank, world_size=world.size)
            yield from batches(read, first, steps, config.data.workers, pin_memory=world.device.type == "cuda")

        arguments = (cast(Method, method), of_this_rank, settings, part.folder, world)
        if not world.is_main:
            return train(*arguments, validate=self._never if part.validate else None)
        validate = None
        if part.validate:
            validate = PromptedValidation.of(
                method, self.collections, part.validate, config.data, config.validation, config.seed, world.device
            )
        done = steps_done(part.folder / "checkpoints")
        bar: Progress[int] = progress(budget.steps, f"{part.title}train", done=done)
        with bar:
            return train(*arguments, validate=validate, on_step=lambda _, loss: bar.advance(note=f"loss {loss:.4f}"))

    @staticmethod
    def _never(epochs: int) -> dict[str, float]:
        raise AssertionError("rank 0 validates for all")

    def _finish(self, method: Prompted, part: Part, outcome: Outcome) -> None:
        """Export the best weights, or the last where nothing said which are the best."""
        best = outcome.best
        if best is not None and best.best_step >= 0:
            checkpoints = Checkpoints(part.folder / "checkpoints", self.config.checkpoint, self.digest)
            checkpoints.restore(method, best.best_step)
            self._say(f"{part.title}{MONITOR} {best.best:.4f} after step {best.best_step:,}; these weights are kept")
            if best.best_step == 0:
                self._say(f"{part.title}training never improved on the model it began with: it is exported unchanged")
        folder = part.folder / "model"
        export(method.model, folder, self.config, self.collections, part, outcome)
        self._say(f"{part.title}trained on {outcome.images_seen:,} tiles; wrote {folder}")


def _described(method: Prompted, budget: Budget, weights: dict[str, float], world: World) -> Iterator[str]:
    trained = sum(parameter.numel() for parameter in method.parameters() if parameter.requires_grad)
    whole = sum(parameter.numel() for parameter in method.parameters())
    yield f"  device      {world}"
    yield f"  parameters  {whole:,}, {trained:,} of them can be trained (encoder {method.settings.encoder})"
    yield f"  classes     {', '.join(f'{name} (weight {weight:.3g})' for name, weight in weights.items())}"
    yield f"  steps       {budget.steps:,} of {budget.images_per_step} tiles, epochs of {budget.images_per_epoch:,}"
    for absent in method.model.absent:
        yield f"  absent      {absent} It is no part of the loss."
