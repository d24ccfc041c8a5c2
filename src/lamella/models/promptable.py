"""Promptable models by name, folder, file or hub id; and saving one that was fine-tuned."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from lamella.errors import CheckpointError, first_line
from lamella.models.lora import merged
from lamella.models.model_folder import FolderKind
from lamella.models.named import PLACE_MARK
from lamella.models.pretraining_record import PretrainingRecord
from lamella.models.promptable_model import PromptableModel
from lamella.models.registry import CONFIG_FILE, OLD_WEIGHTS_FILE, WEIGHTS_FILE
from lamella.models.sam1 import Sam1, build_sam1, sam1_config
from lamella.models.sam2 import Sam2, build_sam2, config_of
from lamella.models.sam2_keys import SIZES, VIDEO_OF_TRANSFORMERS, is_sam2_layout, original_names, renamed, size_of
from lamella.models.weights import download, read_weights, weights_file


class _Kind(NamedTuple):
    """A kind of promptable model.

    Attributes:
        format: The `format` of config.json of an own fine-tuned model. One whose keys change gets a new number.
        types: `model_type` in a folder of transformers. Released folders of SAM 2 are of its second kind.
        model: The class of the model.
        config: Parts of a configuration to the library's configuration.
        build: Configuration and weights to the model.
    """

    format: str
    types: tuple[str, ...]
    model: type[PromptableModel]
    config: Callable[[Mapping[str, Any]], Any]
    build: Callable[..., PromptableModel]


_KINDS = (
    _Kind("lamella-sam2-1", ("sam2", "sam2_video"), Sam2, config_of, build_sam2),
    _Kind("lamella-sam1-1", ("sam",), Sam1, sam1_config, build_sam1),
)


class _Release(NamedTuple):
    """A published model: its hub id, and the width and depth that its encoder must have."""

    hub_id: str
    width: int
    blocks: tuple[int, ...]


KNOWN = {
    **{
        f"{family}-hiera-{size.name}": _Release(f"facebook/{family}-hiera-{size.name}", size.dim, size.blocks)
        for family in ("sam2", "sam2.1")
        for size in SIZES
    },
    "sam-vit-base": _Release("facebook/sam-vit-base", 768, (12,)),
    "sam-vit-large": _Release("facebook/sam-vit-large", 1024, (24,)),
    "sam-vit-huge": _Release("facebook/sam-vit-huge", 1280, (32,)),
}
"""Names that `load_promptable` takes."""


def is_promptable(spec: str | Path) -> bool:
    """Whether a text names a promptable model: by name, hub id, or a folder's config.json, the only file read."""
    name = str(spec).partition(PLACE_MARK)[0]
    if _release(name) is not None:
        return True
    tree = _config_tree(Path(spec)) if (Path(spec) / CONFIG_FILE).is_file() else {}
    return _own_kind(tree) is not None or _released_kind(tree) is not None


def load_promptable(spec: str | Path, *, squash: bool | None = None) -> PromptableModel:
    """Load a promptable model, frozen, in 32 bits.

    Args:
        spec: A name of KNOWN or its hub id, downloaded once; such a name, `@`, and a folder or a weights file in
            transformers' or the `sam2` package's layout (`sam2-hiera-tiny@/models/sam2_hiera_tiny.pt`); a folder of
            transformers; an own folder of `save_promptable`.
        squash: Stretch images to the square as SAM 2's own predictor does; else, and unless the folder was saved with
            it, their sides keep their ratio.

    Raises:
        CheckpointError: There is no such model, or its weights are missing, damaged, or not what the name says. Every
            tensor that differs is named; none is left random.
    """
    name, at, place = str(spec).partition(PLACE_MARK)
    release = _release(name)
    if release is not None:
        where = Path(place).expanduser() if at else _from_hub(name, release)
        model = _load_place(where, name.rpartition("/")[2], bool(squash))
        _refuse_other_size(model, name, release, where)
        return model
    folder = Path(spec)
    if not (folder / CONFIG_FILE).is_file():
        known = ", ".join(KNOWN)
        raise CheckpointError(
            spec,
            "it is neither the name nor the folder of a promptable model",
            f"Give one of {known}, with @ and the place of its weights if they are here, or a model folder.",
        )
    return _load_folder(folder, folder.name, squash)


def save_promptable(
    model: PromptableModel,
    folder: str | Path,
    card: str,
    record: PretrainingRecord | None = None,
    *,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write a model folder. The configuration comes last, so a folder that has one is whole.

    Args:
        model: What to save. Its LoRA layers, if any, are merged into the saved weights.
        folder: Made if absent; a model in it is replaced.
        card: Markdown of README.md.
        record: The items that it was fine-tuned on; an evaluation must know them. None if that is not known.
        facts: Plain values that are kept in config.json.

    Raises:
        StorageError: The disk took no more.
    """
    model = merged(model)
    kind = next(kind for kind in _KINDS if isinstance(model, kind.model))
    # Copies: SAM holds one matrix under two names, and the file takes no shared memory.
    weights = {key: value.detach().cpu().clone() for key, value in model.network.state_dict().items()}
    config = {
        "name": model.name,
        "licence": model.licence,
        "architecture": model.architecture,
        "fingerprint": model.fingerprint,
        "facts": dict(facts or {}),
    }
    FolderKind(kind.format, "promptable model", tuple(config)).write(Path(folder), weights, card, record, config)


def _own_kind(tree: Mapping[str, Any]) -> _Kind | None:
    return next((kind for kind in _KINDS if kind.format == tree.get("format")), None)


def _released_kind(tree: Mapping[str, Any]) -> _Kind | None:
    return next((kind for kind in _KINDS if tree.get("model_type") in kind.types), None)


def _release(name: str) -> _Release | None:
    return KNOWN.get(name) or next((known for known in KNOWN.values() if known.hub_id == name), None)


def _from_hub(name: str, release: _Release) -> Path:
    remedy = f"Check the network; or download it elsewhere and give {name}{PLACE_MARK}/path/to/it."
    return download(release.hub_id, (CONFIG_FILE, WEIGHTS_FILE), remedy)


def _load_place(place: Path, name: str, squash: bool) -> PromptableModel:
    """A weights file, or a folder with one."""
    if not place.exists():
        raise CheckpointError(place, "there is no such folder or file", "Give the folder or file of the weights.")
    if place.is_dir() and (place / CONFIG_FILE).is_file():
        return _load_folder(place, name, squash)
    file = weights_file(place) if place.is_dir() else place
    if file is None:
        raise CheckpointError(
            place, f"it holds no {WEIGHTS_FILE} or {OLD_WEIGHTS_FILE}", "Give the weights file itself."
        )
    weights = _read(file)
    if not is_sam2_layout(weights):
        raise CheckpointError(
            file,
            "its tensors are not named as in the sam2 package",
            f"Weights of transformers, and of the first SAM, need {CONFIG_FILE} beside them: give their folder.",
        )
    size = size_of(weights, file)
    return build_sam2(
        config_of(size.architecture()),
        renamed(weights, file),
        file,
        name=name,
        squash=squash,
        original=original_names(weights),
    )


def _read(file: Path) -> dict[str, Tensor]:
    """Tensors by name; SAM 2's own files hold them under `model`."""
    return read_weights(file, within="model")


def _load_folder(folder: Path, name: str, squash: bool | None) -> PromptableModel:
    """An own folder, or one of transformers."""
    tree = _config_tree(folder)
    if (own := _own_kind(tree)) is not None:
        return _load_own(folder, own, tree, squash)
    if (kind := _released_kind(tree)) is None:
        found = tree.get("model_type", tree.get("format", "neither model_type nor format"))
        raise CheckpointError(
            folder / CONFIG_FILE,
            f"it describes no promptable model ({found})",
            "Give the folder of a SAM or SAM 2 model; others, such as MobileSAM, cannot be built here.",
        )
    file = weights_file(folder)
    if file is None:
        raise CheckpointError(folder, f"it holds no weights ({WEIGHTS_FILE})", "Download the whole folder again.")
    weights = {key: value for key, value in _read(file).items() if not VIDEO_OF_TRANSFORMERS.match(key)}
    return kind.build(_config(folder, kind, _parts(tree)), weights, file, name=name, squash=bool(squash))


def _load_own(folder: Path, kind: _Kind, tree: Mapping[str, Any], squash: bool | None) -> PromptableModel:
    try:
        architecture, name, licence, fingerprint = (
            tree[key] for key in ("architecture", "name", "licence", "fingerprint")
        )
        parts = {key: value for key, value in architecture.items() if isinstance(value, dict)}
        saved_squash = bool(architecture["squash"])
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            folder / CONFIG_FILE, f"it lacks keys of this version ({first_line(error)})", "Export the model again."
        ) from error
    file = folder / WEIGHTS_FILE
    config = _config(folder, kind, parts)
    model = kind.build(config, read_weights(file), file, name=name, licence=licence, squash=saved_squash)
    if model.fingerprint != fingerprint:
        raise CheckpointError(
            folder,
            f"its fingerprint is {model.fingerprint}, but {CONFIG_FILE} was saved with {fingerprint}",
            f"{CONFIG_FILE} or {WEIGHTS_FILE} was changed after saving; export the model again.",
        )
    if squash is not None:
        model.squash = squash
    return model


def _parts(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of transformers' config.json, as `config_of` takes them."""
    vision = dict(tree.get("vision_config") or {})
    parts = {
        "backbone": vision.pop("backbone_config", None) or {},
        "vision": vision,
        "prompt_encoder": tree.get("prompt_encoder_config") or {},
        "mask_decoder": tree.get("mask_decoder_config") or {},
    }
    return {part: {key: value for key, value in keys.items() if key != "model_type"} for part, keys in parts.items()}


def _config(folder: Path, kind: _Kind, parts: Mapping[str, Any]) -> Any:
    try:
        return kind.config(parts)
    except Exception as error:  # transformers checks values with errors of its own making
        raise CheckpointError(
            folder / CONFIG_FILE, f"it does not describe such a network ({first_line(error)})", "Download it again."
        ) from error


def _config_tree(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(path, f"it cannot be read ({first_line(error)})", "Copy the model again.") from error
    return tree if isinstance(tree, dict) else {}


def _refuse_other_size(model: PromptableModel, name: str, release: _Release, place: Path) -> None:
    tree = model.architecture
    if "backbone" in tree:
        found = _Release("", tree["backbone"]["hidden_size"], tuple(tree["backbone"]["blocks_per_stage"]))
    else:
        found = _Release("", tree["vision"]["hidden_size"], (tree["vision"]["num_hidden_layers"],))
    if found[1:] != release[1:]:
        other = next((known for known, entry in KNOWN.items() if entry[1:] == found[1:]), "another network")
        raise CheckpointError(place, f"it holds {other}, not {name}", "Give the name of what it holds.")
