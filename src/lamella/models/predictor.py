"""Predicts the tokens of all targets of a sample from its context, in one pass.

Who sees whom:
  * context tokens see context tokens;
  * queries see the context and the queries of their own target; never those of another target.

So the context is processed once for all K targets, whereas separate passes repeat it K times; with 700 context tokens
and 4 x 256 queries that halves the work. It is at least as sound as separate passes: a target's prediction is the same
whichever other targets are asked for, and the context is not changed by the questions. (Queries carry no pixels, so
nothing could leak between them; but with full joint attention a prediction would depend on where the other targets
lie.) The weights are those of one plain transformer: this is joint attention under a fixed mask, computed block by
block so that masked pairs cost nothing.

Shapes: B samples, N context tokens, K targets, Q queries of a target, D encoder width, W predictor width, H heads,
E = W / H, C coordinates of a place.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lamella.config import Settings
from lamella.models.vit import INIT_STD, Block, Count, Positive, Waves, check_width, initialise, key_mask

# Wavelengths of the scale embedding in octaves of the token's size: tokens of 1 um to 128 um (0 to 7 octaves) stay
# apart, and a factor of 2 is half of the shortest wave.
SCALE_OCTAVES = (4.0, 16.0)


class PredictorSettings(Settings):
    """Size of the predictor; narrower than the encoder, so that the encoder must do the understanding."""

    width: Count = 192
    """Width of its tokens."""
    depth: Count = 3
    """Transformer blocks."""
    heads: Count = 3
    """Attention heads; they divide the width."""
    mlp_ratio: Positive = 4.0
    """Hidden width of a block's MLP over the width."""

    @model_validator(mode="after")
    def _sizes_agree(self) -> PredictorSettings:
        check_width(self.width, self.heads, "width")
        return self


class Predictor(nn.Module):
    """From context tokens and places to predicted tokens at these places.

    Args:
        settings: Its size.
        dim: Width D of the encoder.
        wave_min: Shortest wavelength of the positions, the encoder's.
        wave_max: Longest wavelength.
        coordinates: Of a place, C.
        scaled: Whether queries are told the size of their token, because it varies.
        mask_tokens: Learnt tokens to choose from, one for each kind of mask (V-JEPA).
        checkpointing: Keep no activations inside blocks while training, as in `ViT`.
    """

    def __init__(
        self,
        settings: PredictorSettings,
        dim: int,
        wave_min: float,
        wave_max: float,
        *,
        coordinates: int = 2,
        scaled: bool = True,
        mask_tokens: int = 1,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        width = settings.width
        check_width(width, settings.heads, "predictor.width", coordinates)
        self.narrow = nn.Linear(dim, width)
        self.position = Waves(width, coordinates, wave_min, wave_max)
        if scaled:
            self.scale_waves = Waves(width, 1, *SCALE_OCTAVES)
            self.scale = nn.Linear(width, width)
        self.scaled = scaled
        self.mask_token = nn.Parameter(torch.empty(mask_tokens, width))
        self.blocks = nn.ModuleList(Block(width, settings.heads, settings.mlp_ratio) for _ in range(settings.depth))
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, dim)
        initialise(self, list(self.blocks))
        nn.init.trunc_normal_(self.mask_token, std=INIT_STD)

    def forward(
        self,
        context_BND: Tensor,
        context_places_BNC: Tensor,
        query_places_BKQC: Tensor,
        query_um_B: Tensor | None = None,
        context_pad_BN: Tensor | None = None,
        query_pad_BKQ: Tensor | None = None,
        *,
        mask_token: int = 0,
    ) -> Tensor:
        """Predict.

        Args:
            context_BND: Tokens of the context encoder.
            context_places_BNC: Their places.
            query_places_BKQC: Places asked for, from the same origin.
            query_um_B: Side of the queried tokens in micrometres, for a predictor that is told it.
            context_pad_BN: bool, True marks padding.
            query_pad_BKQ: bool, True marks padding; what is returned in its place means nothing.
            mask_token: Which of the learnt tokens the queries start from.

        Returns:
            (B, K, Q, D) predicted tokens.
        """
        samples_and_targets = query_places_BKQC.shape[:2]
        context = self.narrow(context_BND) + self.position(context_places_BNC)
        queries = self._queries(query_places_BKQC, query_um_B, mask_token).flatten(0, 1)  # (B * K, Q, W)
        seen_by_context = key_mask(context_pad_BN)
        seen_by_queries = _seen_by_queries(seen_by_context, query_pad_BKQ, context_BND.shape[1], query_places_BKQC)
        last = len(self.blocks) - 1
        for number, block in enumerate(self.blocks):
            step = partial(_through, block, last=number == last)
            parts = (context, queries, seen_by_context, seen_by_queries)
            if self.checkpointing and self.training and torch.is_grad_enabled():
                context, queries = checkpoint(step, *parts, use_reentrant=False)
            else:
                context, queries = step(*parts)
        return self.widen(self.norm(queries)).unflatten(0, samples_and_targets)

    def _queries(self, places_BKQC: Tensor, token_um_B: Tensor | None, mask_token: int) -> Tensor:
        """What a query knows: that it is one, where it is, and how large its token is where that varies."""
        queries = self.mask_token[mask_token] + self.position(places_BKQC)
        if not self.scaled:
            return queries
        if token_um_B is None:
            raise ValueError("this predictor must be told the size of the tokens that are asked for")
        scale_BW = self.scale(self.scale_waves(torch.log2(token_um_B.float())[:, None]))
        return queries + scale_BW[:, None, None, :]


def _through(
    block: Block,
    context_BNW: Tensor,
    queries_BQW: Tensor,
    seen_by_context: Tensor | None,
    seen_by_queries: Tensor | None,
    *,
    last: bool,
) -> tuple[Tensor, Tensor]:
    """Context (B, N, W) and queries (B * K, Q, W) after one block."""
    context_q, context_k, context_v = block.queries_keys_values(context_BNW)
    query_q, query_k, query_v = block.queries_keys_values(queries_BQW)
    keys, values = _beside(context_k, query_k), _beside(context_v, query_v)
    found = F.scaled_dot_product_attention(query_q, keys, values, attn_mask=seen_by_queries)
    queries_BQW = block.finish(queries_BQW, found)
    if not last:  # nobody reads the context after the last block
        found = F.scaled_dot_product_attention(context_q, context_k, context_v, attn_mask=seen_by_context)
        context_BNW = block.finish(context_BNW, found)
    return context_BNW, queries_BQW


def _beside(context_BHNE: Tensor, queries: Tensor) -> Tensor:
    """(B * K, H, N + Q, E): the sample's context, then the target's own queries (B * K, H, Q, E); copied once."""
    queries_BKHQE = queries.unflatten(0, (context_BHNE.shape[0], -1))
    context_BKHNE = context_BHNE[:, None].expand(-1, queries_BKHQE.shape[1], -1, -1, -1)
    return torch.cat([context_BKHNE, queries_BKHQE], dim=3).flatten(0, 1)


def _seen_by_queries(
    context_B11N: Tensor | None, query_pad_BKQ: Tensor | None, context_tokens: int, query_places_BKQC: Tensor
) -> Tensor | None:
    """(B * K, 1, 1, N + Q) True where a key may be seen, None where nothing is padded."""
    B, K, Q, _ = query_places_BKQC.shape
    queries_padded = query_pad_BKQ is not None and bool(query_pad_BKQ.any())
    if context_B11N is None and not queries_padded:
        return None
    device = query_places_BKQC.device
    if context_B11N is None:
        context_B11N = torch.ones(B, 1, 1, context_tokens, dtype=torch.bool, device=device)
    own = ~query_pad_BKQ if queries_padded else torch.ones(B, K, Q, dtype=torch.bool, device=device)
    context = context_B11N.expand(B, K, 1, context_tokens)
    return torch.cat([context, own[:, :, None, :]], dim=-1).flatten(0, 1)[:, None]
