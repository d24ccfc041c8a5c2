"""V-JEPA over volumes and films: from the part of a crop that is left, predict the embeddings of what is hidden.

Every sample has several mask sets (arXiv 2404.08471: many small tubes, and few large ones). For each, the encoder is
given the tokens that are left and no others; a predictor answers for the places that are hidden, starting from the
set's own learnt token; a teacher, the encoder's slow average, reads the whole crop once for all sets. The loss is the
L1 distance to the teacher's normalised tokens. Places are millimetres of volumes, pixels of films.

A prediction loss alone is smallest for an encoder that says the same of everything: what keeps it from there is the
teacher's slowness, which is no proof. The collapse monitors watch it, and `regulariser.name=sigreg` puts a price on it.

Shapes: B samples, S mask sets, G tokens of the grid, N context tokens of a set, Q hidden tokens of a set, P values of a
patch, D width.
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
from lamella.methods.cross_jepa import Batch, Logs, Momentum, NoRegulariser, SigRegSettings
from lamella.methods.sigreg import EXPECTED, sigreg
from lamella.methods.slow_average import follow
from lamella.models.predictor import Predictor, PredictorSettings
from lamella.models.vit import ViT
from lamella.models.volume_encoder import VolumeContract, VolumeEncoder, normaliser
from lamella.models.volume_vit import FilmViTSettings, VolumeViTSettings, patchify3d


class _SpaceTimeSettings(Settings):
    ema_start: Momentum = 0.998
    """Share of itself that the teacher keeps per step, at the start (V-JEPA's)."""
    ema_end: Momentum = 1.0
    """And at the end; linear in between."""
    mask_sets: Annotated[int, Field(ge=1)] = 2
    """Mask sets of a sample at most: each has a learnt token that its predictions start from."""
    predictor: PredictorSettings = PredictorSettings(width=384, depth=6, heads=6)
    regulariser: Annotated[NoRegulariser | SigRegSettings, Field(discriminator="name")] = NoRegulariser()
    checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, about a third more time."""


class VolumeSettings(_SpaceTimeSettings):
    """Settings of `method.name=volume`."""

    name: Literal["volume"] = "volume"
    encoder: VolumeViTSettings = VolumeViTSettings()


class VideoSettings(_SpaceTimeSettings):
    """Settings of `method.name=video`."""

    name: Literal["video"] = "video"
    encoder: FilmViTSettings = FilmViTSettings()


@dataclass(frozen=True)
class _Predicted:
    """What the prediction of a batch came to.

    Attributes:
        loss_BS: Of each sample under each mask set; mean over its hidden tokens.
        mean_loss: A scalar, what `mean_predictor_loss` says of all sets.
        views_BSD: Mean context token of each sample under each mask set.
    """

    loss_BS: Tensor
    mean_loss: Tensor
    views_BSD: Tensor


class SpaceTimeJepa(nn.Module):
    """The methods `volume` and `video`, by prediction alone; `space_time_jepa` makes the one that the settings ask for.

    Args:
        settings: Its settings.
        contract: What the volumes or clips are.

    Raises:
        ConfigError: The encoder's patch, channels or width are not those of the contract.
    """

    def __init__(self, settings: VolumeSettings | VideoSettings, contract: VolumeContract) -> None:
        super().__init__()
        vit = settings.encoder
        wrong = [
            f"method.encoder.{name}: {getattr(vit, name)}, but the data's is {getattr(contract, name)}; set it to that"
            for name in ("patch", "channels", "dim")
            if getattr(vit, name) != getattr(contract, name)
        ]
        if wrong:
            raise ConfigError(wrong)
        if (settings.regulariser.name != "none") != isinstance(self, RegularisedSpaceTimeJepa):
            raise ValueError("call space_time_jepa, which chooses the class by the regulariser")
        self.settings, self.contract = settings, contract
        self.normalise = normaliser(contract)
        self.context_encoder = ViT(vit, checkpointing=settings.checkpointing)
        self.predictor = Predictor(
            settings.predictor,
            vit.dim,
            vit.wave_min,
            vit.wave_max,
            coordinates=vit.coordinates,
            scaled=False,
            mask_tokens=settings.mask_sets,
            checkpointing=settings.checkpointing,
        )
        self.target_encoder = copy.deepcopy(self.context_encoder).requires_grad_(False)
        # Optimiser steps done: seeds SIGReg's directions, alike on all ranks and after a resume.
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @property
    def teacher(self) -> ViT:
        """The network that reads the targets; also the one to export."""
        return self.target_encoder

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        """The loss of a batch, every sample and every mask set weighing the same.

        Args:
            batch: voxels (B, C, Z, Y, X), float32 of volumes and uint8 of films; context and context_pad (B, S, N),
                targets and targets_pad (B, S, Q): numbers of the tokens that are left and of those that are hidden,
                True marks padding; spacing_mm (B, 3), where volumes each have their own; padding (B,), the share of
                the crop beyond its volume, to be logged.

        Returns:
            A float32 scalar, and detached scalars to log. A log that this batch cannot measure is NaN.
        """
        found = self._predict(batch)
        return self._summed_up(found.loss_BS, found.mean_loss, batch)

    def _predict(self, batch: Batch) -> _Predicted:
        patches_BGP, places_BG3 = self._patches_and_places(batch)
        target_BGD = self.encode_targets(patches_BGP, places_BG3)
        losses, trivial, views = [], [], []
        for number in range(self._sets(batch)):
            context_BN, context_pad_BN = _shortened(batch["context"][:, number], batch["context_pad"][:, number])
            hidden_BQ, hidden_pad_BQ = _shortened(batch["targets"][:, number], batch["targets_pad"][:, number])
            context_BND = self.encode_context(patches_BGP, places_BG3, context_BN, context_pad_BN)
            predicted_BQD = self.predictor(
                context_BND,
                _chosen(places_BG3, context_BN),
                _chosen(places_BG3, hidden_BQ)[:, None],
                context_pad_BN=context_pad_BN,
                query_pad_BKQ=hidden_pad_BQ[:, None],
                mask_token=number,
            )[:, 0]
            hidden_BQD = _chosen(target_BGD, hidden_BQ)
            losses.append(l1_per_sample(predicted_BQD, hidden_BQD, hidden_pad_BQ))
            trivial.append(mean_predictor_loss(hidden_BQD, hidden_pad_BQ))
            views.append(_mean_token(context_BND, context_pad_BN))
        return _Predicted(torch.stack(losses, dim=1), torch.stack(trivial).mean(), torch.stack(views, dim=1))

    def _summed_up(self, loss_BS: Tensor, mean_loss: Tensor, batch: Batch) -> tuple[Tensor, Logs]:
        """Prediction loss and logs."""
        prediction = loss_BS.mean()
        sets = {f"loss_set_{number}": loss for number, loss in enumerate(loss_BS.detach().mean(0).unbind(), start=1)}
        logs = {"loss_prediction": prediction.detach(), "loss_mean_predictor": mean_loss.detach(), **sets}
        return prediction, logs | _token_counts(batch)

    def encode_context(
        self, patches_BGP: Tensor, places_BG3: Tensor, context_BN: Tensor, context_pad_BN: Tensor
    ) -> Tensor:
        """(B, N, D) tokens of the patches that are left: what is hidden is never embedded or encoded."""
        # Chosen while still bytes: what is hidden is not even converted.
        patches_BNP = self.normalise(_chosen(patches_BGP, context_BN))
        return self.context_encoder(patches_BNP, _chosen(places_BG3, context_BN), context_pad_BN)

    @torch.no_grad()
    def encode_targets(self, patches_BGP: Tensor, places_BG3: Tensor) -> Tensor:
        """(B, G, D) float32 tokens of the whole crops by the teacher, each normalised to mean 0 and deviation 1."""
        tokens_BGD = self.teacher(self.normalise(patches_BGP), places_BG3).float()
        return F.layer_norm(tokens_BGD, tokens_BGD.shape[-1:])

    def _patches_and_places(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(B, G, P) patches as in the batch, and (1 or B, G, 3) places."""
        voxels = batch["voxels"]
        self.contract.check(voxels)
        places = self.contract.places(voxels.shape[2:], batch.get("spacing_mm"), voxels.device)
        return patchify3d(voxels, self.contract.patch), places

    def _sets(self, batch: Batch) -> int:
        sets = batch["context"].shape[1]
        if sets > self.settings.mask_sets:
            raise ConfigError([f"method.mask_sets: {self.settings.mask_sets}, but each sample has {sets} mask sets"])
        return sets

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """After each optimiser step: move the teacher towards the encoder.

        Args:
            progress: Share of the training done, 0 to 1.
        """
        self.steps += 1
        start, end = self.settings.ema_start, self.settings.ema_end
        follow(self.target_encoder, self.context_encoder, start, end, progress)

    @torch.no_grad()
    def features(self, batch: Batch) -> Tensor:
        """(B, D) float32: mean teacher token of the whole crops, for the collapse monitors."""
        return self.token_features(batch).mean(1)

    @torch.no_grad()
    def token_features(self, batch: Batch) -> Tensor:
        """(B, G, D) float32: teacher tokens of the whole crops."""
        patches_BGP, places_BG3 = self._patches_and_places(batch)
        return self.teacher(self.normalise(patches_BGP), places_BG3).float()

    def encoder(self) -> VolumeEncoder:
        """A copy of the teacher, to export."""
        return VolumeEncoder(copy.deepcopy(self.teacher), self.contract, name=self.settings.name)


class RegularisedSpaceTimeJepa(SpaceTimeJepa):
    """With SIGReg on the mean context token of each sample, each mask set for itself.

    SIGReg judges a batch as a whole, so the loss is made of `embed`, sample by sample, and `loss_of`, all together: the
    engine can then split a batch into micro-batches without changing it, at the price of a second forward pass.
    """

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        """The loss of the batch of all ranks. Arguments as for `SpaceTimeJepa`."""
        return self.loss_of(self.embed(batch), batch)

    def embed(self, batch: Batch) -> Tensor:
        """(B, S + 1 + S * D) float32: each sample's losses, a loss to log, and its mean context tokens."""
        found = self._predict(batch)
        mean_loss_B1 = found.mean_loss.expand(len(found.loss_BS), 1)
        return torch.cat([found.loss_BS, mean_loss_B1, found.views_BSD.flatten(1)], dim=1)

    def loss_of(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Logs]:
        """The loss of what `embed` gave for the whole of this rank's batch."""
        regulariser, sets = self.settings.regulariser, self._sets(batch)
        assert isinstance(regulariser, SigRegSettings)
        prediction, logs = self._summed_up(embeddings[:, :sets], embeddings[:, sets].mean(), batch)
        views_BSD = embeddings[:, sets + 1 :].unflatten(1, (sets, -1))
        penalty = sigreg(views_BSD, int(self.steps), regulariser.slices)
        # 0 is what a perfect normal cloud gives; the statistic itself never gets there.
        return prediction + regulariser.weight * penalty, {**logs, "sigreg_excess": penalty.detach() - EXPECTED}


def space_time_jepa(settings: VolumeSettings | VideoSettings, contract: VolumeContract) -> SpaceTimeJepa:
    """The method that the settings ask for. Raises as `SpaceTimeJepa`."""
    method = SpaceTimeJepa if settings.regulariser.name == "none" else RegularisedSpaceTimeJepa
    return method(settings, contract)


# ---- losses ---------------------------------------------------------------------------------------------------------


def l1_per_sample(predicted_BQD: Tensor, target_BQD: Tensor, pad_BQ: Tensor) -> Tensor:
    """(B,) float32 absolute difference (V-JEPA's), each a mean over dimensions and the tokens that are no padding."""
    distance_BQ = F.l1_loss(predicted_BQD.float(), target_BQD.float(), reduction="none").mean(-1)
    keep_BQ = ~pad_BQ
    # A sample without a hidden token would be 0 / 0; it asks nothing, so it loses nothing.
    return (distance_BQ * keep_BQ).sum(1) / keep_BQ.sum(1).clamp(min=1)


@torch.no_grad()
def mean_predictor_loss(target_BQD: Tensor, pad_BQ: Tensor) -> Tensor:
    """What answering the batch's mean hidden token everywhere would lose; a model that learns falls below it.

    NaN for a single token, whose mean is itself.
    """
    tokens_MD = target_BQD[~pad_BQ]
    if len(tokens_MD) < 2:
        return torch.full((), torch.nan, device=target_BQD.device)
    return l1_per_sample(tokens_MD.mean(0).expand_as(target_BQD), target_BQD, pad_BQ).mean()


def _chosen(tokens_BGX: Tensor, numbers_BN: Tensor) -> Tensor:
    """(B, N, X) the tokens of these numbers; a batch dimension of 1 is shared by all samples."""
    tokens_BGX = tokens_BGX.expand(len(numbers_BN), -1, -1)
    return tokens_BGX[torch.arange(len(numbers_BN), device=numbers_BN.device)[:, None], numbers_BN]


def _shortened(numbers_BN: Tensor, pad_BN: Tensor) -> tuple[Tensor, Tensor]:
    """Without the columns that are padding for all samples: mask sets of one batch differ much in length."""
    length = max(1, int((~pad_BN).sum(1).max()))
    # Padding comes last, but only a real token may be dropped by nobody's wish.
    if bool((~pad_BN[:, length:]).any()):
        return numbers_BN, pad_BN
    return numbers_BN[:, :length], pad_BN[:, :length]


def _mean_token(tokens_BND: Tensor, pad_BN: Tensor) -> Tensor:
    """(B, D) float32 mean over the tokens that are no padding."""
    keep_BN1 = ~pad_BN[..., None]
    return (tokens_BND.float() * keep_BN1).sum(1) / keep_BN1.sum(1)


def _token_counts(batch: Batch) -> Logs:
    """Tokens encoded and tokens predicted, means over samples and mask sets; the share of crops beyond their volume."""
    logs = {
        "context_keep_tokens": (~batch["context_pad"]).sum(-1).float().mean(),
        "target_predict_tokens": (~batch["targets_pad"]).sum(-1).float().mean(),
    }
    return logs | ({"padding": batch["padding"].float().mean()} if "padding" in batch else {})
