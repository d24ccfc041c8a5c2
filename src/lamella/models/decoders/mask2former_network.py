"""Mask2Former's pixel decoder, its decoder of queries and its loss, as transformers has them, without a backbone.

Importing this takes seconds: it is done where the head is built.
"""

from __future__ import annotations

from torch import Tensor, nn
from transformers import Mask2FormerConfig
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerLoss,
    Mask2FormerPixelDecoder,
    Mask2FormerPreTrainedModel,
    Mask2FormerTransformerModule,
)


class QueryNetwork(Mask2FormerPreTrainedModel):
    """Four maps to queries. A subclass, so that the weights begin as transformers has them begin.

    Args:
        config: Of transformers; its backbone plays no part.
        widths: Channels of the maps, finest first.
    """

    def __init__(self, config: Mask2FormerConfig, widths: tuple[int, ...]) -> None:
        super().__init__(config)
        self.pixel_decoder = Mask2FormerPixelDecoder(config, feature_channels=list(widths))
        self.transformer_module = Mask2FormerTransformerModule(in_features=config.feature_size, config=config)
        self.class_predictor = nn.Linear(config.hidden_dim, config.num_labels + 1)
        self.weight_dict = {
            "loss_cross_entropy": config.class_weight,
            "loss_mask": config.mask_weight,
            "loss_dice": config.dice_weight,
        }
        self.criterion = Mask2FormerLoss(config=config, weight_dict=self.weight_dict)
        self.post_init()

    def forward(self, levels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Class logits (B, Q, C + 1) and mask logits (B, Q, h, w) of every layer, the last of each being the answer."""
        decoded = self.pixel_decoder(levels, output_hidden_states=False, return_dict=True)
        found = self.transformer_module(
            multi_scale_features=decoded.multi_scale_features,
            mask_features=decoded.mask_features,
            output_hidden_states=True,
            output_attentions=False,
        )
        states = found.intermediate_hidden_states
        return [self.class_predictor(state.transpose(0, 1)) for state in states], list(found.masks_queries_logits)

    def weighted_loss(
        self, classes: list[Tensor], masks: list[Tensor], mask_labels: list[Tensor], class_labels: list[Tensor]
    ) -> dict[str, Tensor]:
        """The terms of Mask2Former's loss, weighted, those of the inner layers with a number behind their name."""
        inner = [
            {"class_queries_logits": own, "masks_queries_logits": mask}
            for own, mask in zip(classes[:-1], masks[:-1], strict=True)
        ]
        terms = self.criterion(masks[-1], classes[-1], mask_labels, class_labels, inner)
        return {
            name: value * next(weight for key, weight in self.weight_dict.items() if key in name)
            for name, value in terms.items()
        }
