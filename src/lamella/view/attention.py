"""Where an encoder looks, from its own attention: rollout over all layers, and the heads of the last layer.

Our transformers have no class token: the feature of an image is the mean of its patch tokens, so its attention is the
mean of the patch tokens' rows. A network whose feature is a class token has that token's row instead. Attention says
where information may have flowed, not what decided; a random network has attention maps, too.

Shapes: B images, H heads, S tokens with class token and registers, N patch tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from lamella.errors import LamellaError
from lamella.models.pretrained import PretrainedEncoder
from lamella.models.transformers_encoder import TransformersTrunk
from lamella.models.vit import ViT


@runtime_checkable
class OwnEncoder(Protocol):
    """Our encoders of images, volumes and video: a ViT, and what it is given."""

    vit: ViT

    def patches_and_places(self, values: Tensor, spacing: Any = None) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class Attended:
    """Shares of the attention that go to each patch token of an image; with `elsewhere` they sum to 1.

    Attributes:
        rollout_BN: Over all layers.
        heads_BHN: Of the last layer, head by head.
        elsewhere_B: Share of the rollout that goes to class token and registers, which lie nowhere in the image.
        query: Whose attention it is, in words.
    """

    rollout_BN: Tensor
    heads_BHN: Tensor
    elsewhere_B: Tensor
    query: str


def rollout(attentions: Iterable[Tensor]) -> Tensor:
    """How much of each input token reaches each output token, over all layers.

    With A_l the mean over heads of layer l: the product over layers, last layer leftmost, of the row-normalised
    A_l + I, where I stands for the residual connection. Source: Abnar and Zuidema, "Quantifying Attention Flow in
    Transformers", ACL 2020 (arXiv 2005.00928), section 3.

    Args:
        attentions: (B, H, S, S) of each layer, first layer first; rows are queries and sum to 1.

    Returns:
        (B, S, S) float32; rows are output tokens and sum to 1.

    Raises:
        ValueError: There is no layer.
    """
    flow_BSS: Tensor | None = None
    for attention_BHSS in attentions:
        mixed_BSS = attention_BHSS.float().mean(1)
        mixed_BSS = mixed_BSS + torch.eye(mixed_BSS.shape[-1], device=mixed_BSS.device)
        mixed_BSS = mixed_BSS / mixed_BSS.sum(-1, keepdim=True)
        flow_BSS = mixed_BSS if flow_BSS is None else mixed_BSS @ flow_BSS
    if flow_BSS is None:
        raise ValueError("a network without layers has no attention")
    return flow_BSS


def attended(encoder: Any, values: Tensor, token: int | None = None, spacing: Any = None) -> Attended:
    """Where an encoder's feature, or one of its tokens, looks.

    Args:
        encoder: A ViTEncoder, a VolumeEncoder, or an encoder of transformers.
        values: What the encoder takes: uint8 (B, 3, Y, X), or (B, C, Z, Y, X).
        token: A patch token, counted row by row; None for the feature.
        spacing: Of these images, as the encoder's `tokens` takes it; the contract's unless given.

    Raises:
        LamellaError: The encoder has no attention, or gives none away.
    """
    layers = attentions(encoder, values, spacing)
    last: list[Tensor] = []

    def passing() -> Iterator[Tensor]:
        for attention_BHSS in layers:
            last[:] = [attention_BHSS]  # only the last layer's is kept
            yield attention_BHSS

    flow_BSS = rollout(passing())
    prefix = encoder.contract.prefix_tokens if isinstance(encoder, PretrainedEncoder) else 0
    weights_S, query = _asked(encoder, flow_BSS.shape[-1], prefix, token)
    weights_S = weights_S.to(flow_BSS.device)
    row_BS = torch.einsum("s,bst->bt", weights_S, flow_BSS)
    heads_BHS = torch.einsum("s,bhst->bht", weights_S, last[0].float())
    return Attended(row_BS[:, prefix:], heads_BHS[..., prefix:], row_BS[:, :prefix].sum(-1), query)


@torch.no_grad()
def attentions(encoder: Any, values: Tensor, spacing: Any = None) -> Iterator[Tensor]:
    """Yield each layer's attention, first layer first: (B, H, S, S), rows are queries and sum to 1.

    Raises:
        LamellaError: The encoder has no attention, or gives none away.
    """
    if isinstance(encoder, PretrainedEncoder):
        yield from _of_transformers(encoder, values)
    elif isinstance(encoder, OwnEncoder):
        yield from encoder.vit.attentions(*encoder.patches_and_places(values, spacing))
    else:
        raise _without(encoder, "it is no transformer, so it has no attention to show")


def token_grid(encoder: Any, values: Tensor) -> tuple[int, ...]:
    """Patch tokens along each axis of an image (rows, columns), a volume or a video (z or time, rows, columns)."""
    contract = encoder.contract
    sides = values.shape[2:]
    patch = contract.patch if hasattr(contract, "patch") else (contract.patch_px,) * len(sides)
    return tuple(side // step for side, step in zip(sides, patch, strict=True))


def _asked(encoder: Any, tokens: int, prefix: int, token: int | None) -> tuple[Tensor, str]:
    """(S,) weights of the rows that make up what is asked for, and its name."""
    weights_S = torch.zeros(tokens)
    if token is not None:
        if not 0 <= token < tokens - prefix:
            raise ValueError(f"token {token} of {tokens - prefix} was asked for")
        weights_S[prefix + token] = 1
        return weights_S, f"patch token {token}"
    pooling = encoder.entry.pooling if isinstance(encoder, PretrainedEncoder) else "mean"
    if pooling in ("cls", "projection"):
        weights_S[0] = 1
        return weights_S, "the class token"
    weights_S[prefix:] = 1 / (tokens - prefix)
    if pooling == "mean":
        return weights_S, "the feature (mean of all patch tokens)"
    weights_S = weights_S / 2
    weights_S[0] += 0.5
    return weights_S, "the feature (class token and mean of all patch tokens, half each)"


def _of_transformers(encoder: PretrainedEncoder, values: Tensor) -> Iterator[Tensor]:
    trunk = encoder.trunk
    if not isinstance(trunk, TransformersTrunk):
        raise _without(encoder, "the library that builds it does not give its attention away")
    with _spelt_out(trunk.network):
        images_BCYX = (values.float() - encoder.mean_C11) / encoder.std_C11
        output = trunk.network(pixel_values=images_BCYX, **trunk.call, output_attentions=True)
    layers = getattr(output, "attentions", None)
    if not layers or layers[0] is None:
        raise _without(encoder, "it is no transformer, so it has no attention to show")
    yield from layers


@contextmanager
def _spelt_out(network: Any) -> Iterator[None]:
    """Attention computed step by step: the fused kernels never hold the matrix that is asked for."""
    usual = getattr(network.config, "_attn_implementation", None)
    network.set_attn_implementation("eager")
    try:
        yield
    finally:
        network.set_attn_implementation(usual)


def _without(encoder: Any, cause: str) -> LamellaError:
    return LamellaError(
        encoder.name, cause, "Leave the attention out with attention=false; the components of its tokens can be drawn."
    )
