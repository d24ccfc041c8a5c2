from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lamella.models.expression.contract import ViewShape
from lamella.models.expression.cross_scale import CrossScaleAttention
from lamella.models.expression.places import places_um
from lamella.models.expression.rotary import turned, waves
from lamella.models.expression.settings import CrossScaleSettings

WIDTH, HEADS = 16, 2


def attention(view: ViewShape, window: str = "local", reach: int = 1, bin_um: float = 2.0) -> CrossScaleAttention:
    torch.manual_seed(3)
    settings_ = CrossScaleSettings(window=window, reach=reach, heads=HEADS)
    found = CrossScaleAttention(settings_, WIDTH, view, bin_um).eval()
    torch.nn.init.normal_(found.queries.weight, std=0.5)
    return found


def inputs(view: ViewShape, bins: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(2, WIDTH, bins, bins, generator=draw)
    coarse = torch.randn(2, WIDTH, view.tokens, view.tokens, generator=draw)
    return x, coarse, torch.rand(2, view.tokens, view.tokens, generator=draw) > 0.2


def plainly(layer: CrossScaleAttention, x: Tensor, coarse: Tensor, seen: Tensor) -> Tensor:
    """Every bin by itself, as the formula is written."""
    view, n, t = layer.view, x.shape[-1], coarse.shape[-1]
    bins, tokens = places_um(n, layer.bin_um), places_um(t, view.token_um)
    speeds = waves(WIDTH // HEADS, 2 * view.token_um, 4 * view.fov_um)
    q = turned(layer.queries(x.permute(0, 2, 3, 1)).unflatten(-1, (HEADS, -1)), bins, bins, speeds)
    k, v = layer.keys_values(coarse.permute(0, 2, 3, 1)).unflatten(-1, (2, HEADS, -1)).unbind(3)
    k = turned(k, tokens, tokens, speeds)
    out = torch.zeros(len(x), n, n, WIDTH)
    for sample in range(len(x)):
        for row in range(n):
            for col in range(n):
                apart = [(bins[each][..., None] - tokens) / view.token_um for each in (row, col)]
                squared = apart[0][:, None] ** 2 + apart[1][None, :] ** 2
                heard_by = seen[sample].clone()
                if layer.settings.window == "local":
                    near = [
                        (torch.arange(t) - torch.ceil(bins[each] / view.token_um + (t - 1) / 2 - 0.5 - 1e-4)).abs()
                        <= layer.settings.reach
                        for each in (row, col)
                    ]
                    heard_by &= near[0][:, None] & near[1][None, :]
                if not heard_by.any():
                    continue
                heads = []
                for head in range(HEADS):
                    score = (k[sample, :, :, head] @ q[sample, row, col, head]) / math.sqrt(WIDTH // HEADS)
                    score = score - squared / (2 * layer.log_sigma[head].exp() ** 2)
                    share = score.masked_fill(~heard_by, -math.inf).flatten().softmax(0)
                    heads.append(share @ v[sample, :, :, head].flatten(0, 1))
                out[sample, row, col] = layer.out(torch.cat(heads))
    return out.permute(0, 3, 1, 2)


@pytest.mark.parametrize("window", ["local", "full"])
@pytest.mark.parametrize(
    ("view", "bins"),
    [
        (ViewShape(4, 8.0, 6), 8),  # four bins a token, edges in line
        (ViewShape(4, 8.0, 5), 8),  # bins across the edges of tokens
        (ViewShape(4, 5.0, 7), 6),  # no whole number of bins a token
        (ViewShape(4, 32.0, 3), 5),  # one token for all
        (ViewShape(4, 2.0, 4), 6),  # bins beyond the view
    ],
)
@torch.no_grad()
def test_it_is_the_formula(window: str, view: ViewShape, bins: int) -> None:
    layer, (x, coarse, seen) = attention(view, window), inputs(view, bins)
    torch.testing.assert_close(layer(x, coarse, seen), plainly(layer, x, coarse, seen), atol=2e-5, rtol=2e-4)


@settings(deadline=None, max_examples=25)
@given(tokens=st.integers(1, 7), bins=st.integers(1, 9), token_um=st.sampled_from([2.0, 3.0, 8.0, 20.0]))
@torch.no_grad()
def test_a_window_over_everything_is_full_attention(tokens: int, bins: int, token_um: float) -> None:
    view = ViewShape(4, token_um, tokens)
    x, coarse, seen = inputs(view, bins, tokens + bins)
    wide, full = attention(view, "local", reach=40), attention(view, "full")
    torch.testing.assert_close(wide(x, coarse, seen), full(x, coarse, seen), atol=2e-5, rtol=2e-4)


@pytest.mark.parametrize("window", ["local", "full"])
@torch.no_grad()
def test_nothing_seen_is_nothing_heard(window: str) -> None:
    view = ViewShape(4, 8.0, 6)
    x, coarse, seen = inputs(view, 8)
    seen[0] = False
    found = attention(view, window)(x, coarse, seen)
    assert not found[0].any()
    assert found[1].abs().sum() > 0


@pytest.mark.parametrize("window", ["local", "full"])
@torch.no_grad()
def test_what_is_not_seen_is_not_heard(window: str) -> None:
    view = ViewShape(4, 8.0, 6)
    x, coarse, seen = inputs(view, 8)
    other = torch.where(seen[:, None], coarse, coarse + 100)
    layer = attention(view, window)
    torch.testing.assert_close(layer(x, coarse, seen), layer(x, other, seen))


# mistake: no positions in attention
@torch.no_grad()
def test_it_matters_where_a_token_lies() -> None:
    view = ViewShape(4, 8.0, 6)
    x, coarse, seen = inputs(view, 8)
    seen[:] = True
    layer = attention(view, "full")
    moved = coarse.flip(-1)
    assert (layer(x, coarse, seen) - layer(x, moved, seen)).abs().max() > 0.01


@torch.no_grad()
def test_a_token_is_heard_by_the_bins_in_its_reach_only() -> None:
    view = ViewShape(4, 8.0, 6)  # 48 um; bins 0 to 3 lie on token 2, bins 4 to 7 on token 3
    x, coarse, seen = inputs(view, 8)
    seen[:] = True
    layer = attention(view, reach=0)
    changed = coarse.clone()
    changed[:, :, 2, 3] += 1  # row 2, column 3: the upper right quarter of the bins
    apart = (layer(x, coarse, seen) - layer(x, changed, seen)).abs().amax((0, 1)) > 1e-6
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[:4, 4:] = True
    assert torch.equal(apart, expected)


@pytest.mark.parametrize("window", ["local", "full"])
@torch.no_grad()
def test_places_are_as_exact_under_autocast(window: str) -> None:
    view = ViewShape(4, 8.0, 40)
    x, coarse, seen = inputs(view, 8)
    layer = attention(view, window)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(x, coarse, seen)
    torch.testing.assert_close(found.float(), layer(x, coarse, seen), atol=0.05, rtol=0.05)
