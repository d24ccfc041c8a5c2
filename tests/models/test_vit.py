from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lamella.models.vit import INIT_STD, SIZES, Normalise, ViT, ViTSettings, Waves, patchify, token_centres_um

SMALL = ViTSettings(patch_px=4, dim=32, depth=3, heads=2)


@pytest.fixture(scope="module")
def vit() -> ViT:
    torch.manual_seed(0)
    return ViT(SMALL).eval().requires_grad_(False)


def patches(samples: int, tokens: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(samples, tokens, 48, generator=torch.Generator().manual_seed(seed))


def test_patchify_puts_row_major_patches_of_channel_row_column() -> None:
    images = torch.arange(2 * 3 * 4 * 6).reshape(2, 3, 4, 6)
    found = patchify(images, 2)
    assert found.shape == (2, 6, 12)
    assert found[1, 4].tolist() == images[1, :, 2:4, 2:4].flatten().tolist()  # row 1, column 1 of 3 columns


def test_patchify_refuses_a_broken_patch() -> None:
    with pytest.raises(ValueError, match="10 x 8 px are not whole patches of 4 px"):
        patchify(torch.zeros(1, 3, 10, 8), 4)


def test_normalise_makes_the_stated_mean_zero_and_deviation_one() -> None:
    normalise = Normalise((0.2, 0.4, 0.6), (0.1, 0.2, 0.3), patch_px=2)
    image = torch.tensor([51, 102, 153], dtype=torch.uint8).reshape(1, 3, 1, 1).expand(1, 3, 2, 2)
    assert normalise(patchify(image, 2)).abs().max() < 1e-5
    brighter = image + torch.tensor([51, 51, 51], dtype=torch.uint8).reshape(1, 3, 1, 1)
    assert torch.allclose(normalise(patchify(brighter, 2))[0, 0, ::4], torch.tensor([2.0, 1.0, 2 / 3]))


def test_token_centres_are_row_major_around_zero() -> None:
    assert token_centres_um(1, 3, 16.0).tolist() == [[-16, 0], [0, 0], [16, 0]]
    assert token_centres_um(2, 1, 8.0).tolist() == [[0, -4], [0, 4]]
    several = token_centres_um(2, 3, torch.tensor([8.0, 16.0]))
    assert torch.equal(several[1], token_centres_um(2, 3, 16.0))


def test_waves_are_sines_of_the_wavelengths_asked_for() -> None:
    found = Waves(8, coordinates=2, shortest=32.0, longest=2048.0)(torch.tensor([[10.0, -50.0]]))[0]
    expected = [
        wave(2 * math.pi * place / length)
        for place in (10.0, -50.0)
        for wave in (math.sin, math.cos)
        for length in (32.0, 2048.0)
    ]
    assert torch.allclose(found, torch.tensor(expected), atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_padding_changes_nothing(vit: ViT, lengths: list[int], seed: int) -> None:
    longest = max(lengths) + 2  # at least two padded keys in every row
    x, xy = patches(len(lengths), longest, seed), 100 * torch.randn(len(lengths), longest, 2)
    pad = torch.arange(longest) >= torch.tensor(lengths)[:, None]
    together = vit(x, xy, pad)
    for row, length in enumerate(lengths):
        alone = vit(x[row : row + 1, :length], xy[row : row + 1, :length])
        assert torch.allclose(together[row, :length], alone[0], atol=1e-5)


def test_what_padding_holds_reaches_no_value_and_no_gradient() -> None:
    torch.manual_seed(0)
    vit = ViT(SMALL)
    pad = torch.tensor([[False, False, True]])
    x = patches(1, 3).requires_grad_()
    vit(x, torch.zeros(1, 3, 2), pad)[~pad][:, 0].sum().backward()
    assert x.grad is not None
    assert x.grad[pad].abs().max() == 0
    assert x.grad[~pad].abs().min() > 0


def test_dropping_tokens_is_masking_them_and_gathering_the_rest(vit: ViT) -> None:
    x, xy = patches(2, 12), token_centres_um(3, 4, 16.0)[None]
    keep = torch.tensor([[0, 3, 4, 11], [1, 2, 7, 9]])
    rows = torch.arange(2)[:, None]
    masked = torch.ones(2, 12, dtype=torch.bool)
    masked[rows, keep] = False
    dropped = vit(x[rows, keep], xy.expand(2, -1, -1)[rows, keep])
    assert torch.allclose(dropped, vit(x, xy, masked)[rows, keep], atol=1e-5)


def test_position_is_micrometres_and_nothing_else(vit: ViT) -> None:
    x, coarse = patches(1, 9), token_centres_um(3, 3, 16.0)[None]
    # The same nine places, picked from a grid of twice the resolution.
    fine = token_centres_um(5, 5, 8.0).reshape(5, 5, 2)[::2, ::2].reshape(1, 9, 2)
    assert torch.equal(vit(x, coarse), vit(x, fine))
    order = torch.tensor([2, 0, 8, 1, 3, 7, 5, 4, 6])
    assert torch.allclose(vit(x, coarse)[:, order], vit(x[:, order], coarse[:, order]), atol=1e-5)
    assert not torch.allclose(vit(x, coarse), vit(x, 2 * coarse), atol=1e-2)


def test_residual_outputs_are_scaled_once_over_depth() -> None:
    torch.manual_seed(0)
    blocks = ViT(ViTSettings(patch_px=4, dim=128, depth=4, heads=2)).requires_grad_(False).blocks
    for number, block in enumerate(blocks, start=1):
        assert block.qkv.weight.std() == pytest.approx(INIT_STD, rel=0.03)
        for layer in (block.attention_out, block.mlp_out):
            assert layer.weight.std() == pytest.approx(INIT_STD / math.sqrt(2 * number), rel=0.05)


def test_shipped_sizes_have_the_known_number_of_weights() -> None:
    # DeiT's counts without class token, learned positions and head (Touvron et al. 2021: 5.7, 22, 86 million).
    for size, millions in {"tiny": 5.49, "small": 21.6, "base": 85.7}.items():
        with torch.device("meta"):
            count = sum(weight.numel() for weight in ViT(ViTSettings.sized(size)).parameters())
        assert count / 1e6 == pytest.approx(millions, rel=0.01)
    assert ViTSettings() == ViTSettings.sized("small")
    assert set(SIZES) == {"tiny", "small", "base"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dim": 100, "heads": 3}, "dim .100. must be a multiple of 4 and of the 3 heads"),
        ({"dim": 6, "heads": 1}, "multiple of 4"),
        ({"wave_min": 64.0, "wave_max": 32.0}, "wave_max .32. must exceed"),
    ],
)
def test_sizes_that_do_not_agree_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ViTSettings(**wrong)


@pytest.mark.parametrize("patch_px", [4, 8, 16])
def test_fresh_content_is_as_large_as_for_usual_patches(patch_px):
    """Else the tokens of small patches would be all position: 97 % of their variance, measured at 4 px."""
    torch.manual_seed(0)
    vit = ViT(ViTSettings(patch_px=patch_px, dim=192, depth=1, heads=3))
    content = vit.embed(torch.randn(200, 3 * patch_px**2))
    assert content.std().item() == pytest.approx(0.02 * 768**0.5, rel=0.1)
