"""Encoders of timm, behind the extra `timm`: the pathology transformers that were released as timm models.

The network is built from the registry's own arguments and filled by name and size with the file's tensors: nothing that
a model folder says changes what is built.

Shapes: B images, C channels, Y rows and X columns.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lamella.errors import CheckpointError, LamellaError, MissingExtraError, first_line
from lamella.models.pretrained import Tokens, Trunk, check_trunk, refuse_differences
from lamella.models.registry import CONFIG_FILE, EncoderEntry
from lamella.models.weights import listed, mismatches, read_weights


class TimmTrunk(Trunk):
    """A vision transformer of timm."""

    def __init__(self, entry: EncoderEntry, network: Any) -> None:
        super().__init__()
        self._entry, self.network = entry, network

    def forward(self, x_BCYX: Tensor) -> Tokens:
        return Tokens(self.network.forward_features(x_BCYX))

    def fresh(self) -> TimmTrunk:
        return build_timm(self._entry)

    def architecture(self) -> Mapping[str, Any]:
        return {"timm": self._entry.architecture, **self._entry.timm_kwargs}


def build_timm(entry: EncoderEntry) -> TimmTrunk:
    """The entry's network with fresh weights.

    Raises:
        MissingExtraError: timm is not installed.
        LamellaError: timm is installed but cannot be imported, or does not know the network.
    """
    timm, layers = require_timm()
    classes = {"SwiGLUPacked": layers.SwiGLUPacked, "SiLU": torch.nn.SiLU}
    kwargs = {key: classes.get(str(value), value) for key, value in entry.timm_kwargs.items()}
    try:
        return TimmTrunk(entry, timm.create_model(entry.architecture, pretrained=False, **kwargs))
    except (RuntimeError, TypeError, ValueError) as error:
        raise LamellaError(
            entry.name,
            f"the installed timm {timm.__version__} cannot build it ({first_line(error)})",
            "Run `pip install --upgrade timm`.",
        ) from error


def load_timm(entry: EncoderEntry, folder: Path, weights: Path) -> TimmTrunk:
    """Build an entry's network and fill it from a weights file.

    Args:
        entry: Of a timm model.
        folder: May hold the model's config.json, which then must agree.
        weights: A .safetensors file, or a torch file of tensors alone.

    Raises:
        MissingExtraError: timm is not installed.
        CheckpointError: The file is damaged or of another network; every tensor that differs is named.
    """
    _check_config(entry, folder / CONFIG_FILE)
    trunk = build_timm(entry)
    found = read_weights(weights)
    problems = mismatches(trunk.network.state_dict(), found)
    if problems:
        raise CheckpointError(
            weights,
            f"its weights are not those of {entry.name}: {listed(problems)}",
            f"Download {entry.hub_id} again; a weight that is missing is never left random.",
        )
    trunk.network.load_state_dict(found)
    check_trunk(trunk, entry, weights)
    return trunk


def require_timm() -> tuple[Any, Any]:
    """The modules timm and timm.layers.

    Raises:
        MissingExtraError: timm is not installed.
        LamellaError: It is, but cannot be imported.
    """
    try:
        return importlib.import_module("timm"), importlib.import_module("timm.layers")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "timm":
            raise MissingExtraError("timm", "timm") from error
        raise _broken(error) from error
    except (ImportError, RuntimeError, OSError) as error:  # a torchvision built for another torch
        raise _broken(error) from error


def _broken(error: Exception) -> LamellaError:
    return LamellaError(
        "timm",
        f"it is installed but cannot be imported ({first_line(error)})",
        "It needs a torchvision of the same build as torch: `pip install torchvision` from the index torch came from.",
    )


def _check_config(entry: EncoderEntry, path: Path) -> None:
    """Compare the facts that a timm config.json states with the registry's. Folders of weights alone have none."""
    if not path.is_file():
        return
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        stated = config.get("pretrained_cfg", {})
        facts = {"num_features": config.get("num_features"), "mean": stated.get("mean"), "std": stated.get("std")}
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(path, f"it cannot be read ({first_line(error)})", "Download it again.") from error
    found = {key: tuple(value) if isinstance(value, list) else value for key, value in facts.items() if value}
    expected = {"num_features": entry.token_dim, "mean": tuple(entry.mean), "std": tuple(entry.std)}
    refuse_differences(path, entry, expected, found)
