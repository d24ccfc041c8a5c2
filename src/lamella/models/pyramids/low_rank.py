"""Low-rank updates (LoRA, arXiv 2106.09685) of any backbone's attention, by the package peft (extra `lora`).

Layers are changed in place, so what is validated runs through them; `merge_low_rank` makes plain layers of them again
before the model is saved. `lamella.models.lora` does the same for promptable models.
"""

from __future__ import annotations

import copy
import importlib
import re
from typing import Any

import torch
from torch import nn

from lamella.errors import LamellaError, MissingExtraError
from lamella.models.pyramids.backbone import Backbone

# The linear layers of attention in Hiera, SegFormer, our own ViT, and the transformers and timm networks.
_ATTENTION = re.compile(
    r".*(\.|^)(attn\.(qkv|proj)|attention\.(q_proj|k_proj|v_proj|o_proj|self\.(query|key|value)|output\.dense)"
    r"|attention\.attention\.(query|key|value)|self_attn\.(q_proj|k_proj|v_proj|out_proj)|qkv|attention_out)"
)
_ALPHA_PER_RANK = 2  # alpha / rank, which scales the update; 2 is peft's and most recipes' ratio


def add_low_rank(backbone: Backbone, rank: int) -> int:
    """Freeze a backbone and add trainable updates to its attention, zero at first; returns how many layers have one.

    Raises:
        MissingExtraError: peft is not installed.
        LamellaError: It has no layer of attention that is known.
    """
    try:
        peft = importlib.import_module("peft")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "peft":
            raise
        raise MissingExtraError("peft", "lora") from error
    backbone.requires_grad_(False)
    names = [
        name
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Linear) and _ATTENTION.fullmatch(name)
    ]
    if not names:
        raise LamellaError(
            f"backbone {backbone.kind}",
            "it has no layer of attention that low-rank updates are known for",
            "Set method.backbone.train=frozen or whole.",
        )
    config = peft.LoraConfig(r=rank, lora_alpha=_ALPHA_PER_RANK * rank, target_modules=names, bias="none")
    peft.inject_adapter_in_model(config, backbone)
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_("lora_" in name)
    return len(names)


def merge_low_rank(backbone: Backbone) -> Backbone:
    """A copy with the updates added to the weights: plain layers, the same answers up to rounding."""
    if not any("lora_" in name for name, _ in backbone.named_parameters()):
        return backbone
    whole = copy.deepcopy(backbone)
    layers: list[tuple[nn.Module, str, Any]] = [
        (parent, name, child)
        for parent in whole.modules()
        for name, child in parent.named_children()
        if hasattr(child, "lora_A") and hasattr(child, "get_base_layer")
    ]
    with torch.no_grad():
        for parent, name, layer in layers:
            layer.merge(safe_merge=True)
            setattr(parent, name, layer.get_base_layer())
    return whole
