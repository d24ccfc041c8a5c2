"""From an encoder's features to the embeddings that a loss compares; thrown away after the training.

Shapes: N embeddings, D width.
"""

from __future__ import annotations

import itertools
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from lamella.config import Settings
from lamella.models.over_ranks import count_over_ranks, sum_over_ranks

Count = Annotated[int, Field(ge=1)]


class ProjectorSettings(Settings):
    """Size of the projector."""

    hidden: tuple[Count, ...] = (2048, 2048)
    """Widths of its hidden layers, each with batch normalisation and ReLU."""
    dim: Count = 64
    """Width of what it returns; the test of normality needs several samples a dimension, so keep it below the batch."""


class BatchNorm(nn.Module):
    """Batch normalisation over the batch of all ranks (arXiv 1502.03167).

    torch's SyncBatchNorm does this on GPUs alone. Statistics are computed in float32 under autocast, in two exchanges
    (mean, then variance about it), so that a large mean costs no digits; shards may be uneven. In evaluation mode the
    running averages are used. The batch must hold two samples at least.

    Args:
        dim: Width.
        momentum: Share of a new batch in the running averages; torch's default.
        epsilon: Added to the variance; torch's default.
    """

    def __init__(self, dim: int, momentum: float = 0.1, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.epsilon = momentum, epsilon
        self.weight, self.bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_var", torch.ones(dim))

    def forward(self, x_ND: Tensor) -> Tensor:
        """(N, D) to (N, D) float32.

        Raises:
            ValueError: Training on one sample, whose deviation is zero.
        """
        with torch.autocast(x_ND.device.type, enabled=False):
            x_ND = x_ND.float()
            if not self.training:
                return self._scaled(x_ND - self.running_mean, self.running_var)
            count = count_over_ranks(len(x_ND), x_ND)
            if count < 2:
                raise ValueError("batch normalisation needs two samples at least")
            mean_D = sum_over_ranks(x_ND.sum(0)) / count
            centred_ND = x_ND - mean_D
            variance_D = sum_over_ranks(centred_ND.square().sum(0)) / count
            self._remember(mean_D, variance_D * count / (count - 1))  # unbiased, as torch keeps it
            return self._scaled(centred_ND, variance_D)

    def _scaled(self, centred_ND: Tensor, variance_D: Tensor) -> Tensor:
        return centred_ND * (self.weight * (variance_D + self.epsilon).rsqrt()) + self.bias

    @torch.no_grad()
    def _remember(self, mean_D: Tensor, variance_D: Tensor) -> None:
        self.running_mean.lerp_(mean_D, self.momentum)
        self.running_var.lerp_(variance_D, self.momentum)


class Projector(nn.Module):
    """An MLP; its last layer is linear, so that the embeddings can take any mean and scale.

    Args:
        settings: Its size.
        dim: Width of what it is given.
    """

    def __init__(self, settings: ProjectorSettings, dim: int) -> None:
        super().__init__()
        widths = (dim, *settings.hidden)
        # What a layer adds before its batch normalisation is taken away again: no bias there.
        self.layers = nn.ModuleList(nn.Linear(given, made, bias=False) for given, made in itertools.pairwise(widths))
        self.norms = nn.ModuleList(BatchNorm(width) for width in settings.hidden)
        self.last = nn.Linear(widths[-1], settings.dim)

    def forward(self, features_ND: Tensor) -> Tensor:
        """(N, D) features to (N, `settings.dim`) embeddings."""
        x = features_ND
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = F.relu(norm(layer(x)))
        return self.last(x)
