from __future__ import annotations

import pytest
import torch

from lamella.methods.vicreg import vicreg


def cloud(count: int, dim: int) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(0))


def test_it_is_the_formula_of_the_paper() -> None:
    x = 0.7 * cloud(30, 5) + 2
    variance, covariance = vicreg(x)
    assert variance.item() == pytest.approx(float((1 - (x.var(0) + 1e-4).sqrt()).clamp(min=0).mean()), rel=1e-5)
    matrix = torch.cov(x.T)
    off_diagonal = sum(float(matrix[i, j]) ** 2 for i in range(5) for j in range(5) if i != j)
    assert covariance.item() == pytest.approx(off_diagonal / 5, rel=1e-4)


def test_each_term_sees_its_own_departure() -> None:
    healthy, x = vicreg(2 * cloud(500, 4)), cloud(500, 4)
    assert healthy[0] == 0  # wider than 1 in every dimension
    assert vicreg(torch.zeros(500, 4))[0] == pytest.approx(0.99)  # 1 - sqrt(1e-4): a total collapse
    assert vicreg(torch.zeros(500, 4))[1] == 0  # which the covariance cannot see
    assert vicreg(x[:, [0, 0, 1, 1]])[1] > 50 * vicreg(x)[1]
    assert torch.allclose(vicreg(x + 5)[1], vicreg(x)[1], rtol=1e-3)  # nor the mean


def test_the_gradient_is_finite_at_a_collapse_and_leaves_bf16_alone() -> None:
    x = torch.zeros(6, 3, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        variance, covariance = vicreg(x)
    (variance + covariance).backward()
    assert variance.dtype == covariance.dtype == torch.float32
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_one_embedding_has_no_variance() -> None:
    with pytest.raises(ValueError, match="one embedding"):
        vicreg(torch.zeros(1, 3))
