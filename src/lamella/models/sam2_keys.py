"""Weights of SAM 2 as the `sam2` package names them, renamed to what transformers' Sam2Model calls them.

Sources: facebookresearch/sam2 (Apache-2.0), sam2/modeling and sam2/configs; transformers, modeling_sam2.py.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lamella.errors import CheckpointError
from lamella.models.weights import listed

OBJECT_SCORE = "mask_decoder.pred_obj_score_head."
"""Start of the names of the one part of the image path that may be absent: no mask depends on it."""

# Parts that only films need: memory of earlier frames, pointers to objects in them.
_VIDEO = re.compile(
    r"(memory_attention|memory_encoder|mask_downsample|obj_ptr_proj|obj_ptr_tpos_proj)\."
    r"|(maskmem_tpos_enc|no_mem_pos_enc|no_obj_ptr|no_obj_embed_spatial)$"
)
# The same parts under transformers' names.
VIDEO_OF_TRANSFORMERS = re.compile(
    r"(memory_attention|memory_encoder|mask_downsample|object_pointer_proj"
    r"|temporal_positional_encoding_projection_layer)\."
    r"|(memory_temporal_positional_encoding|no_memory_positional_encoding|no_object_pointer"
    r"|occlusion_spatial_embedding_parameter)$"
)
_POINT = re.compile(r"sam_prompt_encoder\.point_embeddings\.(\d+)\.weight")
_POSITIONS = "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"

# What is replaced, in this order.
_RENAMES = (
    (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
    (r"^image_encoder\.neck\.convs\.(\d+)\.conv\.", r"vision_encoder.neck.convs.\1."),
    (r"\.patch_embed\.proj\.", ".patch_embed.projection."),
    (r"(backbone\.blocks\.\d+)\.norm([12])\.", r"\1.layer_norm\2."),
    (r"(backbone\.blocks\.\d+\.mlp)\.layers\.0\.", r"\1.proj_in."),
    (r"(backbone\.blocks\.\d+\.mlp)\.layers\.1\.", r"\1.proj_out."),
    (r"^no_mem_embed$", "no_memory_embedding"),
    (r"^sam_mask_decoder\.", "mask_decoder."),
    (r"(transformer\.layers\.\d+)\.norm([1-4])\.", r"\1.layer_norm\2."),
    (r"(transformer\.layers\.\d+\.mlp)\.layers\.0\.", r"\1.proj_in."),
    (r"(transformer\.layers\.\d+\.mlp)\.layers\.1\.", r"\1.proj_out."),
    (r"\.norm_final_attn\.", ".layer_norm_final_attn."),
    (r"\.out_proj\.", ".o_proj."),
    (r"\.output_upscaling\.0\.", ".upscale_conv1."),
    (r"\.output_upscaling\.1\.", ".upscale_layer_norm."),
    (r"\.output_upscaling\.3\.", ".upscale_conv2."),
    # Three-layer heads: the first and the last layer have names of their own, the middle one is a list of one.
    (r"(output_hypernetworks_mlps\.\d+|iou_prediction_head|pred_obj_score_head)\.layers\.0\.", r"\1.proj_in."),
    (r"(output_hypernetworks_mlps\.\d+|iou_prediction_head|pred_obj_score_head)\.layers\.1\.", r"\1.layers.0."),
    (r"(output_hypernetworks_mlps\.\d+|iou_prediction_head|pred_obj_score_head)\.layers\.2\.", r"\1.proj_out."),
    (r"^sam_prompt_encoder\.mask_downscaling\.0\.", "prompt_encoder.mask_embed.conv1."),
    (r"^sam_prompt_encoder\.mask_downscaling\.1\.", "prompt_encoder.mask_embed.layer_norm1."),
    (r"^sam_prompt_encoder\.mask_downscaling\.3\.", "prompt_encoder.mask_embed.conv2."),
    (r"^sam_prompt_encoder\.mask_downscaling\.4\.", "prompt_encoder.mask_embed.layer_norm2."),
    (r"^sam_prompt_encoder\.mask_downscaling\.6\.", "prompt_encoder.mask_embed.conv3."),
    (r"^sam_prompt_encoder\.", "prompt_encoder."),
)


class Hiera(NamedTuple):
    """One size of SAM 2's image encoder.

    Attributes:
        name: As its authors call it.
        dim: Width of the first stage; each stage doubles it.
        heads: Attention heads of the first stage; each stage doubles them.
        blocks: Blocks of each stage.
        windows: Side of the attention window of each stage, in tokens.
        everywhere: Blocks whose attention has no window.
        positions: Side of the learnt grid of positions.
    """

    name: str
    dim: int
    heads: int
    blocks: tuple[int, int, int, int]
    windows: tuple[int, int, int, int]
    everywhere: tuple[int, ...]
    positions: int

    def architecture(self) -> dict[str, dict[str, Any]]:
        """What differs between the sizes, in the words of transformers' configuration."""
        widths = [self.dim * 2**stage for stage in range(4)]
        backbone = {
            "hidden_size": self.dim,
            "num_attention_heads": self.heads,
            "blocks_per_stage": list(self.blocks),
            "embed_dim_per_stage": widths,
            "num_attention_heads_per_stage": [self.heads * 2**stage for stage in range(4)],
            "window_size_per_stage": list(self.windows),
            "global_attention_blocks": list(self.everywhere),
            "window_positional_embedding_background_size": [self.positions] * 2,
        }
        return {"backbone": backbone, "vision": {"backbone_channel_list": widths[::-1]}}


# sam2/configs/sam2/*.yaml and the defaults of Hiera in sam2/modeling/backbones/hieradet.py; those of 2.1 are the same.
SIZES = (
    Hiera("tiny", 96, 1, (1, 2, 7, 2), (8, 4, 14, 7), (5, 7, 9), 7),
    Hiera("small", 96, 1, (1, 2, 11, 2), (8, 4, 14, 7), (7, 10, 13), 7),
    Hiera("base-plus", 112, 2, (2, 3, 16, 3), (8, 4, 14, 7), (12, 16, 20), 14),
    Hiera("large", 144, 2, (2, 6, 36, 4), (8, 4, 16, 8), (23, 33, 43), 7),
)


def is_sam2_layout(weights: Mapping[str, Tensor]) -> bool:
    """Whether these are weights as the `sam2` package names them."""
    return any(name.startswith("image_encoder.trunk.") for name in weights)


def size_of(weights: Mapping[str, Tensor], place: object) -> Hiera:
    """The size of a checkpoint in the `sam2` layout, by the shapes of its tensors.

    Raises:
        CheckpointError: It is none of the four sizes; what was found is said.
    """
    outputs = {
        int(found[1]): tensor.shape[0]
        for name, tensor in weights.items()
        if (found := re.fullmatch(r"image_encoder\.trunk\.blocks\.(\d+)\.attn\.proj\.weight", name))
    }
    blocks = tuple(count for _, count in sorted(Counter(outputs.values()).items()))
    dim = min(outputs.values(), default=0)
    for size in SIZES:
        if (size.dim, size.blocks) == (dim, blocks):
            return size
    known = ", ".join(f"{size.name} ({size.dim}: {'-'.join(map(str, size.blocks))})" for size in SIZES)
    found_text = f"width {dim} with {'-'.join(map(str, blocks)) or 'no'} blocks"
    raise CheckpointError(
        place, f"its image encoder ({found_text}) is none that SAM 2 has: {known}", "Give a checkpoint of SAM 2."
    )


def renamed(weights: Mapping[str, Tensor], place: object) -> dict[str, Tensor]:
    """A checkpoint of the `sam2` layout under transformers' names; parts for films are left out.

    Args:
        weights: As read, of any precision.
        place: Where they come from, for the message.

    Raises:
        CheckpointError: A tensor that SAM 2 does not have; each is named.
    """
    image_path = {name: tensor for name, tensor in weights.items() if not _VIDEO.match(name)}
    points = {int(found[1]): name for name in image_path if (found := _POINT.fullmatch(name))}
    starts = ("image_encoder.trunk.", "image_encoder.neck.", "sam_prompt_encoder.", "sam_mask_decoder.", "no_mem_embed")
    if unknown := [f"{name} is unknown" for name in image_path if not name.startswith(starts)]:
        raise CheckpointError(
            place, f"it holds more than SAM 2: {listed(unknown)}", "Give the checkpoint as its authors published it."
        )
    result = {_rename(name): tensor for name, tensor in image_path.items() if name not in points.values()}
    if sorted(points) == [0, 1, 2, 3]:  # else it is reported as missing
        result["prompt_encoder.point_embed.weight"] = torch.cat([image_path[points[row]] for row in range(4)])
    if (positions := result.pop(_rename(_POSITIONS), None)) is not None:
        for owner in ("shared_image_embedding", "prompt_encoder.shared_embedding"):
            result[f"{owner}.positional_embedding"] = positions.clone()
    return result


def original_names(weights: Mapping[str, Tensor]) -> dict[str, str]:
    """Transformers' name -> the checkpoint's own, for messages."""
    return {_rename(name): name for name in weights}


def _rename(name: str) -> str:
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name
