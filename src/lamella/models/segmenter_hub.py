"""Segmenters by folder or hub id. A folder: config.json, model.safetensors, README.md (model card), pretraining.json.

pretraining.json names the items that it was trained on, and those that its encoder had seen before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors.torch import save_file

from lamella.errors import CheckpointError, first_line
from lamella.formats.atomic import whole_file, write_json, write_text
from lamella.models.dense_contract import DenseContract
from lamella.models.hub import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE
from lamella.models.pretraining_record import RECORD_FILE, PretrainingRecord
from lamella.models.pyramids.building import backbone_from
from lamella.models.segmenter import Segmenter, fresh_head
from lamella.models.weights import download, listed, mismatches, read_weights

FORMAT = "lamella-segmenter-1"  # a format whose keys change gets a new number
_KEYS = ("format", "name", "backbone", "head", "contract", "fingerprint")
_AGAIN = "Export the model again."


def is_segmenter(spec: str | Path) -> bool:
    """Whether a local folder is that of a segmenter, whole or not. A hub id is none until it is loaded."""
    try:
        tree = json.loads((Path(spec) / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(tree, dict) and str(tree.get("format", "")).startswith("lamella-segmenter-")


def save_segmenter(
    model: Segmenter,
    folder: str | Path,
    card: str,
    *,
    record: PretrainingRecord | None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write a model folder. The configuration comes last, so a folder that has one is whole.

    Args:
        model: What to save.
        folder: Made if absent; a model in it is replaced.
        card: Markdown of README.md.
        record: What it and its encoder have seen; None if that is not known, and every evaluation then says so.
        facts: Plain values that whoever shows it images must know.

    Raises:
        StorageError: The disk took no more.
    """
    folder = Path(folder)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
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
        **model.description(),
        "contract": model.contract.facts(),
        "fingerprint": model.fingerprint,
        "facts": dict(facts or {}),
    }
    write_json(folder / CONFIG_FILE, config)


def load_segmenter(spec: str | Path) -> Segmenter:
    """Load a segmenter, frozen and ready to use.

    Args:
        spec: A folder, or a hub id `owner/name`, which is downloaded once.

    Raises:
        CheckpointError: There is no such model; or its files are missing, truncated or of another network. Every
            tensor that does not fit is named.
    """
    folder = _folder(spec)
    config = _read_config(folder)
    try:
        facts = {k: tuple(v) if isinstance(v, list) else v for k, v in config["contract"].items()}
        contract = DenseContract(**facts)
        backbone = backbone_from(config["backbone"], folder / CONFIG_FILE)
        head = fresh_head(config["head"], backbone, len(contract.channels))
        model = Segmenter(backbone, head, contract, config["name"])
    except (ValidationError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(
            folder / CONFIG_FILE, f"it does not describe a segmenter ({' '.join(str(error).split())})", _AGAIN
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


def segmenter_facts(folder: str | Path) -> dict[str, Any]:
    """The facts that a segmenter in a local folder was saved with.

    Raises:
        CheckpointError: It is no segmenter's folder.
    """
    return dict(_read_config(Path(folder)).get("facts") or {})


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
        raise CheckpointError(path, f"it is no segmenter of this version ({found}; expected {FORMAT})", _AGAIN)
    return config
