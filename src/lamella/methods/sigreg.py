"""SIGReg: are the embeddings of a batch a standard normal cloud? A sliced Epps-Pulley test (arXiv 2511.08544).

Embeddings are projected on random directions. For each direction, the empirical characteristic function of the
projections is compared with that of N(0, 1), exp(-t^2 / 2):

    statistic = N * sum_t w(t) * [(mean cos(t x) - exp(-t^2 / 2))^2 + (mean sin(t x))^2],   mean over the directions

It grows with N under any departure: another mean, another scale, correlated or constant dimensions. Under N(0, I) its
expectation is not 0 but `EXPECTED`, for every N and D. Written from the formula.

Shapes: N embeddings, D dimensions, M directions, T = 17 knots.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

# The paper's quadrature: t in [0, 3] (the integrand is even, and exp(-t^2 / 2) makes the rest negligible), 17 knots.
T_MAX = 3.0
KNOTS = 17
_STEP = T_MAX / (KNOTS - 1)


def _knots() -> tuple[Tensor, Tensor, Tensor]:
    """t, the normal's characteristic function, and the weights: trapezoid over [-3, 3] times exp(-t^2 / 2); (T,)."""
    t = torch.linspace(0, T_MAX, KNOTS)
    normal = torch.exp(-(t**2) / 2)
    trapezoid = torch.full((KNOTS,), 2 * _STEP)
    trapezoid[[0, -1]] = _STEP
    return t, normal, trapezoid * normal


# E under N(0, 1): N * E|mean - phi|^2 = 1 - phi(t)^2, weighted and summed; 1.0525.
EXPECTED = float((_knots()[2] * (1 - _knots()[1] ** 2)).sum())


def sigreg(embeddings_ND: Tensor, step: int, slices: int) -> Tensor:
    """The statistic of one view over the batch of all ranks.

    Args:
        embeddings_ND: This rank's embeddings, one per image, not centred; shards may be uneven.
        step: Global optimiser step; seeds the directions, which are therefore the same on all ranks.
        slices: Directions M.

    Returns:
        A float32 scalar with the gradient to this rank's embeddings. Its gradients are those of the global statistic
        once DDP has averaged them over the ranks.
    """
    with torch.autocast(embeddings_ND.device.type, enabled=False):
        x_ND = embeddings_ND.float()
        projected_NM = x_ND @ directions(x_ND.shape[1], slices, step).to(x_ND.device)
        count = torch.tensor(float(len(x_ND)), device=x_ND.device)
        sums_2TM = wave_sums(projected_NM)
        if dist.is_available() and dist.is_initialized():
            sums_2TM, count = _SumOverRanks.apply(sums_2TM), _SumOverRanks.apply(count)
        return statistic(sums_2TM, count)


def directions(dim: int, slices: int, step: int) -> Tensor:
    """(D, M) unit vectors, uniform over the sphere; made on the CPU so that every device gets the same."""
    gaussian = torch.randn(dim, slices, generator=torch.Generator().manual_seed(step))
    return gaussian / gaussian.norm(dim=0)


def wave_sums(projected_NM: Tensor) -> Tensor:
    """(2, T, M) sums over N of cos(t x) and sin(t x). Sums of two halves add up to those of the whole."""
    return _WaveSums.apply(projected_NM)


def statistic(sums_2TM: Tensor, count: Tensor | int) -> Tensor:
    """The statistic of `count` embeddings from their sums, mean over the directions; a scalar."""
    _, normal, weights = (part.to(sums_2TM)[:, None] for part in _knots())
    cos_TM, sin_TM = sums_2TM / count
    return count * (weights * ((cos_TM - normal) ** 2 + sin_TM**2)).sum(0).mean()


class _WaveSums(torch.autograd.Function):
    """Sums of waves without an (N, T, M) tensor: on a uniform grid of t, each wave is the last one turned once more."""

    @staticmethod
    def forward(ctx: Any, x_NM: Tensor) -> Tensor:
        ctx.save_for_backward(x_NM)
        sums_2TM = x_NM.new_empty(2, KNOTS, x_NM.shape[1])
        for knot, cos_NM, sin_NM in _waves(x_NM):
            sums_2TM[0, knot], sums_2TM[1, knot] = cos_NM.sum(0), sin_NM.sum(0)
        return sums_2TM

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_2TM: Tensor) -> Tensor:
        (x_NM,) = ctx.saved_tensors
        grad_NM = torch.zeros_like(x_NM)
        for knot, cos_NM, sin_NM in _waves(x_NM):
            grad_NM += knot * _STEP * (grad_2TM[1, knot] * cos_NM - grad_2TM[0, knot] * sin_NM)
        return grad_NM


def _waves(x_NM: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield (knot, cos(t x), sin(t x)) by rotation: two trigonometric calls instead of 34."""
    turn_cos, turn_sin = (x_NM * _STEP).cos(), (x_NM * _STEP).sin()
    cos, sin = torch.ones_like(x_NM), torch.zeros_like(x_NM)
    for knot in range(KNOTS):
        yield knot, cos, sin
        cos, sin = cos * turn_cos - sin * turn_sin, sin * turn_cos + cos * turn_sin


class _SumOverRanks(torch.autograd.Function):
    """All-reduce that autograd can pass: every rank's loss depends on every rank's sums, so gradients add up too."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        total = grad.contiguous().clone()
        dist.all_reduce(total)
        return total
