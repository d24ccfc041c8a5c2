"""Encoders of Hugging Face transformers: DINOv2 with and without registers, ViT, CLIP's image tower, ResNet.

Only these classes of the installed library are built; code that a model folder brings along is never run.

Shapes: B images, C channels, Y rows and X columns, S tokens, D width of a token, F width of a feature.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from lamella.errors import CheckpointError, first_line
from lamella.models.pretrained import Tokens, Trunk, check_trunk, refuse_differences
from lamella.models.registry import CONFIG_FILE, PREPROCESSOR_FILE, EncoderEntry
from lamella.models.transformers_folder import SAYS_HOW_SAVED, loaded_network, quiet
from lamella.models.weights import listed, size_text


@dataclass(frozen=True)
class _Family:
    """How one class of transformers is loaded and called.

    Attributes:
        types: `model_type` in config.json, of a model of this class and of those that contain one.
        unused: Weights that a checkpoint may hold beside the encoder's, as regular expressions from the start.
        optional: Weights that a checkpoint may lack, because no feature depends on them; they then are zero.
        load: Arguments of `from_pretrained`.
        call: Arguments of the forward pass. Positions are interpolated to sizes other than the usual one.
    """

    types: tuple[str, ...]
    unused: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    load: Mapping[str, Any] = field(default_factory=dict)
    call: Mapping[str, Any] = field(default_factory=dict)


_FAMILIES = {
    # The mask token stands in for masked patches in pretraining; here none is masked.
    "Dinov2Model": _Family(("dinov2",), unused=(r"classifier\.",), optional=("embeddings.mask_token",)),
    "Dinov2WithRegistersModel": _Family(
        ("dinov2_with_registers",), unused=(r"classifier\.",), optional=("embeddings.mask_token",)
    ),
    # The pooler is a layer that only the pretraining's classifier reads; features are the class token before it.
    "ViTModel": _Family(
        ("vit",),
        unused=(r"(vit\.)?pooler\.", r"classifier\."),
        load={"add_pooling_layer": False},
        call={"interpolate_pos_encoding": True},
    ),
    # Released as pairs of an image and a text tower. Position ids are a counter that old versions saved.
    "CLIPVisionModelWithProjection": _Family(
        ("clip", "clip_vision_model"),
        unused=(r"text_model\.", r"text_projection\.", r"logit_scale$", r".*\bposition_ids$"),
        call={"interpolate_pos_encoding": True},
    ),
    "ResNetModel": _Family(("resnet",), unused=(r"classifier\.",)),
}


class TransformersTrunk(Trunk):
    """One of the classes above."""

    def __init__(self, network: Any, class_name: str) -> None:
        super().__init__()
        self.network, self._class_name = network, class_name

    def forward(self, x_BCYX: Tensor) -> Tokens:
        output = self.network(pixel_values=x_BCYX, **self.call)
        tokens = output.last_hidden_state
        if tokens.ndim == 4:  # a convolutional network's map: its positions are the tokens
            tokens = tokens.flatten(2).transpose(1, 2)
        return Tokens(tokens, getattr(output, "image_embeds", None))

    @property
    def call(self) -> Mapping[str, Any]:
        """Arguments of the network's forward pass beside the images."""
        return _FAMILIES[self._class_name].call

    def fresh(self) -> TransformersTrunk:
        load = _FAMILIES[self._class_name].load
        return TransformersTrunk(type(self.network)(self.network.config, **load), self._class_name)

    def architecture(self) -> Mapping[str, Any]:
        """The configuration without what says how it was saved."""
        config = json.loads(self.network.config.to_json_string(use_diff=False))
        return {"class": self._class_name, **{key: config[key] for key in config if key not in SAYS_HOW_SAVED}}


def load_transformers(entry: EncoderEntry, folder: Path) -> TransformersTrunk:
    """Build an entry's class from a model folder, in 32 bits, with every weight from the folder.

    Raises:
        CheckpointError: config.json or the weights are missing, damaged, or those of another network; what differs is
            named. A missing weight is never left random.
    """
    family, network_class = _FAMILIES[entry.architecture], _network_class(entry.architecture)
    _check_config(entry, folder, family, network_class)
    _check_normalisation(entry, folder / PREPROCESSOR_FILE)
    network, report = loaded_network(folder, network_class, family.load)
    _refuse_other_weights(entry, folder, family, report)
    trunk = TransformersTrunk(network, entry.architecture)
    check_trunk(trunk, entry, folder)
    return trunk


def _network_class(name: str) -> Any:
    import transformers  # seconds; needs no torchvision for these classes

    return getattr(transformers, name)


def _check_config(entry: EncoderEntry, folder: Path, family: _Family, network_class: Any) -> None:
    path = folder / CONFIG_FILE
    try:
        model_type = json.loads(path.read_text(encoding="utf-8")).get("model_type")
        with quiet():
            config = network_class.config_class.from_pretrained(str(folder), local_files_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(
            folder, f"it has no {CONFIG_FILE}, so it is no model of transformers", "Download the whole folder."
        ) from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(path, f"it cannot be read ({first_line(error)})", "Download it again.") from error
    if model_type not in family.types:
        refuse_differences(path, entry, {"model_type": " or ".join(family.types)}, {"model_type": model_type})
    expected: dict[str, Any] = {"hidden_size": entry.token_dim, "patch_size": entry.patch_px}
    if entry.architecture == "ResNetModel":
        expected = {"hidden_sizes": entry.token_dim}
    if entry.pooling == "projection":
        expected["projection_dim"] = entry.dim
    if entry.architecture == "Dinov2WithRegistersModel":
        expected["num_register_tokens"] = entry.prefix_tokens - 1
    found = {key: getattr(config, key, None) for key in expected}
    if isinstance(found.get("hidden_sizes"), list):
        found["hidden_sizes"] = found["hidden_sizes"][-1]
    refuse_differences(path, entry, expected, found)


def _check_normalisation(entry: EncoderEntry, path: Path) -> None:
    """Compare mean and std with those that the folder states, if it does."""
    if entry.card_wins or not path.is_file():
        return
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
        facts = {"image_mean": stated.get("image_mean"), "image_std": stated.get("image_std")}
        found = {key: tuple(round(float(part), 4) for part in value) for key, value in facts.items() if value}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(path, f"it cannot be read ({first_line(error)})", "Download it again.") from error
    own = {"image_mean": entry.mean, "image_std": entry.std}
    refuse_differences(path, entry, {key: tuple(round(part, 4) for part in own[key]) for key in own}, found)


def _refuse_other_weights(entry: EncoderEntry, folder: Path, family: _Family, report: Mapping[str, Any]) -> None:
    missing = [f"{name} is missing" for name in sorted(report["missing_keys"]) if name not in family.optional]
    unknown = [
        f"{name} is unknown"
        for name in sorted(report["unexpected_keys"])
        if not any(re.match(pattern, name) for pattern in family.unused)
    ]
    differing = [_size_difference(item) for item in sorted(report["mismatched_keys"])]
    problems = missing + unknown + differing + list(report["error_msgs"])
    if problems:
        raise CheckpointError(
            folder,
            f"its weights are not those of {entry.name}: {listed(problems)}",
            f"Download {entry.hub_id} again; a weight that is missing is never left random.",
        )


def _size_difference(item: str | tuple[str, tuple[int, ...], tuple[int, ...]]) -> str:
    if isinstance(item, str):  # transformers 4 tells the name alone
        return f"{item} has another size"
    name, found, expected = item
    return f"{name} is {size_text(found)} instead of {size_text(expected)}"
