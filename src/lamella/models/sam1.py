"""The first SAM (ViT-B, L, H) through transformers' SamModel, behind the same calls as SAM 2.

MobileSAM's small encoder is in no released transformers, so it cannot be built here.
Shapes: B images, N prompts in a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lamella.errors import CheckpointError
from lamella.models.fingerprint import module_fingerprint
from lamella.models.promptable_model import PromptableModel, corner_pixels
from lamella.models.weights import listed, mismatches

LICENCE = "Apache-2.0"

_POSITIONS = ("shared_image_embedding.positional_embedding", "prompt_encoder.shared_embedding.positional_embedding")
# Keys of the configuration that decide the network, by part.
_ARCHITECTURE = {
    "vision": (
        "hidden_size", "output_channels", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size",
        "hidden_act", "layer_norm_eps", "qkv_bias", "use_abs_pos", "use_rel_pos", "window_size", "global_attn_indexes",
        "num_pos_feats", "mlp_dim",
    ),
    "prompt_encoder": (
        "hidden_size", "image_size", "patch_size", "mask_input_channels", "num_point_embeddings", "hidden_act",
        "layer_norm_eps",
    ),
    "mask_decoder": (
        "hidden_size", "hidden_act", "mlp_dim", "num_hidden_layers", "num_attention_heads", "attention_downsample_rate",
        "num_multimask_outputs", "iou_head_depth", "iou_head_hidden_dim", "layer_norm_eps",
    ),
}  # fmt: skip


class Sam1(PromptableModel):
    """SAM; see PromptableModel. `network` is transformers' SamModel. It never says whether an object is there."""

    @property
    def image_px(self) -> int:  # type: ignore[override]
        return int(self.network.config.prompt_encoder_config.image_size)

    @property
    def mask_px(self) -> int:  # type: ignore[override]
        return 4 * int(self.network.config.prompt_encoder_config.image_embedding_size)

    @property
    def pyramid_dim(self) -> int:
        return int(self.network.config.vision_config.output_channels)

    @property
    def architecture(self) -> dict[str, Any]:
        config = self.network.config
        parts = {name: getattr(config, f"{name}_config") for name in _ARCHITECTURE}
        facts = {name: {key: getattr(parts[name], key) for key in keys} for name, keys in _ARCHITECTURE.items()}
        return {**facts, "squash": self.squash}

    @property
    def fingerprint(self) -> str:
        return module_fingerprint(self.network, self.architecture)

    @property
    def encoder_fingerprint(self) -> str:
        return module_fingerprint(
            self.network.vision_encoder, {"vision": self.architecture["vision"], "squash": self.squash}
        )

    @property
    def encoder_trained(self) -> bool:
        return any(parameter.requires_grad for parameter in self.network.vision_encoder.parameters())

    def pyramid(self, images: Tensor) -> list[Tensor]:
        return list(self._features(self.pixels(images)))

    def _features(self, canvases_BCYX: Tensor) -> tuple[Tensor, ...]:
        return (self.network.vision_encoder(canvases_BCYX)[0],)

    def _answer(
        self,
        features: tuple[Tensor, ...],
        clicks: tuple[Tensor, Tensor] | None,
        boxes_N4: Tensor | None,
        masks_N1hw: Tensor | None,
        multimask: bool,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        network = self.network
        sparse, dense = network.prompt_encoder(
            input_points=None if clicks is None else clicks[0][:, None] - 0.5,  # as in SAM 2
            input_labels=None if clicks is None else clicks[1][:, None],
            input_boxes=None if boxes_N4 is None else corner_pixels(boxes_N4)[:, None],
            input_masks=masks_N1hw,
        )
        logits, iou = network.mask_decoder(
            image_embeddings=features[0],
            image_positional_embeddings=network.get_image_wide_positional_embeddings().expand(
                len(features[0]), -1, -1, -1
            ),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense.expand_as(features[0]),
            multimask_output=multimask,
        )
        return logits[:, 0].float(), iou[:, 0].float(), None


def sam1_config(architecture: Mapping[str, Mapping[str, Any]]) -> Any:
    """A SamConfig of `Sam1.architecture`, or of parts of it: the rest is as in ViT-B."""
    from transformers import SamConfig, SamMaskDecoderConfig, SamPromptEncoderConfig, SamVisionConfig

    return SamConfig(
        vision_config=SamVisionConfig(**architecture.get("vision", {})),
        prompt_encoder_config=SamPromptEncoderConfig(**architecture.get("prompt_encoder", {})),
        mask_decoder_config=SamMaskDecoderConfig(**architecture.get("mask_decoder", {})),
    )


def build_sam1(
    config: Any,
    weights: Mapping[str, Tensor],
    place: object,
    *,
    name: str,
    licence: str = LICENCE,
    squash: bool = False,
) -> Sam1:
    """A model with every weight from a checkpoint of transformers, in 32 bits. Arguments as for `build_sam2`.

    Raises:
        CheckpointError: A tensor is missing, unknown or of another shape; each is named.
    """
    from transformers import SamModel

    with torch.device("meta"):  # without memory or values: what the checkpoint does not fill cannot be used
        network = SamModel(config)
    held = dict(weights)
    for name_here, other in (_POSITIONS, _POSITIONS[::-1]):  # one matrix under two names, often saved once
        if name_here not in held and other in held:
            held[name_here] = held[other].clone()
    if problems := mismatches(network.state_dict(), held):
        raise CheckpointError(
            place, f"its weights are not those of {name}: {listed(problems)}", "Give the weights of this model."
        )
    network.load_state_dict({key: value.float() for key, value in held.items()}, assign=True)
    return Sam1(network, name, licence, squash=squash)
