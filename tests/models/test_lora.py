"""LoRA changes nothing at step 0, trains through `embed`, and merges to plain layers."""

from __future__ import annotations

import sys

import pytest
import torch
from tests.models.tiny_sam2 import SIDE_PX, tiny_sam1, tiny_sam2

from lamella.errors import LamellaError, MissingExtraError
from lamella.models.lora import add_lora, has_lora, lora_parameters, merged
from lamella.models.prompts import Prompts

BOX = Prompts(boxes_BM4=torch.tensor([[[3.0, 4, 30, 41]]]))
IMAGES = torch.randint(0, 256, (1, 3, 40, SIDE_PX), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


def _logits(model):
    return model.decode(model.embed(IMAGES), BOX).logits_BMKhw


@pytest.mark.parametrize("make", [tiny_sam2, tiny_sam1])
def test_step_0_is_the_same_and_only_the_additions_are_thawed(make):
    model, plain = make(), make()
    layers = add_lora(model, rank=2)
    assert layers == (10 if make is tiny_sam2 else 4)  # qkv and proj of each block
    with torch.no_grad():  # with gradients torch may take another kernel, which rounds otherwise
        assert torch.equal(_logits(model), _logits(plain))
    thawed = {name for name, parameter in model.network.named_parameters() if parameter.requires_grad}
    assert all("lora_" in name for name in thawed)
    assert len(thawed) == len(lora_parameters(model)) == 2 * layers
    assert has_lora(model)
    assert not has_lora(plain)


def test_what_was_thawed_stays_thawed():
    model = tiny_sam2()
    model.network.vision_encoder.neck.requires_grad_(True)
    model.network.mask_decoder.requires_grad_(True)
    before = {name for name, parameter in model.network.named_parameters() if parameter.requires_grad}
    add_lora(model, rank=2)
    after = {name for name, parameter in model.network.named_parameters() if parameter.requires_grad}
    assert before == {name for name in after if "lora_" not in name}


def test_it_trains_through_the_path_that_is_evaluated():
    """A mistake of the source: LoRA was trained through a path that was never evaluated."""
    model = tiny_sam2()
    add_lora(model, rank=2)
    start, encoder = _logits(model).detach(), model.encoder_fingerprint
    assert model.encoder_trained
    optimiser = torch.optim.SGD(lora_parameters(model), lr=0.5)
    for _ in range(2):
        optimiser.zero_grad()
        _logits(model).square().mean().backward()
        optimiser.step()
    assert all(parameter.grad is not None for parameter in lora_parameters(model))
    with torch.no_grad():
        assert (_logits(model) - start).abs().max() > 1e-4
        assert _logits(model).square().mean() < start.square().mean()
    assert model.encoder_fingerprint != encoder
    assert not torch.equal(model.pyramid(IMAGES)[-1], tiny_sam2().pyramid(IMAGES)[-1])


def test_merging_keeps_the_answers():
    model = tiny_sam2()
    add_lora(model, rank=3, alpha=6.0)
    for parameter in lora_parameters(model):
        torch.nn.init.normal_(parameter, std=0.3)
    whole = merged(model)
    assert not has_lora(whole)
    assert has_lora(model)
    assert whole.network.state_dict().keys() == tiny_sam2().network.state_dict().keys()
    torch.testing.assert_close(_logits(whole), _logits(model), rtol=1e-4, atol=1e-5)
    attention = whole.network.vision_encoder.backbone.blocks[0].attn.qkv
    layer = model.network.vision_encoder.backbone.blocks[0].attn.qkv
    product = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    torch.testing.assert_close(attention.weight, layer.base_layer.weight + 2.0 * product)  # alpha / rank
    plain = tiny_sam2()
    assert merged(plain) is plain


def test_seeds_and_layers():
    first, again, other = tiny_sam2(), tiny_sam2(), tiny_sam2()
    state = torch.random.get_rng_state()
    for model, seed in ((first, 1), (again, 1), (other, 2)):
        add_lora(model, rank=2, seed=seed)
    assert torch.equal(torch.random.get_rng_state(), state)
    weights = [[parameter.detach() for parameter in lora_parameters(model)] for model in (first, again, other)]
    assert all(torch.equal(one, two) for one, two in zip(weights[0], weights[1], strict=True))
    assert not all(torch.equal(one, two) for one, two in zip(weights[0], weights[2], strict=True))
    assert add_lora(tiny_sam2(), layers=r"backbone\.blocks\.4\.attn\.qkv") == 1


def test_what_cannot_be():
    with pytest.raises(LamellaError, match="no linear layer"):
        add_lora(tiny_sam2(), layers="nothing")
    model = tiny_sam2()
    add_lora(model)
    with pytest.raises(LamellaError, match="has LoRA layers already"):
        add_lora(model)


def test_without_peft(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)  # importing it raises as if it were not installed
    with pytest.raises(MissingExtraError, match=r"lamella\[lora\]"):
        add_lora(tiny_sam2())
