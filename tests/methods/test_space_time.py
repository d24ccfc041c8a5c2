from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lamella.data.mask_sets import MaskSetsSettings, mask_batch
from lamella.data.masks.tube import TubeMaskSettings
from lamella.engine.loop import accumulate
from lamella.engine.world import World
from lamella.errors import ConfigError
from lamella.methods.cross_jepa import NoRegulariser, SigRegSettings
from lamella.methods.sigreg import EXPECTED
from lamella.methods.space_time import (
    SpaceTimeJepa,
    VideoSettings,
    VolumeSettings,
    l1_per_sample,
    mean_predictor_loss,
    space_time_jepa,
)
from lamella.models.predictor import PredictorSettings
from lamella.models.volume_encoder import VolumeContract
from lamella.models.volume_vit import FilmViTSettings, VolumeViTSettings

ALONE = World(0, 1, torch.device("cpu"), "fp32", "a test")
# 8 x 16 x 16 voxels in patches of 2 x 4 x 4: a grid of 4 x 4 x 4 tokens.
PATCH, SIZE, GRID = (2, 4, 4), (8, 16, 16), (4, 4, 4)
VIT = {"dim": 24, "depth": 2, "heads": 2, "patch": PATCH, "wave_min": 4.0, "wave_max": 64.0}
PREDICTOR = PredictorSettings(width=24, depth=2, heads=2)
VOLUME = VolumeContract("volume", 1, SIZE, PATCH, 24, spacing_mm=(3.0, 1.0, 1.0))
VIDEO = VolumeContract("video", 3, SIZE, PATCH, 24, mean=(0.5, 0.5, 0.5), std=(0.3, 0.3, 0.3))
MASKS = MaskSetsSettings(
    sets=(TubeMaskSettings(blocks=3, scale=(0.15, 0.3)), TubeMaskSettings(blocks=2, scale=(0.5, 0.6)))
)


def volume_method(seed: int = 0, contract: VolumeContract = VOLUME, **settings) -> SpaceTimeJepa:
    torch.manual_seed(seed)
    return space_time_jepa(VolumeSettings(encoder=VolumeViTSettings(**VIT), predictor=PREDICTOR, **settings), contract)


def video_method() -> SpaceTimeJepa:
    torch.manual_seed(0)
    return space_time_jepa(VideoSettings(encoder=FilmViTSettings(**VIT), predictor=PREDICTOR), VIDEO)


def make_batch(samples: int = 3, seed: int = 0, kind: str = "volume") -> dict[str, torch.Tensor]:
    """Smooth random fields, each with its own brightness."""
    generator = torch.Generator().manual_seed(seed)
    channels = 1 if kind == "volume" else 3
    coarse = torch.randn(samples, channels, 2, 3, 3, generator=generator)
    voxels = F.interpolate(coarse, SIZE, mode="trilinear") + torch.randn(samples, 1, 1, 1, 1, generator=generator)
    if kind == "video":
        voxels = (128 + 40 * voxels).clamp(0, 255).to(torch.uint8)
    return {"voxels": voxels, **mask_batch(MASKS, GRID, seed, range(samples))}


def gradients(method: SpaceTimeJepa, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    method.zero_grad()
    method(batch)[0].backward()
    return {name: weight.grad.clone() for name, weight in method.named_parameters() if weight.grad is not None}


def voxels_of(tokens: torch.Tensor) -> torch.Tensor:
    """(B, 1, Z, Y, X) True in the patches of the tokens that are True in (B, G)."""
    grid = tokens.reshape(-1, 1, *GRID)
    for axis, side in enumerate(PATCH, start=2):
        grid = grid.repeat_interleave(side, dim=axis)
    return grid


def chosen(numbers_BSN: torch.Tensor, pad_BSN: torch.Tensor) -> torch.Tensor:
    """(B, S, G) True for the tokens that are named."""
    named = torch.zeros(*numbers_BSN.shape[:2], 64, dtype=torch.int64)
    return named.scatter_add(2, numbers_BSN, (~pad_BSN).long()) > 0


def train(method: SpaceTimeJepa, batch: dict[str, torch.Tensor], steps: int) -> None:
    optimizer = torch.optim.AdamW([weight for weight in method.parameters() if weight.requires_grad], lr=3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        method(batch)[0].backward()
        optimizer.step()
        method.after_step(0.5)


def predictions(method: SpaceTimeJepa, batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    found = []
    handle = method.predictor.register_forward_hook(lambda module, inputs, output: found.append(output.detach()))
    method(batch)
    handle.remove()
    return found


# ---- what it computes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["volume", "video"])
def test_the_loss_is_the_l1_distance_to_the_teachers_normalised_tokens(kind):
    """Against a plain version: one sample and one mask set at a time, without padding."""
    method, batch = (volume_method() if kind == "volume" else video_method()), make_batch(kind=kind)
    exported = method.encoder()
    losses = []
    for sample in range(3):
        patches, places = exported.patches_and_places(batch["voxels"][sample, None])
        target = F.layer_norm(exported.vit(patches, places), (24,))
        for number in range(2):
            context = batch["context"][sample, number][~batch["context_pad"][sample, number]]
            hidden = batch["targets"][sample, number][~batch["targets_pad"][sample, number]]
            encoded = method.context_encoder(patches[:, context], places[:, context])
            predicted = method.predictor(encoded, places[:, context], places[:, None, hidden], mask_token=number)
            losses.append((predicted[:, 0] - target[:, hidden]).abs().mean())
    loss, logs = method(batch)
    torch.testing.assert_close(loss, torch.stack(losses).mean(), atol=1e-5, rtol=1e-5)
    assert float(logs["loss_prediction"]) == pytest.approx(loss.item())
    assert float(logs["loss_set_1"] + logs["loss_set_2"]) / 2 == pytest.approx(loss.item(), rel=1e-5)
    assert float(logs["context_keep_tokens"]) == (~batch["context_pad"]).sum() / 6
    assert float(logs["target_predict_tokens"]) == (~batch["targets_pad"]).sum() / 6


def test_hidden_voxels_change_neither_context_nor_prediction():
    method, batch = volume_method(), make_batch()
    number = 0
    hidden = chosen(batch["targets"], batch["targets_pad"])[:, number]
    one_set = {key: value if key == "voxels" else value[:, number, None] for key, value in batch.items()}
    changed = one_set | {"voxels": torch.where(voxels_of(hidden), 1e4, batch["voxels"])}
    torch.testing.assert_close(predictions(method, changed), predictions(method, one_set), atol=0, rtol=0)
    assert method(changed)[0].item() != method(one_set)[0].item()  # the targets did change
    shown = one_set | {"voxels": torch.where(voxels_of(hidden), batch["voxels"], 1e4)}
    assert (predictions(method, shown)[0] - predictions(method, one_set)[0]).abs().max() > 1e-4


def test_gradients_reach_the_encoder_the_predictor_and_the_voxels_that_are_shown_and_nothing_else():
    method, batch = volume_method(), make_batch()
    batch["voxels"].requires_grad_(True)
    found = gradients(method, batch)
    assert set(found) == {
        name for name, _ in method.named_parameters() if name.startswith(("context_encoder", "predictor"))
    }
    assert all(gradient.abs().max() > 0 for name, gradient in found.items() if not name.endswith("qkv.bias"))
    assert (found["predictor.mask_token"].abs().amax(1) > 0).all()
    shown = voxels_of(chosen(batch["context"], batch["context_pad"]).any(1))
    reached = batch["voxels"].grad.abs() > 0
    assert reached.any()
    assert not (reached & ~shown).any()


def test_each_mask_set_has_its_own_learnt_token():
    method, batch = volume_method(), make_batch()
    first = {key: value if key == "voxels" else value[:, :1] for key, value in batch.items()}
    gradient = gradients(method, first)["predictor.mask_token"]
    assert gradient[0].abs().max() > 0
    assert gradient[1].abs().max() == 0


def test_padding_changes_nothing():
    method, batch = volume_method(), make_batch()
    longer = dict(batch)
    for key in ("context", "targets"):
        longer[key] = F.pad(batch[key], (0, 7), value=5)
        longer[f"{key}_pad"] = F.pad(batch[f"{key}_pad"], (0, 7), value=True)
    torch.testing.assert_close(method(longer)[0], method(batch)[0], atol=1e-6, rtol=1e-6)
    alone = [
        method({key: value[sample, None] for key, value in batch.items()})[0] for sample in range(len(batch["voxels"]))
    ]
    torch.testing.assert_close(torch.stack(alone).mean(), method(batch)[0], atol=1e-5, rtol=1e-5)


def test_padding_in_the_middle_is_not_cut_off():
    """Whoever makes the masks may leave gaps: what is no padding is never dropped."""
    method, batch = volume_method(), make_batch()
    mixed = dict(batch)
    for key in ("context", "targets"):
        mixed[key], mixed[f"{key}_pad"] = batch[key].flip(-1), batch[f"{key}_pad"].flip(-1)
    torch.testing.assert_close(method(mixed)[0], method(batch)[0], atol=1e-5, rtol=1e-5)


# ---- places ---------------------------------------------------------------------------------------------------------


def test_positions_are_millimetres():
    batch = make_batch()
    thick = replace(VOLUME, spacing_mm=(6.0, 1.0, 1.0))
    same = volume_method()(batch)[0]
    assert abs(volume_method(contract=thick)(batch)[0].item() - same.item()) > 1e-5
    told = batch | {"spacing_mm": torch.tensor([[3.0, 1.0, 1.0]]).expand(3, 3)}
    torch.testing.assert_close(volume_method(contract=replace(VOLUME, spacing_mm=None))(told)[0], same)
    torch.testing.assert_close(volume_method(contract=thick)(told)[0], same)  # what the batch says counts


def test_a_shifted_crop_of_a_periodic_volume_looks_the_same():
    """Places are relative to the crop, not to the patient: equal contents give equal tokens wherever they were cut."""
    wave = torch.sin(torch.arange(64) * 2 * np.pi / 16).expand(1, 1, 8, 16, 64)
    method = volume_method()
    crops = [method.token_features({"voxels": wave[..., start : start + 16].contiguous()}) for start in (0, 16, 32)]
    torch.testing.assert_close(crops[1], crops[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(crops[2], crops[0], atol=1e-5, rtol=1e-5)


# ---- training -------------------------------------------------------------------------------------------------------


def test_checkpointing_changes_no_number():
    batch = make_batch()
    plain, spared = volume_method(), volume_method(checkpointing=True)
    found = gradients(spared, batch)
    for name, gradient in gradients(plain, batch).items():
        torch.testing.assert_close(found[name], gradient, atol=0, rtol=0)


def test_checkpointing_computes_blocks_twice():
    calls = {}
    for checkpointing in (False, True):
        method = volume_method(checkpointing=checkpointing)
        seen = []
        for network in (method.context_encoder, method.predictor):
            network.blocks[0].norm_attention.register_forward_hook(lambda *_, seen=seen: seen.append(1))
        method(make_batch())[0].backward()
        calls[checkpointing] = len(seen)
    assert calls[True] == 2 * calls[False]


def test_after_step_moves_the_teacher_by_the_share_of_the_schedule():
    method = volume_method()
    with torch.no_grad():
        for weight in method.context_encoder.parameters():
            weight.add_(1.0)
    before = [weight.clone() for weight in method.target_encoder.parameters()]
    method.after_step(0.5)  # keeps 0.999
    for old, new in zip(before, method.target_encoder.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.001, atol=2e-6, rtol=0)
    frozen = [weight.clone() for weight in method.target_encoder.parameters()]
    method.after_step(1.0)  # keeps all
    for old, new in zip(frozen, method.target_encoder.parameters(), strict=True):
        torch.testing.assert_close(new, old, atol=0, rtol=0)
    assert int(method.steps) == 2


@pytest.mark.parametrize("kind", ["volume", "video"])
def test_it_learns_a_tiny_problem(kind):
    method, batch = (volume_method() if kind == "volume" else video_method()), make_batch(8, kind=kind)
    first = float(method(batch)[1]["loss_prediction"])
    train(method, batch, steps=60)
    logs = method(batch)[1]
    assert float(logs["loss_prediction"]) < 0.6 * first
    assert float(logs["loss_prediction"]) < 0.9 * float(logs["loss_mean_predictor"])


# ---- collapse -------------------------------------------------------------------------------------------------------


def collapse(method: SpaceTimeJepa, said: torch.Tensor) -> None:
    """Both encoders say the same of everything, and the predictor knows it."""
    with torch.no_grad():
        for encoder in (method.context_encoder, method.target_encoder):
            encoder.norm.weight.zero_()
            encoder.norm.bias.copy_(said)
        method.predictor.widen.weight.zero_()
        method.predictor.widen.bias.copy_(F.layer_norm(said, (24,)))


def test_prediction_alone_is_cheapest_under_collapse_and_the_logs_show_it():
    """No secret: this is why the teacher is slow, and why the monitors watch the spread of features and targets."""
    method, batch = volume_method(), make_batch(8)
    assert method(batch)[0].item() > 0.3
    collapse(method, said=torch.linspace(-1, 1, 24))
    loss, logs = method(batch)
    assert loss.item() < 1e-5
    assert float(logs["loss_mean_predictor"]) < 1e-5
    assert float(method.features(batch).std(0).max()) < 1e-6


def test_with_sigreg_a_collapsed_encoder_has_the_higher_loss():
    """At the default weight, against a briefly trained one; the collapse is the cheapest there is, at the origin."""
    method, batch = volume_method(regulariser=SigRegSettings()), make_batch(128)
    train(method, batch, steps=15)
    healthy, logs = method(batch)
    collapse(method, said=torch.zeros(24))
    collapsed, collapsed_logs = method(batch)
    assert float(collapsed_logs["loss_prediction"]) < float(logs["loss_prediction"])
    assert collapsed.item() > 1.3 * healthy.item()
    # N * sum of w (1 - phi)^2: no embedding of a point is closer to the normal cloud.
    assert float(collapsed_logs["sigreg_excess"]) + EXPECTED == pytest.approx(128 * 0.4025, rel=0.01)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("regulariser", [NoRegulariser(), SigRegSettings()], ids=["none", "sigreg"])
def test_micro_batches_take_the_same_step(regulariser, checkpointing):
    batch, found = make_batch(6), []
    for parts in (1, 3):
        method = volume_method(regulariser=regulariser, checkpointing=checkpointing)
        logs = accumulate(method, batch, parts, ALONE)
        found.append((logs, {name: weight.grad for name, weight in method.named_parameters()}))
    (whole_logs, whole), (split_logs, split) = found
    assert float(split_logs["loss"]) == pytest.approx(float(whole_logs["loss"]), rel=1e-5)
    assert split_logs.keys() == whole_logs.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(split[name], gradient, atol=1e-6, rtol=1e-4)


def test_the_class_belongs_to_the_regulariser():
    with pytest.raises(ValueError, match="space_time_jepa"):
        SpaceTimeJepa(
            VolumeSettings(encoder=VolumeViTSettings(**VIT), predictor=PREDICTOR, regulariser=SigRegSettings()), VOLUME
        )


def test_a_batch_cannot_hide_what_answering_the_mean_would_lose():
    tokens = torch.tensor([[[0.0, 2.0], [4.0, 2.0]]])
    none = torch.zeros(1, 2, dtype=torch.bool)
    assert float(mean_predictor_loss(tokens, none)) == 1.0  # the mean is (2, 2): distances 2, 0, 2, 0
    one = torch.tensor([[False, True]])
    assert torch.isnan(mean_predictor_loss(tokens, one))
    torch.testing.assert_close(l1_per_sample(torch.zeros(1, 2, 2), tokens, one), torch.tensor([1.0]))


# ---- what others call -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["volume", "video"])
def test_the_exported_encoder_is_the_teacher(kind):
    method, batch = (volume_method() if kind == "volume" else video_method()), make_batch(kind=kind)
    with torch.no_grad():
        method.target_encoder.norm.weight.add_(0.5)  # now it differs from the context encoder
    exported = method.encoder()
    torch.testing.assert_close(exported.tokens(batch["voxels"]), method.token_features(batch), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(exported.pooled(batch["voxels"]), method.features(batch), atol=1e-5, rtol=1e-5)
    assert exported.contract == method.contract
    assert exported.name == kind
    with torch.no_grad():
        exported.vit.norm.weight.zero_()
    assert method.target_encoder.norm.weight.abs().min() > 0  # a copy


def test_the_share_of_padding_is_logged():
    batch = make_batch() | {"padding": torch.tensor([0.0, 0.5, 1.0])}
    assert float(volume_method()(batch)[1]["padding"]) == 0.5


def test_more_mask_sets_than_learnt_tokens_are_refused():
    with pytest.raises(ConfigError, match=r"method.mask_sets: 1, but each sample has 2"):
        volume_method(mask_sets=1)(make_batch())


def test_an_encoder_for_other_data_is_refused():
    with pytest.raises(ConfigError, match=r"method.encoder.channels: 1, but the data's is 2"):
        volume_method(contract=replace(VOLUME, channels=2))


def test_integers_are_no_volume():
    batch = make_batch()
    with pytest.raises(ValueError, match="float32"):
        volume_method()(batch | {"voxels": batch["voxels"].to(torch.uint8)})
