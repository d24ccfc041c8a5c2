from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

from lamella.engine.loop import JointLoss, accumulate
from lamella.engine.world import World
from lamella.methods.lejepa import LeJepa, LeJepaSettings
from lamella.methods.sigreg import EXPECTED, sigreg
from lamella.methods.vicreg import vicreg
from lamella.models.contract import InputContract
from lamella.models.over_ranks import alone, sum_over_ranks
from lamella.models.projector import ProjectorSettings
from lamella.models.vit import ViTSettings

VIT = ViTSettings(patch_px=8, dim=16, depth=1, heads=2)
ALONE = World(0, 1, torch.device("cpu"), "fp32", "a test")
Batch = dict[str, torch.Tensor]


def make_method(mpp: float | None = None, **settings: Any) -> LeJepa:
    torch.manual_seed(0)
    given = {"encoder": VIT, "projector": ProjectorSettings(hidden=(24,), dim=8), "slices": 32, **settings}
    contract = InputContract(mpp=mpp, size_px=32, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), patch_px=8, dim=VIT.dim)
    return LeJepa(LeJepaSettings(**given), contract)


def views(samples: int, seed: int = 0) -> Batch:
    """Two global and three local crops of smooth random pictures."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(samples, 3, 6, 6, generator=rng)
    pictures = (255 * F.interpolate(coarse, size=(48, 48), mode="bicubic").clamp(0, 1)).to(torch.uint8)

    def crops(count: int, side: int) -> torch.Tensor:
        corners = torch.randint(0, 49 - side, (count, 2), generator=rng).tolist()
        return torch.stack([pictures[:, :, y : y + side, x : x + side] for y, x in corners], dim=1)

    return {"globals": crops(2, 32), "locals": crops(3, 16), "image": pictures[:, :, :32, :32]}


def gradients(method: LeJepa) -> dict[str, torch.Tensor]:
    return {name: weight.grad.clone() for name, weight in method.named_parameters() if weight.grad is not None}


def assert_same_gradients(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    scale = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        assert float((found[name] - gradient).abs().max()) < 1e-5 * scale, name


def test_the_loss_is_sigreg_of_each_view_and_the_distance_to_the_global_mean() -> None:
    method, batch = make_method(sigreg_weight=0.3), views(6)
    loss, logs = method(batch)
    pooled = [
        method._tokens(batch[name][:, v]).mean(1) for name in ("globals", "locals") for v in range(batch[name].shape[1])
    ]
    projected = method.projector(torch.stack(pooled, 1).flatten(0, 1)).unflatten(0, (6, 5))
    centre = (projected[:, 0] + projected[:, 1]) / 2
    invariance = sum((projected[:, v] - centre).square().mean().item() for v in range(5)) / 5
    normality = sum(sigreg(projected[:, v], 0, 32).item() for v in range(5)) / 5
    assert loss.item() == pytest.approx(0.3 * normality + 0.7 * invariance, rel=1e-5)
    assert float(logs["loss_invariance"]) == pytest.approx(invariance, rel=1e-5)
    assert float(logs["sigreg_excess"]) == pytest.approx(normality - EXPECTED, rel=1e-4)
    assert float(logs["context_keep_tokens"]) == 2 * 16 + 3 * 4
    assert not any(value.requires_grad for value in logs.values())


def test_gradients_reach_every_weight_and_nothing_is_detached() -> None:
    method, batch = make_method(), views(6)
    embeddings = method.embed(batch).detach().requires_grad_()
    method.loss_of(embeddings, batch)[0].backward()
    assert embeddings.grad is not None
    assert embeddings.grad.flatten(2).any(-1).all()  # every view of every image, the global ones as well
    method.zero_grad()
    method(batch)[0].backward()
    assert [name for name, weight in method.named_parameters() if weight.grad is None or not weight.grad.any()] == []


def test_the_target_of_the_invariance_moves_too() -> None:
    """A finite difference along the gradient: with a detached centre it would not agree."""
    method, batch = make_method(sigreg_weight=1e-6).double(), views(4)
    start = method.embed(batch).double().detach()
    direction = torch.randn(start.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    at = start.clone().requires_grad_()
    method.projector = torch.nn.Identity()  # type: ignore[assignment]
    method.loss_of(at, batch)[0].backward()
    ends = [method.loss_of(start + sign * 1e-2 * direction, batch)[0] for sign in (1, -1)]
    assert at.grad is not None
    assert float((at.grad * direction).sum()) == pytest.approx((ends[0] - ends[1]).item() / 2e-2, rel=1e-3)


def test_an_encoder_that_learns_beats_one_that_collapsed() -> None:
    method, batch = make_method(), views(64)
    collapsed = make_method()
    with torch.no_grad():
        for weight in collapsed.vit.parameters():
            weight.zero_()
    optimizer = torch.optim.AdamW(method.parameters(), lr=3e-3)
    for step in range(15):
        optimizer.zero_grad()
        loss, _ = method(batch)
        loss.backward()
        optimizer.step()
        method.after_step(step / 15)
    collapsed_loss, logs = collapsed(batch)
    assert float(logs["loss_invariance"]) < 1e-9  # the views of all images are embedded alike
    assert collapsed_loss.item() > 1.5 * method(batch)[0].item()
    assert method.steps == 15


def test_each_step_has_its_own_directions() -> None:
    method, batch = make_method(), views(4)
    first = method(batch)[0].item()
    assert method(batch)[0].item() == first
    method.after_step(0.5)
    assert method(batch)[0].item() != first


def test_the_loss_is_float32_under_autocast_and_local_views_may_be_absent() -> None:
    method, batch = make_method(), views(8)
    del batch["locals"]
    expected, logs = method(batch)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = method(batch)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=0.05)
    assert float(logs["context_keep_tokens"]) == 2 * 16


def test_the_exported_encoder_is_the_encoder_without_the_projector() -> None:
    method, batch = make_method(mpp=0.5), views(3)
    encoder = method.encoder()
    torch.testing.assert_close(encoder.pooled(batch["image"]), method.features(batch))
    torch.testing.assert_close(encoder.tokens(batch["image"]), method.token_features(batch))
    assert encoder.contract is method.contract
    before = encoder.fingerprint
    with torch.no_grad():
        method.vit.embed.weight.add_(1)
    assert encoder.fingerprint == before  # a copy
    with pytest.raises(ValueError, match="patch_px and dim"):
        LeJepa(LeJepaSettings(), method.contract)


# ---- micro-batches and several processes ----------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [2, 4])
def test_micro_batches_equal_one_batch(parts: int) -> None:
    method, batch = make_method(), views(8)
    assert isinstance(method, JointLoss)
    whole = accumulate(method, batch, 1, ALONE)
    expected, norms = gradients(method), method.projector.norms[0].running_mean.clone()
    method.zero_grad()
    split_method = make_method()
    split = accumulate(split_method, batch, parts, ALONE)
    torch.testing.assert_close(split, whole, rtol=1e-5, atol=1e-5)
    assert_same_gradients(gradients(split_method), expected)
    torch.testing.assert_close(split_method.projector.norms[0].running_mean, norms)


class Dropping(torch.nn.Module):
    """A loss of the joined embeddings, which dropout makes random."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)
        self.seen: list[torch.Tensor] = []

    def embed(self, batch: Batch) -> torch.Tensor:
        self.seen.append(F.dropout(self.layer(batch["x"]), 0.5))
        return self.seen[-1]

    def loss_of(self, embeddings: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, Batch]:
        torch.rand(7)  # moves the generator
        return embeddings.sum(0).square().sum(), {}


def test_both_passes_drop_the_same() -> None:
    method = Dropping()
    accumulate(method, {"x": torch.randn(6, 4)}, 3, ALONE)
    first, second = method.seen[:3], method.seen[3:]
    assert all(map(torch.equal, first, second))
    assert not torch.equal(first[0] == 0, first[1] == 0)


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    world = World(rank, 2, torch.device("cpu"), "fp32", "a test")
    batch = {name: value[:4] if rank == 0 else value[4:] for name, value in views(12).items()}
    found: dict[str, Any] = {}
    for parts in (1, 2, 4, 1):  # and one by DDP's own exchange again, after it was passed by
        network = DistributedDataParallel(make_method())
        found[f"logs {parts}"] = accumulate(network, batch, parts, world)
        found[f"gradients {parts}"] = gradients(network.module)
    found["buffers"] = dict(network.module.named_buffers())
    method = make_method()
    embeddings = method.embed(batch)[:, 0]
    variance, covariance = vicreg(embeddings)
    (variance + covariance).backward()
    found["vicreg"] = (variance.detach(), covariance.detach(), method.vit.embed.weight.grad)
    if rank == 0:
        with alone():  # no exchange: the other rank would never answer
            found["alone"] = sum_over_ranks(torch.tensor(3.0))
            found["alone loss"] = method(batch)[0].detach()
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_with_uneven_shards_equal_one(tmp_path: Path) -> None:
    """Losses, gradients and the projector's batch statistics; whole and in micro-batches; VICReg's terms as well."""
    mp.spawn(_rank, (str(tmp_path),), nprocs=2)
    method, batch = make_method(), views(12)
    logs = accumulate(method, batch, 1, ALONE)
    expected = gradients(method)
    other = make_method()
    variance, covariance = vicreg(other.embed(batch)[:, 0])
    (variance + covariance).backward()
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for found in ranks:
        for parts in (1, 2, 4):
            torch.testing.assert_close(found[f"logs {parts}"], logs, rtol=1e-5, atol=1e-5)
            assert_same_gradients(found[f"gradients {parts}"], expected)
        torch.testing.assert_close(found["buffers"], dict(method.named_buffers()))
        torch.testing.assert_close(found["vicreg"][:2], (variance.detach(), covariance.detach()))
    summed = ranks[0]["vicreg"][2] + ranks[1]["vicreg"][2]
    torch.testing.assert_close(summed / 2, other.vit.embed.weight.grad, rtol=1e-3, atol=1e-6)  # DDP's mean
    assert ranks[0]["alone"] == 3
    assert ranks[0]["alone loss"] != logs["loss"]
