"""Masked mean of the ZINB likelihood, forward and backward, against the formula written plainly and scvi-tools.

Shapes are those of a training step: 4 samples, 50 genes, 128 x 128 bins of 2 um, 96 % zeros, a dispersion per gene.
The plain one is the formula with lgamma in float64, cast to float32 at the end; scvi-tools (extra `scvi`) is its
`ZeroInflatedNegativeBinomial` in float32. Errors are against the plain formula in float64; values at the far ends
(counts to 1e5, theta to 1e6) against 40-digit arithmetic. Memory is what the resident set of a fresh process gains at
its peak over the same process with inputs ready (Linux: /proc/self). Usage: `python benchmarks/zinb.py`.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import mpmath
import torch
from torch import Tensor

from lamella.methods.zinb import mean_nll, nll

SHAPE, REPEATS, MEAN, THETA = (4, 50, 128, 128), 5, 0.04, 0.8
Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
Way = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def plain(y: Tensor, a: Tensor, b: Tensor, z: Tensor, mask: Tensor) -> Tensor:
    """As the formula stands in textbooks, in float64."""
    y, a, b, z = (each.double() for each in (y, a, b, z))
    mu, theta, pi = a.exp(), b.exp(), torch.sigmoid(z)
    log_nb = torch.lgamma(y + theta) - torch.lgamma(theta) - torch.lgamma(y + 1)
    log_nb = log_nb + theta * torch.log(theta / (theta + mu)) + y * torch.log(mu / (theta + mu))
    log_p = torch.where(y == 0, torch.log(pi + (1 - pi) * log_nb.exp()), torch.log(1 - pi) + log_nb)
    return (-(log_p * mask[:, None]).sum() / (mask.sum() * y.shape[1])).float()


def scvi(y: Tensor, a: Tensor, b: Tensor, z: Tensor, mask: Tensor) -> Tensor:
    """By scvi-tools, as its models call it."""
    from scvi.distributions import ZeroInflatedNegativeBinomial

    told = ZeroInflatedNegativeBinomial(mu=a.exp(), theta=b.exp(), zi_logits=z, validate_args=False)
    return -(told.log_prob(y) * mask[:, None]).sum() / (mask.sum() * y.shape[1])


def ours(y: Tensor, a: Tensor, b: Tensor, z: Tensor, mask: Tensor) -> Tensor:
    return mean_nll(y, a, b, z, mask)


WAYS: dict[str, Way] = {"ours": ours, "plain": plain, "scvi": scvi}


def main() -> None:
    ways = dict(WAYS)
    try:
        import scvi as _  # noqa: F401
    except ImportError:
        print("scvi-tools is not installed (pip install 'lamella[scvi]'): left out")
        del ways["scvi"]
    inputs = drawn()
    zeros = float((inputs[0] == 0).float().mean())
    print(f"{SHAPE}, {zeros:.1%} zeros, {torch.get_num_threads()} thread(s), best of {REPEATS}")
    found = {name: seconds(way, inputs) for name, way in ways.items()}
    exact = gradients(plain, tuple(each.double() if each.is_floating_point() else each for each in inputs))  # type: ignore[arg-type]
    for name, way in ways.items():
        errors = " ".join(f"{error:.1e}" for error in relative(gradients(way, inputs), exact))
        took = f"{1e3 * found[name]:7.1f} ms {extra_mb(name):7.1f} MB   {found[name] / found['ours']:5.2f}x ours"
        print(f"{name:6} {took}   relative errors of loss, by a, b, z: {errors}")
    print(far_ends())


def drawn() -> Inputs:
    """Counts of a gamma-Poisson mixture, and what a network in training might say of them."""
    rng = torch.Generator().manual_seed(0)
    torch.manual_seed(0)  # the gamma distribution draws from the global generator
    mean = torch.distributions.Gamma(THETA, THETA / MEAN).sample(SHAPE)
    y = torch.poisson(mean, generator=rng)
    a = torch.randn(SHAPE, generator=rng) / 2 + torch.tensor(MEAN).log()
    z = torch.randn(SHAPE, generator=rng) - 2
    b = torch.randn(1, SHAPE[1], 1, 1, generator=rng)
    mask = torch.rand(SHAPE[0], *SHAPE[2:], generator=rng) < 0.9
    return y, a, b, z, mask


def gradients(way: Way, inputs: Inputs) -> list[Tensor]:
    """Loss, and its gradients by a, b and z."""
    y, a, b, z, mask = inputs
    leaves = [each.clone().requires_grad_() for each in (a, b, z)]
    loss = way(y, *leaves, mask)  # type: ignore[call-arg]
    loss.backward()
    return [loss.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def relative(found: list[Tensor], exact: list[Tensor]) -> list[float]:
    return [
        float((one.double() - other.double()).norm() / other.double().norm())
        for one, other in zip(found, exact, strict=True)
    ]


def seconds(way: Way, inputs: Inputs) -> float:
    gradients(way, inputs)
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        gradients(way, inputs)
        times.append(time.perf_counter() - started)
    return min(times)


def far_ends() -> str:
    """Largest relative error of the value over counts 0 to 1e5, theta 1e-3 to 1e6, mu 1e-6 to 1e5."""
    counts, log_mu, log_theta = (0.0, 1.0, 30.0, 1e5), (-14.0, 0.3, 11.5), (-7.0, 0.0, 13.8155)
    worst = 0.0
    rows = list(itertools.product(counts, log_mu, log_theta, (-20.0, 0.0, 20.0)))
    found = nll(*(torch.tensor(column) for column in zip(*rows, strict=True)))
    for value, (y, a, b, z) in zip(found.tolist(), rows, strict=True):
        with mpmath.workdps(40):
            y_, mu, theta, z_ = mpmath.mpf(y), mpmath.exp(single(a)), mpmath.exp(single(b)), single(z)
            log_p = mpmath.loggamma(y_ + theta) - mpmath.loggamma(theta) - mpmath.loggamma(y_ + 1)
            log_p += theta * mpmath.log(theta / (theta + mu)) + y_ * mpmath.log(mu / (theta + mu))
            pi = 1 / (1 + mpmath.exp(-z_))
            wanted = -(mpmath.log(pi + (1 - pi) * mpmath.exp(log_p)) if y == 0 else mpmath.log(1 - pi) + log_p)
            worst = max(worst, float(abs(value - wanted) / wanted))
    finite = "all finite" if bool(torch.isfinite(found).all()) else "NOT ALL FINITE"
    return f"counts to 1e5, theta to 1e6: {finite}, largest relative error {worst:.1e}"


def single(value: float) -> mpmath.mpf:
    """The 32-bit number, exactly."""
    return mpmath.mpf(float(torch.tensor(value)))


def extra_mb(name: str) -> float:
    """Peak resident memory of one pass, in a process of its own."""
    code = f"import benchmarks.zinb as z; z.measure({name!r})"
    root = Path(__file__).resolve().parents[1]
    ran = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    return float(ran.stdout.split()[-1])


def measure(name: str) -> None:
    """Print the megabytes that one pass adds."""
    inputs = drawn()
    small = tuple(each[:, :2, :8, :8] if each.dim() == 4 else each[:, :8, :8] for each in inputs)
    gradients(WAYS[name], small)  # type: ignore[arg-type]  # imports and buffers are not counted
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    gradients(WAYS[name], inputs)
    print((_status("VmHWM") - before) / 1024)


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


if __name__ == "__main__":
    main()
