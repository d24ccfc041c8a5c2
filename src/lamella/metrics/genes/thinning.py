"""How well could anything correlate with counts this noisy? The ceiling by thinning the counts.

Each count is split by coin tosses into two halves. Halves of a Poisson count are independent given the rate, so what
they share is the rate's own variation: their correlation r is the reliability of half the depth, 2 r / (1 + r)
(Spearman, Brown) that of the whole, and its square root the correlation that the true rates themselves would have with
the counts. It is a statement of counting noise alone, and so an upper bound: no image need show all of the rate, and
what makes counts vary more than a Poisson (bursts, cells) is taken for rate. Of a gene with hardly any signal it is
itself mostly noise: correlations near zero that happen to be positive have a root, too.

Shapes: N places, G genes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from lamella.metrics.genes.correlation import PEARSON
from lamella.metrics.genes.judged import JudgedSlide
from lamella.metrics.genes.pairs import on_scale
from lamella.metrics.genes.resolution import resolutions
from lamella.metrics.genes.scores import GeneScores, SlideScores
from lamella.metrics.genes.scoring import reasons_of, truth_digest
from lamella.metrics.genes.settings import GeneMetricSettings

Transform = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(N, G) counts and (N,) totals of all genes to (N, G) values of the study's target."""


def noise_ceiling(
    counts: np.ndarray, total: np.ndarray, transform: Transform | None, *, thinnings: int, seed: int
) -> np.ndarray:
    """(G,) highest Pearson correlation that noise leaves open, on the scale of the target.

    Args:
        counts: (N, G) whole numbers.
        total: (N,) totals of all genes: those outside the panel are halved, too.
        transform: To the study's target; None: log1p of counts.
        thinnings: Halvings whose correlations are averaged.
        seed: Makes them repeatable.

    Returns:
        NaN for a gene that is constant in a half; 0 where halves do not agree at all.

    Raises:
        ValueError: Counts are negative or fractional.
    """
    whole = np.rint(counts)
    if (counts < 0).any() or not np.allclose(counts, whole, atol=1e-4):
        raise ValueError("noise ceilings need whole, non-negative counts")
    rng = np.random.default_rng([seed, 17])
    whole = whole.astype(np.int64)
    rest = np.maximum(np.rint(total).astype(np.int64) - whole.sum(axis=1), 0)
    found = []
    for _ in range(thinnings):
        one = rng.binomial(whole, 0.5)
        other = whole - one
        rest_one = rng.binomial(rest, 0.5)
        totals = (one.sum(axis=1) + rest_one, other.sum(axis=1) + rest - rest_one)
        found.append(_correlations(*(_values(*half, transform) for half in zip((one, other), totals, strict=True))))
    r = np.mean(found, axis=0)  # a gene that is constant in any half has none
    return np.sqrt(np.clip(2 * r / (1 + np.maximum(r, 0)), 0, 1))


def noise_ceilings(
    slides: Sequence[JudgedSlide],
    settings: GeneMetricSettings,
    *,
    counts: Mapping[str, np.ndarray] | None = None,
    transform: Callable[[str, np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> GeneScores:
    """The ceilings of all slides at all resolutions, as a row of the tables; of Pearson alone.

    Args:
        slides: The judged slides; predictions are not looked at.
        settings: Resolutions, number of thinnings.
        counts: Slide -> (N, G) counts at its places. Needed where the truth is on another scale than counts.
        transform: (slide, counts, totals) to values of the target; needed as above.

    Raises:
        ValueError: The truth is on another scale, and counts or transform are not given.
    """
    found = []
    for slide in slides:
        for each in resolutions(slide, settings.resolutions_um):
            if slide.scale == "counts":
                ceiling = noise_ceiling(each.truth, each.total, None, thinnings=settings.thinnings, seed=settings.seed)
            elif each is not slide:
                continue  # of means of logarithms there are no halves
            elif counts is None or transform is None:
                raise ValueError(f"{slide.slide_id}: its truth is no counts; give them and the target's transform")
            else:

                def own(halves: np.ndarray, totals: np.ndarray, name: str = slide.slide_id) -> np.ndarray:
                    return transform(name, halves, totals)

                ceiling = noise_ceiling(
                    counts[slide.slide_id], slide.total, own, thinnings=settings.thinnings, seed=settings.seed
                )
            found.append(_scores(each, ceiling, own=each is slide))
    return GeneScores(tuple(found))


def _scores(slide: JudgedSlide, ceiling_G: np.ndarray, *, own: bool) -> SlideScores:
    return SlideScores(
        slide.slide_id,
        slide.patient,
        slide.scale,
        slide.bin_um,
        own,
        slide.genes,
        len(slide.truth),
        {PEARSON: ceiling_G},
        {},
        {},
        np.mean(slide.truth == 0, axis=0),
        slide.truth.mean(axis=0, dtype=np.float64),
        reasons_of(slide.with_predicted(slide.truth)),
        truth_digest(slide),
    )


def _values(counts: np.ndarray, total: np.ndarray, transform: Transform | None) -> np.ndarray:
    return np.asarray(on_scale(counts, "counts") if transform is None else transform(counts, total), np.float64)


def _correlations(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    one, other = one - one.mean(axis=0), other - other.mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        size = np.sqrt((one * one).sum(axis=0) * (other * other).sum(axis=0))
        return np.where(size > 0, (one * other).sum(axis=0) / size, np.nan)
