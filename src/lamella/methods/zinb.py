"""The negative binomial and its zero-inflated form: exact in 32 bits, with gradients by formula.

With a = log mu, b = log theta and z the log-odds of a structural zero (pi = sigmoid(z)), everything is a function of
the log-odds a - b, so mu and theta are never divided or added to some epsilon:

    t = theta softplus(a - b)                           = -log P(no count | not structural)
    NB    -log p(y) = log y! + lgamma(theta) - lgamma(theta + y) + t + y softplus(b - a)
    ZINB  -log p(0) = -log(pi + (1 - pi) exp(-t))       = -log1p(-sigmoid(-z) (1 - exp(-t)))
          -log p(y) = softplus(z) + the NB's            for y > 0

At 2 um 95 to 98 % of the entries are 0, where no gamma function is needed. So all entries are computed as if they were
0, in 32 bits with vectorised functions, and the few others are then taken again in 64 bits: the terms of a large count
or theta cancel to a part in a million, and 32 bits would keep nothing (a device without 64 bits, Apple's GPU, computes
them in 32). Autograd would store every step and call a digamma for every entry; the gradients here are found beside the
value. `benchmarks/zinb.py` compares it.

Shapes: any that broadcast to those of the counts; B samples, G genes, n bins along the side of a sample; K entries with
a count.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Above this (1 - pi)(1 - P0), log1p of its negative cancels; the other form of the same value is exact there.
_NEARLY_ONE = 0.97
# Below this mu / (theta + mu), t - theta mu / (theta + mu) cancels; its series is exact to 32 bits there.
_SMALL_SHARE = 0.03
# exp() of more would overflow in 32 bits later on; odds of e^80 to 1 and of more differ by nothing that 32 bits show.
_LARGEST = 80.0
# Up to this count lgamma(theta + y) - lgamma(theta) is a short sum of logarithms.
_SHORT = 8
# From this theta on, Stirling's series is exact to 64 bits where the difference of two lgamma is not.
_LARGE_THETA = 1e4
# Entries at a time of each thread: some ten 32-bit arrays of this size stay in a core's cache. 64 Ki is 256 KiB each.
_CHUNK = 1 << 16


class Derivatives(NamedTuple):
    """-log p of every entry, and its derivatives by a, b and z; None where not asked for."""

    nll: Tensor
    by_a: Tensor | None
    by_b: Tensor | None
    by_z: Tensor | None


def nll(counts: Tensor, log_mu: Tensor, log_theta: Tensor, zero_logit: Tensor | None = None) -> Tensor:
    """-log p of every entry.

    Args:
        counts: Whole or fractional counts, 0 or more.
        log_mu: Logarithm of the mean of the count part, of the counts' shape.
        log_theta: Logarithm of the inverse dispersion.
        zero_logit: Log-odds of a structural zero; None: NB.

    Returns:
        float32 of the counts' shape, with gradients to the three parameters.
    """
    z = None if zero_logit is None else zero_logit.float()
    out: Tensor = _Each.apply(counts, log_mu.float(), log_theta.float(), z)
    return out


def mean_nll(
    counts_BGnn: Tensor, log_mu_BGnn: Tensor, log_theta: Tensor, zero_logit: Tensor | None, mask_Bnn: Tensor
) -> Tensor:
    """Mean of -log p over mask x genes: the same as the masked mean of `nll`, in less time and memory.

    Args:
        counts_BGnn: Counts.
        log_mu_BGnn: As in `nll`.
        log_theta: (1, G, 1, 1).
        zero_logit: (B, G, n, n) or (1, G, 1, 1), or None: NB.
        mask_Bnn: bool, the bins that count.

    Returns:
        A float32 scalar; 0 where the mask is empty.
    """
    z = None if zero_logit is None else zero_logit.float()
    out: Tensor = _Mean.apply(counts_BGnn, log_mu_BGnn.float(), log_theta.float(), z, mask_Bnn)
    return out


def log_probability_of_none(log_mu: Tensor, log_theta: Tensor, zero_logit: Tensor | None = None) -> Tensor:
    """Logarithm of the chance of no count, structural or not; its gradients are autograd's."""
    log_mu, log_theta = log_mu.float(), log_theta.float()
    t = log_theta.exp() * F.softplus(log_mu - log_theta)
    if zero_logit is None:
        return -t
    z = zero_logit.float()
    some = torch.sigmoid(-z) * -torch.expm1(-t)
    near = some > _NEARLY_ONE
    return torch.where(near, F.softplus(-(z + t)) - F.softplus(-z), torch.log1p(-some.masked_fill(near, 0.0)))


# ---- gradients by formula -------------------------------------------------------------------------------------------


class _Each(torch.autograd.Function):
    """`nll`, entry by entry."""

    @staticmethod
    def forward(ctx: Any, counts: Tensor, a: Tensor, b: Tensor, z: Tensor | None) -> Tensor:
        found = derivatives(counts, a, b, z, wanted=tuple(ctx.needs_input_grad[1:]))
        ctx.save_for_backward(*found[1:])
        ctx.shapes = [None if each is None else each.shape for each in (a, b, z)]
        return found.nll

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        gradients = (
            None if by is None else (by * outer[0]).sum_to_size(shape)
            for by, shape in zip(ctx.saved_tensors, ctx.shapes, strict=True)
        )
        return (None, *gradients)


class _Mean(torch.autograd.Function):
    """`mean_nll`: zeros chunk by chunk, so that what lies between stays in the processor's cache; then all counts."""

    @staticmethod
    def forward(ctx: Any, counts: Tensor, a: Tensor, b: Tensor, z: Tensor | None, mask_Bnn: Tensor) -> Tensor:
        wanted = tuple(ctx.needs_input_grad[1:4])
        samples, genes = counts.shape[:2]
        bins = mask_Bnn[0].numel()
        step = max(1, _CHUNK * torch.get_num_threads() // bins) if counts.device.type == "cpu" else genes
        weights_Bnn = mask_Bnn.float() / (mask_Bnn.sum() * genes).clamp(min=1)
        gradients = [
            torch.zeros_like(each) if want and each is not None else None
            for each, want in zip((a, b, z), wanted, strict=True)
        ]
        total = torch.zeros((), dtype=_wide(counts.device), device=counts.device)
        for sample in range(samples):
            for first in range(0, genes, step):
                at = (slice(sample, sample + 1), slice(first, first + step))
                here = [None if each is None else _chunk(each, at) for each in (a, b, z)]
                found = _of_zeros(counts[at], here[0], here[1], here[2], wanted)  # type: ignore[arg-type]
                weights = weights_Bnn[sample] * (counts[at] == 0)
                total += torch.sum(found.nll.mul_(weights), dtype=total.dtype)
                for gradient, by in zip(gradients, found[1:], strict=True):
                    if gradient is not None and by is not None:
                        into = _chunk(gradient, at)
                        into += by.mul_(weights).sum_to_size(into.shape)
        total += _add_counts(counts, (a, b, z), weights_Bnn, gradients)
        ctx.save_for_backward(*gradients)
        return total.float()

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        # The gradients are this call's own; nobody else sees them change.
        return (None, *(None if each is None else each * outer[0] for each in ctx.saved_tensors), None)


def _add_counts(
    counts: Tensor,
    parameters: tuple[Tensor, Tensor, Tensor | None],
    weights_Bnn: Tensor,
    gradients: list[Tensor | None],
) -> Tensor:
    """The weighted sum of -log p over the entries with a count, all at once; their gradients are added in place."""
    sample_K, _, row_K, col_K = places = ((counts > 0) & (weights_Bnn[:, None] > 0)).nonzero(as_tuple=True)
    here = [None if each is None else each.expand_as(counts)[places] for each in parameters]
    found = _of_counts(counts[places], *here)  # type: ignore[arg-type]
    weights_K = weights_Bnn[sample_K, row_K, col_K].to(found[0].dtype)
    for gradient, by in zip(gradients, found[1:], strict=True):
        if gradient is not None and by is not None:
            # A parameter that is the same for all samples or bins gets the sum of them.
            own = [place if size > 1 else place * 0 for place, size in zip(places, gradient.shape, strict=True)]
            gradient.index_put_(tuple(own), (by * weights_K).to(gradient.dtype), accumulate=True)
    return (found[0] * weights_K).sum()


def _chunk(values: Tensor, at: tuple[slice, slice]) -> Tensor:
    """Some genes of one sample; of parameters that are the same for all samples, those."""
    return values[at] if values.shape[0] > 1 else values[:, at[1]]


def derivatives(
    counts: Tensor, a: Tensor, b: Tensor, z: Tensor | None, wanted: tuple[bool, ...] = (True, True, True)
) -> Derivatives:
    """-log p and its derivatives by a, b and z (those `wanted`), of the counts' shape."""
    counts, a = counts.contiguous(), a.contiguous()  # so is what is made of them, and the same flat places are the same
    z = None if z is None else z.contiguous()
    found = _of_zeros(counts, a, b, z, wanted)
    flat = counts.reshape(-1)
    at = (flat > 0).nonzero().squeeze(1)
    if len(at):
        here = [None if each is None else _taken(each, counts.shape, at) for each in (a, b, z)]
        for values, right in zip(found, _of_counts(flat[at], *here), strict=True):  # type: ignore[arg-type]
            if values is not None and right is not None:
                values.view(-1).index_copy_(0, at, right.to(values.dtype))
    return found


def _taken(values: Tensor, shape: torch.Size, at_K: Tensor) -> Tensor:
    """(K,) the entries at places of the flattened shape that the values broadcast to, without a copy of all."""
    if values.shape == shape:
        return values.reshape(-1)[at_K]
    return values.expand(shape)[torch.unravel_index(at_K, shape)]


def _of_zeros(counts: Tensor, a: Tensor, b: Tensor, z: Tensor | None, wanted: tuple[bool, ...]) -> Derivatives:
    """As if every count were 0. Each exponential is taken once and memory is used again: here the time is spent."""
    theta = b.exp()
    odds = (a - b).expand_as(counts).clamp(max=_LARGEST).exp_()  # mu / theta
    softplus = odds.log1p()
    share = odds.div_(odds + 1)  # mu / (theta + mu)
    t = theta * softplus
    by_b = _difference(softplus, share).mul_(theta) if wanted[1] else None
    by_a = share.mul_(theta) if wanted[0] else None
    if z is None:
        return Derivatives(t, by_a, by_b, None)
    odds_z = z.clamp(max=_LARGEST).exp_()
    kept = (odds_z + 1).reciprocal_()
    structural = odds_z.mul_(kept)
    some = torch.expm1(-t).neg_().mul_(kept)
    counted = torch.exp(-t).mul_(kept)  # the chance of a zero that is none of structure
    value = torch.log1p(-some).neg_()
    whole = (counted + structural).reciprocal_()  # of both kinds of zero: a sum without cancellation
    chance, structural = counted.mul_(whole), whole.mul_(structural)
    if bool(some.amax() > _NEARLY_ONE):
        near = (some > _NEARLY_ONE).nonzero(as_tuple=True)
        z_K, t_K = z.expand_as(counts)[near], t[near]
        value[near] = F.softplus(-z_K) - F.softplus(-(z_K + t_K))
        chance[near], structural[near] = torch.sigmoid(-(z_K + t_K)), torch.sigmoid(z_K + t_K)
    return Derivatives(
        value,
        None if by_a is None else by_a.mul_(chance),
        None if by_b is None else by_b.mul_(chance),
        structural.mul_(some).neg_() if wanted[2] else None,
    )


def _difference(softplus: Tensor, share: Tensor) -> Tensor:
    """softplus(x) - sigmoid(x), which is -log(1 - s) - s with s = sigmoid(x): s^2 / 2 + s^3 / 3 + ... for small s."""
    series = (share / 5).add_(1 / 4).mul_(share).add_(1 / 3).mul_(share).add_(1 / 2).mul_(share).mul_(share)
    return torch.where(share < _SMALL_SHARE, series, softplus - share)


def _of_counts(
    counts_K: Tensor, a_K: Tensor, b_K: Tensor, z_K: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """-log p and derivatives of entries with a count, in 64 bits where the device has them."""
    wide = _wide(counts_K.device)
    y, a, b = counts_K.to(wide), a_K.to(wide), b_K.to(wide)
    theta, logit = b.exp(), a - b
    rising, slope = log_rising(y, theta, b)
    share = torch.sigmoid(logit)
    value = _log_factorial(y) - rising + theta * F.softplus(logit) + y * F.softplus(-logit)
    by_a = theta * share - y * (1 - share)
    by_b = theta * (F.softplus(logit) - share - slope) + y * (1 - share)
    if z_K is None:
        return value, by_a, by_b, None
    z = z_K.to(wide)
    return value + F.softplus(z), by_a, by_b, torch.sigmoid(z)


def _log_factorial(y_K: Tensor) -> Tensor:
    """Log y!, of small whole counts from a table."""
    table = torch.lgamma(torch.arange(1, _SHORT + 2, dtype=y_K.dtype, device=y_K.device))
    short = (y_K <= _SHORT) & (y_K == y_K.floor())
    value = table[torch.where(short, y_K, 0.0).long()]
    at = (~short).nonzero().squeeze(1)
    value[at] = torch.lgamma(y_K[at] + 1)
    return value


def log_rising(y: Tensor, theta: Tensor, log_theta: Tensor) -> tuple[Tensor, Tensor]:
    """lgamma(theta + y) - lgamma(theta), and its derivative by theta.

    A short sum for small whole counts, Stirling's series for large theta (DLMF 5.11.1), else the gamma functions.
    """
    value, slope = torch.empty_like(theta), torch.empty_like(theta)
    short = (y <= _SHORT) & (y == y.floor())
    at = short.nonzero().squeeze(1)
    value[at], slope[at] = log_theta[at], 1 / theta[at]
    for number in range(1, _SHORT):
        at = (short & (y > number)).nonzero().squeeze(1)
        if not len(at):
            break
        value[at] += (theta[at] + number).log()
        slope[at] += 1 / (theta[at] + number)
    at = (~short & (theta >= _LARGE_THETA)).nonzero().squeeze(1)
    if len(at):
        value[at], slope[at] = _stirling(y[at], theta[at], log_theta[at])
    at = (~short & (theta < _LARGE_THETA)).nonzero().squeeze(1)
    if len(at):
        whole = theta[at] + y[at]
        value[at] = torch.lgamma(whole) - torch.lgamma(theta[at])
        slope[at] = torch.digamma(whole) - torch.digamma(theta[at])
    return value, slope


def _stirling(y: Tensor, theta: Tensor, log_theta: Tensor) -> tuple[Tensor, Tensor]:
    """The difference by the series (x - 1/2) log x - x + 1 / (12 x); what is left out is below 1 / (360 theta^3)."""
    whole = theta + y
    ratio = torch.log1p(y / theta)
    value = y * log_theta + (whole - 0.5) * ratio - y + (1 / whole - 1 / theta) / 12
    slope = ratio + (1 / theta - 1 / whole) / 2 + (1 / theta**2 - 1 / whole**2) / 12
    return value, slope


def _wide(device: torch.device) -> torch.dtype:
    """64 bits; Apple's GPU has none."""
    return torch.float32 if device.type == "mps" else torch.float64
