"""The method: what its loss is made of, and which tiles a label reaches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.models.tiny_weak import prototypes, tiles, tiny_weak
from torch import Tensor

from lamella.errors import ConfigError
from lamella.methods.weak import WeakMethod, scale_weights
from lamella.methods.weak_losses import ContrastSettings, WeakLossSettings
from lamella.models.encoders import InputContract, ViTEncoder, fresh_vit
from lamella.models.vit import ViTSettings

NO_TERMS: dict[str, Any] = {"contrast": ContrastSettings(weight=0), "total_variation": 0, "sparsity": 0}


def batch_of(
    label: list[list[int]], known: list[list[int]] | None = None, bag: list[int] | None = None
) -> dict[str, Tensor]:
    batch = {"image": tiles(len(label)), "label": torch.tensor(label, dtype=torch.uint8)}
    batch["known"] = torch.ones_like(batch["label"]) if known is None else torch.tensor(known, dtype=torch.uint8)
    return batch if bag is None else {**batch, "bag": torch.tensor(bag)}


def gradients(method: WeakMethod, batch: dict[str, Tensor]) -> dict[str, Tensor | None]:
    method.zero_grad()
    loss, _ = method(batch)
    loss.backward()
    return {name: each.grad for name, each in method.named_parameters()}


def test_labels_of_patches_teach_each_tile_at_the_last_three_scales() -> None:
    model = tiny_weak()
    batch = batch_of([[1, 0, 0], [0, 0, 1]], [[1, 1, 0], [1, 1, 1]])
    loss, logs = WeakMethod(model, WeakLossSettings(**NO_TERMS))(batch)
    maps = model.forward_scales(batch["image"])
    expected = 0.0
    for weight, each in zip((0.1, 1, 1), maps.class_maps[1:], strict=True):
        assert each is not None
        losses = F.binary_cross_entropy_with_logits(each.mean((2, 3)), batch["label"].float(), reduction="none")
        expected += weight * float((losses * batch["known"]).detach().sum() / 5)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert set(logs) == {"loss_class"}


def test_a_scale_of_weight_0_is_not_computed() -> None:
    model = tiny_weak(fuse=(0, 0, 0, 1))
    method = WeakMethod(model, WeakLossSettings(**NO_TERMS))
    assert method.wanted == {1, 2, 3}
    assert method.leaves_unused
    found = gradients(method, batch_of([[1, 0, 0], [0, 1, 0]]))
    assert all(each is None for name, each in found.items() if name.startswith("model.scores.adapters.0"))
    assert all(each is not None for name, each in found.items() if name.startswith("model.scores.adapters.3"))


def test_a_slides_label_goes_through_the_pooling() -> None:
    model = tiny_weak()
    batch = batch_of([[1, 0, 0]] * 4 + [[0, 1, 0]] * 4, [[1, 1, 0]] * 8, [5, 5, 5, 5, 9, 9, 9, 9])
    method = WeakMethod(model, WeakLossSettings(**NO_TERMS, scale_weights=(0, 0, 0, 1)))
    last = model.forward_scales(batch["image"]).class_maps[-1]
    assert last is not None
    top = last.mean((2, 3)).reshape(2, 4, 3).topk(2, dim=1).values.mean(1)[:, :2]  # half of four tiles
    expected = F.binary_cross_entropy_with_logits(top, torch.tensor([[1.0, 0], [0, 1]]))
    assert method(batch)[0].item() == pytest.approx(expected.item(), rel=1e-5)


def test_pooling_none_takes_a_slides_label_for_each_tile() -> None:
    """The source's way, kept as a named control."""
    batch = batch_of([[1, 0, 0]] * 4, [[1, 1, 0]] * 4, [0, 0, 0, 0])
    model = tiny_weak(pooling="none")
    method = WeakMethod(model, WeakLossSettings(**NO_TERMS))
    assert not method.pools(batch)
    per_patch = {key: value for key, value in batch.items() if key != "bag"}
    assert method(batch)[0].item() == method(per_patch)[0].item()


def test_where_a_slide_shows_nothing_all_its_tiles_are_background() -> None:
    model = tiny_weak()
    method = WeakMethod(model, WeakLossSettings(**NO_TERMS, scale_weights=(0, 0, 0, 1)))
    batch = batch_of([[0, 0, 1]] * 4, [[0, 0, 1]] * 4, [0, 0, 0, 0])
    last = model.forward_scales(batch["image"]).class_maps[-1]
    assert last is not None
    mean = last.mean((2, 3))[:, 2].mean()
    assert method(batch)[0].item() == pytest.approx(F.softplus(-mean).item(), rel=1e-5)


def test_the_contrast_asks_only_tiles_that_answer_for_their_slide() -> None:
    method = WeakMethod(tiny_weak(), WeakLossSettings())
    batch = batch_of([[1, 0, 0]] * 4 + [[0, 0, 1]] * 4, [[1, 1, 0]] * 4 + [[1, 1, 1]] * 4, [0] * 4 + [1] * 4)
    maps = method.model.forward_scales(batch["image"])
    shown = method._shown(maps, batch)
    assert shown[:4, 0].sum() == 2  # half of the four
    assert shown[4:, 2].all()  # nothing but background: every tile is
    assert shown.sum() == 6


@pytest.mark.parametrize("pooling", ["topk", "attention", "mean", "max", "none"])
@pytest.mark.parametrize("bag", [None, [0, 0, 1, 1]])
def test_every_pooling_gives_finite_gradients(pooling: str, bag: list[int] | None) -> None:
    batch = batch_of([[1, 0, 0], [1, 0, 0], [0, 0, 1], [0, 0, 1]], [[1, 1, 0]] * 2 + [[1, 1, 1]] * 2, bag)
    found = gradients(WeakMethod(tiny_weak(pooling=pooling).train(), WeakLossSettings(mean_map=5e-5)), batch)
    assert all(each.isfinite().all() for each in found.values() if each is not None)
    assert any(each is not None and each.abs().sum() > 0 for name, each in found.items() if "backbone" in name)


def test_a_batch_without_any_class_has_a_loss_and_finite_gradients() -> None:
    """No positives: a crash of the source."""
    batch = batch_of([[0, 0, 0], [0, 0, 0]], [[1, 1, 0], [1, 1, 0]])
    found = gradients(WeakMethod(tiny_weak().train(), WeakLossSettings()), batch)
    assert all(each.isfinite().all() for each in found.values() if each is not None)


def test_one_prototype_of_each_class_and_no_background() -> None:
    """k = 1: a crash of the source."""
    model = tiny_weak(prototypes(("tumour", "stroma"), (1, 1)), background=None).train()
    found = gradients(WeakMethod(model, WeakLossSettings()), batch_of([[1, 0], [1, 1]]))
    assert all(each.isfinite().all() for each in found.values() if each is not None)


def test_a_term_of_weight_0_is_not_logged() -> None:
    loss = WeakLossSettings(contrast=ContrastSettings(weight=0), total_variation=0, sparsity=0.01)
    _, logs = WeakMethod(tiny_weak(), loss)(batch_of([[1, 0, 0]]))
    assert set(logs) == {"loss_class", "loss_sparsity"}


def test_the_total_is_the_weighted_sum_of_its_terms() -> None:
    loss = WeakLossSettings(
        contrast=ContrastSettings(weight=0.5, foreground=2, background=3),
        total_variation=0.7,
        sparsity=0.9,
        mean_map=0.2,
    )
    total, logs = WeakMethod(tiny_weak(), loss)(batch_of([[1, 0, 0], [0, 1, 0]]))
    expected = (
        logs["loss_class"]
        + 0.5 * (2 * logs["loss_foreground"] + 3 * logs["loss_background"])
        + 0.7 * logs["loss_variation"]
        + 0.9 * logs["loss_sparsity"]
        + 0.2 * logs["loss_mean_map"]
    )
    torch.testing.assert_close(total.detach(), expected)


def test_the_contrast_pulls_what_is_marked_to_its_prototypes() -> None:
    torch.manual_seed(0)
    model = tiny_weak().train()
    loss = WeakLossSettings(contrast=ContrastSettings(weight=1, background=0), total_variation=0, sparsity=0)
    method, batch = WeakMethod(model, loss), batch_of([[1, 0, 0], [0, 1, 0]])
    optimizer = torch.optim.Adam(method.parameters(), lr=3e-3)
    values = []
    for _ in range(12):
        optimizer.zero_grad()
        total, logs = method(batch)
        total.backward()
        optimizer.step()
        values.append(float(logs["loss_foreground"]))
    assert values[-1] < 0.5 * values[0]


def test_the_encoder_sees_masked_tiles_and_the_mask_learns() -> None:
    vit = ViTSettings(patch_px=16, dim=20, depth=1, heads=1)
    contract = InputContract(mpp=0.5, size_px=32, mean=(0.5,) * 3, std=(0.5,) * 3, patch_px=16, dim=20)
    encoder = ViTEncoder(fresh_vit(vit, 0), contract, "tiny")
    settings = WeakLossSettings(
        contrast=ContrastSettings(weight=1, features="encoder"),
        total_variation=0,
        sparsity=0,
        scale_weights=(0, 0, 0, 1),
    )
    method = WeakMethod(tiny_weak().train(), settings, encoder=encoder, mpp=0.5)
    assert not any(name.startswith("_encoder") for name in method.state_dict())
    batch = batch_of([[1, 0, 0], [0, 1, 0]])
    maps = method.model.forward_scales(batch["image"])
    marked, left = method._contrast(maps, batch["image"], batch)
    marked.backward(retain_graph=True)
    assert method.model.scores.adapters[-1].out.weight.grad.abs().sum() > 0  # type: ignore[union-attr, operator]
    assert all(each.grad is None for each in encoder.parameters())
    assert left.isfinite()
    nothing = batch_of([[0, 0, 0]])
    assert method(nothing)[0].isfinite()


def test_an_encoder_that_is_asked_for_must_be_there() -> None:
    with pytest.raises(ConfigError, match="set it to pooled"):
        WeakMethod(tiny_weak(), WeakLossSettings(contrast=ContrastSettings(features="encoder")))


def test_a_plain_classifier_has_one_scale_and_no_contrast() -> None:
    method = WeakMethod(tiny_weak(scores="linear"), WeakLossSettings())
    assert method.scale_weights == (0, 0, 0, 1)
    _, logs = method(batch_of([[1, 0, 0]]))
    assert "loss_foreground" not in logs


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.0, 0.0, 0.0, 0.0)])
def test_weights_must_fit_the_levels(weights: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="scale_weights"):
        scale_weights(tiny_weak(), WeakLossSettings(scale_weights=weights))


def test_answers_in_chunks_are_the_answers_at_once() -> None:
    method = WeakMethod(tiny_weak(pooling="attention"), WeakLossSettings())
    batch = batch_of([[1, 0, 0]] * 5, [[1, 1, 0]] * 5, [3] * 5)
    with torch.no_grad():
        at_once = method.answers(method.model.forward_scales(batch["image"]), batch)
        chunked = method.answers_of(list(batch["image"].split(2)), batch)
    for one, other in zip(at_once.logits[1:], chunked.logits[1:], strict=True):
        torch.testing.assert_close(one, other)
    assert chunked.logits[-1] is not None
    assert chunked.logits[-1].shape == (1, 3)
