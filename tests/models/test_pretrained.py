from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lamella.errors import CheckpointError
from lamella.models.pretrained import PretrainedEncoder, Tokens, Trunk, check_trunk, pool
from lamella.models.registry import EncoderEntry, entries

ENTRY = replace(entries()["virchow2"], patch_px=4, size_px=8, token_dim=6, dim=12, prefix_tokens=2)


class Linear(Trunk):
    """Two prefix tokens and one token a patch: a linear map of the patch's mean colour."""

    def __init__(self, prefix: int = 2) -> None:
        super().__init__()
        self.prefix, self.map = nn.Parameter(torch.randn(prefix, 6)), nn.Linear(3, 6)

    def forward(self, x_BCYX: Tensor) -> Tokens:
        patches = self.map(nn.functional.avg_pool2d(x_BCYX, 4).flatten(2).transpose(1, 2))
        return Tokens(torch.cat([self.prefix.expand(len(x_BCYX), -1, -1), patches], dim=1))

    def fresh(self) -> Linear:
        return Linear()

    def architecture(self) -> Mapping[str, Any]:
        return {"class": "Linear"}


@pytest.fixture
def encoder() -> PretrainedEncoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return PretrainedEncoder(ENTRY, Linear())


def images(height: int = 8, width: int = 12) -> Tensor:
    made = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 3, height, width), dtype=torch.uint8, generator=made)


def test_pixels_are_normalised_and_the_prefix_is_left_out(encoder: PretrainedEncoder) -> None:
    mean, std = torch.tensor(ENTRY.mean), torch.tensor(ENTRY.std)
    patch = images()[1, :, 4:8, 8:12]  # second row, third column of 2 x 3
    colour = (patch.float().mean((1, 2)) / 255 - mean) / std
    assert torch.allclose(encoder.tokens(images())[1, 5], encoder.trunk.map(colour), atol=1e-5)


@pytest.mark.parametrize("pooling", ["cls", "mean", "cls+mean", "projection"])
def test_each_pooling(encoder: PretrainedEncoder, pooling: str) -> None:
    tokens = Tokens(torch.arange(24.0).reshape(1, 4, 6), torch.tensor([[7.0]]))
    expected = {
        "cls": list(range(6)),
        "mean": [15.0 + value for value in range(6)],
        "cls+mean": [*range(6), *(15.0 + value for value in range(6))],
        "projection": [7.0],
    }
    assert pool(tokens, replace(ENTRY, pooling=pooling))[0].tolist() == expected[pooling]
    if pooling == "projection":
        with pytest.raises(ValueError, match="no projection"):
            pool(Tokens(tokens.all_BSD), replace(ENTRY, pooling=pooling))


def test_autocast_changes_little_and_keeps_32_bits(encoder: PretrainedEncoder) -> None:
    exact = encoder.pooled(images())
    with torch.autocast("cpu", torch.bfloat16):
        rounded, tokens = encoder.pooled(images()), encoder.tokens(images())
    assert rounded.dtype == tokens.dtype == torch.float32
    assert (rounded - exact).abs().max() < 0.02 * exact.abs().max()


def test_it_travels_to_a_worker(encoder: PretrainedEncoder) -> None:
    copied = pickle.loads(pickle.dumps(encoder))  # noqa: S301
    assert copied.fingerprint == encoder.fingerprint
    assert torch.equal(copied.pooled(images()), encoder.pooled(images()))


def test_images_in_a_batch_do_not_meet(encoder: PretrainedEncoder) -> None:
    assert torch.allclose(encoder.pooled(images())[2], encoder.pooled(images()[2:])[0], atol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "message"), [(images().float(), "must be uint8"), (images(8, 10), "8 x 10 px are not whole patches of 4")]
)
def test_other_images_are_refused(encoder: PretrainedEncoder, wrong: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encoder.pooled(wrong)


def test_the_fingerprint_follows_weights_contract_and_pooling(encoder: PretrainedEncoder) -> None:
    assert PretrainedEncoder(ENTRY, encoder.trunk, "another name").fingerprint == encoder.fingerprint
    others = [{"mpp": (1.0,)}, {"mean": (0.5, 0.5, 0.5)}, {"pooling": "cls", "dim": 6}]
    assert encoder.fingerprint not in {
        PretrainedEncoder(replace(ENTRY, **other), encoder.trunk).fingerprint for other in others
    }
    before = encoder.fingerprint
    with torch.no_grad():
        encoder.trunk.map.bias[0] += 1e-3
    assert encoder.fingerprint != before


@pytest.mark.parametrize(
    ("entry", "prefix", "message"),
    [
        (ENTRY, 3, "prefix tokens is 3, expected 2"),
        (replace(ENTRY, token_dim=8), 2, "token width is 6, expected 8"),
        (replace(ENTRY, dim=6), 2, "feature width is 12, expected 6"),
    ],
)
def test_a_trunk_is_tried_before_it_is_used(entry: EncoderEntry, prefix: int, message: str) -> None:
    check_trunk(Linear(), ENTRY, "here")
    with pytest.raises(CheckpointError, match=f"here: it is not virchow2: {message}"):
        check_trunk(Linear(prefix), entry, "here")


def test_a_trunk_that_makes_no_numbers_is_refused() -> None:
    trunk = Linear()
    with torch.no_grad():
        trunk.map.bias[0] = float("nan")
    with pytest.raises(CheckpointError, match="not numbers"):
        check_trunk(trunk, ENTRY, "here")
