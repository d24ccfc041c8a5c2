"""SAM 2 on images, through transformers' Sam2Model.

Shapes: B images, N prompts in a row, K masks of a prompt, D channels of a feature map.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lamella.errors import CheckpointError
from lamella.models.fingerprint import module_fingerprint
from lamella.models.promptable_model import PromptableModel, corner_pixels
from lamella.models.sam2_keys import OBJECT_SCORE
from lamella.models.weights import listed, mismatches

LICENCE = "Apache-2.0"  # of every checkpoint that its authors published
NO_OBJECT_SCORE = "The weights have no object score head: whether an object is there at all is not said."

# Keys of the configuration that decide the network, by part; everything else says how it was saved.
_ARCHITECTURE = {
    "backbone": (
        "hidden_size", "patch_kernel_size", "patch_stride", "patch_padding", "query_stride", "num_query_pool_stages",
        "window_positional_embedding_background_size", "blocks_per_stage", "embed_dim_per_stage",
        "num_attention_heads_per_stage", "window_size_per_stage", "global_attention_blocks", "mlp_ratio", "hidden_act",
        "layer_norm_eps",
    ),
    "vision": (
        "backbone_channel_list", "backbone_feature_sizes", "fpn_hidden_size", "fpn_kernel_size", "fpn_stride",
        "fpn_padding", "fpn_top_down_levels", "num_feature_levels",
    ),
    "prompt_encoder": (
        "hidden_size", "image_size", "patch_size", "mask_input_channels", "num_point_embeddings", "hidden_act",
        "layer_norm_eps", "scale",
    ),
    "mask_decoder": (
        "hidden_size", "hidden_act", "mlp_dim", "num_hidden_layers", "num_attention_heads", "attention_downsample_rate",
        "num_multimask_outputs", "iou_head_depth", "iou_head_hidden_dim", "dynamic_multimask_via_stability",
        "dynamic_multimask_stability_delta", "dynamic_multimask_stability_thresh",
    ),
}  # fmt: skip
# Starts of the names of what an embedding passes through: training any other part leaves kept embeddings valid.
ENCODER_PARTS = ("vision_encoder.", "no_memory_embedding", "mask_decoder.conv_s0.", "mask_decoder.conv_s1.")


class Sam2(PromptableModel):
    """SAM 2 for images; see PromptableModel. `network` is transformers' Sam2Model."""

    _encoder_parts: tuple[nn.Module] | None = None

    @property
    def image_px(self) -> int:  # type: ignore[override]
        return int(self.network.config.prompt_encoder_config.image_size)

    @property
    def mask_px(self) -> int:  # type: ignore[override]
        return int(self.network.prompt_encoder.mask_input_size[0])

    @property
    def says_object(self) -> bool:
        """Whether the weights have an object score head."""
        return not isinstance(self.network.mask_decoder.pred_obj_score_head, _Nothing)

    @property
    def pyramid_dim(self) -> int:
        return int(self.network.config.vision_config.fpn_hidden_size)

    @property
    def architecture(self) -> dict[str, Any]:
        return {**architecture_of(self.network.config), "object_score": self.says_object, "squash": self.squash}

    @property
    def fingerprint(self) -> str:
        return module_fingerprint(self.network, self.architecture)

    @property
    def encoder_fingerprint(self) -> str:
        tree = self.architecture
        settings = {"vision": tree["vision"], "backbone": tree["backbone"], "squash": self.squash}
        return module_fingerprint(self._encoder(), settings)

    @property
    def encoder_trained(self) -> bool:
        return any(parameter.requires_grad for parameter in self._encoder().parameters())

    def _encoder(self) -> nn.Module:
        """The modules of ENCODER_PARTS."""
        if self._encoder_parts is None:
            decoder = self.network.mask_decoder
            memory = nn.ParameterList([self.network.no_memory_embedding])
            parts = nn.ModuleList([self.network.vision_encoder, decoder.conv_s0, decoder.conv_s1, memory])
            self._encoder_parts = (parts,)  # in a tuple, so that it is no second child of this module
        return self._encoder_parts[0]

    def start_object_score(self, seed: int) -> None:
        """Give a model without an object score head a fresh one, for training; before that it says nothing."""
        from transformers.models.sam2.modeling_sam2 import Sam2FeedForward

        dim = self.network.config.mask_decoder_config.hidden_size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            head = Sam2FeedForward(dim, dim, 1, 3)
        self.network.mask_decoder.pred_obj_score_head = head.to(self.mean_C11.device).requires_grad_(False)
        self.absent = tuple(part for part in self.absent if part != NO_OBJECT_SCORE)

    def pyramid(self, images: Tensor) -> list[Tensor]:
        vision = self.network.vision_encoder
        stages = vision.backbone(self.pixels(images)).intermediate_hidden_states
        maps, _ = vision.neck(stages)  # coarse to fine
        return list(maps[::-1])

    def _features(self, canvases_BCYX: Tensor) -> tuple[Tensor, ...]:
        network = self.network
        fine, middle, coarse = network.vision_encoder(canvases_BCYX).fpn_hidden_states
        return (
            coarse + network.no_memory_embedding.reshape(1, -1, 1, 1),  # as its authors do on single images
            network.mask_decoder.conv_s1(middle),
            network.mask_decoder.conv_s0(fine),
        )

    def _answer(
        self,
        features: tuple[Tensor, ...],
        clicks: tuple[Tensor, Tensor] | None,
        boxes_N4: Tensor | None,
        masks_N1hw: Tensor | None,
        multimask: bool,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        network, N = self.network, len(features[0])
        if clicks is None and boxes_N4 is None:  # a mask alone: one token that is no point, as its authors do
            clicks = (features[0].new_zeros(N, 1, 2), torch.full((N, 1), -1, device=features[0].device))
        # The network counts pixels by index and adds half a pixel; here places are measured from the corner.
        sparse, dense = network.prompt_encoder(
            input_points=None if clicks is None else clicks[0][:, None] - 0.5,
            input_labels=None if clicks is None else clicks[1][:, None],
            input_boxes=None if boxes_N4 is None else corner_pixels(boxes_N4)[:, None],
            input_masks=masks_N1hw,
        )
        logits, iou, _, seen = network.mask_decoder(
            image_embeddings=features[0],
            image_positional_embeddings=network.get_image_wide_positional_embeddings().expand(N, -1, -1, -1),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense.expand_as(features[0]),
            multimask_output=multimask,
            high_resolution_features=list(features[:0:-1]),
        )
        return logits[:, 0].float(), iou[:, 0].float(), seen[:, 0, 0].float() if self.says_object else None


def architecture_of(config: Any) -> dict[str, dict[str, Any]]:
    """The keys of a Sam2Config that decide the network."""
    parts = {
        "backbone": config.vision_config.backbone_config,
        "vision": config.vision_config,
        "prompt_encoder": config.prompt_encoder_config,
        "mask_decoder": config.mask_decoder_config,
    }
    return {part: {key: getattr(parts[part], key) for key in keys} for part, keys in _ARCHITECTURE.items()}


def config_of(architecture: Mapping[str, Mapping[str, Any]]) -> Any:
    """A Sam2Config of `architecture_of`, or of parts of it: the rest is as in the tiny model."""
    from transformers import (
        Sam2Config,
        Sam2HieraDetConfig,
        Sam2MaskDecoderConfig,
        Sam2PromptEncoderConfig,
        Sam2VisionConfig,
    )

    backbone = Sam2HieraDetConfig(**architecture.get("backbone", {}))
    return Sam2Config(
        vision_config=Sam2VisionConfig(backbone_config=backbone, **architecture.get("vision", {})),
        prompt_encoder_config=Sam2PromptEncoderConfig(**architecture.get("prompt_encoder", {})),
        mask_decoder_config=Sam2MaskDecoderConfig(**architecture.get("mask_decoder", {})),
    )


def build_sam2(
    config: Any,
    weights: Mapping[str, Tensor],
    place: object,
    *,
    name: str,
    licence: str = LICENCE,
    squash: bool = False,
    original: Mapping[str, str] | None = None,
) -> Sam2:
    """A model with every weight from a checkpoint, in 32 bits. No part is ever left random.

    Args:
        config: A Sam2Config.
        weights: By transformers' names, of any precision; without parts for films.
        place: Where they come from, for the message.
        name: See PromptableModel.
        licence: See PromptableModel.
        squash: See PromptableModel.
        original: A tensor's name here -> its name in the checkpoint, for messages.

    Raises:
        CheckpointError: A tensor is missing, unknown or of another shape; each is named. Only the object score head
            may be absent, as a whole; the model then says so in `absent`.
    """
    from transformers import Sam2Model

    with torch.device("meta"):  # without memory or values: what the checkpoint does not fill cannot be used
        network = Sam2Model(config)
    absent = not any(key.startswith(OBJECT_SCORE) for key in weights)
    if absent:
        network.mask_decoder.pred_obj_score_head = _Nothing()  # type: ignore[assignment]
    if problems := mismatches(network.state_dict(), weights):
        words = [problem.partition(" ") for problem in problems]
        problems = [f"{(original or {}).get(key, key)} {rest}" for key, _, rest in words]
        raise CheckpointError(
            place, f"its weights are not those of {name}: {listed(problems)}", "Give the weights of this model."
        )
    network.load_state_dict({key: value.float() for key, value in weights.items()}, assign=True)
    return Sam2(network, name, licence, squash=squash, absent=(NO_OBJECT_SCORE,) if absent else ())


class _Nothing(nn.Module):
    """In the place of a head that the weights lack: not a number, which nobody is shown."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.new_full((*tokens.shape[:-1], 1), float("nan"))
