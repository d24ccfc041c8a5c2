"""timm itself is not installed here: a stand-in with the parts of its interface that are used."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lamella.errors import CheckpointError, LamellaError, MissingExtraError
from lamella.models.encoders import random_twin
from lamella.models.named import load_named
from lamella.models.registry import entries

ENTRY = replace(
    entries()["virchow2"],
    patch_px=4,
    size_px=8,
    token_dim=6,
    dim=12,
    prefix_tokens=3,
    timm_kwargs={"num_classes": 0, "reg_tokens": 2, "mlp_layer": "SwiGLUPacked", "act_layer": "SiLU"},
)
IMAGES = torch.randint(0, 256, (2, 3, 8, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class Network(nn.Module):
    """Class token, registers and patch tokens, as timm's transformers return them."""

    def __init__(self, registers: int) -> None:
        super().__init__()
        self.cls_token, self.reg_token = nn.Parameter(torch.randn(1, 1, 6)), nn.Parameter(torch.randn(1, registers, 6))
        self.patch_embed = nn.Conv2d(3, 6, 4, stride=4)

    def forward_features(self, x: Tensor) -> Tensor:
        patches = self.patch_embed(x).flatten(2).transpose(1, 2)
        prefix = torch.cat([self.cls_token, self.reg_token], dim=1).expand(len(x), -1, -1)
        return torch.cat([prefix, patches], dim=1)


class Timm(ModuleType):
    __version__ = "0.stand-in"

    def __init__(self) -> None:
        super().__init__("timm")
        self.layers = ModuleType("timm.layers")
        self.layers.SwiGLUPacked = type("SwiGLUPacked", (), {})
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def create_model(self, name: str, *, pretrained: bool, **kwargs: Any) -> nn.Module:
        assert not pretrained
        if name != "vit_huge_patch14_224":
            raise RuntimeError(f"Unknown model ({name})")
        self.asked.append((name, kwargs))
        return Network(kwargs["reg_tokens"])


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> Timm:
    stand_in = Timm()
    monkeypatch.setitem(sys.modules, "timm", stand_in)
    monkeypatch.setitem(sys.modules, "timm.layers", stand_in.layers)
    return stand_in


@pytest.fixture
def network(tmp_path: Path) -> Network:
    made = Network(registers=2)
    save_file(made.state_dict(), tmp_path / "model.safetensors")
    return made


def test_without_timm_the_extra_is_named() -> None:
    assert importlib.util.find_spec("timm") is None, "these tests are for an environment without timm"
    with pytest.raises(MissingExtraError, match=r"pip install 'lamella\[timm\]'"):
        load_named(ENTRY)


def test_a_timm_that_cannot_be_imported_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module
    for fault in (ModuleNotFoundError("No module named 'torchvision'", name="torchvision"), RuntimeError("nms")):

        def broken(name: str, fault: Exception = fault) -> ModuleType:
            if name == "timm":
                raise fault
            return real(name)

        monkeypatch.setattr(importlib, "import_module", broken)
        with pytest.raises(LamellaError, match=r"timm: it is installed but cannot be imported .*torchvision"):
            load_named(ENTRY)


def test_tokens_and_features_are_the_networks(timm: Timm, network: Network, tmp_path: Path) -> None:
    encoder = load_named(ENTRY, tmp_path)
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (ENTRY.mean, ENTRY.std))
    with torch.no_grad():
        states = network.forward_features((IMAGES / 255 - mean) / std)
    assert torch.allclose(encoder.tokens(IMAGES), states[:, 3:], atol=1e-5)
    assert torch.allclose(encoder.pooled(IMAGES), torch.cat([states[:, 0], states[:, 3:].mean(1)], 1), atol=1e-5)
    assert load_named(ENTRY, tmp_path / "model.safetensors").fingerprint == encoder.fingerprint
    assert random_twin(encoder, 1).fingerprint not in (encoder.fingerprint, random_twin(encoder, 2).fingerprint)


def test_the_network_is_built_from_the_registry_alone(timm: Timm, network: Network, tmp_path: Path) -> None:
    config = {"architecture": "another", "model_args": {"reg_tokens": 7}, "num_features": 6, "pretrained_cfg": {}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    load_named(ENTRY, tmp_path)
    ((name, kwargs),) = timm.asked
    assert name == "vit_huge_patch14_224"
    assert kwargs == {
        "num_classes": 0, "reg_tokens": 2, "mlp_layer": timm.layers.SwiGLUPacked, "act_layer": nn.SiLU
    }  # fmt: skip


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"num_features": 8}, "num_features is 8, expected 6"),
        ({"pretrained_cfg": {"mean": [0.5, 0.5, 0.5]}}, r"mean is \(0\.5, 0\.5, 0\.5\), expected \(0\.485"),
        ([], "it cannot be read"),
    ],
)
@pytest.mark.usefixtures("network")
def test_a_configuration_that_says_otherwise_is_refused(
    timm: Timm, config: object, message: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        load_named(ENTRY, tmp_path)


@pytest.mark.usefixtures("network")
def test_other_weights_are_refused_by_name(timm: Timm, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    weights.update({"head.weight": torch.zeros(2), "reg_token": torch.zeros(1, 4, 6)})
    del weights["cls_token"]
    save_file(weights, path)
    with pytest.raises(CheckpointError) as caught:
        load_named(ENTRY, tmp_path)
    for problem in ("cls_token is missing", "head.weight is unknown", "reg_token is 1 x 4 x 6 instead of 1 x 2 x 6"):
        assert problem in str(caught.value)
    path.unlink()
    with pytest.raises(CheckpointError, match="it holds no weights"):
        load_named(ENTRY, tmp_path)


@pytest.mark.usefixtures("network")
def test_an_entry_that_says_otherwise_is_refused(timm: Timm, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="prefix tokens is 3, expected 5"):
        load_named(replace(ENTRY, prefix_tokens=5), tmp_path)
    with pytest.raises(LamellaError, match=r"0\.stand-in cannot build it .*Unknown model"):
        load_named(replace(ENTRY, architecture="vit_nowhere"), tmp_path)
