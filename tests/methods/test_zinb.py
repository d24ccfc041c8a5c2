"""NB and ZINB against 40-digit arithmetic, autograd in 64 bits, and the law that probabilities add up to 1."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lamella.methods.zinb import log_probability_of_none, mean_nll, nll

COUNTS = (0.0, 1.0, 2.0, 3.5, 8.0, 9.0, 300.0, 1e5)
LOG_MU = (-14.0, -3.2, 0.3, 5.0, 11.6)
LOG_THETA = (-7.0, -0.4, 3.0, 9.3, 13.8155)  # the last is 1e6
ZERO_LOGIT = (-30.0, -2.0, 0.0, 20.0)


def digits(value: float) -> mpmath.mpf:
    """The 32-bit number that the network would give, exactly."""
    return mpmath.mpf(float(torch.tensor(value)))


def written_out(y: float, a: float, b: float, z: float | None) -> mpmath.mpf:
    """-log p by the formula, in 40 digits."""
    with mpmath.workdps(40):
        mu, theta, y_ = mpmath.exp(digits(a)), mpmath.exp(digits(b)), digits(y)
        log_p = (
            mpmath.loggamma(y_ + theta)
            - mpmath.loggamma(theta)
            - mpmath.loggamma(y_ + 1)
            + theta * mpmath.log(theta / (theta + mu))
            + y_ * mpmath.log(mu / (theta + mu))
        )
        if z is None:
            return -log_p
        pi = 1 / (1 + mpmath.exp(-digits(z)))
        return -mpmath.log(pi + (1 - pi) * mpmath.exp(log_p)) if y == 0 else -mpmath.log(1 - pi) - log_p


def plain(y: Tensor, a: Tensor, b: Tensor, z: Tensor | None) -> Tensor:
    """The formula in 64 bits with autograd; its zeros by logaddexp, which does not underflow."""
    theta, both = b.exp(), torch.logaddexp(a, b)
    log_p = torch.lgamma(y + theta) - torch.lgamma(theta) - torch.lgamma(y + 1) + theta * (b - both) + y * (a - both)
    if z is None:
        return -log_p
    log_pi, log_rest = torch.nn.functional.logsigmoid(z), torch.nn.functional.logsigmoid(-z)
    return -torch.where(y == 0, torch.logaddexp(log_pi, log_rest + log_p), log_rest + log_p)


def combinations(inflated: bool) -> list[tuple[float, float, float, float | None]]:
    zeros: tuple[float | None, ...] = ZERO_LOGIT if inflated else (None,)
    return list(itertools.product(COUNTS, LOG_MU, LOG_THETA, zeros))


def columns(rows: list[tuple[float, float, float, float | None]]) -> list[Tensor | None]:
    return [None if column[0] is None else torch.tensor(column) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("inflated", [False, True])
def test_values_are_exact_in_32_bits(inflated: bool) -> None:
    rows = combinations(inflated)
    y, a, b, z = columns(rows)
    found = nll(y, a, b, z)
    wanted = torch.tensor([float(written_out(*row)) for row in rows], dtype=torch.float64)
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("inflated", [False, True])
def test_gradients_are_those_of_autograd_in_64_bits(inflated: bool) -> None:
    y, a, b, z = columns(combinations(inflated))
    own = [each.clone().requires_grad_() for each in (a, b, z) if each is not None]
    wide = [each.double().requires_grad_() for each in (a, b, z) if each is not None]
    nll(y, *own).sum().backward()
    plain(y.double(), *wide, *([] if inflated else [None])).sum().backward()
    for mine, exact in zip(own, wide, strict=True):
        assert torch.isfinite(mine.grad).all()
        # Where theta is 1e6, 64 bits of autograd itself are wrong by some 1e-8: lgamma's differences cancel.
        torch.testing.assert_close(mine.grad.double(), exact.grad, rtol=1e-5, atol=1e-7)


@given(a=st.floats(-6, 3), b=st.floats(-2, 8), z=st.none() | st.floats(-6, 6))
def test_probabilities_add_up_to_one(a: float, b: float, z: float | None) -> None:
    y = torch.arange(4000.0)
    log_p = -nll(y, torch.full_like(y, a), torch.tensor([b]), None if z is None else torch.tensor([z]))
    assert log_p.double().exp().sum().item() == pytest.approx(1.0, abs=2e-5)


@given(a=st.floats(-40, 12), b=st.floats(-8, 14), z=st.none() | st.floats(-40, 40))
def test_chance_of_none_is_the_likelihood_of_a_zero(a: float, b: float, z: float | None) -> None:
    none, theta = torch.zeros(1), torch.tensor([b])
    zero = None if z is None else torch.tensor([z])
    found = log_probability_of_none(torch.tensor([a]), theta, zero)
    torch.testing.assert_close(found, -nll(none, torch.tensor([a]), theta, zero), rtol=1e-5, atol=1e-30)


def test_tiny_rates_do_not_underflow() -> None:
    # mistake: exp, then log: a rate below 1e-45 became 0, its logarithm -inf.
    a = torch.tensor([-150.0, -150.0], requires_grad=True)
    y = torch.tensor([0.0, 2.0])
    loss = nll(y, a, torch.tensor([0.0]), torch.tensor([-3.0]))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert loss[1].item() == pytest.approx(300, rel=0.01)
    assert a.grad is not None
    assert a.grad.tolist() == pytest.approx([0.0, -2.0], abs=1e-6)


def case(per_gene: bool) -> tuple[Tensor, list[Tensor], Tensor]:
    rng = torch.Generator().manual_seed(3)
    y = torch.poisson(torch.full((2, 7, 9, 9), 0.3), generator=rng)
    a = torch.randn(2, 7, 9, 9, generator=rng)
    b = torch.randn(1, 7, 1, 1, generator=rng)
    z = torch.randn((1, 7, 1, 1) if per_gene else (2, 7, 9, 9), generator=rng)
    return y, [a, b, z], torch.rand(2, 9, 9, generator=rng) < 0.7


@pytest.mark.parametrize("per_gene", [False, True])
@pytest.mark.parametrize("inflated", [False, True])
@pytest.mark.parametrize("chunk", [1, 200, 1 << 16])
def test_fused_mean_is_the_mean_over_mask_and_genes(
    monkeypatch: pytest.MonkeyPatch, per_gene: bool, inflated: bool, chunk: int
) -> None:
    monkeypatch.setattr("lamella.methods.zinb._CHUNK", chunk)
    y, parameters, mask = case(per_gene)

    def by(way: Callable[[list[Tensor | None]], Tensor]) -> tuple[Tensor, list[Tensor]]:
        leaves = [each.clone().requires_grad_() for each in parameters[: 3 if inflated else 2]]
        loss = way([*leaves, None][:3])
        (3 * loss).backward()
        return loss, [leaf.grad for leaf in leaves]

    fused, gradients = by(lambda p: mean_nll(y, p[0], p[1], p[2], mask))
    chosen = mask[:, None].expand_as(y)
    written, others = by(lambda p: nll(y, p[0], p[1], p[2])[chosen].mean())
    torch.testing.assert_close(fused, written, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradients, others, rtol=2e-5, atol=1e-9)


def test_only_what_is_asked_for_has_a_gradient() -> None:
    y, (a, b, z), mask = case(per_gene=False)
    b.requires_grad_()
    mean_nll(y, a, b, z, mask).backward()
    assert b.grad is not None
    assert a.grad is None
    assert z.grad is None


def test_an_empty_mask_teaches_nothing() -> None:
    y, (a, b, z), mask = case(per_gene=False)
    a.requires_grad_()
    loss = mean_nll(y, a, b, z, torch.zeros_like(mask))
    loss.backward()
    assert loss.item() == 0
    assert not a.grad.any()


def test_memory_laid_out_in_another_order_changes_nothing() -> None:
    y, (a, b, z), mask = case(per_gene=False)
    wanted, each = mean_nll(y, a, b, z, mask), nll(y, a, b, z)
    last = torch.channels_last
    y, a, z = y.contiguous(memory_format=last), a.contiguous(memory_format=last), z.contiguous(memory_format=last)
    torch.testing.assert_close(mean_nll(y, a, b, z, mask), wanted)
    torch.testing.assert_close(nll(y, a, b, z).contiguous(), each)


def test_scvi_tools_agrees() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own, and those of what it brings along
        scvi = pytest.importorskip(
            "scvi.distributions", reason="the extra `scvi` is not installed", exc_type=ImportError
        )
    y, (a, b, z), _ = case(per_gene=False)
    told = scvi.ZeroInflatedNegativeBinomial(mu=a.exp(), theta=b.exp(), zi_logits=z, validate_args=False)
    torch.testing.assert_close(nll(y, a, b, z), -told.log_prob(y), rtol=1e-4, atol=1e-5)
    plain_nb = scvi.NegativeBinomial(mu=a.exp(), theta=b.exp(), validate_args=False)
    torch.testing.assert_close(nll(y, a, b), -plain_nb.log_prob(y), rtol=1e-4, atol=1e-5)
