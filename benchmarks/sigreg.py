"""SIGReg, forward and backward, against its formula written plainly: time, memory and error.

The plain one holds (N, slices, 17) tensors and lets autograd do the rest. Errors are against the plain one in float64.
Memory is what the resident set of a fresh process gains at its peak over the same process with inputs and directions
ready (Linux: /proc/self). Usage: `python benchmarks/sigreg.py`.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from lamella.methods.sigreg import KNOTS, T_MAX, directions, sigreg

SLICES, REPEATS = 1024, 5
CASES = [(256, 64), (256, 256), (2048, 64), (2048, 256)]  # embeddings, dimensions


def plain(embeddings_ND: Tensor, step: int, slices: int) -> Tensor:
    """As the formula stands in arXiv 2511.08544."""
    t = torch.linspace(0, T_MAX, KNOTS, dtype=embeddings_ND.dtype)
    normal = torch.exp(-(t**2) / 2)
    weights = torch.full((KNOTS,), 2 * T_MAX / (KNOTS - 1), dtype=embeddings_ND.dtype)
    weights[[0, -1]] /= 2
    rays_DM = directions(embeddings_ND.shape[1], slices, step).to(embeddings_ND.dtype)
    angles_NMT = (embeddings_ND @ rays_DM)[..., None] * t
    errors_MT = (angles_NMT.cos().mean(0) - normal) ** 2 + angles_NMT.sin().mean(0) ** 2
    return len(embeddings_ND) * (errors_MT @ (weights * normal)).mean()


WAYS: dict[str, Callable[[Tensor, int, int], Tensor]] = {"ours": sigreg, "plain": plain}


def main() -> None:
    print(f"{SLICES} slices, {torch.get_num_threads()} thread(s), best of {REPEATS}")
    for count, dim in CASES:
        ours_s, plain_s = (seconds(way, cloud(count, dim)) for way in (sigreg, plain))
        ours_mb, plain_mb = (extra_mb(name, count, dim) for name in WAYS)
        print(
            f"N={count:<5} D={dim:<4} ours {1e3 * ours_s:6.1f} ms {ours_mb:6.1f} MB   plain {1e3 * plain_s:7.1f} ms "
            f"{plain_mb:7.1f} MB   {plain_s / ours_s:5.1f}x faster, {ours_mb / plain_mb:.3f} of the memory"
        )
        for name, way in WAYS.items():
            loss, gradient = errors(way, cloud(count, dim))
            print(f"    {name:<6} relative error of the loss {loss:.1e}, of the gradient {gradient:.1e}")


def cloud(count: int, dim: int) -> Tensor:
    """Nearly normal, as embeddings are late in training: the hard case, where means and targets nearly cancel."""
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(0)).requires_grad_()


def once(way: Callable[[Tensor, int, int], Tensor], x_ND: Tensor) -> tuple[Tensor, Tensor]:
    x_ND.grad = None
    loss = way(x_ND, 3, SLICES)
    loss.backward()
    assert x_ND.grad is not None
    return loss.detach(), x_ND.grad


def seconds(way: Callable[[Tensor, int, int], Tensor], x_ND: Tensor) -> float:
    once(way, x_ND)
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        once(way, x_ND)
        times.append(time.perf_counter() - started)
    return min(times)


def errors(way: Callable[[Tensor, int, int], Tensor], x_ND: Tensor) -> tuple[float, float]:
    """Relative errors of loss and gradient (in norm) against float64."""
    exact_loss, exact = once(plain, x_ND.detach().double().requires_grad_())
    loss, gradient = once(way, x_ND)
    return float((loss.double() / exact_loss - 1).abs()), float((gradient.double() - exact).norm() / exact.norm())


def extra_mb(name: str, count: int, dim: int) -> float:
    command = [sys.executable, __file__, "memory", name, str(count), str(dim)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def memory(name: str, count: int, dim: int) -> None:
    """In a process of its own: peak over the level before, in MB."""
    once(WAYS[name], cloud(4, dim))  # libraries and thread pools are there
    x_ND = cloud(count, dim)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before_kb = _status("VmRSS")
    once(WAYS[name], x_ND)
    print((_status("VmHWM") - before_kb) / 1024)


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


if __name__ == "__main__":
    if sys.argv[1:2] == ["memory"]:
        memory(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
