"""The prediction of one part of an image's tokens from another: what all JEPAs on images share.

The context encoder is given the context's tokens and no others; a predictor answers for the places of the target
blocks; the target encoder, called teacher, reads the whole image. No pixels are reconstructed.

Shapes: B samples, N context tokens, K targets, Q tokens of a target, G tokens of the image, P values of a patch, D
width.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from lamella.config import Settings
from lamella.errors import ConfigError
from lamella.methods.slow_average import follow
from lamella.models.encoders import InputContract, ViTEncoder
from lamella.models.predictor import Predictor, PredictorSettings
from lamella.models.vit import Normalise, ViT, ViTSettings, patchify, token_centres_um

Momentum = Annotated[float, Field(ge=0, le=1)]
TargetName = Literal["ema", "stopgrad", "none"]
Batch = dict[str, Tensor]
Logs = dict[str, Tensor]


class PredictionSettings(Settings):
    """Networks, and how fast the slow one follows."""

    ema_start: Momentum = 0.996
    """Share of itself that the slow average keeps per step, at the start (I-JEPA's); used by target=ema."""
    ema_end: Momentum = 1.0
    """And at the end; linear in between."""
    encoder: ViTSettings = ViTSettings()
    predictor: PredictorSettings = PredictorSettings(width=384, depth=6, heads=6)


@dataclass(frozen=True)
class Predicted:
    """What a batch gave.

    Attributes:
        loss_B: float32 smooth L1 of each sample.
        context_BND: Tokens of the context encoder.
        whole_BGD: float32 tokens of the whole images by the teacher, before they are normalised.
        logs: Detached scalars.
    """

    loss_B: Tensor
    context_BND: Tensor
    whole_BGD: Tensor
    logs: Logs


class Prediction(nn.Module):
    """Encoder, predictor and teacher.

    Args:
        settings: Of the networks.
        contract: What the images are.
        target: Who reads the targets. ema: the encoder's slow average; stopgrad: the encoder itself, without gradient;
            none: the encoder itself, with gradient, so that targets move towards their prediction too.
        name: Of the exported encoder.

    Raises:
        ConfigError: The encoder's patch or width is not the contract's.
    """

    def __init__(self, settings: PredictionSettings, contract: InputContract, target: TargetName, name: str) -> None:
        super().__init__()
        vit = settings.encoder
        wrong = [
            f"method.encoder.{key}: {getattr(vit, key)}, but the images' contract says {getattr(contract, key)}"
            for key in ("patch_px", "dim")
            if getattr(vit, key) != getattr(contract, key)
        ]
        if wrong:
            raise ConfigError(wrong)
        self.settings, self.contract, self.target, self.name = settings, contract, target, name
        self.normalise = Normalise(contract.mean, contract.std, vit.patch_px)
        self.context_encoder = ViT(vit)
        self.predictor = Predictor(settings.predictor, vit.dim, vit.wave_min, vit.wave_max, scaled=False)
        if target == "ema":
            self.target_encoder = copy.deepcopy(self.context_encoder).requires_grad_(False)
        # Optimiser steps done: seeds what is drawn anew in every step, alike on all ranks and after a resume.
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @property
    def teacher(self) -> ViT:
        """The network that reads the targets; also the one to export."""
        return self.target_encoder if self.target == "ema" else self.context_encoder

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        """The loss of a batch, every sample weighing the same; a float32 scalar, and detached scalars to log.

        Args:
            batch: As for `predict`.
        """
        found = self.predict(batch)
        return found.loss_B.mean(), found.logs

    def predict(self, batch: Batch) -> Predicted:
        """Predict the targets of a batch and compare.

        Args:
            batch: image (B, 3, H, W) uint8; context (B, N) and targets (B, K, Q): numbers of the tokens shown and
                asked for; context_pad and targets_pad: True marks padding.
        """
        patches_BGP, places_G2 = self._patches_and_places(batch["image"])
        context_BND = self.encode_context(patches_BGP, places_G2, batch)
        predicted_BKQD = self.predictor(
            context_BND,
            places_G2[batch["context"]],
            places_G2[batch["targets"]],
            context_pad_BN=batch["context_pad"],
            query_pad_BKQ=batch["targets_pad"],
        )
        whole_BGD = self.encode_whole(patches_BGP, places_G2)
        target_BKQD = chosen(normalised(whole_BGD), batch["targets"])
        loss_B = smooth_l1_per_sample(predicted_BKQD, target_BKQD, batch["targets_pad"])
        logs = {
            "loss_prediction": loss_B.detach().mean(),
            "loss_mean_predictor": mean_predictor_loss(target_BKQD, batch["targets_pad"]),
            "context_keep_tokens": (~batch["context_pad"]).sum(1).float().mean(),
            "target_predict_tokens": (~batch["targets_pad"]).sum((1, 2)).float().mean(),
        }
        return Predicted(loss_B, context_BND, whole_BGD, logs)

    def encode_context(self, patches_BGP: Tensor, places_G2: Tensor, batch: Batch) -> Tensor:
        """(B, N, D) tokens of the context: what is not in it is never embedded or encoded."""
        # Chosen while still bytes: what is left out is not even converted.
        patches_BNP = self.normalise(chosen(patches_BGP, batch["context"]))
        return self.context_encoder(patches_BNP, places_G2[batch["context"]], batch["context_pad"])

    def encode_whole(self, patches_BGP: Tensor, places_G2: Tensor) -> Tensor:
        """(B, G, D) float32 tokens of the whole images by the teacher; with a gradient under `target=none` alone."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.target == "none"):
            return self.teacher(self.normalise(patches_BGP), places_G2[None]).float()

    def _patches_and_places(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(B, G, P) patches in bytes, and (G, 2) places from the image's centre."""
        patch_px = self.contract.patch_px
        rows, columns = image.shape[-2] // patch_px, image.shape[-1] // patch_px
        places_G2 = token_centres_um(rows, columns, patch_px * (self.contract.mpp or 1.0), image.device)
        return patchify(image, patch_px), places_G2

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """After each optimiser step: move the slow average towards the encoder.

        Args:
            progress: Share of the training done, 0 to 1.
        """
        self.steps += 1
        if self.target != "ema":
            return
        start, end = self.settings.ema_start, self.settings.ema_end
        follow(self.target_encoder, self.context_encoder, start, end, progress)

    @torch.no_grad()
    def features(self, batch: Batch) -> Tensor:
        """(B, D) float32: mean teacher token of the whole images, for the collapse monitors."""
        return self.token_features(batch).mean(1)

    @torch.no_grad()
    def token_features(self, batch: Batch) -> Tensor:
        """(B, G, D) float32: teacher tokens of the whole images."""
        patches_BGP, places_G2 = self._patches_and_places(batch["image"])
        return self.teacher(self.normalise(patches_BGP), places_G2[None]).float()

    def encoder(self) -> ViTEncoder:
        """A copy of the teacher, to export."""
        return ViTEncoder(copy.deepcopy(self.teacher), self.contract, name=self.name)


# ---- losses ---------------------------------------------------------------------------------------------------------


def smooth_l1_per_sample(predicted_BKQD: Tensor, target_BKQD: Tensor, pad_BKQ: Tensor) -> Tensor:
    """(B,) float32 smooth L1 (beta 1, I-JEPA's), each a mean over dimensions and the tokens that are no padding."""
    distance_BKQ = F.smooth_l1_loss(predicted_BKQD.float(), target_BKQD.float(), reduction="none").mean(-1)
    keep_BKQ = ~pad_BKQ
    return (distance_BKQ * keep_BKQ).sum((1, 2)) / keep_BKQ.sum((1, 2))


@torch.no_grad()
def mean_predictor_loss(target_BKQD: Tensor, pad_BKQ: Tensor) -> Tensor:
    """What answering the batch's mean target token everywhere would lose; a model that learns falls below it.

    NaN for a single token, whose mean is itself.
    """
    keep_BKQ1 = ~pad_BKQ[..., None]
    tokens = keep_BKQ1.sum()
    mean_D = (target_BKQD * keep_BKQ1).sum((0, 1, 2)) / tokens
    loss = smooth_l1_per_sample(mean_D.expand_as(target_BKQD), target_BKQD, pad_BKQ).mean()
    return torch.where(tokens > 1, loss, torch.nan)


def normalised(tokens: Tensor) -> Tensor:
    """float32 tokens of mean 0 and deviation 1 each: a layer norm without weights."""
    return F.layer_norm(tokens.float(), tokens.shape[-1:])


def chosen(tokens_BGX: Tensor, numbers: Tensor) -> Tensor:
    """(B, ..., X) the tokens of these numbers (B, ...), each from its own sample."""
    samples = torch.arange(len(numbers), device=numbers.device).view(-1, *[1] * (numbers.ndim - 1))
    return tokens_BGX[samples, numbers]


def mean_token(tokens_BND: Tensor, pad_BN: Tensor) -> Tensor:
    """(B, D) float32 mean over the tokens that are no padding."""
    keep_BN1 = ~pad_BN[..., None]
    return (tokens_BND.float() * keep_BN1).sum(1) / keep_BN1.sum(1)
