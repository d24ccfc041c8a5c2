"""Stage 3 of `lamella weak`: models learn from labels of slides or patches, one for each fold and seed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

from lamella.data.bag_batches import BagBatches
from lamella.data.bag_digest import study_digest
from lamella.data.loader import batches
from lamella.engine.budget import Budget
from lamella.engine.checkpoint import Checkpoints, steps_done
from lamella.engine.loop import Batch, Method, Outcome, TrainSettings, train
from lamella.engine.rundir import settings_hash
from lamella.engine.world import World, start_world
from lamella.errors import CheckpointError, ConfigError
from lamella.formats.digests import file_digest
from lamella.methods.weak import WeakMethod
from lamella.models.contract import Encoder
from lamella.models.hub import CONFIG_FILE, load_encoder
from lamella.models.masked_features import check_masking
from lamella.models.prototype_segmenter import PrototypeSegmenter
from lamella.models.prototypes import PROTOTYPES_FILE, Prototypes, load_prototypes
from lamella.models.pyramids.memory import LevelMemory
from lamella.models.weak_building import make_trainable, make_weak_model
from lamella.models.weak_hub import load_weak
from lamella.verbs.progress import progress
from lamella.verbs.weak_stages.prototypes import prototypes_of
from lamella.verbs.weak_stages.stage import PROTOTYPES, TRAINING, Stage
from lamella.verbs.weak_stages.training_export import (
    Chosen,
    criterion_text,
    export,
    record_of,
    supervision,
    write_report,
)
from lamella.verbs.weak_stages.training_plan import BEST, LATEST, MODEL, TrainingPart, planned
from lamella.verbs.weak_stages.training_settings import TrainingSettings
from lamella.verbs.weak_stages.training_validation import WeakValidation

# Settings that decide the models; `train.*` ones below change speed, memory, or which part of the work is done now.
_BLOCKS = ("class_order", "background", "data", "train", "seed")
_IGNORED = (
    "train.batches.workers",
    "train.batches.cache_mb",
    "train.batches.max_open_slides",
    "train.batches.features_gb",
    "train.fold",
    "train.device",
    "train.log",
    "train.checkpoint",
)


def run_training(stage: Stage) -> int:
    """Train the models of a study; those that are there are left as they are.

    Raises:
        LamellaError: The prototypes, the data or the settings cannot be used; see the classes of `lamella.errors`.
    """
    settings = stage.config.train
    with start_world(settings.device, settings.precision) as world:
        setting = _Setting.of(stage, world)
        parts = planned(stage.study, settings, stage.config.seed, stage.folder(TRAINING))
        left = [part for part in parts if not part.is_done]
        # The first is made ready before the folder is claimed: what is wrong with settings or data shows here.
        first = setting.ready(left[0]) if left else None
        inputs, shared = setting.inputs(), settings.fold is not None
        claimed = world.on_main(lambda: stage.claim(TRAINING, _BLOCKS, inputs, ignore=_IGNORED, shared=shared))
        tree = {key: value for key, value in stage.resolved.tree().items() if key in _BLOCKS}
        digest = settings_hash(tree, ignore=_IGNORED, inputs=inputs)
        for part in parts:
            if part.is_done:
                setting.say(f"{part.title}was trained already: {part.model}")
                continue
            ready, first = first or setting.ready(part), None
            if not _train_part(setting, part, ready, digest):
                return 0
            del ready  # its tiles and weights are let go before the next part's are read
        world.on_main(lambda: _clear(setting))
        setting.say(f"wrote {stage.folder(TRAINING)}")
        del claimed
    return 0


@dataclass(frozen=True)
class _Ready:
    """All that the training of one part needs."""

    method: WeakMethod
    samples: BagBatches
    validation: WeakValidation | None
    budget: Budget


@dataclass(frozen=True)
class _Setting:
    """What the parts of a study have in common."""

    stage: Stage
    settings: TrainingSettings
    prototypes: Prototypes | None
    encoder: Encoder | None
    world: World

    @classmethod
    def of(cls, stage: Stage, world: World) -> _Setting:
        settings = stage.config.train
        if settings.method.model.scores == "linear":
            return cls(stage, settings, None, None, world)
        prototypes = load_prototypes(stage.folder(PROTOTYPES))
        contrast = settings.method.loss.contrast
        encoder = None
        if contrast.weight > 0 and contrast.features == "encoder":
            encoder = _encoder_of(prototypes).to(world.device)
        return cls(stage, settings, prototypes, encoder, world)

    @property
    def features(self) -> Path:
        """Where what a frozen backbone made of tiles lies, for all models of the study."""
        return self.stage.folder(TRAINING) / "features"

    def say(self, line: str) -> None:
        if self.world.is_main:
            print(line, flush=True)

    def inputs(self) -> dict[str, str]:
        """Digests of all that is learned from: slides, labels, places, prototypes, the model to go on from."""
        masks = self.settings.validation.criterion == "masks"
        inputs = {"study": study_digest(self.stage.study, masks=masks)}
        if self.prototypes is not None:
            inputs["prototypes"] = file_digest(self.stage.folder(PROTOTYPES) / PROTOTYPES_FILE)
        if self.settings.init is not None:
            inputs["init"] = load_weak(self.settings.init).fingerprint
        return inputs

    def ready(self, part: TrainingPart) -> _Ready:
        """Weights as the seed draws them, and the part's slides."""
        study, settings, data = self.stage.study, self.settings, self.settings.batches
        model, memory, seed = self.model(part), None, self.stage.config.seed
        if settings.method.model.backbone.train == "frozen" and data.views > 0:
            memory = LevelMemory(model.backbone.to(self.world.device), self.features, data.features_gb)
        method = WeakMethod(model, settings.method.loss, encoder=self.encoder, mpp=study.mpp, memory=memory).train()
        views = 0 if memory is None else data.views
        samples = BagBatches(study, part.train, data, part.seed, views=views, view_seed=seed)
        validation = None
        if part.validate:
            _check_truth(settings, part)
            # The study's seed: all models are judged on the same tiles.
            held = BagBatches(study, part.validate, data, seed)
            validation = WeakValidation.of(
                method, held, settings.validation.criterion, settings.validation.tiles_per_bag, self.world.device
            )
        budget = settings.budget.resolve(samples.tiles_per_epoch, samples.tiles_per_step)
        return _Ready(method, samples, validation, budget)

    def model(self, part: TrainingPart) -> PrototypeSegmenter:
        """A fresh model, or the one to go on from."""
        study, wanted = self.stage.study, self.settings.method
        name = f"weak-{wanted.model.backbone.name}" + ("" if part.folder.name == TRAINING else f"-{part.folder.name}")
        if self.settings.init is not None:
            return make_trainable(_continued(self.settings, study.channels), wanted.model)
        return make_weak_model(
            wanted.model,
            self.prototypes_for(part),
            classes=study.classes,
            background=study.background,
            mpp=study.mpp,
            tile_px=study.tile_px,
            pooling=wanted.pooling,
            facts={"labels": study.labels_are, "supervision": supervision(study, self.settings)},
            seed=part.seed,
            name=name,
        )

    def prototypes_for(self, part: TrainingPart) -> Prototypes | None:
        """Those of stage 2; of a fold, made anew without the exemplars of the slides that it leaves out."""
        if self.prototypes is None or not part.held:
            return self.prototypes
        return prototypes_of(self.stage, {bag.slide_id for bag in (*part.train, *part.validate)})


def _train_part(setting: _Setting, part: TrainingPart, ready: _Ready, digest: str) -> bool:
    """Train and export; returns whether the next part may begin."""
    for line in _told(part, ready, setting):
        setting.say(line)
    # A checkpoint belongs to its part: two seeds of one run must not go on from each other's.
    own = f"{digest}-{part.folder.name}-{part.seed}"
    outcome = _loop(setting, part, ready, own)
    if outcome.stopped_by is not None:
        setting.say(f"{outcome.stopped_by}: saved after step {outcome.step:,}; the same command goes on from there.")
        return False
    setting.world.on_main(lambda: _finish(setting, part, ready, outcome, own))
    return True


def _loop(setting: _Setting, part: TrainingPart, ready: _Ready, digest: str) -> Outcome:
    settings, world, samples = setting.settings, setting.world, ready.samples
    told = TrainSettings(
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

    arguments = (cast(Method, ready.method), of_this_rank, told, part.folder, world)
    if not world.is_main:
        return train(*arguments, validate=ready.validation)
    with progress(ready.budget.steps, f"{part.title}train", done=steps_done(part.folder / "checkpoints")) as bar:
        return train(
            *arguments, validate=ready.validation, on_step=lambda _, loss: bar.advance(note=f"loss {loss:.4f}")
        )


def _finish(setting: _Setting, part: TrainingPart, ready: _Ready, outcome: Outcome, digest: str) -> None:
    """Export the latest weights, then the best; `model` is the best, or the latest where nothing chose."""
    study, settings, model = setting.stage.study, setting.settings, ready.method.model
    record = record_of(study, settings, part)
    chosen = Chosen.of(outcome)
    export(model, LATEST, study, settings, part, outcome, record)
    if chosen.monitor is not None:
        Checkpoints(part.folder / "checkpoints", settings.checkpoint, digest).restore(ready.method, chosen.step)
        export(model, BEST, study, settings, part, outcome, record)
    write_report(study, settings, part, outcome)
    export(model, MODEL, study, settings, part, outcome, record)
    setting.say(f"{part.title}{criterion_text(settings, chosen, part)}")
    setting.say(f"{part.title}trained on {outcome.images_seen:,} tiles; wrote {part.model}")


def _clear(setting: _Setting) -> None:
    """Remove what only training needed, once every model is there."""
    settings = setting.settings.model_copy(update={"fold": None})
    every = planned(setting.stage.study, settings, setting.stage.config.seed, setting.stage.folder(TRAINING))
    if all(part.is_done for part in every):
        shutil.rmtree(setting.features, ignore_errors=True)


def _told(part: TrainingPart, ready: _Ready, setting: _Setting) -> Iterator[str]:
    trained = sum(each.numel() for each in ready.method.parameters() if each.requires_grad)
    budget, study = ready.budget, setting.stage.study
    yield f"{part.title}{supervision(study, setting.settings)}"
    if setting.settings.init is not None:
        yield f"  goes on     from {setting.settings.init}, with its own prototypes"
    yield f"  slides      {len(part.train)} to train on, {len(part.validate)} to validate by, {len(part.held)} held out"
    yield f"  device      {setting.world}"
    yield f"  parameters  {trained:,} trained"
    per_epoch = f"epochs of {budget.images_per_epoch:,} tiles"
    yield f"  steps       {budget.steps:,} of {budget.images_per_step} tiles, {per_epoch}"


def _encoder_of(prototypes: Prototypes) -> Encoder:
    """The very encoder that made the prototypes, where a mask can act in it.

    Raises:
        CheckpointError: Another encoder goes by its name now.
        LamellaError: A mask has no gradient through it.
    """
    encoder = load_encoder(prototypes.encoder)
    if encoder.fingerprint != prototypes.fingerprint:
        raise CheckpointError(
            prototypes.encoder,
            f"its fingerprint is {encoder.fingerprint}, and the prototypes are of {prototypes.fingerprint}",
            "Make the prototypes again, or set train.method.loss.contrast.features=pooled.",
        )
    check_masking(encoder)
    return encoder


def _continued(settings: TrainingSettings, channels: tuple[str, ...]) -> PrototypeSegmenter:
    """The model to fine-tune.

    Raises:
        CheckpointError: It has other channels, or was made with other settings of the network.
    """
    assert settings.init is not None
    model = load_weak(settings.init)
    if model.contract.channels != channels:
        raise CheckpointError(
            settings.init / CONFIG_FILE,
            f"it knows {', '.join(model.contract.channels)}, and the study has {', '.join(channels)}",
            "Fine-tune with the same class_order and background, or train anew (train.init=null).",
        )
    told, asked = model.settings.head_facts(), settings.method.model.head_facts()
    other = sorted(key for key in asked if told.get(key) != asked[key])
    if model.pool.settings != settings.method.pooling:
        other.append("pooling")
    if other:
        raise CheckpointError(
            settings.init / CONFIG_FILE,
            f"it was made with other settings of the network: {', '.join(other)}",
            "Give train.method as it was when the model was trained.",
        )
    return model


def _check_truth(settings: TrainingSettings, part: TrainingPart) -> None:
    """Refuse to choose by masks that are not there.

    Raises:
        ConfigError: No validation slide has one.
    """
    if settings.validation.criterion == "masks" and all(bag.mask_path is None for bag in part.validate):
        raise ConfigError(
            [
                "train.validation.criterion: masks, and no validation slide has pixel truth; set it to loss, or name "
                "data.masks"
            ],
            "weak",
        )
