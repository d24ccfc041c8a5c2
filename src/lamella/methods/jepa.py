"""JEPA on images: from some tokens of an image, predict the embeddings of others. Target and regulariser are options.

What keeps it from collapse, the encoder that says the same of everything:
  * The prediction loss alone does not: a constant encoder is predicted perfectly, at a loss of 0. With `target=ema` or
    `stopgrad` the gradient does not lead there on purpose, which is no proof that it stays away; with `target=none` it
    does. The collapse monitors watch it, and `loss_mean_predictor` falling to 0 is its sign.
  * `regulariser=sigreg` and `vicreg` put a price on it, on the mean context token of each image; under `target=none`
    on the mean token of the whole image as well, or the encoder learns to tell whole images from contexts and
    collapses on the former alone (seen within 40 steps). In a batch of N images a constant encoder pays SIGReg at
    least 0.40 N, a healthy one about 1.05: with a weight of 0.05, more than any prediction loss from 32 images on.
  * VICReg does not see the mean of the cloud: a large vector common to all tokens makes normalised targets alike at no
    price. SIGReg does. What neither sees is an encoder whose tokens all say the same of their image, and differ from
    image to image.

Shapes: B samples, V views of a sample that are regularised, D width.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from lamella.config import Settings
from lamella.methods.cross_jepa import NoRegulariser, SigRegSettings
from lamella.methods.prediction import Batch, Logs, Predicted, Prediction, PredictionSettings, TargetName, mean_token
from lamella.methods.sigreg import EXPECTED, sigreg
from lamella.methods.vicreg import vicreg
from lamella.models.encoders import InputContract

Weight = Annotated[float, Field(gt=0)]
# Logs that `embed` passes on to `loss_of`, one column each.
_PASSED_ON = ("loss_mean_predictor", "context_keep_tokens", "target_predict_tokens")


class VicRegSettings(Settings):
    """VICReg's variance and covariance terms (arXiv 2105.04906) on the mean context token of each sample."""

    name: Literal["vicreg"] = "vicreg"
    variance: Weight = 1.0
    """Weight of the variance term beside the prediction loss; the paper weighs both 25."""
    covariance: Weight = 0.04
    """Weight of the covariance term; the paper's 1 to 25."""


Regulariser = Annotated[NoRegulariser | SigRegSettings | VicRegSettings, Field(discriminator="name")]


class JepaSettings(PredictionSettings):
    """Settings of `method.name=jepa`."""

    name: Literal["jepa"] = "jepa"
    target: TargetName = "stopgrad"
    """Who reads the targets. ema: the encoder's slow average; stopgrad: the encoder itself, without gradient; none:
    the encoder itself, with gradient, so that targets move towards their prediction too."""
    regulariser: Regulariser = SigRegSettings()
    """What makes collapse expensive."""


class Jepa(Prediction):
    """The method `jepa`.

    The regularisers judge a batch as a whole, so the loss is made of `embed`, sample by sample, and `loss_of`, all
    together: the engine can then split a batch into micro-batches without changing it, at the price of a second
    forward pass.

    Args:
        settings: Its settings.
        contract: What the images are.

    Raises:
        ConfigError: The encoder's patch or width is not the contract's.
    """

    settings: JepaSettings

    def __init__(self, settings: JepaSettings, contract: InputContract) -> None:
        super().__init__(settings, contract, settings.target, settings.name)

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        """The loss of the batch of all ranks; a float32 scalar, and detached scalars to log. See `predict`."""
        return self.loss_of(self.embed(batch), batch)

    def embed(self, batch: Batch) -> Tensor:
        """(B, 1 + 3 + V * D) float32: each sample's prediction loss, what is logged, its mean token in each view."""
        found = self.predict(batch)
        passed_B3 = torch.stack([found.logs[name].float() for name in _PASSED_ON]).expand(len(found.loss_B), -1)
        return torch.cat([found.loss_B[:, None], passed_B3, *self._views(found, batch)], dim=1)

    def loss_of(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Logs]:
        """The loss of what `embed` gave for the whole of this rank's batch."""
        prediction = embeddings[:, 0].mean()
        columns = 1 + len(_PASSED_ON)
        logs = dict(zip(_PASSED_ON, embeddings.detach()[:, 1:columns].mean(0), strict=True))
        penalty, penalty_logs = self._penalty(embeddings[:, columns:].unflatten(1, (-1, self.settings.encoder.dim)))
        return prediction + penalty, {"loss_prediction": prediction.detach(), **logs, **penalty_logs}

    def _views(self, found: Predicted, batch: Batch) -> list[Tensor]:
        """What is regularised, each (B, D): every mean token that has a gradient."""
        views = [mean_token(found.context_BND, batch["context_pad"])]
        return [*views, found.whole_BGD.mean(1)] if self.target == "none" else views

    def _penalty(self, views_BVD: Tensor) -> tuple[Tensor | float, Logs]:
        """What the regulariser adds to the loss, from the views of this rank's samples over all ranks."""
        regulariser = self.settings.regulariser
        if isinstance(regulariser, NoRegulariser):
            return 0.0, {}
        if isinstance(regulariser, SigRegSettings):
            statistic = sigreg(views_BVD, int(self.steps), regulariser.slices)
            # 0 is what a perfect normal cloud gives; the statistic itself never gets there.
            return regulariser.weight * statistic, {"sigreg_excess": statistic.detach() - EXPECTED}
        if not self.training and len(views_BVD) < 2:  # a held batch may be of one image, which has no variance
            unknown = views_BVD.new_full((), torch.nan)
            return unknown, {"vicreg_variance": unknown, "vicreg_covariance": unknown}
        terms = [vicreg(view_BD) for view_BD in views_BVD.unbind(1)]
        variance, covariance = (torch.stack(each).mean() for each in zip(*terms, strict=True))
        logs = {"vicreg_variance": variance.detach(), "vicreg_covariance": covariance.detach()}
        return regulariser.variance * variance + regulariser.covariance * covariance, logs
