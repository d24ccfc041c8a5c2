"""Pretraining on 2-D images: LeJEPA on several crops of an image, I-JEPA and its relatives on masked ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lamella.config import Request
from lamella.data.images import ImageDataSettings, TrainingImages
from lamella.data.masked_images import MaskedImages, MaskedImageSettings
from lamella.data.multi_crop import MultiCrops, MultiCropSettings
from lamella.engine.optim import OptimSettings
from lamella.errors import ConfigError
from lamella.methods.ijepa import IJepa, IJepaSettings
from lamella.methods.jepa import Jepa, JepaSettings
from lamella.methods.lejepa import LeJepa, LeJepaSettings
from lamella.models.contract import InputContract
from lamella.models.hub import save_pretrained
from lamella.verbs.own_intensity import intensity_facts
from lamella.verbs.pretraining.collections import (
    collection_inputs,
    next_command,
    open_collections,
    pretraining_record_of,
    summary,
)
from lamella.verbs.pretraining.course import Course, RunSettings


class LeJepaConfig(RunSettings):
    """Settings of `lamella pretrain DATA method.name=lejepa`."""

    method: LeJepaSettings = LeJepaSettings()
    data: ImageDataSettings = ImageDataSettings(batch_size=128)  # SIGReg tests a distribution: it needs many images
    views: MultiCropSettings = MultiCropSettings()
    # The paper's recipe: warm-up, then a cosine down to a thousandth, one weight decay throughout.
    optim: OptimSettings = OptimSettings(lr=5e-4, lr_start=0, lr_end=5e-7, weight_decay=0.05, weight_decay_end=0.05)


class MaskedConfig(RunSettings):
    """Settings of `lamella pretrain DATA method.name=ijepa`."""

    method: IJepaSettings = IJepaSettings()
    data: ImageDataSettings = ImageDataSettings()
    masks: MaskedImageSettings = MaskedImageSettings()
    # I-JEPA's recipe (arXiv 2301.08243, appendix A).
    optim: OptimSettings = OptimSettings(lr=1e-3, lr_start=2e-4, lr_end=1e-6, weight_decay=0.04, weight_decay_end=0.4)


class JepaConfig(MaskedConfig):
    """Settings of `lamella pretrain DATA method.name=jepa`."""

    method: JepaSettings = JepaSettings()  # type: ignore[assignment]


def images_course(request: Request, config: LeJepaConfig | MaskedConfig) -> Course:
    """The run over image collections.

    Raises:
        DatasetError: A data set cannot be used, or none of its images may be learned from.
        ConfigError: The views are not whole patches of the encoder, or its positions are made for much larger ones.
    """
    collections = open_collections(request, config.data.dataset)
    images = TrainingImages(collections, config.data, config.seed)
    contract = _contract(config, images)
    samples, method = _samples_and_method(config, images, contract)

    def save(folder: Path, card: str) -> None:
        save_pretrained(method.encoder(), folder, card, facts=intensity_facts(config.data.intensity))
        pretraining_record_of(images.items).write(folder)

    return Course(
        config=config,
        samples=samples,
        method=method,
        batch_size=config.data.batch_size,
        workers=config.data.workers,
        inputs=collection_inputs(images.items),
        sources=summary(collections, images.items),
        card={
            "data": f"{_counted(images)}; no labels. {_shown(config, contract)}",
            "method": _method_text(config),
            "limits": "Not tested on modalities, devices or organs other than those of the data above.",
        },
        held=samples.held,
        save=save,
        next_command=next_command(request, images.items),
    )


def _contract(config: LeJepaConfig | MaskedConfig, images: TrainingImages) -> InputContract:
    """What the encoder is shown; mean and deviation are measured on the training images."""
    vit, view = config.method.encoder, config.data.size_px * (config.data.mpp or 1.0)
    if vit.wave_min >= view / 2:  # the shortest of all waves would hardly turn once over the view
        patch = vit.patch_px * (config.data.mpp or 1.0)
        raise ConfigError(
            [
                f"method.encoder.wave_min: {vit.wave_min:g} is too long for views of {view:g}: all places would "
                f"look alike; set method.encoder.wave_min={2 * patch:g} (two patches) and .wave_max={4 * view:g} "
                "(four views)"
            ],
            "pretrain",
        )
    mean, std = images.colour()
    return InputContract(config.data.mpp, config.data.size_px, mean, std, vit.patch_px, vit.dim)


def _samples_and_method(
    config: LeJepaConfig | MaskedConfig, images: TrainingImages, contract: InputContract
) -> tuple[Any, Any]:
    if isinstance(config, LeJepaConfig):
        crops = MultiCrops(images, config.views, contract.size_px, contract.patch_px)
        return crops, LeJepa(config.method, contract)
    samples = MaskedImages(images, config.masks, contract.size_px, contract.patch_px)
    if isinstance(config, JepaConfig):
        return samples, Jepa(config.method, contract)
    return samples, IJepa(config.method, contract)


def _method_text(config: LeJepaConfig | MaskedConfig) -> str:
    method: Any = config.method
    if isinstance(config, JepaConfig):
        return f"jepa, target {method.target}, regulariser {method.regulariser.name}"
    return str(method.name)


def _counted(images: TrainingImages) -> str:
    names = [collection.name for collection, _ in images.items]
    return ", ".join(f"{names.count(name):,} images of {name}" for name in dict.fromkeys(names))


def _shown(config: LeJepaConfig | MaskedConfig, contract: InputContract) -> str:
    spacing = "their own spacing" if contract.mpp is None else f"{contract.mpp:g} um per pixel"
    return f"Views of {contract.size_px} px at {spacing}.{config.data.left_out}"
