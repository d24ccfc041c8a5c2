"""MiT at strides 4, 8, 16 and 16: the same weights, a last stage that is not halved."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from lamella.models.pyramids.building import SegformerSettings, backbone_from, make_backbone
from lamella.models.pyramids.mix_transformer import MixTransformer, pretrained_mix_transformer

SIZES = ((8, 16, 40, 64), (1, 1, 1, 1))


def images() -> torch.Tensor:
    return torch.randint(0, 256, (1, 3, 64, 96), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def test_the_last_map_is_as_large_as_the_one_before() -> None:
    backbone = MixTransformer(*SIZES, last_stride=16)
    assert backbone.strides == (4, 8, 16, 16)
    assert [tuple(each.shape[-2:]) for each in backbone(images())] == [(16, 24), (8, 12), (4, 6), (4, 6)]


def test_the_weights_are_those_of_the_usual_network() -> None:
    usual, preset = MixTransformer(*SIZES).eval(), MixTransformer(*SIZES, last_stride=16).eval()
    preset.load_state_dict(usual.state_dict())
    for one, other in zip(usual(images())[:3], preset(images())[:3], strict=True):
        assert torch.equal(one, other)
    # Its patches are those of the usual network and the ones between: before attention mixes them, every second one.
    stage, other = usual.network.stages[3].patch_embeddings, preset.network.stages[3].patch_embeddings
    third = usual(images())[2]
    one, between = stage.proj(third), other.proj(third)
    assert torch.allclose(one, between[:, :, ::2, ::2], atol=1e-6)


def test_what_was_saved_before_there_was_a_choice_is_the_usual_network() -> None:
    assert "last_stride" not in MixTransformer(*SIZES).description()
    for stride in (32, 16):
        made = MixTransformer(*SIZES, last_stride=stride)  # type: ignore[arg-type]
        told = json.loads(json.dumps({"kind": made.kind, **made.description()}))
        assert backbone_from(told, "config.json").strides == made.strides


def test_a_checkpoint_and_a_fresh_network_are_made_with_it(tmp_path: Path) -> None:
    import transformers as hf

    network = hf.SegformerModel(hf.SegformerConfig(hidden_sizes=list(SIZES[0]), depths=list(SIZES[1])))
    network.save_pretrained(tmp_path)
    preset = pretrained_mix_transformer(str(tmp_path), 16)
    usual = pretrained_mix_transformer(str(tmp_path))
    assert [tuple(each.shape[-2:]) for each in preset(images())][-1] == (4, 6)
    for one, other in zip(preset.state_dict().values(), usual.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert make_backbone(SegformerSettings(last_stride=16), mpp=0.5).strides == (4, 8, 16, 16)
