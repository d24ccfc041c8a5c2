"""A weakly taught model's folder: whole, checked, and the same answers after a round trip."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.models.tiny_weak import tiles, tiny_weak

from lamella.errors import CheckpointError
from lamella.models.pretraining_record import PretrainingRecord, pretraining_record
from lamella.models.segmenter_hub import is_segmenter
from lamella.models.weak_building import make_trainable
from lamella.models.weak_hub import is_weak, load_weak, save_weak, weak_facts
from lamella.models.weak_settings import WeakModelSettings

RECORD = PretrainingRecord.of({"d"}, {"d/p1"}, {"d/i1"}, {"0123456789abcdef"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = tiny_weak(facts={"labels": "slide"})
    save_weak(model, tmp_path / "model", "# card", record=RECORD, facts={"fold": 1})
    return tmp_path / "model"


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"merge": "max", "project": 6, "bias": False, "norm": False, "unit_prototypes": False},
        {"merge": "softmax", "background_score": "white", "fuse": (0, 0, 1, 1), "tile_pooling": "top"},
        {"scores": "linear", "alpha": 10.0},
        {"backbone": {"name": "segformer", "last_stride": 16}},
        {"backbone": {"name": "efficientnet", "last": "head"}},
        {"backbone": {"name": "encoder", "weights": "efficientnet-lite0"}, "merge_used": "max"},
    ],
)
@pytest.mark.parametrize("pooling", ["topk", "attention"])
def test_what_was_saved_is_what_is_loaded(settings: dict[str, object], pooling: str, tmp_path: Path) -> None:
    model = tiny_weak(pooling=pooling, **settings)
    save_weak(model, tmp_path, "# card", record=None)
    again = load_weak(tmp_path)
    assert torch.allclose(again.maps(tiles()), model.maps(tiles()), atol=1e-6)
    one, other = model.tile_answers(tiles()), again.tile_answers(tiles())
    assert torch.allclose(model.bag_logits(*one), again.bag_logits(*other), atol=1e-5)
    assert (again.name, again.contract, again.fingerprint) == (model.name, model.contract, model.fingerprint)
    assert (again.scored, again.facts) == (model.scored, model.facts)
    assert not any(each.requires_grad for each in again.parameters())
    assert pretraining_record(tmp_path) is None


def test_the_folder_says_what_it_is_and_what_it_saw(folder: Path) -> None:
    assert is_weak(folder)
    assert not is_segmenter(folder)
    assert pretraining_record(folder) == RECORD
    assert weak_facts(folder) == {"labels": "slide", "fold": 1, "background": "power", "pooling": "topk"}
    assert load_weak(folder).facts["fold"] == 1
    assert (folder / "README.md").read_text() == "# card"


def test_low_rank_updates_are_merged_into_what_is_saved(tmp_path: Path) -> None:
    told = {"backbone": {"name": "segformer", "train": "lora", "rank": 2}, "from_scratch": True}
    model = make_trainable(tiny_weak(), WeakModelSettings.model_validate(told))
    with torch.no_grad():
        for name, each in model.backbone.named_parameters():
            if "lora_B" in name:
                each.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    save_weak(model, tmp_path, "# card", record=None)
    assert not any("lora" in name for name in load_file(tmp_path / "model.safetensors"))
    assert torch.allclose(load_weak(tmp_path).maps(tiles()), model.maps(tiles()), atol=1e-4)


def test_a_weight_that_is_missing_is_never_left_random(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["scores.adapters.0.out.weight"]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"scores.adapters.0.out.weight is missing"):
        load_weak(folder)


def test_changed_weights_are_found(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["scores.prototypes_KD"] += 0.01
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="fingerprint"):
        load_weak(folder)


def test_changed_settings_are_found(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["settings"]["merge"] = "max"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="fingerprint"):
        load_weak(folder)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"format": "lamella-weak-9"}, "no weak model of this version"),
        ({"settings": {"merge": "median"}}, "does not describe a weak model"),
        ({"backbone": {"kind": "unet"}}, "unknown here"),
        ({"prototypes": {"k_list": [2, 1, 3]}}, "does not describe a weak model"),
    ],
)
def test_a_configuration_that_tells_of_something_else(folder: Path, change: dict[str, object], match: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(CheckpointError, match=match):
        load_weak(folder)


def test_truncated_and_absent_files_are_told(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        load_weak(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="weights are missing"):
        load_weak(folder)
    (folder / "config.json").write_text("{")
    assert not is_weak(folder)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_weak(folder)
    with pytest.raises(CheckpointError, match=r"no config.json"):
        load_weak(tmp_path)
    with pytest.raises(CheckpointError, match="no such model folder"):
        load_weak(tmp_path / "nowhere")
