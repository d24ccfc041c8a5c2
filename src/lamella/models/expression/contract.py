"""What networks that predict expression read and give.

Shapes: B tiles, D_v width of view v's features, n bins along a tile's side, t_v tokens along view v's side, G genes.

View 0 is sampled at the tile's bins, so it is (B, D_0, n, n). A further view v has its own spacing `token_um` and t_v
tokens around the same centre. Rows and columns run along the bins' lattice in all of them, so the place of a token
relative to the tile's centre follows from its number: (i - (t - 1) / 2) * token_um, and of a bin from bin_um alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


@dataclass(frozen=True)
class ViewShape:
    """One view: the width of its features, its spacing, and how many tokens its side has."""

    width: int
    token_um: float
    tokens: int

    @property
    def fov_um(self) -> float:
        return self.token_um * self.tokens


class Views(NamedTuple):
    """The inputs of a batch.

    Attributes:
        features: One float (B, D_v, t_v, t_v) per view; 0 where not seen.
        seen: One bool (B, t_v, t_v) per view: False outside the slide and where no features were made.
    """

    features: tuple[Tensor, ...]
    seen: tuple[Tensor, ...]


class Prediction(NamedTuple):
    """What the network says of every bin, in float32.

    Attributes:
        log_rate: (B, G, n, n) natural logarithm of the expected count of the count part (mu of NB and ZINB, the rate
            of Poisson), or of the expected value for losses on values. Clamped to a stated range.
        zero_logit: (B, G, n, n) or (1, G, 1, 1) log-odds of a structural zero (ZINB), or of no count at all (hurdle);
            None for losses without it.
        log_theta: (1, G, 1, 1) logarithm of the inverse dispersion of NB and ZINB; None for losses without it.
    """

    log_rate: Tensor
    zero_logit: Tensor | None = None
    log_theta: Tensor | None = None
