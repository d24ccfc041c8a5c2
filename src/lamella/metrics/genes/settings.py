"""How predicted expression is measured."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lamella.config import Settings

Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]


class GeneMetricSettings(Settings):
    """Resolutions, controls and intervals of the measures of expression."""

    resolutions_um: Annotated[tuple[Positive, ...], Field(min_length=1)] = (2.0, 8.0, 16.0)
    """Sides of the bins at which bins are judged: their own and those of these that are a whole multiple of it. Spots
    are judged as they are."""
    hot_shares: Annotated[tuple[Share, ...], Field(min_length=1)] = (0.01, 0.05)
    """A hotspot is one of this share of the places with the most expression, and expresses the gene at all."""
    permutations: Annotated[int, Field(ge=20)] = 20
    """Shuffles of the labels behind every control."""
    block_um: Positive = 256.0
    """Side of the blocks of places that are exchanged by the shuffle and resampled for the intervals: a tile. Doubled
    or halved until a slide has some 16 to 48 of them."""
    draws: Annotated[int, Field(ge=100)] = 500
    """Resamples behind every interval: a dozen lie beyond each end of 95 %."""
    blur_um: Positive = 16.0
    """Standard deviation of the Gaussian that blurs the truth into a ceiling; at least one distance between places."""
    skill_from_um: Positive = 8.0
    """SSIM skill is given from this side of a bin on: below, a map is nearly all zeros, and so is the best constant."""
    thinnings: Annotated[int, Field(ge=1)] = 5
    """Random halvings of the counts behind the noise ceiling."""
    strata: Annotated[tuple[Share, ...], Field(min_length=1)] = (0.5, 0.8, 0.95, 0.99)
    """Ends of the classes of sparsity: share of the judged places, of the data's own size, without the gene."""
    seed: int = 0
    """Makes shuffles, thinnings and intervals repeatable."""
