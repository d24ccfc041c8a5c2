"""Models by folder, hub id or name. An own model folder: config.json, model.safetensors, README.md (the model card)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError
from safetensors.torch import save_file

from lamella.errors import CheckpointError, first_line
from lamella.formats.atomic import whole_file, write_json, write_text
from lamella.models.encoders import COLOUR_STATS, ColourStatistics, Encoder, InputContract, ViTEncoder, fresh_vit
from lamella.models.named import PLACE_MARK, load_named, named_spec
from lamella.models.registry import CONFIG_FILE, WEIGHTS_FILE
from lamella.models.vit import TransformerSettings, ViTSettings
from lamella.models.volume_encoder import VolumeContract, VolumeEncoder
from lamella.models.volume_vit import VolumeViTSettings
from lamella.models.weights import download, listed, mismatches, read_weights

__all__ = [
    "CARD_FILE",
    "CONFIG_FILE",
    "WEIGHTS_FILE",
    "card_with",
    "from_pretrained",
    "load_encoder",
    "model_card",
    "model_facts",
    "portable_spec",
    "save_pretrained",
]

CARD_FILE = "README.md"


class _Kind(NamedTuple):
    """A kind of own encoder: what its config.json describes."""

    settings: type[TransformerSettings]
    contract: type[InputContract] | type[VolumeContract]
    encoder: type[ViTEncoder] | type[VolumeEncoder]


# The `format` of config.json -> what it holds. A format whose keys change gets a new number.
_KINDS = {
    "lamella-vit-2": _Kind(ViTSettings, InputContract, ViTEncoder),
    "lamella-volume-1": _Kind(VolumeViTSettings, VolumeContract, VolumeEncoder),
}
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
    encoder: ViTEncoder | VolumeEncoder,
    folder: str | Path,
    card: str,
    *,
    pretraining_slides: Iterable[str] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write a model folder. The configuration comes last, so a folder that has one is whole.

    Args:
        encoder: What to save.
        folder: Made if absent; a model in it is replaced.
        card: Markdown of README.md, see `model_card`.
        pretraining_slides: Slide ids that were trained on; an evaluation must know them. None if that is not known.
        facts: Plain values that whoever shows the encoder images must know, such as how their intensity was prepared.

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
        "format": _format_of(encoder),
        "name": encoder.name,
        "vit": encoder.vit.settings.model_dump(),
        "contract": encoder.contract.facts(),
        "fingerprint": encoder.fingerprint,
        "facts": dict(facts or {})
        | ({} if pretraining_slides is None else {"pretraining_slides": sorted(pretraining_slides)}),
    }
    write_json(folder / CONFIG_FILE, config)


def model_facts(spec: str | Path) -> dict[str, Any]:
    """The facts that a model was saved with; none of an encoder that is no own model.

    Raises:
        CheckpointError: As for `from_pretrained`.
    """
    if not (Path(spec) / CONFIG_FILE).is_file() and (str(spec) == COLOUR_STATS or named_spec(str(spec))):
        return {}
    facts = _read_config(_folder(spec)).get("facts")
    return dict(facts) if isinstance(facts, dict) else {}


def _format_of(encoder: ViTEncoder | VolumeEncoder) -> str:
    return next(name for name, kind in _KINDS.items() if type(encoder) is kind.encoder)


def from_pretrained(path_or_hub_id: str | Path) -> Any:
    """Load a ViTEncoder or a VolumeEncoder, whichever was saved, from a model folder or the Hugging Face hub.

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
    contract: InputContract | VolumeContract = own["contract"]
    limits = [own["limits"]] if isinstance(own["limits"], str) else own["limits"]
    rows = {
        **contract.described(),
        **{key: value for key, value in facts.items() if key not in {*own, "metrics"}},
    }
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    metrics = facts.get("metrics") or "Not measured. `lamella evaluate` measures them."
    return (
        f"---\nlibrary_name: lamella\nlicense: {own['licence']}\ntags: [medical-imaging, jepa]\n---\n"
        f"# {own['name']}\n\n| | |\n|---|---|\n{table}\n\n"
        f"## Data\n\n{own['data']}\n\n## Metrics\n\n{metrics}\n\n## Limits\n\n"
        + "\n".join(f"- {limit}" for limit in limits)
        + "\n\n## Use\n\n```python\nimport lamella\n\n"
        f'encoder = lamella.from_pretrained("this folder")\n{contract.usage}\n```\n'
    )


def card_with(card: str, *, metrics: str, name: str | None = None, licence: str | None = None) -> str:
    """A card of `model_card` with measured results, and another name or licence if given.

    Raises:
        CheckpointError: It is no such card.
    """
    head, found, rest = card.partition("\n## Metrics\n\n")
    _, ended, tail = rest.partition("\n## Limits\n")
    if not (found and ended):
        raise CheckpointError(CARD_FILE, "it has no sections Metrics and Limits", "Export the model again.")
    if name is not None:
        head = re.sub(r"(?m)^# .*$", lambda _: f"# {name}", head, count=1)
    if licence is not None:
        head = re.sub(r"(?m)^license: .*$", lambda _: f"license: {licence}", head, count=1)
    return f"{head}{found}{metrics}\n{ended}{tail}"


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
    if not isinstance(config, dict) or not keys <= config.keys() or config["format"] not in _KINDS:
        found = config.get("format", "no format") if isinstance(config, dict) else "no keys"
        known = " or ".join(_KINDS)
        raise CheckpointError(
            path, f"it is not a configuration of this version ({found}; expected {known})", "Export the model again."
        )
    return config


def _build(folder: Path, config: Mapping[str, Any]) -> Any:
    """The encoder that the configuration describes, before its weights are read."""
    kind = _KINDS[config["format"]]
    try:
        # JSON has lists only.
        facts = {key: tuple(value) if isinstance(value, list) else value for key, value in config["contract"].items()}
        settings = kind.settings.model_validate(config["vit"])
        return kind.encoder(fresh_vit(settings, seed=0), kind.contract(**facts), config["name"])  # type: ignore[arg-type]
    except (ValidationError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(
            folder / CONFIG_FILE,
            f"it does not describe a network ({' '.join(str(error).split())})",
            "Export the model again.",
        ) from error
