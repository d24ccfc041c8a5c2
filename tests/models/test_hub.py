from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

import lamella
from lamella.errors import CheckpointError
from lamella.models.encoders import InputContract, ViTEncoder, fresh_vit
from lamella.models.hub import from_pretrained, load_encoder, model_card, model_facts, save_pretrained
from lamella.models.vit import ViTSettings

SETTINGS = ViTSettings(patch_px=4, dim=16, depth=2, heads=2)
CONTRACT = InputContract(mpp=0.5, size_px=16, mean=(0.7, 0.6, 0.7), std=(0.2, 0.2, 0.2), patch_px=4, dim=16)
PIXELS = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def encoder() -> ViTEncoder:
    return ViTEncoder(fresh_vit(SETTINGS, seed=1), CONTRACT, "tested")


@pytest.fixture
def folder(tmp_path: Path, encoder: ViTEncoder) -> Path:
    save_pretrained(encoder, tmp_path / "model", "# card\n")
    return tmp_path / "model"


def test_what_is_loaded_is_what_was_saved(folder: Path, encoder: ViTEncoder) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    for loaded in (from_pretrained(folder), lamella.from_pretrained(str(folder)), load_encoder(folder)):
        assert torch.equal(loaded.pooled(PIXELS), encoder.pooled(PIXELS))
        assert (loaded.contract, loaded.name) == (CONTRACT, "tested")
        assert loaded.fingerprint == encoder.fingerprint
    assert (folder / "README.md").read_text() == "# card\n"


def test_saving_again_replaces_the_model(folder: Path) -> None:
    other = ViTEncoder(fresh_vit(SETTINGS, seed=2), CONTRACT, "other")
    save_pretrained(other, folder, "# other\n")
    assert from_pretrained(folder).fingerprint == other.fingerprint


def test_importing_lamella_imports_no_torch() -> None:
    code = (
        "import sys, lamella; assert 'torch' not in sys.modules; lamella.from_pretrained; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'from_nowhere'"):
        lamella.from_nowhere  # noqa: B018


def test_truncated_weights_are_named(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: it is truncated or damaged"):
        from_pretrained(folder)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        from_pretrained(folder)
    path.unlink()
    with pytest.raises(CheckpointError, match="the weights are missing"):
        from_pretrained(folder)


def test_another_architecture_is_named_tensor_by_tensor(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    del weights["norm.bias"]
    weights["head.weight"] = torch.zeros(2)
    weights["embed.weight"] = torch.zeros(8, 48)
    save_file(weights, path)
    with pytest.raises(CheckpointError) as caught:
        from_pretrained(folder)
    assert "norm.bias is missing" in str(caught.value)
    assert "head.weight is unknown" in str(caught.value)
    assert "embed.weight is 8 x 48 instead of 16 x 48" in str(caught.value)


def test_other_weights_of_the_same_architecture_are_noticed(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "norm.bias": weights["norm.bias"] + 1}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="fingerprint"):
        from_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "has no config.json"),
        ("{", "cannot be read"),
        ("[]", "not a configuration of this version"),
        ({"format": "lamella-vit-99"}, "lamella-vit-99; expected lamella-vit-2"),
        ({"vit": {"dim": 15}}, "does not describe a network"),
        ({"contract": {"mpp": 1}}, "does not describe a network"),
    ],
)
def test_a_spoiled_configuration_is_named(folder: Path, change: object, message: str) -> None:
    path = folder / "config.json"
    if change is None:
        path.unlink()
    elif isinstance(change, dict):
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    else:
        path.write_text(str(change))
    with pytest.raises(CheckpointError, match=message):
        from_pretrained(folder)


def test_a_full_disk_leaves_no_half_model(folder: Path, encoder: ViTEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lamella.models.hub.save_file", full)
    with pytest.raises(lamella.errors.StorageError, match="disk is full"):
        save_pretrained(encoder, folder.parent / "new", "")
    assert list((folder.parent / "new").iterdir()) == []


@pytest.mark.parametrize("spec", ["./nowhere/model", "runs/first/model", "nowhere"])
def test_a_missing_folder_is_named(spec: str) -> None:
    with pytest.raises(CheckpointError, match="there is no such folder"):
        from_pretrained(spec)


def test_a_file_is_no_model_folder(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="a model is a folder, not a file"):
        from_pretrained(folder / "config.json")


def test_a_hub_id_is_downloaded(folder: Path, encoder: ViTEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def download(hub_id: str, **_: object) -> str:
        asked.append(hub_id)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert from_pretrained("lab/encoder").fingerprint == encoder.fingerprint
    assert asked == ["lab/encoder"]


def test_a_hub_that_does_not_answer_is_a_plain_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("Cannot find the requested files.\nMore lines.")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(
        CheckpointError, match=r"lab/encoder: .*hub did not give it \(Cannot find the requested files\)"
    ):
        from_pretrained("lab/encoder")


def test_a_card_states_what_its_reader_must_know() -> None:
    facts = {"name": "first", "licence": "cc-by-4.0", "data": "two slides", "limits": ["research only", "H&E only"]}
    card = model_card({**facts, "contract": CONTRACT, "method": "cross_jepa"})
    assert card.startswith("---\nlibrary_name: lamella\nlicense: cc-by-4.0\n")
    for line in ("| spacing | 0.5 micrometres per pixel |", "| method | cross_jepa |", "- H&E only", "Not measured."):
        assert line in card
    with pytest.raises(KeyError, match="contract"):
        model_card(facts)


def test_facts_are_kept_beside_the_model_and_do_not_change_it(tmp_path: Path, encoder: ViTEncoder) -> None:
    facts = {"intensity": {"name": "window", "window": "lung"}}
    save_pretrained(encoder, tmp_path / "model", "card", facts=facts, pretraining_slides=["b", "a"])
    assert model_facts(tmp_path / "model") == facts | {"pretraining_slides": ["a", "b"]}
    assert from_pretrained(tmp_path / "model").fingerprint == encoder.fingerprint
    assert model_facts("colour-stats") == {}
    with pytest.raises(CheckpointError, match="there is no such folder"):
        model_facts(tmp_path / "nowhere")
