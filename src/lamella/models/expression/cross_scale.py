"""Attention across scales: every bin asks the tokens of one coarser view.

A head's score of a key is what their contents and relative place say (rotary positions in micrometres), less
d^2 / (2 sigma^2) of their distance d, with a sigma that the head learns; it begins with half a token to two, so that a
bin first hears of its own surroundings. Local windows are cut for blocks of bins that share their tokens: memory and
time are bins x window, never bins x all tokens.

Shapes: B tiles, C width, H heads, E = C / H, n bins along a side, t tokens along a side, m blocks along a side,
b bins along the side of a block, w tokens along the side of a block's window.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lamella.models.expression.contract import ViewShape
from lamella.models.expression.places import places_um
from lamella.models.expression.rotary import turned, waves
from lamella.models.expression.settings import CrossScaleSettings
from lamella.models.vit import INIT_STD

_HIDDEN = -1e4  # score of a token that is not seen: finite, so that a bin without any gives no NaN


class _Windows(NamedTuple):
    """The windows along one axis: rows and columns are alike.

    `index_mw` tokens of each block's window; `apart_mbw` distance of bin and token in tokens; `near_mbw` bool.
    """

    block: int
    index_mw: Tensor
    apart_mbw: Tensor
    near_mbw: Tensor


class CrossScaleAttention(nn.Module):
    """What the bins learn from one view."""

    def __init__(self, settings: CrossScaleSettings, width: int, view: ViewShape, bin_um: float) -> None:
        super().__init__()
        self.settings, self.view, self.bin_um = settings, view, bin_um
        self.queries = nn.Linear(width, width)
        self.keys_values = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        spread = torch.linspace(0, 1, settings.heads) if settings.heads > 1 else torch.zeros(1)
        # Half a token, about what bilinear interpolation mixes, to two.
        self.log_sigma = nn.Parameter(math.log(4) * spread - math.log(2))
        self._start()

    @torch.no_grad()
    def _start(self) -> None:
        """Begin as a smoothing of the view around each bin; what tokens hold decides only once that is learned.

        With random maps of the values, training first has to find again where the view says what.
        """
        keys, values = self.keys_values.weight.chunk(2)
        nn.init.xavier_uniform_(keys)
        nn.init.eye_(values)
        nn.init.eye_(self.out.weight)
        nn.init.normal_(self.queries.weight, std=INIT_STD)
        for layer in (self.queries, self.keys_values, self.out):
            nn.init.zeros_(layer.bias)

    def forward(self, x_BCnn: Tensor, coarse_BCtt: Tensor, seen_Btt: Tensor) -> Tensor:
        """(B, C, n, n) to be added to the bins: 0 where no token in reach is seen.

        Args:
            x_BCnn: The bins, normalised.
            coarse_BCtt: The view, normalised.
            seen_Btt: bool.
        """
        heads = self.settings.heads
        q = self.queries(x_BCnn.permute(0, 2, 3, 1)).unflatten(-1, (heads, -1))
        k, v = self.keys_values(coarse_BCtt.permute(0, 2, 3, 1)).unflatten(-1, (2, heads, -1)).unbind(3)
        # In bf16 a token 40 tokens away would be placed to a quarter of a token only.
        with torch.autocast(q.device.type, enabled=False):
            heard, any_heard = self._heard(q.float(), k.float(), v.float(), seen_Btt)
        return (self.out(heard) * any_heard).permute(0, 3, 1, 2)

    def _heard(self, q: Tensor, k: Tensor, v: Tensor, seen_Btt: Tensor) -> tuple[Tensor, Tensor]:
        """(B, n, n, C) values that were heard, and bool (B, n, n, 1) or (B, 1, 1, 1): whether any were."""
        view, (n, t), device = self.view, (q.shape[1], k.shape[1]), q.device
        bins_um, tokens_um = places_um(n, self.bin_um, device), places_um(t, view.token_um, device)
        # From two tokens of the view, the finest that it can tell apart, to four of its fields of view.
        frequencies = waves(q.shape[-1], 2 * view.token_um, 4 * view.fov_um, device)
        q = turned(q, bins_um, bins_um, frequencies) * q.shape[-1] ** -0.5
        k = turned(k, tokens_um, tokens_um, frequencies)
        if self.settings.window == "full":
            return self._full(q, k, v, seen_Btt, bins_um / view.token_um, tokens_um / view.token_um)
        return self._local(q, k, v, seen_Btt)

    def _full(
        self, q: Tensor, k: Tensor, v: Tensor, seen_Btt: Tensor, bins: Tensor, tokens: Tensor
    ) -> tuple[Tensor, Tensor]:
        """-|x - y|^2 / 2 is x.y - |y|^2 / 2 and what is the same for all keys: three channels more."""
        B, n, _, H, E = q.shape
        sharp = (-2 * self.log_sigma).exp()
        here = torch.stack([*torch.meshgrid(bins, bins, indexing="ij"), torch.ones(n, n, device=q.device)], -1)
        there = torch.stack(torch.meshgrid(tokens, tokens, indexing="ij"), -1)
        there = torch.cat([there, -there.square().sum(-1, keepdim=True) / 2], -1)
        # Padded to eight channels more, which the memory-saving kernels want, and values to as many.
        more_q = F.pad(here[None, :, :, None] * sharp[:, None], (0, 5)).expand(B, -1, -1, -1, -1)
        more_k = F.pad(there, (0, 5))[None, :, :, None].expand(B, -1, -1, H, -1)
        q, k, v = (
            part.flatten(1, 2).transpose(1, 2)
            for part in (torch.cat([q, more_q], -1), torch.cat([k, more_k], -1), F.pad(v, (0, 8)))
        )
        seen = seen_Btt.flatten(1)
        any_seen = seen.any(1)
        mask = None if bool(seen.all()) else (seen | ~any_seen[:, None])[:, None, None]
        heard = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)[..., :E]
        return heard.transpose(1, 2).flatten(2).unflatten(1, (n, n)), any_seen[:, None, None, None]

    def _local(self, q: Tensor, k: Tensor, v: Tensor, seen_Btt: Tensor) -> tuple[Tensor, Tensor]:
        B, n, _, H, E = q.shape
        windows = self._windows(n, k.shape[1], q.device)
        m, b, w = windows.apart_mbw.shape
        q = F.pad(q.flatten(3), (0, 0, 0, m * b - n, 0, m * b - n))
        q = q.view(B, m, b, m, b, H, E).permute(0, 1, 3, 5, 2, 4, 6).reshape(B, m, m, H, b * b, E)
        keys, values = (_cut(part.flatten(3), windows.index_mw, H) for part in (k, v))
        apart = windows.apart_mbw.square()
        apart = apart[:, None, :, None, :, None] + apart[None, :, None, :, None, :]  # (m, m, b, b, w, w)
        far = apart.reshape(m, m, 1, b * b, w * w) * ((-2 * self.log_sigma).exp() / 2).view(H, 1, 1)
        near = windows.near_mbw[:, None, :, None, :, None] & windows.near_mbw[None, :, None, :, None, :]
        seen = _cut(seen_Btt[..., None].to(q.dtype), windows.index_mw, 1)[..., 0] > 0  # (B, m, m, 1, w * w)
        heard_by = near.reshape(m, m, 1, b * b, w * w) & seen[..., None, :]
        scores = (q @ keys.transpose(-1, -2) - far).masked_fill(~heard_by, _HIDDEN)
        heard = scores.softmax(-1) @ values
        heard = heard.view(B, m, m, H, b, b, E).permute(0, 1, 4, 2, 5, 3, 6).reshape(B, m * b, m * b, H * E)
        any_heard = heard_by.any(-1).view(B, m, m, b, b).permute(0, 1, 3, 2, 4).reshape(B, m * b, m * b, 1)
        return heard[:, :n, :n], any_heard[:, :n, :n]

    def _windows(self, n: int, t: int, device: torch.device) -> _Windows:
        ratio = self.bin_um / self.view.token_um
        block = max(1, min(n, round(1 / ratio)))
        m, reach = math.ceil(n / block), self.settings.reach
        place = (torch.arange(m * block, device=device) - (n - 1) / 2) * ratio + (t - 1) / 2  # of bins, in tokens
        # Ties, which lie halfway between two tokens, go down for all alike.
        nearest = torch.ceil(place - 0.5 - 1e-4).view(m, block)
        w = min(t, 2 * reach + 1 + math.ceil((block - 1) * ratio - 1e-4))
        first = (nearest[:, 0] - reach).clamp(0, t - w).long()
        index = first[:, None] + torch.arange(w, device=device)
        near = (index[:, None] - nearest[..., None]).abs() <= reach
        return _Windows(block, index, index[:, None] - place.view(m, block, 1), near)


def _cut(x_BttC: Tensor, index_mw: Tensor, heads: int) -> Tensor:
    """(B, m, m, H, w * w, E): the window of each block."""
    B, m, w = len(x_BttC), *index_mw.shape
    flat = index_mw.flatten()
    # Axis by axis: the gradient of this is a sum of whole rows, and not of single numbers, which is far slower.
    rows = x_BttC.index_select(1, flat).view(B, m, w, x_BttC.shape[2], -1)
    both = rows.index_select(3, flat).view(B, m, w, m, w, heads, -1)
    return both.permute(0, 1, 3, 5, 2, 4, 6).flatten(4, 5)
