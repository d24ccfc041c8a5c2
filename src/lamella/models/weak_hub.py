"""Weakly taught models by folder or hub id: config.json, model.safetensors, README.md (model card), pretraining.json.

The prototypes are among the weights. Nothing is ever filled in: a weight that is missing is an error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from lamella.errors import CheckpointError, first_line
from lamella.formats.atomic import whole_file, write_json, write_text
from lamella.models.bag_pool import BagPool, BagPoolSettings
from lamella.models.dense_contract import DenseContract
from lamella.models.hub import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE
from lamella.models.pretraining_record import RECORD_FILE, PretrainingRecord
from lamella.models.prototype_scores import LinearScores, PrototypeScores
from lamella.models.prototype_segmenter import PrototypeSegmenter
from lamella.models.pyramids.building import backbone_from
from lamella.models.pyramids.low_rank import merge_low_rank
from lamella.models.weak_building import WeakModelSettings, prototype_scores
from lamella.models.weights import download, listed, mismatches, read_weights

FORMAT = "lamella-weak-1"  # a format whose keys change gets a new number
_KEYS = ("format", "name", "backbone", "settings", "pooling", "scored", "prototypes", "contract", "fingerprint")
_AGAIN = "Export the model again."


def is_weak(spec: str | Path) -> bool:
    """Whether a local folder is that of a weakly taught model, whole or not. A hub id is none until it is loaded."""
    try:
        tree = json.loads((Path(spec) / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(tree, dict) and str(tree.get("format", "")).startswith("lamella-weak-")


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
    folder = Path(folder)
    plain = _merged(model)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in plain.state_dict().items()}
    (folder / CONFIG_FILE).unlink(missing_ok=True)
    with whole_file(folder / WEIGHTS_FILE) as part:
        save_file(weights, part, metadata={"format": "pt"})
    write_text(folder / CARD_FILE, card)
    if record is None:
        (folder / RECORD_FILE).unlink(missing_ok=True)
    else:
        record.write(folder)
    config = {
        "format": FORMAT,
        "name": model.name,
        **plain.description(),
        "contract": model.contract.facts(),
        "fingerprint": plain.fingerprint,
        "facts": {**model.facts, **(facts or {})},
    }
    write_json(folder / CONFIG_FILE, config)


def load_weak(spec: str | Path) -> PrototypeSegmenter:
    """Load a weakly taught model, frozen and ready to use.

    Args:
        spec: A folder, or a hub id `owner/name`, which is downloaded once.

    Raises:
        CheckpointError: There is no such model; or its files are missing, truncated or of another network. Every
            tensor that does not fit is named.
    """
    folder = _folder(spec)
    config = _read_config(folder)
    try:
        with torch.random.fork_rng(devices=[]):  # what is drawn here is replaced below
            model = _built(config, folder / CONFIG_FILE)
    except (ValidationError, ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            folder / CONFIG_FILE, f"it does not describe a weak model ({' '.join(str(error).split())})", _AGAIN
        ) from error
    weights = read_weights(folder / WEIGHTS_FILE)
    if problems := mismatches(model.state_dict(), weights):
        raise CheckpointError(
            folder / WEIGHTS_FILE,
            f"it holds another network than {CONFIG_FILE} describes: {listed(problems)}",
            f"Put back the {CONFIG_FILE} and {WEIGHTS_FILE} that were saved together.",
        )
    model.load_state_dict(weights)
    model.requires_grad_(False).eval()
    if model.fingerprint != config["fingerprint"]:
        raise CheckpointError(
            folder,
            f"its fingerprint is {model.fingerprint}, but {CONFIG_FILE} was saved with {config['fingerprint']}",
            f"{CONFIG_FILE} or {WEIGHTS_FILE} was changed after saving; export the model again.",
        )
    return model


def weak_facts(folder: str | Path) -> dict[str, Any]:
    """The facts that a model in a local folder was saved with.

    Raises:
        CheckpointError: It is no weak model's folder.
    """
    return dict(_read_config(Path(folder)).get("facts") or {})


def _built(config: Mapping[str, Any], place: Path) -> PrototypeSegmenter:
    contract = DenseContract(**{k: tuple(v) if isinstance(v, list) else v for k, v in config["contract"].items()})
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


def _folder(spec: str | Path) -> Path:
    path = Path(spec)
    if path.is_dir():
        return path
    text = str(spec)
    if path.exists() or isinstance(spec, Path) or text.count("/") != 1 or text[0] in "./~":
        raise CheckpointError(spec, "there is no such model folder", "Give a model folder, or a hub id: owner/name.")
    return download(
        text, (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE, RECORD_FILE), "Check the spelling and the network; there is no "
        "such folder here either.",
    )  # fmt: skip


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        inside = sorted(each.parent.name for each in folder.glob(f"*/{CONFIG_FILE}"))
        remedy = f"Give the folder {folder / inside[0]}." if inside else _AGAIN
        raise CheckpointError(folder, f"it has no {CONFIG_FILE}, so it is no whole model folder", remedy) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(path, f"it cannot be read ({first_line(error)})", _AGAIN) from error
    if not isinstance(config, dict) or config.get("format") != FORMAT or any(key not in config for key in _KEYS):
        found = config.get("format", "no format") if isinstance(config, dict) else "no keys"
        raise CheckpointError(path, f"it is no weak model of this version ({found}; expected {FORMAT})", _AGAIN)
    return config
