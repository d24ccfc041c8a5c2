from __future__ import annotations

import pytest
import torch
from torch import nn

from lamella.models.projector import BatchNorm, Projector, ProjectorSettings


def cloud(count: int, dim: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def test_batch_norm_is_torchs_in_value_gradient_and_running_averages() -> None:
    ours, theirs = BatchNorm(6), nn.BatchNorm1d(6)
    for norm in (ours, theirs):
        nn.init.constant_(norm.weight, 1.5)
        nn.init.constant_(norm.bias, -0.5)
    x, other = (3 * cloud(20, 6) + 100).requires_grad_(), (3 * cloud(20, 6) + 100).requires_grad_()
    weights = cloud(20, 6, 1)
    for norm, given in ((ours, x), (theirs, other)):
        (norm(given) * weights).sum().backward()
    torch.testing.assert_close(x.grad, other.grad, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, rtol=1e-3, atol=1e-4)
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name))
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=1e-4, atol=1e-4)


def test_batch_norm_is_float32_under_autocast_and_refuses_one_sample() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert BatchNorm(3)(cloud(4, 3).bfloat16()).dtype == torch.float32
    with pytest.raises(ValueError, match="two samples"):
        BatchNorm(3)(cloud(1, 3))
    assert BatchNorm(3).eval()(cloud(1, 3)).shape == (1, 3)


def test_the_projector_is_linear_relu_and_norm_in_turn() -> None:
    projector = Projector(ProjectorSettings(hidden=(7, 9), dim=4), 5)
    x = cloud(11, 5)
    expected = x
    for layer, norm in zip(projector.layers, projector.norms, strict=True):
        expected = expected @ layer.weight.T
        expected = ((expected - expected.mean(0)) / (expected.var(0, unbiased=False) + 1e-5).sqrt()).clamp(min=0)
        assert (norm.weight == 1).all()
    expected = expected @ projector.last.weight.T + projector.last.bias
    torch.testing.assert_close(projector(x), expected, rtol=1e-4, atol=1e-5)
    assert Projector(ProjectorSettings(hidden=()), 5)(x).shape == (11, 64)
