"""Cross-resolution JEPA: from a coarse view of tissue, predict the embeddings of finer views inside it.

The context encoder is given only the tokens that no target touches; a predictor answers for the places of the targets;
a teacher, the slow average of the context encoder (I-JEPA, arXiv 2301.08243), reads the real fine crops. No pixels are
reconstructed. All places are micrometres from the context's centre.

Shapes: B samples, N context tokens kept, P values of a patch, K targets, R footprint tokens of a target, Q queries of a
target, S tokens of a target crop, D width.
"""

from __future__ import annotations

import copy
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from lamella.config import Settings
from lamella.errors import ConfigError
from lamella.methods.sigreg import EXPECTED, sigreg
from lamella.methods.slow_average import follow
from lamella.models.encoders import InputContract, ViTEncoder
from lamella.models.predictor import Predictor, PredictorSettings
from lamella.models.vit import Normalise, ViT, ViTSettings, patchify, token_centres_um
from lamella.slides.anchors.sampling import CrossSampling

Momentum = Annotated[float, Field(ge=0, le=1)]
Batch = dict[str, Tensor]
Logs = dict[str, Tensor]


class NoRegulariser(Settings):
    """Nothing beside the prediction loss."""

    name: Literal["none"] = "none"


class SigRegSettings(Settings):
    """SIGReg on the mean context token of each sample."""

    name: Literal["sigreg"] = "sigreg"
    weight: Annotated[float, Field(gt=0)] = 0.05
    """Its weight beside the prediction loss; the paper's lambda is 0.02 to 0.05."""
    slices: Annotated[int, Field(ge=1)] = 256
    """Random directions per step. The test needs many samples: 128 or more in a batch over all ranks."""


class CrossJepaSettings(Settings):
    """Settings of `method.name=cross_jepa`."""

    name: Literal["cross_jepa"] = "cross_jepa"
    target: Literal["dense", "pooled"] = "dense"
    """dense: one query per token of the target crop; pooled: the mean of the footprint against the crop's mean."""
    teacher: Literal["ema", "stopgrad"] = "ema"
    """ema: the encoder's slow average reads the targets; stopgrad: the encoder itself, without gradient."""
    ema_start: Momentum = 0.996
    """Share of itself that the teacher keeps per step, at the start (I-JEPA's)."""
    ema_end: Momentum = 1.0
    """And at the end; linear in between."""
    encoder: ViTSettings = ViTSettings()
    predictor: PredictorSettings = PredictorSettings()
    regulariser: Annotated[NoRegulariser | SigRegSettings, Field(discriminator="name")] = NoRegulariser()
    mean: tuple[float, float, float] = (0.71, 0.58, 0.70)
    """Mean of red, green and blue, 0 to 1; the default is typical of H&E tissue."""
    std: tuple[float, float, float] = (0.21, 0.23, 0.18)
    """Standard deviation of red, green and blue; the default is typical of H&E tissue."""


class CrossJepa(nn.Module):
    """The method `cross_jepa`.

    Args:
        settings: Its settings.
        sampling: The geometry of the anchors it is trained on.

    Raises:
        ConfigError: The encoder's patch is not the one the anchors were made for.
    """

    def __init__(self, settings: CrossJepaSettings, sampling: CrossSampling) -> None:
        super().__init__()
        if settings.encoder.patch_px != sampling.patch_px:
            raise ConfigError(
                [
                    f"method.encoder.patch_px: {settings.encoder.patch_px}, but the anchors were made for patches of "
                    f"{sampling.patch_px} px; set method.encoder.patch_px={sampling.patch_px}"
                ]
            )
        self.settings, self.sampling = settings, sampling
        vit = settings.encoder
        self.normalise = Normalise(settings.mean, settings.std, vit.patch_px)
        self.context_encoder = ViT(vit)
        self.predictor = Predictor(settings.predictor, vit.dim, vit.wave_min, vit.wave_max)
        if settings.teacher == "ema":
            self.target_encoder = copy.deepcopy(self.context_encoder).requires_grad_(False)
        # Optimiser steps done: seeds SIGReg's directions, alike on all ranks and after a resume.
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @property
    def teacher(self) -> ViT:
        """The network that reads the targets; also the one to export."""
        return self.target_encoder if self.settings.teacher == "ema" else self.context_encoder

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        """The loss of a batch, every sample weighing the same.

        Args:
            batch: context (B, 3, H, W) uint8, targets (B, K, 3, h, w) uint8, context_keep and context_pad (B, N),
                footprint and footprint_pad (B, K, R), target_boxes_um (B, K, 4), context_mpp, target_mpp, slide (B,).

        Returns:
            A float32 scalar, and detached scalars to log. A log that this batch cannot measure is NaN.
        """
        context_BND, context_xy_um = self.encode_context(batch)
        target_BKSD = self.encode_targets(batch)
        predicted_BKQD = self.predict(batch, context_BND, context_xy_um)
        if self.settings.target == "pooled":
            predicted_BKQD = _masked_mean(predicted_BKQD, batch["footprint_pad"])
            target_BKSD = target_BKSD.mean(2, keepdim=True)
        prediction = smooth_l1_per_sample(predicted_BKQD, target_BKSD).mean()
        logs = {"loss_prediction": prediction.detach(), **_token_counts(batch, self.settings.target, predicted_BKQD)}
        logs |= trivial_losses(target_BKSD, batch["slide"])
        loss, regulariser_logs = self._regularise(prediction, context_BND, batch["context_pad"])
        return loss, logs | regulariser_logs

    def encode_context(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Encode the context tokens that are kept, and no others.

        Returns:
            (B, N, D) tokens and their (B, N, 2) places in micrometres.
        """
        patch_px, keep_BN = self.settings.encoder.patch_px, batch["context_keep"]
        rows, columns = (side // patch_px for side in batch["context"].shape[-2:])
        samples_B1 = torch.arange(len(keep_BN), device=keep_BN.device)[:, None]
        # Chosen while still bytes: what is dropped is never converted, embedded or encoded.
        patches_BNP = patchify(batch["context"], patch_px)[samples_B1, keep_BN]
        grid_um = token_centres_um(rows, columns, patch_px * batch["context_mpp"])
        xy_um_BN2 = grid_um[samples_B1, keep_BN]
        return self.context_encoder(self.normalise(patches_BNP), xy_um_BN2, batch["context_pad"]), xy_um_BN2

    @torch.no_grad()
    def encode_targets(self, batch: Batch) -> Tensor:
        """(B, K, S, D) float32 tokens of the whole crops by the teacher, each normalised to mean 0 and deviation 1."""
        targets = batch["targets"]
        patches_BKSP = patchify(targets.flatten(0, 1), self.settings.encoder.patch_px).unflatten(0, targets.shape[:2])
        xy_um_BKS2 = self._target_places_um(batch)
        tokens = self.teacher(self.normalise(patches_BKSP.flatten(0, 1)), xy_um_BKS2.flatten(0, 1))
        return F.layer_norm(tokens.float(), tokens.shape[-1:]).unflatten(0, targets.shape[:2])

    def predict(self, batch: Batch, context_BND: Tensor, context_xy_um_BN2: Tensor) -> Tensor:
        """(B, K, Q, D) predicted tokens: of the crop (`dense`, Q = S) or of the footprint (`pooled`, Q = R)."""
        patch_px = self.settings.encoder.patch_px
        if self.settings.target == "dense":
            query_xy_um, query_um, query_pad = self._target_places_um(batch), patch_px * batch["target_mpp"], None
        else:
            rows, columns = (side // patch_px for side in batch["context"].shape[-2:])
            query_um, query_pad = patch_px * batch["context_mpp"], batch["footprint_pad"]
            samples_B11 = torch.arange(len(query_um), device=query_um.device)[:, None, None]
            query_xy_um = token_centres_um(rows, columns, query_um)[samples_B11, batch["footprint"]]
        return self.predictor(context_BND, context_xy_um_BN2, query_xy_um, query_um, batch["context_pad"], query_pad)

    def _target_places_um(self, batch: Batch) -> Tensor:
        """(B, K, S, 2) centres of the target tokens, from the context's centre."""
        boxes_BK4 = batch["target_boxes_um"]
        rows, columns = (side // self.settings.encoder.patch_px for side in batch["targets"].shape[-2:])
        fraction_S2 = token_centres_um(rows, columns, 1.0, boxes_BK4.device) / boxes_BK4.new_tensor([columns, rows])
        corner, size = boxes_BK4[..., :2], boxes_BK4[..., 2:] - boxes_BK4[..., :2]
        return (corner + size / 2)[:, :, None] + fraction_S2 * size[:, :, None]

    def _regularise(self, prediction: Tensor, context_BND: Tensor, pad_BN: Tensor) -> tuple[Tensor, Logs]:
        regulariser = self.settings.regulariser
        if regulariser.name == "none":
            return prediction, {}
        pooled_BD = _masked_mean(context_BND.float(), pad_BN).squeeze(1)
        penalty = sigreg(pooled_BD, int(self.steps), regulariser.slices)
        # 0 is what a perfect normal cloud gives; the statistic itself never gets there.
        return prediction + regulariser.weight * penalty, {"sigreg_excess": penalty.detach() - EXPECTED}

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """After each optimiser step: move the teacher towards the encoder.

        Args:
            progress: Share of the training done, 0 to 1.
        """
        self.steps += 1
        if self.settings.teacher == "stopgrad":
            return
        start, end = self.settings.ema_start, self.settings.ema_end
        follow(self.target_encoder, self.context_encoder, start, end, progress)

    @torch.no_grad()
    def features(self, batch: Batch) -> Tensor:
        """(B, D) float32: mean teacher token of the whole contexts, for the collapse monitors."""
        return self.token_features(batch).mean(1)

    @torch.no_grad()
    def token_features(self, batch: Batch) -> Tensor:
        """(B, N, D) float32: teacher tokens of the whole contexts."""
        patch_px = self.settings.encoder.patch_px
        rows, columns = (side // patch_px for side in batch["context"].shape[-2:])
        xy_um_BN2 = token_centres_um(rows, columns, patch_px * batch["context_mpp"])
        return self.teacher(self.normalise(patchify(batch["context"], patch_px)), xy_um_BN2).float()

    def encoder(self, view: Literal["target", "context"] = "target") -> ViTEncoder:
        """A copy of the teacher, to export.

        Args:
            view: Whose spacing and size the input contract states. The teacher was trained on whole target views, so
                these are what it knows best.
        """
        sampling, settings = self.sampling, self.settings
        contract = InputContract(
            mpp=sampling.target_output_mpp if view == "target" else sampling.context_output_mpp,
            size_px=sampling.target_px if view == "target" else sampling.context_px,
            mean=settings.mean,
            std=settings.std,
            patch_px=settings.encoder.patch_px,
            dim=settings.encoder.dim,
        )
        return ViTEncoder(copy.deepcopy(self.teacher), contract, name=settings.name)


# ---- losses ---------------------------------------------------------------------------------------------------------


def smooth_l1_per_sample(predicted_BKQD: Tensor, target_BKQD: Tensor) -> Tensor:
    """(B,) float32 smooth L1 (beta 1, I-JEPA's), each a mean over targets, tokens and dimensions."""
    return F.smooth_l1_loss(predicted_BKQD.float(), target_BKQD.float(), reduction="none").mean((1, 2, 3))


@torch.no_grad()
def trivial_losses(target_BKSD: Tensor, slide_B: Tensor) -> Logs:
    """What predictors that never look at the context would lose; a model that learns falls below them.

    `loss_mean_predictor` answers the mean embedding of the batch everywhere. `loss_same_slide` answers the mean
    embedding of the same slide's other anchors in the batch: below it, a model knows more than the slide's stain. NaN
    where no two anchors share a slide, and for a batch of a single embedding, whose mean is itself.
    """
    anchor_BD = target_BKSD.mean((1, 2))
    mean_loss = smooth_l1_per_sample(anchor_BD.mean(0).expand_as(target_BKSD), target_BKSD).mean()
    if target_BKSD[..., 0].numel() == 1:
        mean_loss = torch.full_like(mean_loss, torch.nan)
    same_BB = (
        (slide_B[:, None] == slide_B) & ~torch.eye(len(slide_B), dtype=torch.bool, device=slide_B.device)
    ).float()
    others_B = same_BB.sum(1)
    guess_BD = same_BB @ anchor_BD / others_B.clamp(min=1)[:, None]
    losses_B = smooth_l1_per_sample(guess_BD[:, None, None].expand_as(target_BKSD), target_BKSD)
    return {"loss_mean_predictor": mean_loss, "loss_same_slide": losses_B[others_B > 0].mean()}


def _masked_mean(tokens: Tensor, pad: Tensor) -> Tensor:
    """Mean over the second last dimension, which is kept, without the padding (True); (..., 1, D)."""
    keep = ~pad[..., None]
    return (tokens.float() * keep).sum(-2, keepdim=True) / keep.sum(-2, keepdim=True)


def _token_counts(batch: Batch, target: str, predicted_BKQD: Tensor) -> Logs:
    """Mean per sample of the tokens encoded and the tokens predicted."""
    if target == "dense":
        asked = torch.tensor(float(predicted_BKQD[0, ..., 0].numel()), device=predicted_BKQD.device)
    else:
        asked = (~batch["footprint_pad"]).flatten(1).sum(1).float().mean()
    return {
        "context_keep_tokens": (~batch["context_pad"]).sum(1).float().mean(),
        "target_predict_tokens": asked,
    }
