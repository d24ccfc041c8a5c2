from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from lamella.errors import ConfigError
from lamella.methods.cross_jepa import CrossJepa, CrossJepaSettings, smooth_l1_per_sample, trivial_losses
from lamella.models.predictor import PredictorSettings
from lamella.models.vit import ViTSettings, patchify
from lamella.slides.anchors.sampling import CrossSampling

ENCODER = ViTSettings(patch_px=8, dim=32, depth=2, heads=2)
PREDICTOR = PredictorSettings(width=16, depth=2, heads=2)
VARIANTS: list[dict[str, Any]] = [
    {"target": "dense"},
    {"target": "pooled"},
    {"teacher": "stopgrad", "regulariser": {"name": "sigreg", "slices": 16}},
]


def make_method(sampling: CrossSampling, seed: int = 0, **settings: Any) -> CrossJepa:
    torch.manual_seed(seed)
    return CrossJepa(CrossJepaSettings(encoder=ENCODER, predictor=PREDICTOR, **settings), sampling)


def train_steps(method: CrossJepa, batch: dict[str, torch.Tensor], steps: int, rate: float = 3e-3) -> list[float]:
    optimizer = torch.optim.AdamW([weight for weight in method.parameters() if weight.requires_grad], lr=rate)
    losses = []
    for number in range(steps):
        optimizer.zero_grad()
        loss, _ = method(batch)
        loss.backward()
        optimizer.step()
        method.after_step((number + 1) / steps)
        losses.append(loss.item())
    return losses


def test_target_pixels_of_the_context_never_enter_the_context_encoder(sampling, make_batch) -> None:
    method, batch = make_method(sampling), make_batch(3, seed=4)
    expected, _ = method.encode_context(batch)
    noisy = copy.deepcopy(batch)
    boxes_px = (batch["target_boxes_um"] + sampling.context_fov_um / 2) / sampling.context_output_mpp
    changed = 0
    for sample, boxes in enumerate(boxes_px.int().tolist()):
        for x0, y0, x1, y1 in boxes:
            noisy["context"][sample, :, y0:y1, x0:x1] ^= 255
            changed += 1
    assert changed == 9
    assert not torch.equal(noisy["context"], batch["context"])
    tokens, _ = method.encode_context(noisy)
    real = ~batch["context_pad"]
    assert torch.equal(tokens[real], expected[real])


def test_context_pixels_outside_the_targets_do_enter(sampling, make_batch) -> None:
    method, batch = make_method(sampling), make_batch(1, corners_um=np.array([[4, 4], [4, 30]]))
    expected, places_um = method.encode_context(batch)
    batch["context"][:, :, :8, 56:] ^= 255  # the top right token, which no target touches
    token = int((batch["context_keep"][0] == 7).nonzero())
    assert places_um[0, token].tolist() == [28.0, -28.0]
    assert not torch.allclose(method.encode_context(batch)[0][0, token], expected[0, token], atol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_reach_encoder_and_predictor_and_not_the_teacher(sampling, make_batch, variant) -> None:
    method = make_method(sampling, **variant)
    loss, logs = method(make_batch())
    assert loss.dtype == torch.float32
    assert not any(value.requires_grad for value in logs.values())
    loss.backward()
    silent = [name for name, weight in method.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert silent == [name for name, _ in method.named_parameters() if name.startswith("target_encoder.")]
    assert bool(silent) == (method.settings.teacher == "ema")


def test_dense_queries_lie_at_the_target_tokens(sampling, make_batch) -> None:
    method, batch = make_method(sampling), make_batch(2, corners_um=np.array([[4, 4], [21, 37]]))
    places_um = method._target_places_um(batch)
    assert places_um.shape == (2, 2, 16, 2)
    # Tokens of 8 px at 0.5 mpp: the first of the second target is centred 2 um inside its corner.
    assert places_um[0, 1, 0].tolist() == [21 + 2 - 32, 37 + 2 - 32]
    assert places_um[0, 1, -1].tolist() == [21 + 14 - 32, 37 + 14 - 32]


@pytest.mark.parametrize("target", ["dense", "pooled"])
def test_every_sample_weighs_the_same_whatever_its_neighbours(sampling, make_batch, target) -> None:
    """Ragged padding and batch mates change nothing, so that the mean over DDP's shards is the global mean."""
    method, batch = make_method(sampling, target=target), make_batch(4, seed=2)
    assert batch["context_pad"].any()
    whole, logs = method(batch)
    alone = [method({key: value[i : i + 1] for key, value in batch.items()}) for i in range(4)]
    assert whole.item() == pytest.approx(np.mean([loss.item() for loss, _ in alone]), rel=1e-5)
    for count in ("context_keep_tokens", "target_predict_tokens"):
        assert logs[count].item() == pytest.approx(np.mean([one[count].item() for _, one in alone]))
    kept = (~batch["context_pad"]).sum().item() / 4
    asked = 48 if target == "dense" else (~batch["footprint_pad"]).sum().item() / 4
    assert (logs["context_keep_tokens"].item(), logs["target_predict_tokens"].item()) == (kept, asked)


def test_the_dense_loss_is_smooth_l1_to_the_normalised_teacher(sampling, make_batch) -> None:
    method, batch = make_method(sampling), make_batch(2)
    crop = batch["targets"][1, 2][None]
    tokens = method.target_encoder(method.normalise(patchify(crop, 8)), method._target_places_um(batch)[1, 2][None])
    normal = (tokens - tokens.mean(-1, keepdim=True)) / (tokens.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    assert torch.allclose(method.encode_targets(batch)[1, 2], normal[0], atol=1e-5)
    predicted = method.predict(batch, *method.encode_context(batch))
    expected = F.smooth_l1_loss(predicted, method.encode_targets(batch))
    assert method(batch)[0].item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_pooled_loss_compares_means_without_padding(sampling, make_batch) -> None:
    method, batch = make_method(sampling, target="pooled"), make_batch(3, seed=1)
    predicted = method.predict(batch, *method.encode_context(batch))
    target, pad, losses = method.encode_targets(batch), batch["footprint_pad"], []
    assert pad.any()
    for sample in range(3):
        for k in range(3):
            mean = predicted[sample, k][~pad[sample, k]].mean(0)
            losses.append(F.smooth_l1_loss(mean, target[sample, k].mean(0)).item())
    assert method(batch)[0].item() == pytest.approx(np.mean(losses), rel=1e-5)


def test_the_teacher_follows_slowly_and_stops_at_the_end(sampling) -> None:
    method = make_method(sampling, ema_start=0.9, ema_end=1.0)
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
def test_a_loaded_state_goes_on_to_the_same_losses(sampling, make_batch, variant) -> None:
    method, other, batch = make_method(sampling, **variant), make_method(sampling, seed=9, **variant), make_batch()
    train_steps(method, batch, 2)
    other.load_state_dict(method.state_dict())
    assert train_steps(other, batch, 2) == train_steps(method, batch, 2)


def test_trivial_predictors_answer_means() -> None:
    target = torch.randn(3, 2, 4, 8, generator=torch.Generator().manual_seed(0))
    logs = trivial_losses(target, torch.tensor([5, 9, 5]))
    assert logs["loss_mean_predictor"] == F.smooth_l1_loss(target.mean((0, 1, 2)).expand_as(target), target)
    guesses = target[[2, 0]].mean((1, 2))[:, None, None].expand(2, 2, 4, 8)
    assert torch.allclose(logs["loss_same_slide"], F.smooth_l1_loss(guesses, target[[0, 2]]))
    assert trivial_losses(target, torch.tensor([1, 2, 3]))["loss_same_slide"].isnan()
    assert trivial_losses(target[:1, :1, :1], torch.tensor([1]))["loss_mean_predictor"].isnan()


def test_the_loss_is_float32_under_autocast(sampling, make_batch) -> None:
    method, batch = make_method(sampling, regulariser={"name": "sigreg", "slices": 8}), make_batch()
    expected, _ = method(batch)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = method(batch)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=0.03)
    assert smooth_l1_per_sample(torch.zeros(1, 1, 1, 2).bfloat16(), torch.ones(1, 1, 1, 2)).dtype == torch.float32


@pytest.mark.parametrize("variant", VARIANTS[::2])
def test_the_exported_encoder_is_the_teacher(sampling, make_batch, variant) -> None:
    method, batch = make_method(sampling, **variant), make_batch()
    train_steps(method, batch, 3)
    encoder = method.encoder("context")
    assert torch.allclose(encoder.pooled(batch["context"]), method.features(batch), atol=1e-5)
    assert (encoder.contract.mpp, encoder.contract.size_px) == (1.0, 64)
    contract = method.encoder().contract
    assert (contract.mpp, contract.size_px, contract.patch_px, contract.dim) == (0.5, 32, 8, 32)
    before = encoder.fingerprint
    train_steps(method, batch, 1)
    assert encoder.fingerprint == before  # a copy
    assert method.context_encoder.embed.weight.requires_grad


def test_it_learns_without_collapse(sampling, make_batch) -> None:
    method, batch = make_method(sampling), make_batch(8)
    losses = train_steps(method, batch, 30)
    assert losses[-1] < 0.6 * losses[0]
    _, logs = method(batch)
    assert logs["loss_prediction"] < logs["loss_mean_predictor"]
    features = method.features(make_batch(24, seed=7))
    share = torch.linalg.svdvals(features - features.mean(0))
    share = share / share.sum()
    assert torch.exp(-(share * share.clamp(min=1e-12).log()).sum()) > 5
    assert features.std(0).mean() > 0.05


def test_a_patch_other_than_the_anchors_is_refused(sampling) -> None:
    with pytest.raises(ConfigError, match=r"method\.encoder\.patch_px: 16, but the anchors .* of 8 px"):
        CrossJepa(CrossJepaSettings(), sampling)


def test_settings_know_their_variants() -> None:
    assert CrossJepaSettings().regulariser.name == "none"
    with pytest.raises(ValidationError, match="weight"):
        CrossJepaSettings.model_validate({"regulariser": {"name": "none", "weight": 1}})
