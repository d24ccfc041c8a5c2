"""Low-rank fine-tuning (LoRA) of a promptable model's encoder, behind the extra `lora`.

The layers are changed in place, so `embed`, `pyramid` and everything that is evaluated run through them: there is no
second path that training alone would see. Source: Hu et al. 2021 (arXiv:2106.09685), by the package peft.
"""

from __future__ import annotations

import copy
import importlib
import re
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import nn

from lamella.errors import LamellaError, MissingExtraError
from lamella.models.promptable_model import PromptableModel

Model = TypeVar("Model", bound=PromptableModel)

ATTENTION = r".*\.attn\.(qkv|proj)"
"""Layers of the image encoder that get an addition, as a regular expression of the whole name."""


def add_lora(
    model: PromptableModel, *, rank: int = 8, alpha: float = 16.0, layers: str = ATTENTION, seed: int = 0
) -> int:
    """Add a trainable product of two thin matrices to layers of the encoder. It is zero at first: nothing changes yet.

    Args:
        model: Changed in place; its other weights stay as frozen as they are.
        rank: Inner width of the product.
        alpha: The product is scaled by alpha / rank.
        layers: Which linear layers, as a regular expression of their whole name in the vision encoder.
        seed: Of the matrices that do not start at zero.

    Returns:
        How many layers.

    Raises:
        MissingExtraError: peft is not installed.
        LamellaError: No layer has such a name, or the model has LoRA already.
    """
    peft = _peft()
    vision = model.network.vision_encoder
    if any(True for _ in _lora_layers(vision)):
        raise LamellaError(model.name, "it has LoRA layers already", "Merge them first, or load the model again.")
    names = [
        name for name, module in vision.named_modules() if isinstance(module, nn.Linear) and re.fullmatch(layers, name)
    ]
    if not names:
        raise LamellaError(model.name, f"no linear layer of its encoder matches {layers!r}", "Give another pattern.")
    frozen = {name: parameter.requires_grad for name, parameter in vision.named_parameters()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(
            peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=names, lora_dropout=0.0, bias="none"), vision
        )
    for name, parameter in vision.named_parameters():  # peft freezes everything else; that is not its to decide
        plain = name.replace(".base_layer.", ".")
        parameter.requires_grad_("lora_" in name or frozen.get(plain, False))
    return len(names)


def lora_parameters(model: PromptableModel) -> list[nn.Parameter]:
    """The weights that `add_lora` added."""
    return [parameter for name, parameter in model.network.named_parameters() if ".lora_" in name]


def has_lora(model: PromptableModel) -> bool:
    """Whether there are LoRA layers that are not merged."""
    return any(".lora_" in name for name, _ in model.network.named_parameters())


def merged(model: Model) -> Model:
    """A copy whose layers hold the sum: plain layers again, with the same answers up to rounding.

    A model without LoRA is returned as it is.
    """
    if not has_lora(model):
        return model
    whole = copy.deepcopy(model)
    for parent, name, layer in list(_lora_layers(whole.network)):
        layer.merge(safe_merge=True)
        setattr(parent, name, layer.get_base_layer())
    return whole


def _lora_layers(root: nn.Module) -> Iterator[tuple[nn.Module, str, Any]]:
    """Each LoRA layer with the module that holds it."""
    for parent in root.modules():
        for name, child in parent.named_children():
            if hasattr(child, "lora_A") and hasattr(child, "get_base_layer"):
                yield parent, name, child


def _peft() -> Any:
    try:
        return importlib.import_module("peft")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "peft":
            raise
        raise MissingExtraError("peft", "lora") from error
