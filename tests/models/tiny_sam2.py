"""Sam2Model and SamModel with a few thousand random weights, and SAM 2's checkpoint layout written backwards."""

from __future__ import annotations

import re

import torch
import transformers as hf
from torch import Tensor

from lamella.models.sam1 import Sam1, sam1_config
from lamella.models.sam2 import Sam2, config_of

SIDE_PX = 64
_DIM = 16

ARCHITECTURE = {
    "backbone": {
        "hidden_size": 8,
        "num_attention_heads": 1,
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 2, 4],
        "window_size_per_stage": [4, 4, 2, 2],
        "global_attention_blocks": [3],
        "window_positional_embedding_background_size": [3, 3],
    },
    "vision": {
        "backbone_channel_list": [64, 32, 16, 8],
        "fpn_hidden_size": _DIM,
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
    },
    "prompt_encoder": {"hidden_size": _DIM, "image_size": SIDE_PX, "mask_input_channels": 8},
    "mask_decoder": {"hidden_size": _DIM, "mlp_dim": 16, "num_attention_heads": 2, "iou_head_hidden_dim": 8},
}


def tiny_network(seed: int = 0) -> hf.Sam2Model:
    """Random weights, large enough that masks are not flat."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = hf.Sam2Model(config_of(ARCHITECTURE))
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    # One matrix under two names, as in every checkpoint.
    network.shared_image_embedding.positional_embedding.copy_(
        network.prompt_encoder.shared_embedding.positional_embedding
    )
    return network.eval()


def tiny_sam2(seed: int = 0, *, squash: bool = False) -> Sam2:
    return Sam2(tiny_network(seed), "tiny", "none", squash=squash)


def tiny_sam1_network(seed: int = 0) -> hf.SamModel:
    vision = {"hidden_size": 16, "output_channels": _DIM, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"image_size": SIDE_PX, "window_size": 2, "global_attn_indexes": (1,), "num_pos_feats": _DIM // 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = hf.SamModel(
            sam1_config(
                {
                    "vision": {**vision, "mlp_dim": 16},
                    "prompt_encoder": ARCHITECTURE["prompt_encoder"],
                    "mask_decoder": ARCHITECTURE["mask_decoder"],
                }
            )
        )
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return network.eval()


def tiny_sam1(seed: int = 0) -> Sam1:
    return Sam1(tiny_sam1_network(seed), "tiny-1", "none")


# From transformers' names to those of the `sam2` package, written from that package's modules.
_BACK = (
    (r"^vision_encoder\.backbone\.", "image_encoder.trunk."),
    (r"^vision_encoder\.neck\.convs\.(\d)\.", r"image_encoder.neck.convs.\1.conv."),
    (r"patch_embed\.projection\.", "patch_embed.proj."),
    (r"^no_memory_embedding$", "no_mem_embed"),
    (r"^prompt_encoder\.mask_embed\.conv1\.", "sam_prompt_encoder.mask_downscaling.0."),
    (r"^prompt_encoder\.mask_embed\.layer_norm1\.", "sam_prompt_encoder.mask_downscaling.1."),
    (r"^prompt_encoder\.mask_embed\.conv2\.", "sam_prompt_encoder.mask_downscaling.3."),
    (r"^prompt_encoder\.mask_embed\.layer_norm2\.", "sam_prompt_encoder.mask_downscaling.4."),
    (r"^prompt_encoder\.mask_embed\.conv3\.", "sam_prompt_encoder.mask_downscaling.6."),
    (r"^prompt_encoder\.shared_embedding\.positional_embedding$",
     "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"),
    (r"^prompt_encoder\.", "sam_prompt_encoder."),
    (r"^mask_decoder\.", "sam_mask_decoder."),
    (r"upscale_conv1\.", "output_upscaling.0."),
    (r"upscale_layer_norm\.", "output_upscaling.1."),
    (r"upscale_conv2\.", "output_upscaling.3."),
    (r"layer_norm_final_attn\.", "norm_final_attn."),
    (r"layer_norm(\d)\.", r"norm\1."),
    (r"\.o_proj\.", ".out_proj."),
    (r"(hypernetworks_mlps\.\d|iou_prediction_head|pred_obj_score_head)\.proj_out\.", r"\1.layers.2."),
    (r"(hypernetworks_mlps\.\d|iou_prediction_head|pred_obj_score_head)\.layers\.0\.", r"\1.layers.1."),
    (r"(hypernetworks_mlps\.\d|iou_prediction_head|pred_obj_score_head)\.proj_in\.", r"\1.layers.0."),
    (r"\.mlp\.proj_in\.", ".mlp.layers.0."),
    (r"\.mlp\.proj_out\.", ".mlp.layers.1."),
)  # fmt: skip


def in_sam2_layout(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights as the `sam2` package would save them."""
    result = {}
    for name, tensor in weights.items():
        if name == "shared_image_embedding.positional_embedding":
            continue  # the package has it once
        if name == "prompt_encoder.point_embed.weight":
            result |= {f"sam_prompt_encoder.point_embeddings.{row}.weight": tensor[row : row + 1] for row in range(4)}
            continue
        for pattern, replacement in _BACK:
            name = re.sub(pattern, replacement, name)
        result[name] = tensor.clone()
    return result
