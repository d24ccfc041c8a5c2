"""Model folders: config.json, model.safetensors, README.md (the model card); from here or the Hugging Face hub."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lamella.errors import CheckpointError, first_line
from lamella.formats.atomic import whole_file, write_json, write_text
from lamella.models.encoders import COLOUR_STATS, ColourStatistics, Encoder, InputContract, ViTEncoder, fresh_vit
from lamella.models.vit import ViTSettings

CONFIG_FILE, WEIGHTS_FILE, CARD_FILE = "config.json", "model.safetensors", "README.md"
FORMAT = "lamella-vit-1"


def load_encoder(spec: str | Path) -> Encoder:
    """Load an encoder.

    Args:
        spec: A model folder, a Hugging Face hub id (`owner/name`), or `colour-stats`.

    Raises:
        CheckpointError: There is no such model, or it is damaged.
    """
    if str(spec) == COLOUR_STATS:
        return ColourStatistics()
    return from_pretrained(spec)


def save_pretrained(
    encoder: ViTEncoder, folder: str | Path, card: str, *, pretraining_slides: Iterable[str] | None = None
) -> None:
    """Write a model folder. The configuration comes last, so a folder that has one is whole.

    Args:
        encoder: What to save.
        folder: Made if absent; a model in it is replaced.
        card: Markdown of README.md, see `model_card`.
        pretraining_slides: Slide ids that were trained on; an evaluation must know them. None if that is not known.

    Raises:
        StorageError: The disk took no more.
    """
    folder = Path(folder)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.vit.state_dict().items()}
    (folder / CONFIG_FILE).unlink(missing_ok=True)
    with whole_file(folder / WEIGHTS_FILE) as part:
        save_file(weights, part, metadata={"format": "pt"})
    write_text(folder / CARD_FILE, card)
    config = {
        "format": FORMAT,
        "name": encoder.name,
        "vit": encoder.vit.settings.model_dump(),
        "contract": dataclasses.asdict(encoder.contract),
        "fingerprint": encoder.fingerprint,
        "facts": {} if pretraining_slides is None else {"pretraining_slides": sorted(pretraining_slides)},
    }
    write_json(folder / CONFIG_FILE, config)


def from_pretrained(path_or_hub_id: str | Path) -> ViTEncoder:
    """Load an encoder from a model folder or the Hugging Face hub.

    Args:
        path_or_hub_id: A folder, or `owner/name`, which is downloaded once and kept in the hub's cache.

    Raises:
        CheckpointError: No such model; or its files are missing, truncated, or of another architecture. Every
            mismatched tensor is named.
    """
    folder = _folder(path_or_hub_id)
    config = _read_config(folder)
    encoder = _build(folder, config)
    weights = _read_weights(folder / WEIGHTS_FILE)
    problems = mismatches(encoder.vit.state_dict(), weights)
    if problems:
        raise CheckpointError(
            folder / WEIGHTS_FILE,
            f"it holds another architecture than {CONFIG_FILE} describes: {'; '.join(problems)}",
            f"Put back the {CONFIG_FILE} and {WEIGHTS_FILE} that were saved together.",
        )
    encoder.vit.load_state_dict(weights)
    if encoder.fingerprint != config["fingerprint"]:
        raise CheckpointError(
            folder,
            f"its fingerprint is {encoder.fingerprint}, but {CONFIG_FILE} was saved with {config['fingerprint']}",
            f"{CONFIG_FILE} or {WEIGHTS_FILE} was changed after saving; export the model again.",
        )
    return encoder


def mismatches(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """Every difference in names and dimensions, one phrase each."""
    missing = [f"{name} is missing" for name in expected if name not in found]
    unknown = [f"{name} is unknown" for name in found if name not in expected]
    differing = [
        f"{name} is {_size(found[name])} instead of {_size(tensor)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    return missing + unknown + differing


def model_card(facts: Mapping[str, Any]) -> str:
    """The text of a model card.

    Args:
        facts: `name`, `licence`, `data` (what it was trained on), `limits` (a list or a text), and `contract` (an
            InputContract) must be given; `metrics` may be Markdown. Anything else becomes a row of the table of facts.

    Raises:
        KeyError: One of the five is missing: a card does not leave out what its reader must know.
    """
    own = {key: facts[key] for key in ("name", "licence", "data", "limits", "contract")}
    contract: InputContract = own["contract"]
    limits = [own["limits"]] if isinstance(own["limits"], str) else own["limits"]
    rows = {
        "spacing": f"{contract.mpp:g} micrometres per pixel",
        "image": f"{contract.size_px} x {contract.size_px} px, uint8 RGB; normalisation is inside",
        "patch": f"{contract.patch_px} px",
        "width": f"{contract.dim}",
        **{key: value for key, value in facts.items() if key not in {*own, "metrics"}},
    }
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    metrics = facts.get("metrics") or "Not measured. `lamella evaluate` measures them."
    return (
        f"---\nlibrary_name: lamella\nlicense: {own['licence']}\ntags: [pathology, jepa]\n---\n"
        f"# {own['name']}\n\n| | |\n|---|---|\n{table}\n\n"
        f"## Data\n\n{own['data']}\n\n## Metrics\n\n{metrics}\n\n## Limits\n\n"
        + "\n".join(f"- {limit}" for limit in limits)
        + "\n\n## Use\n\n```python\nimport lamella\n\n"
        'encoder = lamella.from_pretrained("this folder")\n'
        "features = encoder.pooled(images)  # uint8 (B, 3, H, W) -> float (B, D)\n```\n"
    )


def _folder(path_or_hub_id: str | Path) -> Path:
    """The local folder of a model; a hub id is downloaded."""
    path = Path(path_or_hub_id)
    if path.is_dir():
        return path
    if path.exists():
        raise CheckpointError(path, "a model is a folder, not a file", f"Give the folder that holds {CONFIG_FILE}.")
    hub_id = str(path_or_hub_id)
    if isinstance(path_or_hub_id, Path) or hub_id.count("/") != 1 or hub_id[0] in "./~":
        raise CheckpointError(hub_id, "there is no such folder", "Give a model folder, or a hub id such as owner/name.")
    return _download(hub_id)


def _download(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download  # not needed for local folders, and slow to import
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(hub_id, allow_patterns=[CONFIG_FILE, WEIGHTS_FILE, CARD_FILE]))
    except (OSError, HFValidationError) as error:  # the hub's own errors are OSErrors
        raise CheckpointError(
            hub_id,
            f"it is not a folder here, and the Hugging Face hub did not give it ({first_line(error)})",
            "Check the spelling, the network, and for a private or gated model `hf auth login`.",
        ) from error


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            folder, f"it has no {CONFIG_FILE}, so it is not a whole model folder", "Export the model again."
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(path, f"it cannot be read ({first_line(error)})", "Export the model again.") from error
    keys = {"format", "name", "vit", "contract", "fingerprint"}
    if not isinstance(config, dict) or not keys <= config.keys() or config["format"] != FORMAT:
        found = config.get("format", "no format") if isinstance(config, dict) else "no keys"
        raise CheckpointError(
            path, f"it is not a configuration of this version ({found}; expected {FORMAT})", "Export the model again."
        )
    return config


def _build(folder: Path, config: Mapping[str, Any]) -> ViTEncoder:
    """The encoder that the configuration describes, before its weights are read."""
    contract = config["contract"]
    try:
        contract = InputContract(**{**contract, "mean": tuple(contract["mean"]), "std": tuple(contract["std"])})
        settings = ViTSettings.model_validate(config["vit"])
        return ViTEncoder(fresh_vit(settings, seed=0), contract, config["name"])
    except (ValidationError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            folder / CONFIG_FILE,
            f"it does not describe a network ({' '.join(str(error).split())})",
            "Export the model again.",
        ) from error


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise CheckpointError(path, "the weights are missing", "Copy the whole model folder.") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            path,
            f"it is truncated or damaged ({first_line(error)})",
            "Copy the file again, or export the model again.",
        ) from error


def _size(tensor: Tensor) -> str:
    return " x ".join(str(side) for side in tensor.shape) or "a scalar"
