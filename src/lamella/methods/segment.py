"""Automatic segmentation: a backbone and a head learn which class each pixel is of.

Two ways to be fed: tiles, or what a frozen backbone made of them once (`level0`, `level1`, ... and `mask`). Then only
the head is here, in checkpoints too.

Shapes: B tiles, C classes, H, W pixels of a tile.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from lamella.config import Settings
from lamella.methods.region_losses import RegionLossSettings, region_loss
from lamella.models.decoders.building import HeadSettings
from lamella.models.decoders.fpn import FpnSettings
from lamella.models.pyramids.building import BackboneSettings, SegformerSettings
from lamella.models.segmenter import Segmenter, upsampled_logits

Batch = dict[str, Tensor]
Logs = dict[str, Tensor]


class SegmentSettings(Settings):
    """Settings of `method.name=automatic`."""

    name: Literal["automatic"] = "automatic"
    backbone: BackboneSettings = SegformerSettings()
    """What turns a tile into features: segformer, sam2, swin or encoder."""
    head: HeadSettings = FpnSettings()
    """What turns features into classes: fpn, class_tokens, linear or mask2former."""
    loss: RegionLossSettings = RegionLossSettings()


class Segment(nn.Module):
    """The method `automatic`.

    Args:
        segmenter: What is trained; its backbone is as trainable as whoever made it left it.
        loss: What it is punished for.
        weights_C: Weights of the classes.
        cached: Batches hold the backbone's levels instead of images.
    """

    def __init__(
        self, segmenter: Segmenter, loss: RegionLossSettings, weights_C: Tensor, *, cached: bool = False
    ) -> None:
        super().__init__()
        self.loss, self.cached = loss, cached
        if not cached:
            self.backbone = segmenter.backbone
        self.head = segmenter.head
        self._whole = (segmenter,)  # in a tuple: no submodule, or checkpoints would hold everything twice
        self.register_buffer("weights_C", weights_C.float())

    @property
    def segmenter(self) -> Segmenter:
        """The model with the weights as they are now."""
        return self._whole[0]

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        """The loss of the batch of all ranks.

        Args:
            batch: `image` uint8 (B, 3, H, W), or `level0`, ... of it; `mask` uint8 (B, H, W), channels or NOT_LABELLED.

        Returns:
            A float32 scalar, the same on every rank, and detached scalars to log.
        """
        return self.loss_of(self.embed(batch), batch)

    def embed(self, batch: Batch) -> Tensor:
        """(B, C, H, W) float32 logits, or what a head with a loss of its own asks for; a tile's are its own alone."""
        if self.cached:
            levels = [batch[f"level{number}"].float() for number in range(len(self.segmenter.backbone.widths))]
        else:
            # A frozen backbone answers as it will when it is used: nothing is dropped.
            self.backbone.train(self.training and self.backbone_learns)
            levels = self.backbone(batch["image"])
        if self.by_sets:
            return self.head.answers(levels)
        height, width = batch["mask"].shape[-2:]
        return upsampled_logits(self.head, levels, (height, width))

    def loss_of(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Logs]:
        """The loss of what `embed` gave for the whole of this rank's batch."""
        if self.by_sets:
            return self.head.set_loss(embeddings, batch["mask"])
        return region_loss(embeddings, batch["mask"], self.weights_C, self.loss)

    @property
    def by_sets(self) -> bool:
        """Whether the head matches masks with classes (Mask2Former's own loss) instead of judging pixels."""
        return getattr(self.head.settings, "loss", None) == "sets"

    @property
    def backbone_learns(self) -> bool:
        """Whether any weight of the backbone is trained now."""
        return any(parameter.requires_grad for parameter in self.segmenter.backbone.parameters())

    @property
    def leaves_unused(self) -> bool:
        """Whether a step may leave weights without a gradient: mask tokens and poolers of encoders made elsewhere."""
        return not self.cached and self.segmenter.backbone.kind == "encoder" and self.backbone_learns

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Nothing follows a step."""
