from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from lamella.methods.sigreg import EXPECTED, KNOTS, T_MAX, directions, sigreg, statistic, wave_sums


def normal_cloud(count: int, dim: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def by_the_formula(projected: torch.Tensor) -> float:
    """Independent and slow: numbers of one slice after the other, straight from arXiv 2511.08544."""
    values = []
    for slice_ in projected.T.tolist():
        total = 0.0
        for knot in range(KNOTS):
            t = knot * T_MAX / (KNOTS - 1)
            trapezoid = (1 if knot in (0, KNOTS - 1) else 2) * T_MAX / (KNOTS - 1)
            cos = sum(math.cos(t * x) for x in slice_) / len(slice_)
            sin = sum(math.sin(t * x) for x in slice_) / len(slice_)
            phi = math.exp(-t * t / 2)
            total += trapezoid * phi * ((cos - phi) ** 2 + sin**2)
        values.append(len(slice_) * total)
    return sum(values) / len(values)


def test_it_is_the_formula() -> None:
    x = 1.7 * normal_cloud(40, 6) + 0.3
    assert float(sigreg(x, step=5, slices=8)) == pytest.approx(by_the_formula(x @ directions(6, 8, 5)), rel=1e-4)


@pytest.mark.parametrize(("count", "dim"), [(16, 4), (64, 8), (512, 8), (256, 96), (32, 256)])
def test_a_normal_cloud_scores_the_expected_value(count: int, dim: int) -> None:
    scores = [float(sigreg(normal_cloud(count, dim, seed), seed, slices=128)) for seed in range(20)]
    assert pytest.approx(1.0525, abs=1e-3) == EXPECTED
    # 20 batches of 128 directions: the mean strays by less than 0.1.
    assert sum(scores) / len(scores) == pytest.approx(EXPECTED, abs=0.1)


def test_every_departure_costs() -> None:
    cloud = normal_cloud(256, 16)
    healthy = float(sigreg(cloud, 0, 256))
    wrong = {
        "all alike": torch.zeros_like(cloud),
        "one direction": cloud[:, :1].expand(-1, 16),
        "half of the dimensions constant": torch.cat([cloud[:, :8], torch.zeros(256, 8)], 1),
        "twice the scale": 2 * cloud,
        "half the scale": 0.5 * cloud,
        "shifted": cloud + 0.5,
        "dimensions in pairs": cloud[:, :8].repeat(1, 2),
    }
    for name, departed in wrong.items():
        assert float(sigreg(departed, 0, 256)) > 3 * healthy, name
    total_collapse = float(sigreg(wrong["all alike"], 0, 256))
    assert total_collapse > 50 * healthy  # never cheaper than learning: it grows with the number of samples
    assert float(sigreg(torch.zeros(512, 16), 0, 256)) == pytest.approx(2 * total_collapse, rel=1e-4)


def test_sums_of_uneven_shards_give_the_statistic_of_the_whole() -> None:
    projected = normal_cloud(50, 12)
    parts = wave_sums(projected[:13]) + wave_sums(projected[13:])
    assert torch.allclose(statistic(parts, 50), statistic(wave_sums(projected), 50), rtol=1e-5)


def test_the_gradient_is_right() -> None:
    x = normal_cloud(5, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda part: statistic(wave_sums(part), 5), x)


@pytest.mark.parametrize(("count", "dim", "slices"), [(70, 5, 1100), (3, 2, 1), (9000, 3, 12)])
def test_one_pass_gives_what_the_formula_gives_by_autograd(count: int, dim: int, slices: int) -> None:
    """Loss and gradient of the plain formula in float64, over one or several turns of the working memory."""
    x = (1.4 * normal_cloud(count, dim) - 0.2).requires_grad_()
    loss = sigreg(x, 4, slices)
    loss.backward()
    exact = x.detach().double().requires_grad_()
    t = torch.linspace(0, T_MAX, KNOTS, dtype=torch.float64)
    normal, weights = (-(t**2) / 2).exp(), torch.full((KNOTS,), 2 * T_MAX / (KNOTS - 1), dtype=torch.float64)
    weights[[0, -1]] /= 2
    angles = (exact @ directions(dim, slices, 4).double())[..., None] * t
    errors = (angles.cos().mean(0) - normal) ** 2 + angles.sin().mean(0) ** 2
    expected = count * (errors @ (weights * normal)).mean()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert x.grad is not None
    assert float((x.grad - exact.grad).norm() / exact.grad.norm()) < 1e-5


def test_the_two_ways_of_one_rank_and_of_several_agree() -> None:
    x = normal_cloud(33, 6).requires_grad_()
    one = 3 * sigreg(x, 1, 20)
    one.backward()
    gradient, x.grad = x.grad, None
    other = 3 * statistic(wave_sums(x @ directions(6, 20, 1)), 33)
    other.backward()
    assert one.item() == pytest.approx(other.item(), rel=1e-5)
    torch.testing.assert_close(x.grad, gradient, rtol=1e-4, atol=1e-7)


def test_views_are_tested_one_by_one() -> None:
    """Two views that are halves of one normal cloud: together they look normal, but neither is."""
    cloud = normal_cloud(400, 5)
    halves = cloud[cloud[:, 0].argsort()].unflatten(0, (2, 200)).transpose(0, 1)
    alone = [float(sigreg(halves[:, view], 7, 30)) for view in range(2)]
    assert float(sigreg(halves, 7, 30)) == pytest.approx(sum(alone) / 2, rel=1e-5)
    assert float(sigreg(halves, 7, 30)) > 3 * float(sigreg(halves.flatten(0, 1), 7, 30))


def test_it_stays_in_float32_under_autocast() -> None:
    cloud = normal_cloud(64, 16)
    with torch.autocast("cpu", torch.bfloat16):
        score = sigreg(cloud, 3, 32)
        assert score.dtype == torch.float32
        assert score == sigreg(cloud.clone(), 3, 32)
    assert float(score) == float(sigreg(cloud, 3, 32))


def test_directions_are_unit_and_belong_to_the_step() -> None:
    assert torch.allclose(directions(10, 7, 3).norm(dim=0), torch.ones(7))
    assert torch.equal(directions(10, 7, 3), directions(10, 7, 3))
    assert not torch.equal(directions(10, 7, 3), directions(10, 7, 4))


def _rank(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    weight = torch.full((1, 4), 1.3).requires_grad_()
    shard = normal_cloud(20, 4)[:7] if rank == 0 else normal_cloud(20, 4)[7:]
    score = sigreg(shard * weight, step=2, slices=16)
    score.backward()
    assert weight.grad is not None
    dist.all_reduce(weight.grad)
    torch.save({"score": score.detach(), "gradient": weight.grad / 2}, f"{folder}/{rank}.pt")  # DDP's mean
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_with_uneven_shards_equal_one(tmp_path: Path) -> None:
    mp.spawn(_rank, (str(tmp_path),), nprocs=2)
    weight = torch.full((1, 4), 1.3).requires_grad_()
    score = sigreg(normal_cloud(20, 4) * weight, step=2, slices=16)
    score.backward()
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert torch.allclose(found["score"], score.detach(), rtol=1e-5)
        assert torch.allclose(found["gradient"], weight.grad, rtol=1e-4)
