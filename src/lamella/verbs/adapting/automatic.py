"""`lamella adapt DATA method.name=automatic`: train a model that labels every pixel by itself, one for each fold."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast

import torch
from pydantic import Field

from lamella.config import Request, Resolved
from lamella.data.fixed_views import FixedViews
from lamella.data.labelled_tiles import LabelledTiles
from lamella.data.loader import batches
from lamella.engine.budget import Budget
from lamella.engine.checkpoint import Checkpoints, steps_done
from lamella.engine.early_stopping import EarlyStoppingSettings
from lamella.engine.loop import Batch, Method, Outcome, TrainSettings, train
from lamella.engine.optim import OptimSettings
from lamella.engine.rundir import claim, settings_hash
from lamella.engine.world import World, start_world
from lamella.errors import ConfigError, ImageError, LamellaError
from lamella.imaging.datasets.collection import Collection
from lamella.imaging.datasets.mask_channels import channels_of
from lamella.methods.region_losses import RegionLossSettings, class_weights
from lamella.methods.segment import Segment, SegmentSettings
from lamella.models.decoders.building import make_head
from lamella.models.dense_contract import DenseContract
from lamella.models.pyramids.backbone import Backbone
from lamella.models.pyramids.building import make_backbone
from lamella.models.pyramids.low_rank import merge_low_rank
from lamella.models.pyramids.memory import LevelMemory, RememberingSegmenter
from lamella.models.segmenter import Segmenter
from lamella.models.segmenter_hub import is_segmenter
from lamella.verbs.adapting.fold_plan import FoldSettings, Part, planned
from lamella.verbs.adapting.segment_export import export
from lamella.verbs.adapting.segment_validation import MONITOR, Validation
from lamella.verbs.pretraining.collections import collection_inputs, open_collections
from lamella.verbs.pretraining.course import RunSettings
from lamella.verbs.progress import progress

# They change speed, memory, or which part of the run is done now; a rerun may change them.
_IGNORED = ("data.workers", "data.cache_mb", "data.features_gb", "data.fold", "device", "log", "checkpoint")
_FEATURES = "features"  # folder in a run's folder; removed when all models are there


class AutomaticDataSettings(FoldSettings):
    """What is learned from, and how."""

    batch_size: Annotated[int, Field(ge=1)] = 8
    """Tiles of one optimiser step, over all processes together."""
    views: Annotated[int, Field(ge=0)] = 16
    """With a frozen backbone: so many varied tiles of each image are encoded once and kept on disk, and drawn again and
    again; the sampler has no say. 0 encodes new tiles at every step, as other backbones do."""
    features_gb: Annotated[float, Field(ge=0)] = 20.0
    """Most disk space for what was encoded, in <out>/features; it is removed when all models are trained."""


class AutomaticConfig(RunSettings):
    """Settings of `lamella adapt DATA method.name=automatic`."""

    method: SegmentSettings = SegmentSettings()
    data: AutomaticDataSettings = AutomaticDataSettings()
    # A rate that a head from scratch takes; networks that were trained before want a tenth (see the profiles).
    optim: OptimSettings = OptimSettings(
        lr_start=5e-5, lr=5e-4, lr_end=1e-6, weight_decay=0.02, weight_decay_end=0.02, layer_decay_under=("backbone.*",)
    )
    early_stopping: EarlyStoppingSettings = EarlyStoppingSettings(monitor=MONITOR)
    """When to end before the budget is spent; the best weights are kept either way."""


def run_automatic(request: Request, resolved: Resolved[AutomaticConfig]) -> int:
    """Train the models of a run; those that are there are left as they are.

    Raises:
        LamellaError: The data set, the settings or the folder cannot be used; see the classes of `lamella.errors`.
    """
    if not request.paths:
        raise LamellaError(
            "lamella adapt", "no data set is given", "Example: `lamella adapt glands/manifest.csv -o runs/glands`."
        )
    try:
        return _run(request, resolved)
    except ImageError as error:  # one item ends the run; there may be more of them
        remedy = f"{error.remedy} `lamella datasets {request.paths[0]} check=true` lists all such items."
        raise ImageError(error.thing, error.cause, remedy) from error


def _run(request: Request, resolved: Resolved[AutomaticConfig]) -> int:
    config = resolved.config
    with start_world(config.device, config.precision) as world:
        collections = open_collections(request, config.data.dataset)
        out = Path("runs") if request.dry_run and request.out is None else request.folder()
        parts = planned(collections, config.data, config.seed, out)
        _check(config)
        setting = _Setting(config, collections, out, world)
        left = [part for part in parts if not part.is_done]
        # The first is made ready before the folder is claimed: what is wrong with settings or data shows here.
        first = setting.ready(left[0]) if left else None
        if request.dry_run:
            _dry_run(resolved, parts, first, world)
            return 0
        tree, seen = resolved.tree(), [(each, item) for each in collections for item in each.items]
        inputs, shared = collection_inputs(seen), config.data.fold is not None
        claimed = world.on_main(
            lambda: claim(out, tree, resolved.origins, verb="adapt", ignore=_IGNORED, inputs=inputs, shared=shared)
        )  # None on the other ranks; on this one its lock lasts until the training ends
        digest = settings_hash(tree, ignore=_IGNORED, inputs=inputs)
        for part in parts:
            if part.is_done:
                setting.say(f"{part.title}was trained already: {part.model}")
                continue
            ready, first = first or setting.ready(part), None
            if not _train_part(setting, part, ready, digest):
                return 0
            del ready  # its images and weights are let go before the next part's are read
        world.on_main(lambda: _tell_end(request, config, out))
        del claimed
    return 0


def _dry_run(resolved: Resolved[AutomaticConfig], parts: list[Part], first: _Ready | None, world: World) -> None:
    if world.is_main:
        print(resolved.text())
        print("\n".join(line for part in parts for line in _told(part)))
        if first is not None:
            print("\n".join(_described(first, world)))
        print("dry run: nothing was written")


def _check(config: AutomaticConfig) -> None:
    """Refuse settings that do not go together.

    Raises:
        ConfigError: All of them.
    """
    problems, data = [], config.data
    if data.batch_size % config.optim.micro_batches:
        problems.append(f"optim.micro_batches: a batch of {data.batch_size} does not divide into equal parts")
    if data.tile_px_stages and _remembers(config):
        problems.append("data.tile_px_stages: kept views have one size; set data.views=0, or leave the stages out")
    if getattr(config.method.head, "loss", None) == "sets" and config.method.loss != RegionLossSettings():
        problems.append("method.loss: method.head.loss=sets is a loss of its own; set method.head.loss=pixels for this")
    if problems:
        raise ConfigError(problems, "adapt")


def _remembers(config: AutomaticConfig) -> bool:
    """Whether tiles are encoded once: where the backbone does not learn."""
    return config.method.backbone.train == "frozen" and config.data.views > 0


def _told(part: Part) -> Iterator[str]:
    groups = {name: len({item.group for item in items}) for name, items in (("t", part.train), ("v", part.validate))}
    yield (
        f"{part.title}{len(part.train)} images of {groups['t']} groups to train on, {len(part.validate)} of "
        f"{groups['v']} to validate by, {len(part.held)} held out"
    )


def _tell_end(request: Request, config: AutomaticConfig, out: Path) -> None:
    """Clear away what only training needed, and say what to type next."""
    folders = [out] if config.data.folds is None else [out / f"fold{number}" for number in range(config.data.folds)]
    models = [folder / "model" for folder in folders if is_segmenter(folder / "model")]
    if len(models) == len(folders):
        shutil.rmtree(out / _FEATURES, ignore_errors=True)
    print(f"{len(models)} of {len(folders)} model(s) in {out}")
    read_as = [text.removeprefix("data.") for text in request.overrides if text.startswith("data.dataset.")]
    model = out if config.data.folds else out / "model"
    print(f"next: lamella evaluate {model} {request.paths[0]} -o results {' '.join(read_as)}".rstrip())


@dataclass(frozen=True)
class _Ready:
    """All that the training of one part needs.

    Attributes:
        method: What is trained.
        tiles: The images that it learns from.
        samples: What is drawn from them.
        memory: What the frozen backbone made of tiles; None where tiles are encoded at every step.
        budget: How long.
    """

    method: Segment
    tiles: LabelledTiles
    samples: LabelledTiles | FixedViews
    memory: LevelMemory | None
    budget: Budget


@dataclass(frozen=True)
class _Setting:
    """What the parts of a run have in common."""

    config: AutomaticConfig
    collections: list[Collection]
    out: Path
    world: World

    def say(self, line: str) -> None:
        if self.world.is_main:
            print(line, flush=True)

    def ready(self, part: Part) -> _Ready:
        """Weights as the seed draws them, the same for every part, and the part's images."""
        config, data = self.config, self.config.data
        torch.manual_seed(config.seed)
        backbone = make_backbone(config.method.backbone, data.mpp)
        segmenter = _segmenter(config, self.collections[0], backbone, part)
        tiles = LabelledTiles(self.collections, part.train, data, config.seed)
        weights_C = class_weights(config.method.loss, tiles.class_shares())
        memory = None
        if _remembers(config):
            memory = LevelMemory(backbone.to(self.world.device), self.out / _FEATURES, data.features_gb)
        method = Segment(segmenter, config.method.loss, weights_C, cached=memory is not None).train()
        samples = tiles if memory is None else FixedViews(tiles, data.views)
        return _Ready(method, tiles, samples, memory, config.budget.resolve(samples.samples_per_epoch, data.batch_size))

    def validation(self, part: Part, ready: _Ready) -> Validation | None:
        """None where nothing is held back for it."""
        if not part.validate:
            return None
        tiles = LabelledTiles(self.collections, part.validate, self.config.data, self.config.seed)
        segmenter = ready.method.segmenter
        model: Any = segmenter if ready.memory is None else RememberingSegmenter(segmenter, ready.memory)
        return Validation(ready.method, model, tiles, segmenter.contract.tile_px, self.world.device)


def _train_part(setting: _Setting, part: Part, ready: _Ready, digest: str) -> bool:
    """Train and export; returns whether the run may go on to the next part."""
    for line in (*_told(part), *_described(ready, setting.world)):
        setting.say(line)
    outcome = _loop(setting, part, ready, digest)
    if outcome.stopped_by is not None:
        setting.say(f"{outcome.stopped_by}: saved after step {outcome.step:,}; the same command goes on from there.")
        return False
    setting.world.on_main(lambda: _finish(setting, part, ready, outcome, digest))
    return True


def _loop(setting: _Setting, part: Part, ready: _Ready, digest: str) -> Outcome:
    config, world, memory = setting.config, setting.world, ready.memory
    settings = TrainSettings(
        ready.budget, config.optim, config.log, config.checkpoint, config.seed, digest, config.early_stopping
    )

    def of_this_rank(first: int, steps: int) -> Iterator[Batch]:
        read = partial(ready.samples.batch, rank=world.rank, world_size=world.size)
        for batch in batches(read, first, steps, config.data.workers, pin_memory=world.device.type == "cuda"):
            yield batch if memory is None else _encoded(batch, memory, world.device)

    arguments = (cast(Method, ready.method), of_this_rank, settings, part.folder, world)
    validate = setting.validation(part, ready)
    if not world.is_main:
        return train(*arguments, validate=validate)
    with progress(ready.budget.steps, f"{part.title}train", done=steps_done(part.folder / "checkpoints")) as bar:
        return train(*arguments, validate=validate, on_step=lambda _, loss: bar.advance(note=f"loss {loss:.4f}"))


def _finish(setting: _Setting, part: Part, ready: _Ready, outcome: Outcome, digest: str) -> None:
    """Export the best weights, or the last where nothing said which are the best."""
    best, method = outcome.best, ready.method
    if best is not None and best.best_step >= 0:
        Checkpoints(part.folder / "checkpoints", setting.config.checkpoint, digest).restore(method, best.best_step)
        name = best.settings.monitor
        setting.say(f"{part.title}{name} {best.best:.4f} after step {best.best_step:,}; these weights are kept")
    trained = method.segmenter
    plain = Segmenter(merge_low_rank(trained.backbone), trained.head, trained.contract, trained.name)
    export(plain, part.model, setting.config, setting.collections, part, outcome)
    setting.say(f"{part.title}trained on {outcome.images_seen:,} tiles; wrote {part.model}")


def _segmenter(config: AutomaticConfig, collection: Collection, backbone: Backbone, part: Part) -> Segmenter:
    channels = channels_of(collection)
    data, head = config.data, make_head(config.method.head, backbone.widths, len(channels))
    sides = {data.tile_px, *data.tile_px_stages.values()}
    wrong = sorted(side for side in sides if side % backbone.multiple_px)
    if wrong:
        raise ConfigError(
            [f"data.tile_px: {', '.join(map(str, wrong))} is no multiple of the backbone's {backbone.multiple_px}"],
            "adapt",
        )
    stages = data.tile_px_stages
    contract = DenseContract(
        channels=channels,
        mpp=data.mpp,
        tile_px=stages[max(stages)] if stages else data.tile_px,
        multiple_px=backbone.multiple_px,
        background=collection.mask_background,
        licence=backbone.licence,
    )
    kind = config.method.backbone.name
    name = f"{kind}-{config.method.head.name}" + ("" if part.fold is None else f"-fold{part.fold}")
    return Segmenter(backbone, head, contract, name)


def _encoded(batch: Batch, memory: LevelMemory, device: torch.device) -> Batch:
    levels = memory.levels(batch["image"].to(device))
    return {"mask": batch["mask"], **{f"level{number}": level for number, level in enumerate(levels)}}


def _described(ready: _Ready, world: World) -> Iterator[str]:
    method, budget = ready.method, ready.budget
    backbone = sum(parameter.numel() for parameter in method.segmenter.backbone.parameters())
    trained = sum(parameter.numel() for parameter in method.parameters() if parameter.requires_grad)
    yield f"  device      {world}"
    yield f"  parameters  {backbone:,} in the backbone, {trained:,} trained"
    if ready.memory is not None:
        yield f"  views       {len(ready.samples):,}, each encoded once"
    shares = ready.tiles.class_shares().items()
    yield f"  classes     {', '.join(f'{name} {share:.1%} of the pixels' for name, share in shares)}"
    yield f"  weights     {', '.join(f'{weight:.3g}' for weight in method.weights_C.tolist())}"
    yield (
        f"  steps       {budget.steps:,} of {budget.images_per_step} tiles, epochs of {budget.images_per_epoch:,} tiles"
    )
