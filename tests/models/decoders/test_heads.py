"""Heads on one level and on several."""

from __future__ import annotations

import pytest
import torch
from tests.models.tiny_segmenters import BACKBONES, HEADS, tiny_segmenter

from lamella.models.decoders.building import head_from, make_head
from lamella.models.decoders.linear import LinearSettings


def levels(batch: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(batch, width, 16 // 2**n, 24 // 2**n, generator=generator) for n, width in enumerate((8, 16, 24))
    ]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_any_head_on_any_backbone_labels_every_pixel(head: str, backbone: str) -> None:
    maps = tiny_segmenter(backbone, head).maps(torch.randint(0, 256, (2, 3, 32, 64), dtype=torch.uint8))
    assert (maps.shape, maps.dtype) == ((2, 3, 32, 64), torch.float32)
    assert torch.allclose(maps.sum(1), torch.ones(2, 32, 64), atol=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_one_tile_does_not_depend_on_the_others(head: str) -> None:
    """No statistics over the batch: a prediction would depend on what lies beside it."""
    network = make_head(HEADS[head], (8, 16, 24), 3).eval()
    both, alone = network(levels()), network([level[:1] for level in levels()])
    assert torch.allclose(both[:1], alone, atol=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_the_settings_build_the_same_head(head: str) -> None:
    network = make_head(HEADS[head], (8, 16, 24), 3).eval()
    again = head_from(network.settings.model_dump(mode="json"), (8, 16, 24), 3).eval()
    again.load_state_dict(network.state_dict())
    assert torch.equal(network(levels()), again(levels()))


def test_the_linear_head_is_linear_in_the_normalised_levels() -> None:
    network = make_head(LinearSettings(), (8, 16, 24), 3)
    bias = network([torch.zeros_like(level) for level in levels()])
    normalised = [torch.nn.functional.group_norm(level, 1) for level in levels()]
    network.norms = torch.nn.ModuleList(torch.nn.Identity() for _ in normalised)
    doubled = network([2 * level for level in normalised]) - bias
    assert torch.allclose(doubled, 2 * (network(normalised) - bias), atol=1e-4)


def test_class_tokens_are_masks_of_their_own() -> None:
    """Changing one class's token changes its own mask only, where the tokens do not look at each other."""
    network = make_head(HEADS["class_tokens"], (8, 16, 24), 3).eval()
    with torch.no_grad():
        for each in network.rounds:
            each.among.out_proj.weight.zero_()
            each.among.out_proj.bias.zero_()
        before = network(levels())
        network.tokens_CD[1] += torch.randn(16, generator=torch.Generator().manual_seed(3))
        moved = (network(levels()) - before).abs().amax((0, 2, 3))
    assert moved[1] > 1e-3
    assert moved[0] == moved[2] == 0
