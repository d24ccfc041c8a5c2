"""JEPA on images: who sees what, who learns, and what collapse costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from pydantic import ValidationError
from torch.nn.parallel import DistributedDataParallel

from lamella.data.masks.kinds import draw_masks
from lamella.data.masks.multiblock import MultiBlockMaskSettings
from lamella.engine.loop import accumulate
from lamella.engine.world import World
from lamella.errors import ConfigError
from lamella.methods.ijepa import IJepa, IJepaSettings
from lamella.methods.jepa import Jepa, JepaSettings
from lamella.methods.prediction import mean_predictor_loss, normalised, smooth_l1_per_sample
from lamella.models.encoders import InputContract
from lamella.models.predictor import PredictorSettings
from lamella.models.vit import ViTSettings

PATCH, SIDE = 4, 32
GRID = (SIDE // PATCH, SIDE // PATCH)
ENCODER = ViTSettings(patch_px=PATCH, dim=32, depth=2, heads=2, wave_min=8, wave_max=64)
PREDICTOR = PredictorSettings(width=16, depth=2, heads=2)
CONTRACT = InputContract(mpp=None, size_px=SIDE, mean=(0.5,) * 3, std=(0.25,) * 3, patch_px=PATCH, dim=32)
IJEPA = {"target": "ema", "regulariser": {"name": "none"}}
VARIANTS: dict[str, dict[str, Any]] = {
    "ema": IJEPA,
    "stopgrad-sigreg": {"target": "stopgrad", "regulariser": {"name": "sigreg", "slices": 32}},
    "none-vicreg": {"target": "none", "regulariser": {"name": "vicreg"}},
    "ema-sigreg": {"target": "ema", "regulariser": {"name": "sigreg", "slices": 32}},
}


def slow(value: str) -> Any:
    """One of several alike that only the slow run tries."""
    return pytest.param(value, marks=pytest.mark.slow)


SOME_VARIANTS = [name if name in ("ema", "stopgrad-sigreg") else slow(name) for name in VARIANTS]
Batch = dict[str, torch.Tensor]


def make_method(seed: int = 0, **settings: Any) -> Jepa:
    torch.manual_seed(seed)
    return Jepa(JepaSettings(encoder=ENCODER, predictor=PREDICTOR, **settings), CONTRACT)


def make_batch(samples: int = 4, seed: int = 0, masks: Any = None) -> Batch:
    """Smooth random pictures, each with its own palette, and their masks."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.random((samples, 3, 5, 5), np.float32))
    image = (255 * F.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic").clamp(0, 1)).to(torch.uint8)
    # Areas from 6 to 16 tokens: on this small grid the default range would hold one size alone.
    drawn = draw_masks(masks or MultiBlockMaskSettings(scale=(0.1, 0.25)), GRID, seed, range(samples)).arrays()
    return {"image": image, **{name: torch.from_numpy(array) for name, array in drawn.items()}}


def train_steps(method: Jepa, batches: list[Batch], steps: int, rate: float = 3e-3) -> list[float]:
    optimizer = torch.optim.AdamW([weight for weight in method.parameters() if weight.requires_grad], lr=rate)
    losses = []
    for number in range(steps):
        optimizer.zero_grad()
        loss, _ = method(batches[number % len(batches)])
        loss.backward()
        optimizer.step()
        method.after_step((number + 1) / steps)
        losses.append(loss.item())
    return losses


def with_pixels_changed(batch: Batch, chosen: torch.Tensor) -> Batch:
    """The batch with the pixels of the tokens (B, G) turned into their negative."""
    pixels = chosen.reshape(-1, 1, *GRID).repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)
    return batch | {"image": torch.where(pixels, 255 - batch["image"], batch["image"])}


def token_mask(numbers: torch.Tensor, pad: torch.Tensor) -> torch.Tensor:
    """(B, G) bool of padded sets (B, L)."""
    chosen = torch.zeros(len(numbers), GRID[0] * GRID[1], dtype=torch.bool)
    for row, (own, gone) in enumerate(zip(numbers, pad, strict=True)):
        chosen[row, own[~gone]] = True
    return chosen


def parts(method: Jepa, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Context tokens, predictions, targets."""
    patches, places = method._patches_and_places(batch["image"])
    context = method.encode_context(patches, places, batch)
    predicted = method.predictor(
        context,
        places[batch["context"]],
        places[batch["targets"]],
        context_pad_BN=batch["context_pad"],
        query_pad_BKQ=batch["targets_pad"],
    )
    return context, predicted, normalised(method.encode_whole(patches, places))


# ---- who sees what --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_context_never_sees_pixels_of_the_targets(variant: str) -> None:
    method, batch = make_method(**VARIANTS[variant]), make_batch(4, seed=3)
    hidden = token_mask(batch["targets"].flatten(1), batch["targets_pad"].flatten(1))
    assert hidden.any(1).all()
    noisy = with_pixels_changed(batch, hidden)
    before, after = parts(method, batch), parts(method, noisy)
    real, asked = ~batch["context_pad"], ~batch["targets_pad"]
    assert torch.equal(before[0][real], after[0][real])
    assert torch.equal(before[1][asked], after[1][asked])
    moved = (before[2] - after[2]).abs().mean(-1)
    assert (moved[hidden] > 1e-3).all()


def test_tokens_of_neither_set_do_not_enter_the_context() -> None:
    method, batch = make_method(**IJEPA), make_batch(4, seed=3)
    outside = ~token_mask(batch["context"], batch["context_pad"])
    before, after = parts(method, batch)[0], parts(method, with_pixels_changed(batch, outside))[0]
    assert torch.equal(before[~batch["context_pad"]], after[~batch["context_pad"]])


def test_every_context_token_does_enter_the_prediction() -> None:
    method, batch = make_method(**IJEPA), make_batch(1, seed=3)
    expected = parts(method, batch)[1]
    for token in batch["context"][0].tolist():
        one = torch.zeros(1, GRID[0] * GRID[1], dtype=torch.bool)
        one[0, token] = True
        assert not torch.equal(parts(method, with_pixels_changed(batch, one))[1], expected)


def test_a_prediction_does_not_depend_on_the_other_targets() -> None:
    method, batch = make_method(**IJEPA), make_batch(3, seed=1)
    predicted = parts(method, batch)[1]
    for target in range(4):
        alone = batch | {key: batch[key][:, target : target + 1] for key in ("targets", "targets_pad")}
        asked = ~alone["targets_pad"]
        assert torch.allclose(parts(method, alone)[1][asked], predicted[:, target : target + 1][asked], atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_padding_changes_nothing(variant: str) -> None:
    method, batch = make_method(**VARIANTS[variant]), make_batch(4, seed=2)
    loss, logs = method(batch)
    loss.backward()
    gradient = [weight.grad.clone() for weight in method.parameters() if weight.grad is not None]
    padded = dict(batch)
    for key in ("context", "targets"):
        more = torch.full((*batch[key].shape[:-1], 3), 5)
        padded[key] = torch.cat([batch[key], more], -1)
        padded[f"{key}_pad"] = torch.cat([batch[f"{key}_pad"], torch.ones_like(more, dtype=torch.bool)], -1)
    method.zero_grad()
    other, other_logs = method(padded)
    other.backward()
    assert other.item() == pytest.approx(loss.item(), rel=1e-5)
    again = [weight.grad for weight in method.parameters() if weight.grad is not None]
    assert all(torch.allclose(a, b, atol=1e-5, rtol=1e-3) for a, b in zip(gradient, again, strict=True))
    assert {name: float(value) for name, value in other_logs.items()} == pytest.approx(
        {name: float(value) for name, value in logs.items()}, rel=1e-4, abs=1e-6
    )


def test_every_sample_weighs_the_same_whatever_its_neighbours() -> None:
    """So the mean over DDP's shards, or over micro-batches, is the mean of the whole batch."""
    method, batch = make_method(**IJEPA), make_batch(4, seed=2)
    assert batch["context_pad"].any()
    assert batch["targets_pad"].any()
    whole, logs = method(batch)
    alone = [method({key: value[i : i + 1] for key, value in batch.items()}) for i in range(4)]
    assert whole.item() == pytest.approx(np.mean([loss.item() for loss, _ in alone]), rel=1e-5)
    for count in ("context_keep_tokens", "target_predict_tokens"):
        assert logs[count].item() == pytest.approx(np.mean([one[count].item() for _, one in alone]))
    assert logs["context_keep_tokens"].item() == (~batch["context_pad"]).sum().item() / 4
    assert logs["target_predict_tokens"].item() == (~batch["targets_pad"]).sum().item() / 4


def test_the_loss_is_smooth_l1_to_the_normalised_teacher() -> None:
    method, batch = make_method(**IJEPA), make_batch(2, seed=5)
    with torch.no_grad():
        for weight in method.target_encoder.parameters():
            weight.mul_(1.1)  # another network than the context's
    tokens = method.token_features(batch)
    normal = (tokens - tokens.mean(-1, keepdim=True)) / (tokens.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    predicted, losses = parts(method, batch)[1], []
    for sample in range(2):
        distances = []
        for target in range(4):
            real = ~batch["targets_pad"][sample, target]
            goal = normal[sample, batch["targets"][sample, target][real]]
            distances += F.smooth_l1_loss(predicted[sample, target][real], goal, reduction="none").mean(-1).tolist()
        losses.append(np.mean(distances))
    assert method(batch)[0].item() == pytest.approx(np.mean(losses), rel=1e-5)


# ---- who learns -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_reach_encoder_and_predictor_and_not_the_slow_average(variant: str) -> None:
    method = make_method(**VARIANTS[variant])
    loss, logs = method(make_batch())
    assert loss.dtype == torch.float32
    assert not any(value.requires_grad for value in logs.values())
    loss.backward()
    silent = [name for name, weight in method.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert silent == [name for name, _ in method.named_parameters() if name.startswith("target_encoder.")]
    assert bool(silent) == (method.settings.target == "ema")


def test_a_gradient_reaches_the_targets_under_none_alone() -> None:
    batch = make_batch()
    for target in ("ema", "stopgrad", "none"):
        method = make_method(target=target)
        patches, places = method._patches_and_places(batch["image"])
        assert method.encode_whole(patches, places).requires_grad == (target == "none")
    with torch.no_grad():
        assert not method.encode_whole(patches, places).requires_grad


def test_the_slow_average_follows_slowly_and_stops_at_the_end() -> None:
    method = make_method(**IJEPA, ema_start=0.9, ema_end=1.0)
    with torch.no_grad():
        for weight in method.context_encoder.parameters():
            weight.add_(1.0)
    before = [weight.clone() for weight in method.target_encoder.parameters()]
    method.after_step(0.5)  # keeps 0.95 of itself
    moved = list(zip(before, method.target_encoder.parameters(), strict=True))
    assert all(torch.allclose(new - old, torch.full_like(old, 0.05), atol=1e-5) for old, new in moved)
    before = [weight.clone() for weight in method.target_encoder.parameters()]
    method.after_step(1.0)
    assert all(map(torch.equal, before, method.target_encoder.parameters()))
    assert method.steps == 2


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_loaded_state_goes_on_to_the_same_losses(variant: str) -> None:
    method, other = make_method(**VARIANTS[variant]), make_method(seed=9, **VARIANTS[variant])
    batches = [make_batch(6, seed=0)]
    train_steps(method, batches, 2)
    other.load_state_dict(method.state_dict())
    assert train_steps(other, batches, 2) == train_steps(method, batches, 2)


def test_ijepa_is_a_point_of_jepa() -> None:
    torch.manual_seed(0)
    ijepa = IJepa(IJepaSettings(encoder=ENCODER, predictor=PREDICTOR, ema_start=0.99), CONTRACT)
    jepa = make_method(**IJEPA, ema_start=0.99)
    batches = [make_batch()]
    assert train_steps(ijepa, batches, 3) == train_steps(jepa, batches, 3)
    assert ijepa.encoder().name == "ijepa"
    assert set(ijepa.state_dict()) == set(jepa.state_dict())
    with pytest.raises(ValidationError):
        IJepaSettings.model_validate({"regulariser": {"name": "sigreg"}})


@pytest.mark.parametrize("variant", SOME_VARIANTS)
def test_it_learns(variant: str) -> None:
    method, batches = make_method(**VARIANTS[variant]), [make_batch(12, seed=seed) for seed in range(2)]
    start = method(batches[0])[1]["loss_prediction"].item()
    losses = train_steps(method, batches, 60)
    assert np.mean(losses[-4:]) < 0.9 * np.mean(losses[:4])
    logs = method(batches[0])[1]
    assert logs["loss_prediction"] < 0.8 * start
    assert logs["loss_prediction"] < logs["loss_mean_predictor"]


# ---- what collapse costs --------------------------------------------------------------------------------------------


def collapse(method: Jepa) -> None:
    """An encoder that says the same of everything, and the predictor that always says it."""
    with torch.no_grad():
        for network in {method.context_encoder, method.teacher}:
            network.norm.weight.zero_()
            network.norm.bias.copy_(torch.linspace(-1, 1, len(network.norm.bias)))
        constant = F.layer_norm(method.teacher.norm.bias, method.teacher.norm.bias.shape)
        method.predictor.widen.weight.zero_()
        method.predictor.widen.bias.copy_(constant)


@pytest.mark.parametrize("target", [*map(slow, ["ema", "stopgrad"]), "none"])
@pytest.mark.parametrize("regulariser", [{"name": "sigreg", "slices": 64}, {"name": "vicreg"}])
def test_with_a_regulariser_collapse_costs_more_than_learning(target: str, regulariser: dict[str, Any]) -> None:
    method = make_method(target=target, regulariser=regulariser)
    batch = make_batch(32)
    train_steps(method, [batch], 25)
    healthy = method(batch)[0].item()
    collapse(method)
    loss, logs = method(batch)
    assert logs["loss_prediction"] < 1e-8
    assert loss.item() > 1.1 * healthy


@pytest.mark.parametrize("target", [*map(slow, ["ema", "stopgrad"]), "none"])
def test_without_one_collapse_is_cheapest_and_the_monitored_logs_show_it(target: str) -> None:
    """The truth about plain prediction, and why the monitors exist."""
    method, batch = make_method(target=target, regulariser={"name": "none"}), make_batch(16)
    train_steps(method, [batch], 30)
    healthy, healthy_logs = method(batch)
    collapse(method)
    loss, logs = method(batch)
    assert loss.item() < 1e-8 < healthy.item()
    assert logs["loss_mean_predictor"] < 1e-8 < healthy_logs["loss_mean_predictor"]


def test_without_stop_gradient_the_whole_images_pay_too() -> None:
    """An encoder that is healthy on contexts and constant on whole images would be predicted for nothing."""
    batch = make_batch(8)
    for target, views in (("none", 2), ("stopgrad", 1), ("ema", 1)):
        method = make_method(target=target)
        found = method.predict(batch)
        given = method._views(found, batch)
        assert len(given) == views
        assert all(view.requires_grad for view in given)
    whole = make_method(target="none").predict(batch).whole_BGD
    assert torch.equal(make_method(target="none")._views(found, batch)[1], found.whole_BGD.mean(1))
    assert whole.requires_grad
    cloud = torch.randn(64, 2, 32, generator=torch.Generator().manual_seed(0))
    for regulariser in ({"name": "sigreg", "slices": 16}, {"name": "vicreg"}):
        method, half = make_method(target="none", regulariser=regulariser), cloud.clone()
        half[:, 1] = 0  # the whole images, all alike
        assert method._penalty(half)[0] > method._penalty(cloud)[0] + 0.3


@pytest.mark.parametrize("variant", ["stopgrad-sigreg", "none-vicreg"])
def test_micro_batches_equal_one_batch(variant: str) -> None:
    world, batch, gradients, logs = World(0, 1, torch.device("cpu"), "fp32", "a test"), make_batch(8), [], []
    for parts_of_batch in (1, 4):
        method = make_method(**VARIANTS[variant])
        logs.append(accumulate(method, batch, parts_of_batch, world))
        gradients.append([weight.grad for weight in method.parameters() if weight.grad is not None])
    assert all(torch.allclose(a, b, atol=1e-5, rtol=1e-3) for a, b in zip(*gradients, strict=True))
    for name in set(logs[0]) - {"loss_mean_predictor"}:  # the mean of each part is closer to it than that of all
        assert logs[1][name].item() == pytest.approx(logs[0][name].item(), rel=1e-4), name


def test_the_least_price_of_collapse_is_as_documented() -> None:
    method = make_method(regulariser={"name": "sigreg", "slices": 64, "weight": 1.0})
    collapse(method)
    with torch.no_grad():
        method.context_encoder.norm.bias.zero_()  # the cheapest constant
    for samples in (8, 32):
        assert method(make_batch(samples))[1]["sigreg_excess"].item() + 1.0525 == pytest.approx(
            0.402 * samples, rel=0.01
        )


def _gradients(method: Jepa) -> dict[str, torch.Tensor]:
    return {name: weight.grad for name, weight in method.named_parameters() if weight.grad is not None}


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    world = World(rank, 2, torch.device("cpu"), "fp32", "a test")
    own, found = slice(4 * rank, 4 * rank + 4), {}
    for variant in ("ema-sigreg", "none-vicreg"):
        for parts_of_batch in (1, 2):
            network = DistributedDataParallel(make_method(**VARIANTS[variant]))
            batch = {name: value[own] for name, value in make_batch(8).items()}
            logs = accumulate(network, batch, parts_of_batch, world)
            found[f"{variant} {parts_of_batch}"] = (logs["loss"], _gradients(network.module))
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow  # test_lejepa.py has the harder case, uneven shards
def test_two_processes_equal_one(tmp_path: Path) -> None:
    """Gradients as DDP gives them; losses as means over the ranks. Whole, and in micro-batches."""
    mp.spawn(_rank, (str(tmp_path),), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    world = World(0, 1, torch.device("cpu"), "fp32", "a test")
    for variant in ("ema-sigreg", "none-vicreg"):
        method = make_method(**VARIANTS[variant])
        expected = accumulate(method, make_batch(8), 1, world)["loss"]
        for key in (f"{variant} 1", f"{variant} 2"):
            assert torch.stack([found[key][0] for found in ranks]).mean().item() == pytest.approx(
                expected.item(), rel=1e-5
            )
            for found in ranks:
                torch.testing.assert_close(found[key][1], _gradients(method), rtol=1e-3, atol=1e-5)


def test_one_held_image_has_no_variance_and_one_trained_image_is_refused() -> None:
    method, batch = make_method(**VARIANTS["none-vicreg"]), make_batch(1)
    with pytest.raises(ValueError, match="batch of one"):
        method(batch)
    logs = method.eval()(batch)[1]
    assert logs["vicreg_variance"].isnan()
    assert logs["loss_prediction"].isfinite()


# ---- logs, precision, export ----------------------------------------------------------------------------------------


def test_the_mean_predictor_answers_the_mean_of_the_real_tokens() -> None:
    target = torch.randn(3, 2, 4, 8, generator=torch.Generator().manual_seed(0))
    pad = torch.zeros(3, 2, 4, dtype=torch.bool)
    assert torch.allclose(
        mean_predictor_loss(target, pad), F.smooth_l1_loss(target.mean((0, 1, 2)).expand_as(target), target)
    )
    pad[:, :, 3] = True
    assert torch.allclose(mean_predictor_loss(target, pad), mean_predictor_loss(target[:, :, :3], pad[:, :, :3]))
    assert mean_predictor_loss(target[:1, :1, :1], pad[:1, :1, :1]).isnan()


def test_the_loss_is_float32_under_autocast() -> None:
    method, batch = make_method(regulariser={"name": "sigreg", "slices": 8}), make_batch(8)
    expected, _ = method(batch)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = method(batch)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=0.03)
    half = torch.zeros(1, 1, 1, 2, dtype=torch.bfloat16)
    assert smooth_l1_per_sample(half, half, torch.zeros(1, 1, 1, dtype=torch.bool)).dtype == torch.float32


@pytest.mark.parametrize("variant", ["ema", "stopgrad-sigreg"])
def test_the_exported_encoder_is_the_teacher(variant: str) -> None:
    method, batch = make_method(**VARIANTS[variant]), make_batch()
    train_steps(method, [batch], 3)
    encoder = method.encoder()
    assert torch.allclose(encoder.pooled(batch["image"]), method.features(batch), atol=1e-5)
    assert torch.allclose(encoder.tokens(batch["image"]), method.token_features(batch), atol=1e-5)
    assert encoder.contract == CONTRACT
    before = encoder.fingerprint
    train_steps(method, [batch], 1)
    assert encoder.fingerprint == before  # a copy
    assert method.context_encoder.embed.weight.requires_grad


def test_places_count_micrometres_where_the_contract_knows_them() -> None:
    torch.manual_seed(0)
    contract = InputContract(mpp=0.5, size_px=SIDE, mean=(0.5,) * 3, std=(0.25,) * 3, patch_px=PATCH, dim=32)
    method = Jepa(JepaSettings(encoder=ENCODER, predictor=PREDICTOR), contract)
    places = method._patches_and_places(make_batch(1)["image"])[1]
    assert places[0].tolist() == [-7.0, -7.0]  # half of the (8 - 1) tokens of 2 um
    assert make_method()._patches_and_places(make_batch(1)["image"])[1][0].tolist() == [-14.0, -14.0]


def test_an_encoder_of_another_patch_or_width_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"method\.encoder\.patch_px: 16, .* says 4(\n|.)*dim: 384, .* says 32"):
        Jepa(JepaSettings(), CONTRACT)
