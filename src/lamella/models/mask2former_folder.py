"""Checkpoints of Mask2Former: folders and hub ids of `transformers.Mask2FormerForUniversalSegmentation`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lamella.errors import CheckpointError
from lamella.models.registry import CONFIG_FILE, OLD_WEIGHTS_FILE, PARTS, PARTS_INDEX, WEIGHTS_FILE
from lamella.models.transformers_folder import network_from
from lamella.models.weights import download, weights_file

# Of the loss, not of the network; some checkpoints hold them and some do not.
_OF_THE_LOSS = (r"criterion\.", r".*\brelative_position_index$")


def local_folder(place: str) -> Path:
    """The folder itself, or the snapshot of a hub id, downloaded once.

    Raises:
        CheckpointError: There is neither.
    """
    folder = Path(place).expanduser()
    if folder.is_dir():
        return folder
    if place.count("/") != 1 or place[0] in "./~":
        raise CheckpointError(place, "there is no such folder", "Give a model folder, or a hub id: owner/name.")
    remedy = "Check the spelling and the network, or give a downloaded folder."
    found = download(place, (CONFIG_FILE, WEIGHTS_FILE, PARTS, PARTS_INDEX), remedy)
    return found if weights_file(found) else download(place, (CONFIG_FILE, OLD_WEIGHTS_FILE), remedy)


def whole_network(place: str) -> Any:
    """A `Mask2FormerForUniversalSegmentation` with the weights of a folder or hub id.

    Raises:
        CheckpointError: It is none, is damaged, or weights are missing.
    """
    from transformers import Mask2FormerForUniversalSegmentation

    return network_from(
        local_folder(place),
        Mask2FormerForUniversalSegmentation,
        model_types=("mask2former",),
        unused=_OF_THE_LOSS,
        replaced=_OF_THE_LOSS,
    )
