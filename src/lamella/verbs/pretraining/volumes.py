"""Pretraining on volumes and on video: V-JEPA over masked crops and clips."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lamella.config import Request
from lamella.data.clips import VideoClips, VideoDataSettings
from lamella.data.mask_sets import MaskSetsSettings
from lamella.data.volume_crops import VolumeCrops
from lamella.data.volumes import VolumeDataSettings
from lamella.engine.optim import OptimSettings
from lamella.methods.space_time import SpaceTimeJepa, VideoSettings, VolumeSettings, space_time_jepa
from lamella.models.hub import save_pretrained
from lamella.models.volume_encoder import VolumeContract
from lamella.verbs.evaluation.space_time_views import STRIDE
from lamella.verbs.pretraining.collections import (
    Seen,
    collection_inputs,
    next_command,
    open_collections,
    pretraining_record_of,
    summary,
)
from lamella.verbs.pretraining.course import Course, RunSettings

# V-JEPA's recipe (arXiv 2404.08471, appendix): as I-JEPA's, with a smaller rate for its smaller batches here.
_OPTIM = OptimSettings(lr=6e-4, lr_start=2e-4, lr_end=1e-6, weight_decay=0.04, weight_decay_end=0.4)


class VolumeConfig(RunSettings):
    """Settings of `lamella pretrain DATA method.name=volume`."""

    method: VolumeSettings = VolumeSettings()
    data: VolumeDataSettings = VolumeDataSettings()
    masks: MaskSetsSettings = MaskSetsSettings()
    optim: OptimSettings = _OPTIM


class VideoConfig(RunSettings):
    """Settings of `lamella pretrain DATA method.name=video`."""

    method: VideoSettings = VideoSettings()
    data: VideoDataSettings = VideoDataSettings()
    masks: MaskSetsSettings = MaskSetsSettings()
    optim: OptimSettings = _OPTIM


def volumes_course(request: Request, config: VolumeConfig) -> Course:
    """The run over volumes.

    Raises:
        DatasetError: A data set cannot be used, or none of its volumes may be learned from.
        ConfigError: The crop is not whole patches, or the encoder is of other channels.
    """
    collections = open_collections(request, config.data.dataset)
    samples = VolumeCrops(collections, config.data, config.masks, config.seed, config.method.encoder.patch)
    return _course(request, config, samples, [(collections[number], item) for number, item in samples.items.items])


def video_course(request: Request, config: VideoConfig) -> Course:
    """The run over films, or over volumes in time. Raises as for `volumes_course`."""
    collections = open_collections(request, config.data.dataset)
    samples = VideoClips(collections, config.data, config.masks, config.seed, config.method.encoder.patch)
    return _course(request, config, samples, [(collections[number], item) for number, item in samples.items.items])


def _course(
    request: Request, config: VolumeConfig | VideoConfig, samples: VolumeCrops | VideoClips, seen: Seen
) -> Course:
    contract = samples.contract(config.method.encoder.dim)
    method = space_time_jepa(config.method, contract)
    collections = list(dict.fromkeys(collection.name for collection, _ in seen))
    return Course(
        config=config,
        samples=samples,
        method=method,
        batch_size=config.data.batch_size,
        workers=config.data.workers,
        inputs=collection_inputs(seen),
        sources=summary(list({collection.name: collection for collection, _ in seen}.values()), seen),
        card={
            "data": f"{len(seen):,} {contract.kind}s of {', '.join(collections)}; no labels. "
            f"{_shown(contract)}.{config.data.left_out}",
            "method": f"{config.method.name} (V-JEPA), {_masks(config.masks)}, "
            f"regulariser {config.method.regulariser.name}",
            "limits": "Not tested on modalities, devices or organs other than those of the data above.",
        },
        held=samples.held,
        save=partial(_save, method, seen, _facts(config)),
        next_command=next_command(request, seen),
    )


def _facts(config: VolumeConfig | VideoConfig) -> dict[str, Any]:
    """What the contract does not say: how far the frames of a clip are apart where films are taken as they are."""
    if isinstance(config, VideoConfig) and config.data.frame_ms is None:
        return {STRIDE: config.data.frame_stride}
    return {}


def _save(method: SpaceTimeJepa, seen: Seen, facts: dict[str, Any], folder: Path, card: str) -> None:
    save_pretrained(method.encoder(), folder, card, facts=facts)
    pretraining_record_of(seen).write(folder)


def _shown(contract: VolumeContract) -> str:
    """What a sample is, in words."""
    sides = " x ".join(map(str, contract.size))
    if contract.kind == "video":
        pace = "" if contract.frame_ms is None else f", {contract.frame_ms:g} ms from frame to frame"
        return f"Clips of {sides} (frames, rows, columns){pace}"
    spacing = "at their own spacing" if contract.spacing_mm is None else f"of {_by(contract.spacing_mm)} mm"
    return f"Crops of {sides} voxels {spacing} (z, y, x)"


def _by(lengths: Sequence[float]) -> str:
    return " x ".join(f"{length:g}" for length in lengths)


def _masks(settings: MaskSetsSettings) -> str:
    return f"mask sets {' and '.join(each.name for each in settings.sets)}"
