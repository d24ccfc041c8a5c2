"""Where tokens look: the middle of the pixels that move them, measured by gradients, is where the table says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.models.tiny_models import TINY, made
from tests.models.tiny_sam2 import tiny_network

from lamella.models.encoders import InputContract, ViTEncoder, fresh_vit
from lamella.models.hub import load_encoder
from lamella.models.pretrained import PretrainedEncoder
from lamella.models.pyramids.any_encoder import EncoderGrid
from lamella.models.pyramids.backbone import Backbone
from lamella.models.pyramids.efficientnet import fresh_efficientnet, pretrained_efficientnet
from lamella.models.pyramids.hiera import HieraPyramid
from lamella.models.pyramids.mix_transformer import MixTransformer
from lamella.models.pyramids.token_places import token_shifts_px
from lamella.models.registry import find_entry
from lamella.models.transformers_encoder import TransformersTrunk
from lamella.models.vit import ViTSettings


def middles_px(backbone: Backbone, level: int, images: torch.Tensor, mixtures: int = 4) -> np.ndarray:
    """(N, 2) right of and below its square's middle, of what a token near the middle of the images reads.

    The middle of the squared gradients of random mixtures of the level's features.
    """
    generator, found = torch.Generator().manual_seed(level), []
    for image in images:
        shown = image[None].clone().requires_grad_(True)
        values = backbone.levels(shown)[level] if hasattr(backbone, "levels") else _tokens(backbone, shown)
        side, stride = shown.shape[-1], shown.shape[-1] / values.shape[-1]
        for _ in range(mixtures):
            ends = values.shape[-1] * 3 // 8, values.shape[-1] * 5 // 8 + 1
            row, column = torch.randint(*ends, (2,), generator=generator).tolist()
            mixture = torch.randn(values.shape[1], generator=generator) @ values[0, :, row, column]
            (gradient,) = torch.autograd.grad(mixture, shown, retain_graph=True)
            energy = gradient.square().sum((0, 1)).double()
            at, total = torch.arange(side) + 0.5, energy.sum()
            x, y = (energy.sum(0) @ at.double()) / total, (energy.sum(1) @ at.double()) / total
            found.append((float(x) - (column + 0.5) * stride, float(y) - (row + 0.5) * stride))
    return np.array(found)


def _tokens(backbone: Backbone, shown: torch.Tensor) -> torch.Tensor:
    assert isinstance(backbone, EncoderGrid)
    trunk = backbone.encoder.trunk  # type: ignore[attr-defined]
    tokens_BND = trunk(shown).all_BSD[:, backbone.encoder.entry.prefix_tokens :]  # type: ignore[attr-defined]
    side = round(tokens_BND.shape[1] ** 0.5)
    return tokens_BND.transpose(1, 2).unflatten(2, (side, side))


def noise(side: int = 256, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("level", [0, 1, 2])
def test_random_efficientnets_look_right_of_and_below_their_squares(level: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = fresh_efficientnet().eval()
    expected = token_shifts_px(backbone, trained=False)[level]
    assert expected == (1.5, 3.5, 7.5)[level]
    assert middles_px(backbone, level, noise()).mean(0) == pytest.approx([expected] * 2, abs=0.13 * expected + 0.2)


def test_what_is_trained_leans_the_other_way() -> None:
    """On noise, at stride 4: nearer to none than to the 1.5 px of random weights; at stride 8 far from 3.5."""
    backbone = pretrained_efficientnet().eval()
    assert token_shifts_px(backbone, trained=True)[:2] == (0.9, 0.1)
    for level in (0, 1):
        found, said = middles_px(backbone, level, noise()).mean(), token_shifts_px(backbone, trained=True)[level]
        assert abs(found - said) < 0.7


def test_random_segformers_and_sam2_look_left_and_above() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        segformer = MixTransformer((8, 16, 32, 64), (1, 1, 1, 1)).eval()
    hiera = HieraPyramid(tiny_network().vision_encoder).eval()
    for backbone, level, images in ((segformer, 0, noise(128)), (segformer, 1, noise(128)), (hiera, 0, noise(64, 6))):
        expected = token_shifts_px(backbone, trained=False)[level]
        assert expected == (-1.5, -3.5)[level]
        assert middles_px(backbone, level, images).mean(0) == pytest.approx([expected] * 2, abs=1.2)


def test_random_resnets_look_left_and_above() -> None:
    tiny = TINY["resnet with a classifier"]
    trunk = TransformersTrunk(made(tiny).resnet, "ResNetModel").eval()
    entry = replace(tiny.entry, architecture="ResNetModel")
    backbone = EncoderGrid(PretrainedEncoder(entry, trunk), 0.5)
    assert token_shifts_px(backbone, trained=False) == (-15.5,)
    assert token_shifts_px(backbone, trained=True) == (0.0,)
    assert middles_px(backbone, 0, noise(256)).mean(0) == pytest.approx([-15.5] * 2, abs=5)


def test_patches_of_transformers_are_their_squares() -> None:
    vit = ViTSettings(patch_px=8, dim=16, depth=1, heads=2)
    contract = InputContract(0.5, 64, (0.5,) * 3, (0.25,) * 3, patch_px=8, dim=16)
    own = EncoderGrid(ViTEncoder(fresh_vit(vit, seed=0), contract, "own"), 0.5)
    assert token_shifts_px(own, trained=True) == token_shifts_px(own, trained=False) == (0.0,)


def test_the_registrys_efficientnet_is_the_last_level_of_the_pyramid() -> None:
    backbone = EncoderGrid(load_encoder("efficientnet-lite0"), 0.5)
    pyramid = pretrained_efficientnet()
    for trained in (True, False):
        assert token_shifts_px(backbone, trained=trained) == token_shifts_px(pyramid, trained=trained)[-1:]
    assert find_entry("efficientnet-lite0") is not None


@pytest.mark.parametrize("which", ["registers", "dinov2"])
def test_class_tokens_and_registers_are_no_places(which: str) -> None:
    """A change of one patch moves the token at its place most; tokens before the grid would move all by some places."""
    tiny = TINY[which]
    network = made(tiny)
    backbone = EncoderGrid(PretrainedEncoder(tiny.entry, TransformersTrunk(network, type(network).__name__)), 0.5)
    one = torch.full((1, 3, 32, 48), 128, dtype=torch.uint8)
    other = one.clone()
    other[..., 8:16, 24:32] = 255
    with torch.no_grad():
        moved_YX = (backbone(one)[0] - backbone(other)[0]).norm(dim=1)[0]
    assert moved_YX.shape == (4, 6)
    assert divmod(int(moved_YX.argmax()), 6) == (1, 3)
