"""EfficientNet-Lite0 as a pyramid: ImageNet's weights, gradients, and batch norms that stay as they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from lamella.errors import CheckpointError, LamellaError
from lamella.models.hub import load_encoder
from lamella.models.pyramids.building import EfficientNetSettings, backbone_from, make_backbone
from lamella.models.pyramids.efficientnet import fresh_efficientnet, pretrained_efficientnet


def images(height: int = 64, width: int = 96) -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, height, width), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@pytest.mark.parametrize("last", ["stage", "head"])
def test_levels_have_the_sizes_that_are_stated(last: str) -> None:
    backbone = make_backbone(EfficientNetSettings(last=last), mpp=0.5)  # type: ignore[arg-type]
    levels = backbone(images())
    assert [each.shape[1] for each in levels] == list(backbone.widths)
    expected = [(64 // stride, 96 // stride) for stride in (4, 8, 16, 32)]
    assert [tuple(each.shape[-2:]) for each in levels] == expected


def test_the_last_level_is_what_the_encoder_of_the_registry_gives() -> None:
    """So its weights are the real ones, and its normalisation is the registry's."""
    backbone, encoder = pretrained_efficientnet(last="head").eval(), load_encoder("efficientnet-lite0")
    with torch.no_grad():
        tokens = backbone(images())[-1].flatten(2).transpose(1, 2)
        assert torch.allclose(tokens, encoder.tokens(images()), atol=1e-5)


@pytest.mark.parametrize("last", ["stage", "head"])
def test_thawing_trains_all_that_has_a_part_but_batch_norms(last: str) -> None:
    backbone = make_backbone(EfficientNetSettings(train="whole", last=last), mpp=0.5)  # type: ignore[arg-type]
    backbone.train()
    before = {name: each.clone() for name, each in backbone.named_buffers()}
    sum(each.square().mean() for each in backbone(images())).backward()
    assert all(torch.equal(before[name], each) for name, each in backbone.named_buffers())
    for name, module in backbone.named_modules():
        trained = [each.requires_grad for each in module.parameters(recurse=False)]
        if isinstance(module, nn.BatchNorm2d):
            assert not module.training
            assert not any(trained)
        elif isinstance(module, nn.Conv2d) and (last == "head" or "_conv_head" not in name):
            assert all(each.grad is not None for each in module.parameters())
            assert trained == [True]


def test_in_training_a_tile_is_seen_as_if_it_were_alone() -> None:
    backbone = fresh_efficientnet().train()
    together, alone = backbone(images()), backbone(images()[:1])
    assert all(torch.allclose(one[:1], other, atol=1e-4) for one, other in zip(together, alone, strict=True))


@pytest.mark.parametrize("last", ["stage", "head"])
def test_the_description_builds_the_same_network(last: str) -> None:
    backbone = pretrained_efficientnet(last=last).eval()  # type: ignore[arg-type]
    told = json.loads(json.dumps({"kind": backbone.kind, **backbone.description()}))
    again = backbone_from(told, "config.json").eval()
    again.load_state_dict(backbone.state_dict())
    for one, other in zip(backbone(images()), again(images()), strict=True):
        assert torch.equal(one, other)


def test_weights_that_are_not_there_and_low_rank_updates_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="missing"):
        pretrained_efficientnet(str(tmp_path / "none.safetensors"))
    with pytest.raises(LamellaError, match="no layer of attention"):
        make_backbone(EfficientNetSettings(train="lora"), mpp=0.5)


def test_a_convolution_with_its_norm_is_both_one_after_the_other() -> None:
    """In eval mode they are computed as one convolution; gradients reach what they are made of."""
    from lamella.models.efficientnet_lite import _Conv, _normed

    generator = torch.Generator().manual_seed(0)
    conv, norm = _Conv(4, 6, 5, stride=2, groups=2), nn.BatchNorm2d(6).eval()
    with torch.no_grad():
        for each in (norm.weight, norm.bias, norm.running_mean):
            each.copy_(torch.randn(6, generator=generator))
        norm.running_var.copy_(torch.rand(6, generator=generator) + 0.5)
    x = torch.randn(2, 4, 9, 12, generator=generator)
    assert torch.allclose(_normed(conv, norm, x), norm(conv(x)), atol=1e-5)
    weights = [conv.weight, norm.weight, norm.bias]
    own = torch.autograd.grad(_normed(conv, norm, x).square().sum(), weights)
    its = torch.autograd.grad(norm(conv(x)).square().sum(), weights)
    assert all(torch.allclose(one, other, rtol=1e-3, atol=1e-3) for one, other in zip(own, its, strict=True))
