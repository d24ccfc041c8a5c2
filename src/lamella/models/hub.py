"""Models by folder, hub id or name. An own model folder: config.json, model.safetensors, README.md (the model card)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors.torch import save_file

from lamella.errors import CheckpointError, first_line
from lamella.formats.atomic import whole_file, write_json, write_text
from lamella.models.encoders import COLOUR_STATS, ColourStatistics, Encoder, InputContract, ViTEncoder, fresh_vit
from lamella.models.named import PLACE_MARK, load_named, named_spec
from lamella.models.registry import CONFIG_FILE, WEIGHTS_FILE
from lamella.models.vit import ViTSettings
from lamella.models.weights import download, listed, mismatches, read_weights

__all__ = [
    "CONFIG_FILE",
    "WEIGHTS_FILE",
    "from_pretrained",
    "load_encoder",
    "model_card",
    "portable_spec",
    "save_pretrained",
]

CARD_FILE = "README.md"
FORMAT = "lamella-vit-1"
_ASK_HUB = (
    "There is no such folder here either. Check the spelling, the network, and for a private or gated model "
    "`hf auth login`."
)


def load_encoder(spec: str | Path) -> Encoder:
    """Load an encoder.

    Args:
        spec: In this order: an own model folder; `colour-stats`; a name that `lamella encoders` lists, or its hub id;
            such a name, `@`, and the folder or weights file that was downloaded (`phikon-v2@/models/phikon-v2`); the
            Hugging Face hub id (`owner/name`) of an own model.

    Raises:
        CheckpointError: There is no such model, or it is damaged, or not what it should be. Gated or out of reach:
            the remedy says what to do.
        MissingExtraError: The encoder needs a package that is not installed.
    """
    if (Path(spec) / CONFIG_FILE).is_file():
        return from_pretrained(spec)
    if str(spec) == COLOUR_STATS:
        return ColourStatistics()
    named = named_spec(str(spec))
    return load_named(*named) if named else from_pretrained(spec)


def portable_spec(spec: str) -> str:
    """The same encoder in words that a process in another folder understands: local places become absolute."""
    if (Path(spec) / CONFIG_FILE).is_file():
        return str(Path(spec).absolute())
    name, at, place = spec.partition(PLACE_MARK)
    return f"{name}{at}{Path(place).expanduser().absolute()}" if at else spec


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
        "contract": encoder.contract.facts(),
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
    weights = read_weights(folder / WEIGHTS_FILE)
    problems = mismatches(encoder.vit.state_dict(), weights)
    if problems:
        raise CheckpointError(
            folder / WEIGHTS_FILE,
            f"it holds another architecture than {CONFIG_FILE} describes: {listed(problems)}",
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
    return download(hub_id, (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE), _ASK_HUB)


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
