"""A weakly taught model: maps of every channel, logits of tiles and slides, and a background that is never dropped."""

from __future__ import annotations

import pytest
import torch
from tests.models.tiny_weak import CLASSES, prototypes, tiles, tiny_weak

from lamella.models.dense_contract import DenseModel
from lamella.models.weak_contract import WeakModel

RULES = ("prototypes", "power", "white")


@pytest.mark.parametrize("scores", ["prototypes", "linear"])
def test_it_is_a_dense_model_and_a_weak_one(scores: str) -> None:
    model = tiny_weak(scores=scores)
    assert isinstance(model, DenseModel)
    assert isinstance(model, WeakModel)
    images = tiles(2, 64, 96)
    maps = model.maps(images)
    assert maps.shape == (2, 3, 64, 96)
    assert maps.dtype == torch.float32
    assert not maps.requires_grad
    assert torch.allclose(maps.sum(1), torch.ones(2, 64, 96), atol=1e-5)
    assert model.tile_logits(images).shape == (2, 2)


@pytest.mark.parametrize("rule", RULES)
def test_the_background_is_the_last_channel_and_competes(rule: str) -> None:
    """Mistake of the source: the background's score was computed and dropped before the argmax."""
    model = tiny_weak(background_score=rule)
    assert model.contract.channels == (*CLASSES, "background")
    assert model.contract.background == "background"
    assert model.facts["background"] == rule
    with torch.no_grad():  # nothing is like any class, everything is like the background
        model.scores.factor_S.zero_()
        model.scores.offset_SM.copy_(torch.tensor([-9.0, -9.0, 9.0]).expand(4, 3))
    white = torch.full((1, 3, 64, 64), 255, dtype=torch.uint8)
    assert (model.maps(white).argmax(1) == 2).all()
    with torch.no_grad():
        model.scores.offset_SM.copy_(torch.tensor([-9.0, 9.0, -9.0]).expand(4, 3))
    assert (model.maps(torch.zeros_like(white)).argmax(1) == 1).all()


def test_what_makes_the_background_where_nothing_is_said() -> None:
    assert tiny_weak().background_rule == "power"
    assert tiny_weak(background_score="auto").background_rule == "prototypes"
    assert tiny_weak(prototypes(CLASSES, (2, 2)), background_score="auto").background_rule == "power"
    assert tiny_weak(scores="linear", background_score="auto").background_rule == "power"
    without = tiny_weak(prototypes(CLASSES, (1, 1)), background=None)
    assert without.background_rule == "none"
    assert without.maps(tiles()).shape[1] == 2


def test_the_maps_are_the_fused_evidence_by_hand() -> None:
    model, images = tiny_weak(prototypes(CLASSES, (2, 2)), alpha=2.0), tiles()
    maps = model.forward_scales(images).class_maps
    evidence = sum(
        weight * torch.nn.functional.interpolate(each.sigmoid(), (8, 8), mode="bilinear")
        for weight, each in zip((0.3, 0.3, 0.4), maps[1:], strict=True)
    )
    assert isinstance(evidence, torch.Tensor)
    whole = torch.cat([evidence, (1 - evidence.amax(1, keepdim=True)) ** 2], dim=1)
    shares = whole / whole.sum(1, keepdim=True)
    expected = torch.nn.functional.interpolate(shares, (64, 64), mode="bilinear")
    assert torch.allclose(model.maps(images), expected, atol=1e-4)


@pytest.mark.parametrize("merge", ["mean", "max", "softmax"])
def test_gradients_reach_every_weight_from_the_levels_logits(merge: str) -> None:
    model = tiny_weak(merge=merge).train()
    logits = model.scale_logits(model.forward_scales(tiles()))
    assert [each.shape for each in logits if each is not None] == [(2, 3)] * 4
    sum(each.square().sum() for each in logits if each is not None).backward()
    pooling = {name for name, _ in model.named_parameters() if name.startswith("pool.")}
    without = {name for name, each in model.named_parameters() if each.grad is None}
    assert without == pooling


def test_a_frozen_backbone_stays_as_it_is_while_the_head_learns() -> None:
    model = tiny_weak(backbone={"name": "segformer", "train": "frozen"}).train()
    assert model.training
    assert not any(module.training for module in model.backbone.modules())
    assert tiny_weak().train().backbone.training
    sum(each.mean() for each in model.forward_scales(tiles()).class_maps if each is not None).backward()
    assert all(each.grad is None for each in model.backbone.parameters())
    assert all(each.grad is not None for each in model.scores.parameters())


@pytest.mark.parametrize(("pooling", "expected"), [("mean", 0.5), ("max", 3.0), ("top", 2.5)])
def test_a_tiles_logit_from_those_of_its_places(pooling: str, expected: float) -> None:
    model = tiny_weak(tile_pooling=pooling, top_fraction=0.5)
    assert model.pooled_map(torch.tensor([[[[3.0, 2.0], [-3.0, 0.0]]]])).item() == expected


def test_tile_answers_are_the_logits_and_the_features_that_attention_reads() -> None:
    model, images = tiny_weak(pooling="attention"), tiles(5)
    logits, features = model.tile_answers(images)
    assert torch.allclose(logits, model.tile_logits(images), atol=1e-6)
    assert features.shape == (5, model.feature_dim)
    assert model.bag_logits(logits, features).shape == (2,)
    assert torch.allclose(tiny_weak(pooling="max").bag_logits(logits), logits.amax(0))


def test_logits_are_fused_as_maps_are() -> None:
    model, images = tiny_weak(fuse=(0, 0, 1, 3)), tiles()
    each = model.scale_logits(model.forward_scales(images))
    expected = 0.25 * each[2][:, :2] + 0.75 * each[3][:, :2]
    assert torch.allclose(model.tile_logits(images), expected, atol=1e-5)
    assert model.counted == {2, 3}


def test_a_backbone_of_one_level() -> None:
    from tests.models.tiny_segmenters import tiny_backbone

    from lamella.models.bag_pool import BagPool, BagPoolSettings
    from lamella.models.dense_contract import DenseContract
    from lamella.models.prototype_segmenter import PrototypeSegmenter
    from lamella.models.weak_building import prototype_scores
    from lamella.models.weak_settings import WeakModelSettings

    backbone, settings, told = tiny_backbone("encoder"), WeakModelSettings(), prototypes()
    scores = prototype_scores(settings, told.features_KD, told.k_list, backbone.widths)
    contract = DenseContract((*CLASSES, "background"), 0.5, 64, backbone.multiple_px)
    pool = BagPool(BagPoolSettings(), scores.widths[-1], 2)
    model = PrototypeSegmenter(backbone, scores, pool, contract, settings, scored=told.classes, name="one")
    assert model.fuse_weights == (0.4,)
    assert torch.allclose(model.maps(tiles()).sum(1), torch.ones(2, 64, 64), atol=1e-5)


def test_a_tile_is_labelled_alike_whatever_it_is_shown_with() -> None:
    model, images = tiny_weak().train(), tiles(3)
    model.eval()
    assert torch.allclose(model.maps(images)[1:2], model.maps(images[1:2]), atol=1e-5)


def test_a_gate_by_image_labels() -> None:
    model = tiny_weak()
    gated = model.gated(model.maps(tiles()), torch.tensor([[True, False], [False, False]]))
    assert not gated[0, 1].any()
    assert (gated[1].argmax(0) == 2).all()


def test_other_weights_or_another_background_have_another_fingerprint() -> None:
    model = tiny_weak()
    assert model.fingerprint == tiny_weak().fingerprint
    assert model.fingerprint != tiny_weak(background_score="prototypes").fingerprint
    with torch.no_grad():
        model.scores.prototypes_KD[0] += 0.1
    assert model.fingerprint != tiny_weak().fingerprint


@pytest.mark.parametrize(
    "settings", [{}, {"merge": "max", "project": 6, "unit_prototypes": False}, {"scores": "linear"}]
)
def test_half_precision_is_nearly_the_same_and_losses_see_32_bits(settings: dict[str, object]) -> None:
    model, images = tiny_weak(pooling="attention", **settings), tiles()
    expected = model.maps(images)
    with torch.autocast("cpu", torch.bfloat16):
        maps = model.forward_scales(images)
        found = model.maps(images)
        logits, features = model.tile_answers(images)
        assert model.bag_logits(logits, features).isfinite().all()
    assert all(each.dtype == torch.float32 for each in maps.class_maps if each is not None)
    assert (found.dtype, logits.dtype, features.dtype) == (torch.float32,) * 3
    assert (found - expected).abs().mean() < 0.02


def test_prototypes_can_be_merged_in_another_way_when_the_model_is_used() -> None:
    """As upstream does: the mean in training, the softmax in its maps."""
    model, images = tiny_weak(merge_used="softmax"), tiles()
    alike, mean = tiny_weak(merge="softmax"), tiny_weak()
    assert torch.equal(model.maps(images), alike.maps(images))
    assert torch.equal(model.tile_logits(images), alike.tile_logits(images))
    for one, other in zip(model.forward_scales(images).class_maps, mean.forward_scales(images).class_maps, strict=True):
        assert torch.equal(one, other)
    assert not torch.allclose(model.maps(images), mean.maps(images), atol=1e-4)
