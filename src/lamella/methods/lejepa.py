"""LeJEPA: views of one image should be embedded alike, and the embeddings of all images as a standard normal cloud.

One encoder; no teacher, no stop-gradient, no predictor (arXiv 2511.08544). What keeps the embeddings apart is SIGReg
alone, so it is computed for every view over the whole batch of all ranks. Written from the paper's formulas.

Shapes: B images, Vg global and Vl local views, V = Vg + Vl, D width of the encoder, E width of the projection.
"""

from __future__ import annotations

import copy
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from lamella.config import Settings
from lamella.methods.sigreg import EXPECTED, sigreg
from lamella.models.encoders import InputContract, ViTEncoder
from lamella.models.over_ranks import count_over_ranks, sum_over_ranks
from lamella.models.projector import Projector, ProjectorSettings
from lamella.models.vit import Normalise, ViT, ViTSettings, patchify, token_centres_um

Batch = dict[str, Tensor]
Logs = dict[str, Tensor]


class LeJepaSettings(Settings):
    """Settings of `method.name=lejepa`."""

    name: Literal["lejepa"] = "lejepa"
    sigreg_weight: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Lambda: the weight of SIGReg; that of the invariance is 1 - lambda. The paper's is 0.02 to 0.05."""
    slices: Annotated[int, Field(ge=1)] = 1024
    """Random directions per step. The test needs many samples: 128 images or more in a batch over all ranks."""
    encoder: ViTSettings = ViTSettings()
    projector: ProjectorSettings = ProjectorSettings()


class LeJepa(nn.Module):
    """The method `lejepa`.

    Args:
        settings: Its settings.
        contract: What the exported encoder will expect: size, spacing, mean and deviation of the channels.

    Raises:
        ValueError: The contract's patch or width is not the encoder's.
    """

    def __init__(self, settings: LeJepaSettings, contract: InputContract) -> None:
        super().__init__()
        vit = settings.encoder
        if (vit.patch_px, vit.dim) != (contract.patch_px, contract.dim):
            raise ValueError("the contract's patch_px and dim must be the network's")
        self.settings, self.contract = settings, contract
        self.normalise = Normalise(contract.mean, contract.std, vit.patch_px)
        self.vit = ViT(vit)
        self.projector = Projector(settings.projector, vit.dim)
        # Optimiser steps done: seeds SIGReg's directions, alike on all ranks and after a resume.
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        """The loss of the batch of all ranks.

        Args:
            batch: globals (B, Vg, 3, H, W) and, where there are local views, locals (B, Vl, 3, h, w), uint8.

        Returns:
            A float32 scalar, the same on every rank, and detached scalars to log.
        """
        return self.loss_of(self.embed(batch), batch)

    def embed(self, batch: Batch) -> Tensor:
        """(B, V, D) float32 mean tokens of all views, the global ones first; a sample's do not depend on the others."""
        sizes = [batch[name] for name in ("globals", "locals") if name in batch]
        # Views of one size go through the encoder together.
        pooled = [self._tokens(views.flatten(0, 1)).float().mean(1).unflatten(0, views.shape[:2]) for views in sizes]
        return torch.cat(pooled, dim=1)

    def loss_of(self, embeddings_BVD: Tensor, batch: Batch) -> tuple[Tensor, Logs]:
        """The loss of what `embed` gave for the whole of this rank's batch.

        loss = lambda * mean over views of SIGReg(view) + (1 - lambda) * invariance; invariance = mean over images,
        views and dimensions of the squared distance to the mean of the image's global views. Nothing is detached.
        """
        projected_BVE = self.projector(embeddings_BVD.flatten(0, 1)).float().unflatten(0, embeddings_BVD.shape[:2])
        centre_B1E = projected_BVE[:, : batch["globals"].shape[1]].mean(1, keepdim=True)
        distances_B = (projected_BVE - centre_B1E).square().mean((1, 2))
        invariance = sum_over_ranks(distances_B.sum()) / count_over_ranks(len(distances_B), distances_B)
        normality = sigreg(projected_BVE, int(self.steps), self.settings.slices)
        weight = self.settings.sigreg_weight
        loss = weight * normality + (1 - weight) * invariance
        logs = {
            "loss_invariance": invariance.detach(),
            # 0 is what a perfect normal cloud gives; the statistic itself never gets there.
            "sigreg_excess": normality.detach() - EXPECTED,
            "context_keep_tokens": self._token_count(batch),
        }
        return loss, logs

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """After each optimiser step: the next one has other directions."""
        self.steps += 1

    @torch.no_grad()
    def features(self, batch: Batch) -> Tensor:
        """(B, D) float32: mean token of whole images, `image` (B, 3, H, W) uint8; what the exported encoder gives."""
        return self.token_features(batch).mean(1)

    @torch.no_grad()
    def token_features(self, batch: Batch) -> Tensor:
        """(B, N, D) float32: tokens of whole images."""
        return self._tokens(batch["image"]).float()

    def encoder(self) -> ViTEncoder:
        """A copy of the encoder, to export; the projector is dropped."""
        return ViTEncoder(copy.deepcopy(self.vit), self.contract, name=self.settings.name)

    def _tokens(self, images: Tensor) -> Tensor:
        """(B, N, D) tokens of images of one size, placed from their centres."""
        patch_px = self.settings.encoder.patch_px
        rows, columns = (side // patch_px for side in images.shape[-2:])
        places_N2 = token_centres_um(rows, columns, patch_px * (self.contract.mpp or 1.0), images.device)
        return self.vit(self.normalise(patchify(images, patch_px)), places_N2[None])

    def _token_count(self, batch: Batch) -> Tensor:
        """Tokens encoded for an image, over all its views."""
        pixels = sum(views[0, :, 0].numel() for name, views in batch.items() if name in ("globals", "locals"))
        return torch.tensor(pixels / self.settings.encoder.patch_px**2, device=batch["globals"].device)
