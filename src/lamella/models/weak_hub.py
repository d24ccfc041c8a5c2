"""Weakly taught models by folder or hub id. The prototypes are among the weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lamella.models.bag_pool import BagPool, BagPoolSettings
from lamella.models.dense_contract import DenseContract
from lamella.models.model_folder import FolderKind
from lamella.models.pretraining_record import PretrainingRecord
from lamella.models.prototype_scores import LinearScores, PrototypeScores
from lamella.models.prototype_segmenter import PrototypeSegmenter
from lamella.models.pyramids.building import backbone_from
from lamella.models.pyramids.low_rank import merge_low_rank
from lamella.models.weak_building import prototype_scores
from lamella.models.weak_settings import WeakModelSettings

_KEYS = ("name", "backbone", "settings", "pooling", "scored", "prototypes", "contract", "fingerprint")
_KIND = FolderKind("lamella-weak-1", "weak model", _KEYS)
FORMAT = _KIND.format


def is_weak(spec: str | Path) -> bool:
    """Whether a local folder is that of a weakly taught model, whole or not. A hub id is none until it is loaded."""
    return _KIND.is_in(spec)


def save_weak(
    model: PrototypeSegmenter,
    folder: str | Path,
    card: str,
    *,
    record: PretrainingRecord | None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write a model folder. The configuration comes last, so a folder that has one is whole.

    Args:
        model: What to save; low-rank updates are merged into the copy that is written.
        folder: Made if absent; a model in it is replaced.
        card: Markdown of README.md.
        record: What it and its encoder have seen; None if that is not known, and every evaluation then says so.
        facts: Plain values beside the model's own facts.

    Raises:
        StorageError: The disk took no more.
    """
    plain = _merged(model)
    config = {
        "name": model.name,
        **plain.description(),
        "contract": model.contract.facts(),
        "fingerprint": plain.fingerprint,
        "facts": {**model.facts, **(facts or {})},
    }
    _KIND.write(Path(folder), plain.state_dict(), card, record, config)


def load_weak(spec: str | Path) -> PrototypeSegmenter:
    """Load a weakly taught model, frozen and ready to use.

    Args:
        spec: A folder, or a hub id `owner/name`, which is downloaded once.

    Raises:
        CheckpointError: There is no such model; or its files are missing, truncated or of another network. Every
            tensor that does not fit is named.
    """
    return _KIND.load(spec, _built)


def weak_facts(folder: str | Path) -> dict[str, Any]:
    """The facts that a model in a local folder was saved with.

    Raises:
        CheckpointError: It is no weak model's folder.
    """
    return dict(_KIND.config(Path(folder)).get("facts") or {})


def _built(config: Mapping[str, Any], place: Path) -> PrototypeSegmenter:
    contract = DenseContract.of_facts(config["contract"])
    settings = WeakModelSettings.model_validate(config["settings"])
    backbone = backbone_from(config["backbone"], place)
    classes = len(contract.channels) - (contract.background is not None)
    told = config["prototypes"]
    if told is None:
        scores: PrototypeScores | LinearScores = LinearScores(backbone.widths, classes)
    else:
        empty_KD = torch.zeros(sum(told["k_list"]), told["dim"])
        scores = prototype_scores(settings, empty_KD, tuple(told["k_list"]), backbone.widths)
    pool = BagPool(BagPoolSettings.model_validate(config["pooling"]), scores.widths[-1], classes)
    return PrototypeSegmenter(
        backbone,
        scores,
        pool,
        contract,
        settings,
        scored=tuple(config["scored"]),
        name=config["name"],
        facts=config.get("facts"),
    )


def _merged(model: PrototypeSegmenter) -> PrototypeSegmenter:
    """The model with plain layers, where its backbone has low-rank updates."""
    backbone = merge_low_rank(model.backbone)
    if backbone is model.backbone:
        return model
    return PrototypeSegmenter(
        backbone,
        model.scores,
        model.pool,
        model.contract,
        model.settings,
        scored=model.scored,
        name=model.name,
        facts=model.facts,
    )
