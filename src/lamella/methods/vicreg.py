"""Variance and covariance terms of VICReg (arXiv 2105.04906), over the batch of all ranks.

They ask for a deviation of at least 1 in every dimension, and for dimensions that do not move together. Unlike SIGReg
they see neither the mean nor the shape of the cloud.

Shapes: N embeddings, D dimensions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lamella.models.over_ranks import count_over_ranks, sum_over_ranks

# Section 4.1 of the paper: the deviation asked for, and what keeps the root's slope finite at a collapse.
LEAST_STD = 1.0
EPSILON = 1e-4


def vicreg(embeddings_ND: Tensor) -> tuple[Tensor, Tensor]:
    """The two terms, each a float32 scalar to be weighted by the caller (25 and 1 in the paper).

    variance = mean over d of max(0, 1 - sqrt(var_d + 1e-4)); covariance = sum over i != j of C_ij^2, divided by D; both
    with the unbiased N - 1 (equations 1 to 4).

    Args:
        embeddings_ND: This rank's embeddings; shards may be uneven, at least two embeddings over all ranks.

    Returns:
        (variance, covariance) of the whole batch, with gradients as those of `sigreg`.

    Raises:
        ValueError: There is one embedding, which has no variance.
    """
    with torch.autocast(embeddings_ND.device.type, enabled=False):
        x_ND = embeddings_ND.float()
        count = count_over_ranks(len(x_ND), x_ND)
        if count < 2:
            raise ValueError("the variance of a batch of one embedding is not defined")
        centred_ND = x_ND - sum_over_ranks(x_ND.sum(0)) / count
        covariance_DD = sum_over_ranks(centred_ND.T @ centred_ND) / (count - 1)
        variance_D = covariance_DD.diagonal()
        variance = F.relu(LEAST_STD - (variance_D + EPSILON).sqrt()).mean()
        off_diagonal = covariance_DD.square().sum() - variance_D.square().sum()
        return variance, off_diagonal / x_ND.shape[1]
