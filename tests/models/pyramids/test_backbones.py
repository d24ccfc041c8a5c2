"""Every backbone: sizes, gradients, the same network again from its description."""

from __future__ import annotations

import json

import pytest
import torch
from tests.models.tiny_models import TINY
from tests.models.tiny_sam2 import tiny_sam1, tiny_sam2
from tests.models.tiny_segmenters import BACKBONES, tiny_backbone

from lamella.config import profile_path
from lamella.engine.layer_depth import block_of
from lamella.engine.stages import Stage, check_stages, rate_in, rows_naming
from lamella.errors import CheckpointError, LamellaError
from lamella.models.colour_statistics import ColourStatistics
from lamella.models.named import load_named
from lamella.models.promptable import save_promptable
from lamella.models.pyramids.any_encoder import EncoderGrid
from lamella.models.pyramids.building import Sam2Settings, SegformerSettings, backbone_from, make_backbone
from lamella.models.pyramids.hiera import HieraPyramid
from lamella.models.pyramids.low_rank import add_low_rank, merge_low_rank
from lamella.models.pyramids.mix_transformer import fresh_mix_transformer, pretrained_mix_transformer
from lamella.models.sam2 import config_of
from lamella.models.sam2_keys import SIZES


def images(height: int = 64, width: int = 96) -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, height, width), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@pytest.mark.parametrize("kind", BACKBONES)
def test_levels_have_the_sizes_that_are_stated_on_images_that_are_no_squares(kind: str) -> None:
    backbone = tiny_backbone(kind)
    levels = backbone(images())
    assert [level.shape[1] for level in levels] == list(backbone.widths)
    expected = [(2, int(64 / stride), int(96 / stride)) for stride in backbone.strides]
    assert [(len(level), *level.shape[-2:]) for level in levels] == expected


@pytest.mark.parametrize("kind", BACKBONES)
def test_the_description_builds_the_same_network(kind: str) -> None:
    backbone = tiny_backbone(kind)
    told = json.loads(json.dumps({"kind": backbone.kind, **backbone.description()}))
    again = backbone_from(told, "config.json")
    again.load_state_dict(backbone.state_dict())
    again.eval()
    for one, other in zip(backbone(images()), again(images()), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", BACKBONES)
def test_rows_and_columns_are_not_mixed_up(kind: str) -> None:
    """What is dark at the top left moves the features at the top left most."""
    plain = torch.full((1, 3, 64, 96), 200, dtype=torch.uint8)
    dark = plain.clone()
    dark[:, :, :32, :32] = 20
    backbone = tiny_backbone(kind)
    for before, after, stride in zip(backbone(plain), backbone(dark), backbone.strides, strict=True):
        moved = (after - before).square().sum(1)[0]
        inside = int(32 / stride)
        if inside >= 2:
            assert moved[:inside, :inside].mean() > 1.5 * moved[inside:, inside:].mean()


@pytest.mark.parametrize("kind", BACKBONES)
def test_what_cannot_be_encoded_is_refused(kind: str) -> None:
    backbone = tiny_backbone(kind)
    with pytest.raises(ValueError, match="uint8"):
        backbone(images().float())
    with pytest.raises(ValueError, match="multiples of"):
        backbone(images(64, 64 + backbone.multiple_px // 2))


@pytest.mark.parametrize("kind", BACKBONES)
def test_thawing_trains_all_that_has_a_part(kind: str) -> None:
    backbone = tiny_backbone(kind)
    backbone.thaw()
    sum(level.square().mean() for level in backbone(images())).backward()
    without = [name for name, each in backbone.named_parameters() if each.requires_grad and each.grad is None]
    # The encoder's own position buffer aside, every trained weight takes part.
    assert without == []


@pytest.mark.parametrize("kind", ["segformer", "sam2 stages", "encoder"])
def test_low_rank_updates_start_as_nothing_and_merge_into_the_same_answers(kind: str) -> None:
    backbone, before = tiny_backbone(kind), tiny_backbone(kind)(images())
    names = set(dict(backbone.named_parameters()))
    assert add_low_rank(backbone, rank=2) > 0
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(before, backbone(images()), strict=True))
    trained = [name for name, each in backbone.named_parameters() if each.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    with torch.no_grad():
        for name, each in backbone.named_parameters():
            if "lora_B" in name:
                each.normal_(std=0.1)
    changed, merged = backbone(images()), merge_low_rank(backbone)
    assert not torch.allclose(before[-1], changed[-1], atol=1e-3)
    assert set(dict(merged.named_parameters())) == names
    for one, other in zip(changed, merged(images()), strict=True):
        assert torch.allclose(one, other, atol=1e-3)


@pytest.mark.usefixtures("tiny_registry")
@pytest.mark.parametrize("kind", TINY)
def test_encoders_of_the_registry_are_backbones_and_come_back(kind: str, tmp_path) -> None:
    TINY[kind].make().save_pretrained(tmp_path)
    grid = EncoderGrid(load_named(TINY[kind].entry, tmp_path), mpp=0.5)
    side = 2 * grid.multiple_px
    told = json.loads(json.dumps({"kind": grid.kind, **grid.description()}))
    again = backbone_from(told, "config.json")
    again.load_state_dict(grid.state_dict())
    levels = grid(images(side, 2 * side))
    assert levels[0].shape == (2, grid.widths[0], 2, 4)
    assert torch.equal(levels[0], again(images(side, 2 * side))[0])


def test_a_segformer_checkpoint_gives_its_encoder(tmp_path) -> None:
    import transformers as hf

    config = hf.SegformerConfig(hidden_sizes=[8, 16, 40, 64], depths=[1, 1, 1, 1], decoder_hidden_size=16, num_labels=3)
    whole = hf.SegformerForSemanticSegmentation(config).eval()
    whole.save_pretrained(tmp_path)
    settings = SegformerSettings(weights=str(tmp_path), train="frozen")
    backbone = make_backbone(settings, mpp=1.0).eval()
    x = (images().float() - backbone.mean_C11) / backbone.std_C11
    expected = whole(pixel_values=x, output_hidden_states=True).hidden_states
    for one, other in zip(backbone(images()), expected, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    again = backbone_from({"kind": backbone.kind, **backbone.description()}, "config.json")
    again.load_state_dict(backbone.state_dict())


def test_weights_of_another_network_are_refused(tmp_path) -> None:
    import transformers as hf

    hf.ViTModel(hf.ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"no SegFormer \(model_type vit\)"):
        pretrained_mix_transformer(str(tmp_path))


def test_a_segformer_checkpoint_without_some_weights_is_refused(tmp_path) -> None:
    import transformers as hf
    from safetensors.torch import load_file, save_file

    config = hf.SegformerConfig(hidden_sizes=[8, 16, 40, 64], depths=[1, 1, 1, 1])
    hf.SegformerModel(config).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    dropped = sorted(weights)[0]
    del weights[dropped]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="is missing"):
        pretrained_mix_transformer(str(tmp_path))


def test_sam_2s_encoder_gives_what_its_own_decoder_reads(tmp_path) -> None:
    sam2 = tiny_sam2()
    save_promptable(sam2, tmp_path, "# card")
    square = images(64, 64)  # fills its canvas: no resizing
    own = sam2.pyramid(square)
    found = make_backbone(Sam2Settings(weights=str(tmp_path), maps="neck"), mpp=0.5)(square)
    assert all(torch.allclose(one, other, atol=1e-4) for one, other in zip(found, own[:3], strict=True))
    stages = make_backbone(Sam2Settings(weights=str(tmp_path)), mpp=0.5)
    network = sam2.network.vision_encoder.backbone(sam2.pixels(square)).intermediate_hidden_states
    for one, other in zip(stages(square), network, strict=True):
        assert torch.allclose(one, other.movedim(-1, 1), atol=1e-4)
    assert not any(each.requires_grad for each in stages.parameters())


def test_another_promptable_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from lamella.models import promptable

    monkeypatch.setattr(promptable, "load_promptable", lambda spec: tiny_sam1())
    with pytest.raises(CheckpointError, match="it is not SAM 2"):
        make_backbone(Sam2Settings(weights="sam1"), mpp=0.5)


@pytest.mark.parametrize("size", ["tiny", "large"])
@pytest.mark.parametrize("profile", ["segment_v3", "segment_sam2"])
def test_the_tables_of_the_shipped_profiles_name_weights_of_sam_2(profile: str, size: str) -> None:
    import transformers as hf
    import yaml

    blocks = next(each for each in SIZES if each.name == size)
    config = hf.Sam2VisionConfig(**config_of(blocks.architecture()).vision_config.to_dict())
    with torch.device("meta"):
        names = [f"backbone.{name}" for name, _ in HieraPyramid(hf.Sam2VisionModel(config)).named_parameters()]
    stages = [Stage(**row) for row in yaml.safe_load(profile_path(profile).read_text())["optim"]["stages"]]
    check_stages([*names, "head.classify.weight"], stages)
    if profile == "segment_v3" and size == "large":  # stages 3 and 4 are blocks 8 to 47
        late = {block_of(name)[0] for name in names if rate_in(12, rows_naming(name, stages), stages, 1.0) > 0}
        assert late == set(range(8, 48))
        assert all(rate_in(27, rows_naming(name, stages), stages, 1.0) == 6e-7 for name in names)


def test_sizes_are_those_of_the_paper() -> None:
    """Parameters of the encoders as the SegFormer paper states them (millions, table 1a)."""
    assert sum(each.numel() for each in fresh_mix_transformer("b0").parameters()) / 1e6 == pytest.approx(3.4, abs=0.1)
    assert sum(each.numel() for each in fresh_mix_transformer("b1").parameters()) / 1e6 == pytest.approx(13.1, abs=0.1)


def test_what_has_no_tokens_on_a_grid_and_what_is_unknown_is_refused() -> None:
    with pytest.raises(LamellaError, match="no patch tokens"):
        EncoderGrid(ColourStatistics(), 0.5)
    with pytest.raises(CheckpointError, match="'unet', which is unknown"):
        backbone_from({"kind": "unet"}, "config.json")
