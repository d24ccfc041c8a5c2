"""Promptable models by name, folder, file and hub id; nothing that is not what it should be is loaded."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.models.tiny_sam2 import (
    ARCHITECTURE,
    SIDE_PX,
    in_sam2_layout,
    tiny_network,
    tiny_sam1,
    tiny_sam1_network,
    tiny_sam2,
)

from lamella.errors import CheckpointError
from lamella.models import promptable
from lamella.models.lora import add_lora, has_lora
from lamella.models.pretraining_record import PretrainingRecord, pretraining_record
from lamella.models.promptable import KNOWN, is_promptable, load_promptable, save_promptable
from lamella.models.prompts import Prompts
from lamella.models.sam1 import Sam1
from lamella.models.sam2 import NO_OBJECT_SCORE, Sam2
from lamella.models.sam2_keys import SIZES, Hiera, size_of

BOX = Prompts(boxes_BM4=torch.tensor([[[3.0, 4, 30, 41]]]))
IMAGES = torch.randint(0, 256, (1, 3, 40, SIDE_PX), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


def _logits(model):
    return model.decode(model.embed(IMAGES), BOX).logits_BMKhw


@pytest.fixture
def tiny_size(monkeypatch):
    """The tiny network as if it were SAM 2's smallest size."""
    tiny = Hiera("tiny", 8, 1, (1, 1, 2, 1), (4, 4, 2, 2), (3,), 3)
    monkeypatch.setattr("lamella.models.sam2_keys.SIZES", (tiny,))
    monkeypatch.setattr(promptable, "SIZES", (tiny,))
    monkeypatch.setattr(Hiera, "architecture", lambda self: ARCHITECTURE)
    monkeypatch.setitem(KNOWN, "sam2-hiera-tiny", KNOWN["sam2-hiera-tiny"]._replace(width=8, blocks=(1, 1, 2, 1)))


@pytest.fixture
def released(tmp_path):
    """A folder as transformers saves it, with weights for films."""
    folder = tmp_path / "released"
    network = tiny_network()
    network.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors") | {"memory_attention.x": torch.zeros(2)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "sam2_video"}))
    return folder


def test_what_is_promptable(released, tmp_path):
    for spec in (
        "sam2-hiera-tiny",
        "facebook/sam2.1-hiera-large",
        "sam2-hiera-small@/x/y.pt",
        "sam-vit-base",
        released,
    ):
        assert is_promptable(spec)
    (tmp_path / "config.json").write_text('{"format": "lamella-vit-2"}')
    for spec in ("phikon-v2", "colour-stats", tmp_path, tmp_path / "absent", "someone/else"):
        assert not is_promptable(spec)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_checkpoint_of_the_sam2_package(tiny_size, tmp_path, suffix):
    weights = {name: tensor.half() for name, tensor in in_sam2_layout(tiny_network().state_dict()).items()}
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save({"model": weights}, path)  # as its authors publish it
    else:
        save_file(weights, path)
    model = load_promptable(f"sam2-hiera-tiny@{path}")
    assert isinstance(model, Sam2)
    assert (model.name, model.licence, model.absent) == ("sam2-hiera-tiny", "Apache-2.0", ())
    torch.testing.assert_close(_logits(model), _logits(tiny_sam2()), rtol=0, atol=0.02)


def test_absent_parts_are_stated(tiny_size, tmp_path):
    weights = in_sam2_layout(tiny_network().state_dict())
    save_file({k: v for k, v in weights.items() if "pred_obj_score" not in k}, tmp_path / "w.safetensors")
    assert load_promptable(f"sam2-hiera-tiny@{tmp_path / 'w.safetensors'}").absent == (NO_OBJECT_SCORE,)


def test_a_file_that_could_run_a_program_is_never_read(tiny_size, tmp_path):
    torch.save({"model": Path("x")}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="more than tensors"):
        load_promptable(f"sam2-hiera-tiny@{tmp_path / 'w.pt'}")


def test_another_size_is_refused_by_its_name(tiny_size, tmp_path):
    save_file(in_sam2_layout(tiny_network().state_dict()), tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="it holds sam2-hiera-tiny, not sam2-hiera-small"):
        load_promptable(f"sam2-hiera-small@{tmp_path / 'w.safetensors'}")


@pytest.mark.parametrize("size", SIZES, ids=[size.name for size in SIZES])
def test_sizes_are_told_by_shapes(size):
    blocks = [size.dim * 2**stage for stage, count in enumerate(size.blocks) for _ in range(count)]
    weights = {
        f"image_encoder.trunk.blocks.{number}.attn.proj.weight": torch.empty(width, width, device="meta")
        for number, width in enumerate(blocks)
    }
    assert size_of(weights, "file") == size
    weights.popitem()
    with pytest.raises(CheckpointError, match=f"width {size.dim} with .* none that SAM 2 has: tiny"):
        size_of(weights, "file")


def test_every_size_fits_transformers_network():
    """Names and shapes of the four architectures, without memory: the released sizes' own numbers."""
    import transformers

    from lamella.models.sam2 import config_of

    parameters = {"tiny": 38.9, "small": 46.0, "base-plus": 80.8, "large": 224.4}  # millions, of whole SAM 2 with films
    for size in SIZES:
        with torch.device("meta"):
            network = transformers.Sam2Model(config_of(size.architecture()))
        count = sum(parameter.numel() for parameter in network.parameters()) / 1e6
        assert 0.8 * parameters[size.name] < count < parameters[size.name]


def test_weights_of_something_else(tmp_path):
    save_file({"blocks.0.weight": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="not named as in the sam2 package"):
        load_promptable(f"sam2-hiera-tiny@{tmp_path / 'w.safetensors'}")


def test_a_folder_of_transformers(released):
    model = load_promptable(released)
    assert isinstance(model, Sam2)
    assert model.name == "released"
    torch.testing.assert_close(_logits(model), _logits(tiny_sam2()))
    assert model.fingerprint == tiny_sam2().fingerprint


def test_a_hub_id_is_downloaded(released, monkeypatch):
    asked = []
    monkeypatch.setattr(promptable, "download", lambda hub_id, files, remedy: asked.append(hub_id) or released)
    monkeypatch.setitem(KNOWN, "sam2.1-hiera-tiny", KNOWN["sam2.1-hiera-tiny"]._replace(width=8, blocks=(1, 1, 2, 1)))
    for spec in ("sam2.1-hiera-tiny", "facebook/sam2.1-hiera-tiny"):
        assert load_promptable(spec).name == "sam2.1-hiera-tiny"
    assert asked == ["facebook/sam2.1-hiera-tiny"] * 2
    with pytest.raises(CheckpointError, match="not sam2-hiera-large"):
        load_promptable("sam2-hiera-large")


@pytest.mark.parametrize("spec", ["sam3", "nobody/nothing", "sam2-hiera-tiny@/no/such/place"])
def test_no_such_model(spec):
    with pytest.raises(CheckpointError):
        load_promptable(spec)


def test_a_folder_of_transformers_with_a_missing_weight(released):
    weights = load_file(released / "model.safetensors")
    del weights["mask_decoder.iou_token.weight"]
    save_file(weights, released / "model.safetensors")
    with pytest.raises(CheckpointError, match=re.escape("mask_decoder.iou_token.weight is missing")):
        load_promptable(released)


def test_another_model_of_transformers(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "mobilesam"}')
    with pytest.raises(CheckpointError, match=r"no promptable model \(mobilesam"):
        load_promptable(tmp_path)


def test_own_folders_come_back_the_same(tmp_path):
    model = tiny_sam2(seed=5, squash=True)
    record = PretrainingRecord.of(["glas"], ["glas/1"], ["glas/a"], ["00"])
    save_promptable(model, tmp_path / "model", "# card", record, facts={"epochs": 3})
    assert is_promptable(tmp_path / "model")
    loaded = load_promptable(tmp_path / "model")
    assert loaded.fingerprint == model.fingerprint
    assert (loaded.name, loaded.licence, loaded.squash) == ("tiny", "none", True)
    assert torch.equal(_logits(loaded), _logits(model))
    assert pretraining_record(tmp_path / "model") == record
    assert (tmp_path / "model" / "README.md").read_text() == "# card"
    assert not load_promptable(tmp_path / "model", squash=False).squash
    save_promptable(model, tmp_path / "model", "# card")  # what it saw is no longer known
    assert pretraining_record(tmp_path / "model") is None


def test_own_folders_without_an_object_score_head(tmp_path):
    weights = {name: tensor for name, tensor in tiny_network().state_dict().items() if "pred_obj_score" not in name}
    from lamella.models.sam2 import build_sam2

    save_promptable(build_sam2(tiny_network().config, weights, "here", name="tiny"), tmp_path, "card")
    assert load_promptable(tmp_path).absent == (NO_OBJECT_SCORE,)


def test_lora_is_merged_on_saving(tmp_path):
    model = tiny_sam2()
    add_lora(model, rank=2)
    for name, parameter in model.network.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    save_promptable(model, tmp_path, "card")
    assert has_lora(model)  # training can go on
    loaded = load_promptable(tmp_path)
    assert not has_lora(loaded)
    torch.testing.assert_close(_logits(loaded), _logits(model), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(_logits(loaded), _logits(tiny_sam2()), atol=1e-3)


def test_changed_folders_are_refused(tmp_path):
    save_promptable(tiny_sam2(), tmp_path, "card")
    weights = load_file(tmp_path / "model.safetensors")
    weights["mask_decoder.iou_token.weight"] += 1
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="fingerprint"):
        load_promptable(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["architecture"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="lacks keys of this version"):
        load_promptable(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_promptable(tmp_path)


def test_sam1_from_transformers_and_from_own_folders(tmp_path):
    tiny_sam1_network().save_pretrained(tmp_path / "sam1")
    model = load_promptable(tmp_path / "sam1")
    assert isinstance(model, Sam1)
    torch.testing.assert_close(_logits(model), _logits(tiny_sam1()))
    save_promptable(model, tmp_path / "own", "card")
    loaded = load_promptable(tmp_path / "own")
    assert isinstance(loaded, Sam1)
    assert torch.equal(_logits(loaded), _logits(model))
