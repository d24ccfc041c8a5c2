"""SIGReg: are the embeddings of a batch a standard normal cloud? A sliced Epps-Pulley test (arXiv 2511.08544).

Embeddings are projected on random directions. For each direction, the empirical characteristic function of the
projections is compared with that of N(0, 1), exp(-t^2 / 2):

    statistic = N * sum_t w(t) * [(mean cos(t x) - exp(-t^2 / 2))^2 + (mean sin(t x))^2],   mean over the directions

It grows with N under any departure: another mean, another scale, correlated or constant dimensions. Under N(0, I) its
expectation is not 0 but `EXPECTED`, for every N and D. Written from the formula.

The knots are t = k * STEP, so with u = STEP * x the waves are cos(k u) and sin(k u), and k = 5 j + r with |r| <= 2: by
the addition theorems, every sum over N of a wave is a few inner products of a coarse row (of 5 u) and a fine one (of
u). Twelve rows per direction and one small matrix product give all 34 sums; the gradient takes the same path back.

Shapes: N embeddings, V views, D dimensions, M slices (directions of one view, or of all), T = 17 knots, G = 7 coarse
and F = 5 fine rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lamella.models.over_ranks import count_over_ranks, several_ranks, sum_over_ranks

# The paper's quadrature: t in [0, 3] (the integrand is even, and exp(-t^2 / 2) makes the rest negligible), 17 knots.
T_MAX = 3.0
KNOTS = 17
_STEP = T_MAX / (KNOTS - 1)

# Coarse waves are of 0, 5, 10 and 15 u, fine ones of 0, 1 and 2 u: together they reach every knot.
_STRIDE, _COARSE, _FINE = 5, 7, 5
# Waves 1, cos, sin, cos 2, sin 2 [, cos 3, sin 3] from the rows 1, c, s, ss, sc [, ssc, sss], one product each:
# cos 2 = 1 - 2 ss, sin 2 = 2 sc, cos 3 = c - 4 ssc, sin 3 = 3 s - 4 sss.
_FINE_WAVES = [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0], [1, 0, 0, -2, 0], [0, 0, 0, 0, 2]]
_COARSE_WAVES = [[*row, 0, 0] for row in _FINE_WAVES] + [[0, 1, 0, 0, 0, -4, 0], [0, 0, 3, 0, 0, 0, -4]]
# Values of x at a time: 13 rows of 2**16 floats stay in a CPU's cache; a GPU wants few large kernels instead.
_AT_ONCE_CPU, _AT_ONCE_GPU = 2**16, 2**21


def _knots() -> tuple[Tensor, Tensor, Tensor]:
    """t, the normal's characteristic function, and the weights: trapezoid over [-3, 3] times exp(-t^2 / 2); (T,)."""
    t = torch.linspace(0, T_MAX, KNOTS, dtype=torch.float64)
    normal = torch.exp(-(t**2) / 2)
    trapezoid = torch.full((KNOTS,), 2 * _STEP, dtype=torch.float64)
    trapezoid[[0, -1]] = _STEP
    return t, normal, trapezoid * normal


# E under N(0, 1): N * E|mean - phi|^2 = 1 - phi(t)^2, weighted and summed; 1.0525.
EXPECTED = float((_knots()[2] * (1 - _knots()[1] ** 2)).sum())


def sigreg(embeddings: Tensor, step: int, slices: int) -> Tensor:
    """The statistic over the batch of all ranks.

    Args:
        embeddings: (N, D), this rank's embeddings, one per image, not centred; shards may be uneven. (N, V, D) for V
            views of each image: the mean of the views' statistics, each over the N embeddings of one view.
        step: Global optimiser step; seeds the directions, which are therefore the same on all ranks and for all views.
        slices: Directions.

    Returns:
        A float32 scalar with the gradient to this rank's embeddings. Its gradients are those of the global statistic
        once DDP has averaged them over the ranks.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        x = embeddings.float()
        views_VDN = (x[:, None] if x.ndim == 2 else x).permute(1, 2, 0)
        rays_MD = directions(x.shape[-1], slices, step).T.to(x.device)
        projected_MN = (rays_MD @ views_VDN).flatten(0, 1)  # one view's directions after the other's
        if not several_ranks():
            return _OfOneRank.apply(projected_MN.T)
        sums_2TM = sum_over_ranks(wave_sums(projected_MN.T))
        return statistic(sums_2TM, count_over_ranks(len(x), x))


def directions(dim: int, slices: int, step: int) -> Tensor:
    """(D, M) unit vectors, uniform over the sphere; made on the CPU so that every device gets the same."""
    gaussian = torch.randn(dim, slices, generator=torch.Generator().manual_seed(step))
    return gaussian / gaussian.square().sum(0).sqrt()


def wave_sums(projected_NM: Tensor) -> Tensor:
    """(2, T, M) sums over N of cos(t x) and sin(t x). Sums of two halves add up to those of the whole."""
    return _WaveSums.apply(projected_NM)


def statistic(sums_2TM: Tensor, count: Tensor | int) -> Tensor:
    """The statistic of `count` embeddings from their sums, mean over the directions; a scalar."""
    errors_2TM, weights_T1 = _errors(sums_2TM, count)
    return count * (weights_T1 * errors_2TM.square().sum(0)).sum(0).mean()


def _errors(sums_2TM: Tensor, count: Tensor | int) -> tuple[Tensor, Tensor]:
    """(2, T, M) real and imaginary distance to the normal's characteristic function, and the weights (T, 1)."""
    _, normal_T1, weights_T1 = (part.to(sums_2TM.dtype).to(sums_2TM.device)[:, None] for part in _knots())
    cos_TM, sin_TM = sums_2TM / count
    return torch.stack([cos_TM - normal_T1, sin_TM]), weights_T1


class _OfOneRank(torch.autograd.Function):
    """wave_sums and statistic with their gradient in one pass, while the waves are at hand; N is the whole batch."""

    @staticmethod
    def forward(ctx: Any, x_NM: Tensor) -> Tensor:
        count, slices = x_NM.shape
        total = x_NM.new_zeros(())
        ctx.gradient_MN = _empty_like(x_NM.T) if ctx.needs_input_grad[0] else None
        for own, coarse_MGN, fine_MFN in _rows(x_NM.T):
            errors_2TM, weights_T1 = _errors(_sums(coarse_MGN, fine_MFN), count)
            total += (weights_T1 * errors_2TM.square().sum(0)).sum()
            if ctx.gradient_MN is not None:
                _into_gradient(2 / slices * weights_T1 * errors_2TM, coarse_MGN, fine_MFN, ctx.gradient_MN[own])
        return count / slices * total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return (grad * ctx.gradient_MN).T


class _WaveSums(torch.autograd.Function):
    """Sums of waves, some slices at a time: no tensor ever holds all knots of all embeddings."""

    @staticmethod
    def forward(ctx: Any, x_NM: Tensor) -> Tensor:
        ctx.save_for_backward(x_NM)
        return torch.cat([_sums(coarse_MGN, fine_MFN) for _, coarse_MGN, fine_MFN in _rows(x_NM.T)], dim=2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_2TM: Tensor) -> Tensor:
        (x_NM,) = ctx.saved_tensors
        gradient_MN = _empty_like(x_NM.T)
        for own, coarse_MGN, fine_MFN in _rows(x_NM.T):
            _into_gradient(grad_2TM[..., own], coarse_MGN, fine_MFN, gradient_MN[own])
        return gradient_MN.T


def _sums(coarse_MGN: Tensor, fine_MFN: Tensor) -> Tensor:
    """(2, T, M) sums of cosines and sines over N."""
    products_MK = torch.bmm(coarse_MGN, fine_MFN.mT).flatten(1)
    return (_waves_of_products().to(products_MK) @ products_MK.T).unflatten(0, (2, KNOTS))


def _into_gradient(grad_2TM: Tensor, coarse_MGN: Tensor, fine_MFN: Tensor, out_MN: Tensor) -> None:
    """Write the gradient to x, given that to the sums: weighted sines and cosines of the same knots."""
    t_T1 = (_STEP * torch.arange(KNOTS)).to(grad_2TM)[:, None]
    weights_2TM = torch.stack([t_T1 * grad_2TM[1], -t_T1 * grad_2TM[0]])
    weights_MGF = (weights_2TM.flatten(0, 1).T @ _waves_of_products().to(grad_2TM)).unflatten(1, (_COARSE, _FINE))
    weighed_MFN = torch.bmm(weights_MGF.mT, coarse_MGN)
    torch.sum(weighed_MFN.mul_(fine_MFN), 1, out=out_MN)


def _rows(x_MN: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield (slices, coarse rows (m, G, N), fine rows (m, F, N)), m slices at a time; the next overwrite them."""
    slices, count = x_MN.shape
    at_once = max(1, (_AT_ONCE_CPU if x_MN.device.type == "cpu" else _AT_ONCE_GPU) // max(1, count))
    coarse_all, fine_all = (x_MN.new_empty(min(at_once, slices), rows, count) for rows in (_COARSE, _FINE))
    coarse_all[:, 0], fine_all[:, 0] = 1, 1
    for first in range(0, slices, at_once):
        own = slice(first, min(first + at_once, slices))
        coarse, fine = coarse_all[: own.stop - first], fine_all[: own.stop - first]
        u_MN = x_MN[own] * _STEP
        _products(u_MN, fine)
        ss, ssc, sss = _products(u_MN.mul_(_STRIDE), coarse), coarse[:, 5], coarse[:, 6]
        torch.mul(ss, coarse[:, 1], out=ssc)
        torch.mul(ss, coarse[:, 2], out=sss)
        yield own, coarse, fine


def _products(u_MN: Tensor, rows: Tensor) -> Tensor:
    """Write cosine, sine, squared sine and sine times cosine into rows 1 to 4; returns the squared sine."""
    c, s, ss, sc = rows[:, 1:5].unbind(1)
    torch.cos(u_MN, out=c)
    torch.sin(u_MN, out=s)
    torch.mul(s, c, out=sc)
    return torch.mul(s, s, out=ss)


@cache
def _waves_of_products() -> Tensor:
    """(2 T, G F) that turns the products of coarse and fine rows into the waves' sums.

    cos((5 j + r) u) = cos(5 j u) cos(r u) - sin(5 j u) sin(r u), sin((5 j + r) u) = sin cos + cos sin; r may be -2.
    """
    theorems = torch.zeros(2, KNOTS, _COARSE, _FINE)
    for knot in range(KNOTS):
        j = (knot + 2) // _STRIDE
        r = knot - _STRIDE * j
        # Place of a cosine among the waves 1, cos, sin, cos, sin, ...; its sine follows. A multiple of 0 has no sine.
        coarse, fine, sign = max(0, 2 * j - 1), max(0, 2 * abs(r) - 1), 1 if r > 0 else -1
        theorems[0, knot, coarse, fine] = 1
        if j:
            theorems[1, knot, coarse + 1, fine] = 1
        if r:
            theorems[1, knot, coarse, fine + 1] = sign
        if j and r:
            theorems[0, knot, coarse + 1, fine + 1] = -sign
    rows = torch.kron(torch.tensor(_COARSE_WAVES), torch.tensor(_FINE_WAVES))
    return theorems.reshape(2 * KNOTS, -1) @ rows.float()


def _empty_like(x_MN: Tensor) -> Tensor:
    """Row by row, whatever the strides of x."""
    return torch.empty(x_MN.shape, dtype=x_MN.dtype, device=x_MN.device)
