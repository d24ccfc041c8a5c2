"""Tiny networks of the same classes, saved by transformers, against transformers' own forward passes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.models.tiny_models import TINY, Tiny, saved

from lamella.errors import CheckpointError
from lamella.models.encoders import Encoder, random_twin
from lamella.models.hub import load_encoder
from lamella.models.named import load_named

EVERY = pytest.mark.parametrize("tiny", TINY.values(), ids=TINY)
DINO = TINY["dinov2"]


def pixels(height: int, width: int, count: int = 2) -> torch.Tensor:
    made = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=made)


def normalised(images: torch.Tensor, tiny: Tiny) -> torch.Tensor:
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (tiny.entry.mean, tiny.entry.std))
    return (images / 255 - mean) / std


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def change_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@EVERY
@pytest.mark.parametrize("sides", [(1, 1), (2, 1), (2, 3)], ids=str)
@pytest.mark.usefixtures("tiny_registry")
def test_tokens_and_features_are_those_of_transformers(tiny: Tiny, sides: tuple[int, int], tmp_path: Path) -> None:
    network = saved(tiny, tmp_path)
    encoder = load_encoder(f"{tiny.entry.name}@{tmp_path}")
    images = pixels(32 * sides[0], 32 * sides[1])
    with torch.no_grad():
        tokens, feature = tiny.features(network, normalised(images, tiny))
    assert isinstance(encoder, Encoder)
    assert encoder.tokens(images).shape == (2, 32**2 * sides[0] * sides[1] // tiny.entry.patch_px**2, 32)
    assert torch.allclose(encoder.tokens(images), tokens, atol=1e-5)
    assert torch.allclose(encoder.pooled(images, mpp=0.25), feature, atol=1e-5)
    assert feature.shape == (2, encoder.contract.dim)


@EVERY
def test_a_twin_is_alike_but_for_its_weights(tiny: Tiny, tmp_path: Path) -> None:
    saved(tiny, tmp_path)
    encoder = load_named(tiny.entry, tmp_path)
    before = torch.random.get_rng_state()
    twin = random_twin(encoder, seed=4)
    assert torch.equal(before, torch.random.get_rng_state())
    assert twin.contract == encoder.contract
    assert twin.pooled(pixels(32, 32)).shape == encoder.pooled(pixels(32, 32)).shape
    assert twin.fingerprint == random_twin(encoder, seed=4).fingerprint
    assert len({twin.fingerprint, random_twin(encoder, seed=5).fingerprint, encoder.fingerprint}) == 3
    assert not any(parameter.requires_grad for parameter in twin.parameters())


@EVERY
def test_a_missing_weight_is_never_left_random(tiny: Tiny, tmp_path: Path) -> None:
    saved(tiny, tmp_path)
    removed = {
        "Dinov2Model": "layernorm.weight",
        "Dinov2WithRegistersModel": "embeddings.register_tokens",
        "ViTModel": "vit.embeddings.position_embeddings",
        "CLIPVisionModelWithProjection": "visual_projection.weight",
        "ResNetModel": "resnet.embedder.embedder.normalization.running_mean",
    }[tiny.entry.architecture]
    change_weights(tmp_path, lambda weights: weights.pop(removed))
    with pytest.raises(CheckpointError, match=rf"{removed.rpartition('.')[2]} is missing"):
        load_named(tiny.entry, tmp_path)


def test_more_and_other_weights_are_refused_by_name(tmp_path: Path) -> None:
    saved(DINO, tmp_path)
    change_weights(
        tmp_path, lambda weights: weights.update({"head.weight": torch.zeros(3), "layernorm.bias": torch.zeros(5)})
    )
    with pytest.raises(CheckpointError) as caught:
        load_named(DINO.entry, tmp_path)
    assert "head.weight is unknown" in str(caught.value)
    assert re.search(r"layernorm\.bias (is 5 instead of 32|has another size)", str(caught.value))


def test_a_mask_token_may_lack_because_nothing_is_masked(tmp_path: Path) -> None:
    saved(DINO, tmp_path)
    whole = load_named(DINO.entry, tmp_path).pooled(pixels(32, 32))
    change_weights(tmp_path, lambda weights: weights.pop("embeddings.mask_token"))
    without = [load_named(DINO.entry, tmp_path) for _ in range(2)]
    assert torch.equal(without[0].pooled(pixels(32, 32)), whole)
    assert without[0].fingerprint == without[1].fingerprint


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"token_dim": 48, "dim": 48}, "hidden_size is 32, expected 48"),
        ({"patch_px": 16}, "patch_size is 8, expected 16"),
        ({"prefix_tokens": 5}, "prefix tokens is 1, expected 5"),
        ({"dim": 64}, "feature width is 32, expected 64"),
        ({"architecture": "ViTModel"}, "model_type is dinov2, expected vit"),
    ],
)
def test_a_network_that_is_not_the_entrys_is_refused(facts: dict, message: str, tmp_path: Path) -> None:
    saved(DINO, tmp_path)
    with pytest.raises(CheckpointError, match=message):
        load_named(replace(DINO.entry, **facts), tmp_path)


def test_registers_and_projections_are_compared_before_weights_are_read(tmp_path: Path) -> None:
    registers, clip = TINY["registers"], TINY["clip with its text tower"]
    saved(registers, tmp_path / "registers")
    with pytest.raises(CheckpointError, match="num_register_tokens is 4, expected 0"):
        load_named(replace(registers.entry, prefix_tokens=1), tmp_path / "registers")
    saved(clip, tmp_path / "clip")
    with pytest.raises(CheckpointError, match="projection_dim is 16, expected 512"):
        load_named(replace(clip.entry, dim=512), tmp_path / "clip")


def test_a_normalisation_that_says_otherwise_is_refused(tmp_path: Path) -> None:
    saved(DINO, tmp_path)
    stated = tmp_path / "preprocessor_config.json"
    stated.write_text(json.dumps({"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}))
    load_named(DINO.entry, tmp_path)
    stated.write_text(json.dumps({"image_mean": [0.5, 0.5, 0.5]}))
    with pytest.raises(CheckpointError, match=r"image_mean is \(0\.5, 0\.5, 0\.5\), expected \(0\.485"):
        load_named(DINO.entry, tmp_path)
    load_named(replace(DINO.entry, card_wins=True), tmp_path)
    stated.write_text("{")
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json: it cannot be read"):
        load_named(DINO.entry, tmp_path)


def test_damaged_folders_are_named(tmp_path: Path) -> None:
    saved(DINO, tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])
    with pytest.raises(CheckpointError, match="its weights cannot be read"):
        load_named(DINO.entry, tmp_path)
    weights.unlink()
    with pytest.raises(CheckpointError, match="it holds no weights"):
        load_named(DINO.entry, tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json: it cannot be read"):
        load_named(DINO.entry, tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"it has no config\.json"):
        load_named(DINO.entry, tmp_path)


def test_code_in_a_folder_is_never_run(tmp_path: Path) -> None:
    saved(DINO, tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit('this code ran')\n")
    change_config(tmp_path, auto_map={"AutoConfig": "evil.Config", "AutoModel": "evil.Model"})
    assert load_named(DINO.entry, tmp_path).pooled(pixels(32, 32)).shape == (2, 32)


def test_the_old_format_is_read_if_it_holds_tensors_alone(tmp_path: Path) -> None:
    network = saved(DINO, tmp_path)
    expected = load_named(DINO.entry, tmp_path).fingerprint
    (tmp_path / "model.safetensors").unlink()
    torch.save(network.state_dict(), tmp_path / "pytorch_model.bin")
    assert load_named(DINO.entry, tmp_path).fingerprint == expected
    torch.save({**network.state_dict(), "layernorm.bias": Tiny}, tmp_path / "pytorch_model.bin")  # a class
    with pytest.raises(CheckpointError, match=r"which is never read|cannot be read"):
        load_named(DINO.entry, tmp_path)


def test_half_weights_become_32_bits(tmp_path: Path) -> None:
    network = saved(DINO, tmp_path)
    network.half().save_pretrained(tmp_path)
    encoder = load_named(DINO.entry, tmp_path)
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    assert encoder.pooled(pixels(32, 32)).isfinite().all()
