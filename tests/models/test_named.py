from __future__ import annotations

import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError
from tests.models.tiny_models import TINY, saved

from lamella.errors import CheckpointError, LamellaError, MissingExtraError
from lamella.models.encoders import ColourStatistics, InputContract, ViTEncoder, fresh_vit
from lamella.models.hub import load_encoder, portable_spec, save_pretrained
from lamella.models.vit import ViTSettings

DINO = TINY["dinov2"].entry.name


def own_model(folder: Path) -> ViTEncoder:
    settings = ViTSettings(patch_px=4, dim=16, depth=1, heads=2)
    contract = InputContract(mpp=0.5, size_px=16, mean=(0.7,) * 3, std=(0.2,) * 3, patch_px=4, dim=16)
    encoder = ViTEncoder(fresh_vit(settings, seed=1), contract, "own")
    save_pretrained(encoder, folder, "# card\n")
    return encoder


def offline(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def unreachable(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)


@pytest.mark.usefixtures("tiny_registry")
def test_a_folder_a_file_in_it_and_a_home_are_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(TINY["dinov2"], tmp_path / "odd@name")
    monkeypatch.setenv("HOME", str(tmp_path))
    places = [str(tmp_path / "odd@name"), str(tmp_path / "odd@name" / "model.safetensors"), "~/odd@name"]
    for place in places:
        encoder = load_encoder(f"{DINO}@{place}")
        assert encoder.name == DINO
        assert encoder.contract.size_px == 32
        assert load_encoder(Path(f"{DINO}@{place}")).fingerprint == encoder.fingerprint  # as the command line gives it


@pytest.mark.usefixtures("tiny_registry")
def test_the_hubs_cache_is_used_with_safetensors_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = saved(TINY["dinov2"], tmp_path / "hub")
    torch.save(network.state_dict(), tmp_path / "hub" / "pytorch_model.bin")
    asked: list[list[str]] = []

    def download(hub_id: str, allow_patterns: list[str]) -> str:
        assert hub_id == "test/tiny-phikon-v2"
        asked.append(allow_patterns)
        for path in (tmp_path / "hub").iterdir():
            if path.name in allow_patterns:
                shutil.copy(path, tmp_path / "cache")
        return str(tmp_path / "cache")

    (tmp_path / "cache").mkdir()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    by_name = load_encoder(DINO).fingerprint
    assert len(asked) == 1
    assert "pytorch_model.bin" not in asked[0]
    assert load_encoder("Test/Tiny-Phikon-v2").fingerprint == by_name
    for folder in ("hub", "cache"):
        (tmp_path / folder / "model.safetensors").unlink()
    assert load_encoder(DINO).fingerprint == by_name
    assert asked[-1] == ["config.json", "pytorch_model.bin"]
    for folder in ("hub", "cache"):
        (tmp_path / folder / "pytorch_model.bin").unlink()
    with pytest.raises(CheckpointError, match="hold no weights, and the hub gave none"):
        load_encoder(DINO)


def test_an_own_folder_wins_over_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    encoder = own_model(tmp_path / "phikon-v2")
    assert load_encoder("phikon-v2").fingerprint == encoder.fingerprint
    (tmp_path / "uni").mkdir()  # a folder of something else does not hide the encoder
    with pytest.raises(MissingExtraError, match=r"timm: .*pip install 'lamella\[timm\]'"):
        load_encoder("uni")
    assert isinstance(load_encoder("colour-stats"), ColourStatistics)


def test_a_spec_travels_to_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own_model(tmp_path / "own")
    (tmp_path / "phikon-v2").mkdir()  # not a model: the name stays a name
    assert portable_spec("own") == str(tmp_path / "own")
    assert portable_spec("phikon-v2@weights") == f"phikon-v2@{tmp_path / 'weights'}"
    assert [portable_spec(spec) for spec in ("phikon-v2", "lab/encoder")] == ["phikon-v2", "lab/encoder"]


def test_no_network_says_how_to_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch, LocalEntryNotFoundError("Cannot find the requested files."))
    with pytest.raises(CheckpointError, match=r"owkin/phikon-v2: .*hub did not give it.*give phikon-v2@/path"):
        load_encoder("phikon-v2")


def test_a_gated_encoder_says_how_to_get_access(monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch, GatedRepoError.__new__(GatedRepoError))
    monkeypatch.setattr("lamella.models.named.require_timm", lambda: None)  # as if it were installed
    with pytest.raises(CheckpointError) as caught:
        load_encoder("virchow2")
    for part in (
        "accept the conditions at https://huggingface.co/paige-ai/Virchow2",
        "hf auth login",
        "virchow2@/path",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(("name", "near"), [("phikonv2", "Did you mean phikon-v2 or phikon?"), ("xyz", "lists them")])
def test_an_unknown_name_gets_the_nearest(name: str, near: str) -> None:
    with pytest.raises(CheckpointError, match="neither a model folder nor the name of an encoder") as caught:
        load_encoder(name)
    assert near in str(caught.value)


def test_an_unknown_name_with_a_place_gets_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="Did you mean phikon-v2"):
        load_encoder(f"phikonv2@{tmp_path}")
    with pytest.raises(CheckpointError, match="there is no such folder or file"):
        load_encoder(f"phikon-v2@{tmp_path}/nowhere")


@pytest.mark.parametrize("name", ["conch", "conch-v1.5"])
def test_what_needs_its_authors_code_says_so(name: str, tmp_path: Path) -> None:
    for spec in (name, f"{name}@{tmp_path}"):
        with pytest.raises(LamellaError, match=f"{name}: Lamella cannot build it: it needs .*code is only there"):
            load_encoder(spec)
