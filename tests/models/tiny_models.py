"""Networks of transformers' own classes with a few thousand random weights, and registry entries that fit them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers as hf

from lamella.models.registry import EncoderEntry, entries

_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
_DINO = {**_SMALL, "image_size": 32, "patch_size": 8}


@dataclass(frozen=True)
class Tiny:
    """How to make one: the network that is saved, the entry, and what of it makes tokens and features."""

    entry: EncoderEntry
    make: Callable[[], Any]
    features: Callable[[Any, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
    """(saved network, normalised images) -> patch tokens (B, N, D), feature (B, F), by transformers' own interface."""


def _entry(like: str, **facts: Any) -> EncoderEntry:
    return replace(entries()[like], name=f"tiny-{like}", hub_id=f"test/tiny-{like}", size_px=32, **facts)


def _clip() -> Any:
    vision = {**_SMALL, "image_size": 32, "patch_size": 8, "projection_dim": 16}
    text = {**_SMALL, "vocab_size": 20, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "projection_dim": 16}
    return hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))


def _resnet() -> Any:
    config = hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], layer_type="basic")
    network = hf.ResNetForImageClassification(config)
    for module in network.modules():  # so that running statistics matter
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
    return network


def _dinov2(network: Any, x: torch.Tensor, registers: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    states = network(pixel_values=x).last_hidden_state
    return states[:, 1 + registers :], states[:, 0]


def _midnight(network: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    tokens, cls = _dinov2(network, x)
    return tokens, torch.cat([cls, tokens.mean(1)], dim=-1)


def _vit_features(network: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    states = network.vit(pixel_values=x, interpolate_pos_encoding=True).last_hidden_state
    return states[:, 1:], states[:, 0]


def _clip_features(network: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    states = network.vision_model(pixel_values=x, interpolate_pos_encoding=True)
    return states.last_hidden_state[:, 1:], network.visual_projection(states.pooler_output)


def _resnet_features(network: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    output = network.resnet(pixel_values=x)
    B, C, height, width = output.last_hidden_state.shape
    tokens = [output.last_hidden_state[:, :, row, column] for row in range(height) for column in range(width)]
    return torch.stack(tokens, dim=1), output.pooler_output.reshape(B, C)


TINY = {
    "dinov2": Tiny(
        _entry("phikon-v2", dim=32, token_dim=32, patch_px=8),
        lambda: hf.Dinov2Model(hf.Dinov2Config(**_DINO)),
        _dinov2,
    ),
    "swiglu, cls and mean": Tiny(
        _entry("midnight-12k", dim=64, token_dim=32, patch_px=8),
        lambda: hf.Dinov2Model(hf.Dinov2Config(**_DINO, use_swiglu_ffn=True)),
        _midnight,
    ),
    "registers": Tiny(
        _entry("dinov2-with-registers-small", dim=32, token_dim=32, patch_px=8),
        lambda: hf.Dinov2WithRegistersModel(hf.Dinov2WithRegistersConfig(**_DINO, num_register_tokens=4)),
        lambda network, x: _dinov2(network, x, registers=4),
    ),
    "vit with a classifier": Tiny(
        _entry("vit-base", dim=32, token_dim=32, patch_px=8),
        lambda: hf.ViTForImageClassification(hf.ViTConfig(**_DINO)),
        _vit_features,
    ),
    "clip with its text tower": Tiny(_entry("plip", dim=16, token_dim=32, patch_px=8), _clip, _clip_features),
    "resnet with a classifier": Tiny(_entry("resnet-18", dim=32, token_dim=32), _resnet, _resnet_features),
}


def made(tiny: Tiny) -> Any:
    """The network, random but the same every time, and nothing in it zero (registers and the like start so)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = tiny.make().eval()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.02)
    return network


def saved(tiny: Tiny, folder: Path) -> Any:
    """Save it as its authors would; the network itself is returned."""
    network = made(tiny)
    network.save_pretrained(folder)
    return network
