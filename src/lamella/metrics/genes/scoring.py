"""Scores one predictor: all measures of all genes of its slides, at all resolutions, with shuffled labels beside them.

Shapes: G genes, g genes of a chunk, N places, B blocks, P shuffles.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from lamella.metrics.genes import correlation, deviance, hotspots, moran, nonzero, ssim
from lamella.metrics.genes.arrangement import Arrangement
from lamella.metrics.genes.judged import JudgedSlide
from lamella.metrics.genes.measures import measures
from lamella.metrics.genes.moved import Moved
from lamella.metrics.genes.pairs import Pairs
from lamella.metrics.genes.resolution import resolutions
from lamella.metrics.genes.scores import ALL_ZERO, CONSTANT_PREDICTION, CONSTANT_TRUTH, NO_ZERO, GeneScores, SlideScores
from lamella.metrics.genes.settings import GeneMetricSettings

# Entries of truth that are worked on at once: some thirty float64 arrays of this size, a third of a gigabyte.
_CHUNK = 2**20
# Places of one shuffled SSIM: see `ssim.shuffled_ssim`.
_SSIM_PLACES = 40_000
# Micrometres: resolutions are compared as numbers.
_SAME = 1e-3


def score(slides: Sequence[JudgedSlide], settings: GeneMetricSettings) -> GeneScores:
    """Score a predictor on the slides of all folds.

    Args:
        slides: Each slide once, with the prediction of a model that has not seen its patient.
        settings: Resolutions, shuffles, blocks.

    Returns:
        Numbers per slide, resolution, gene and measure. A gene whose truth is constant on a slide (all zero, as a rule)
        has no measures there: NaN with the reason, never 0. Nor has a constant prediction a correlation.

    Raises:
        ValueError: No slides, a slide without places, a truth or prediction that is not finite, negative counts.
    """
    if not slides:
        raise ValueError("no slides to score")
    found = []
    for slide in slides:
        _refuse_unusable(slide)
        found += [
            score_slide(each, settings, own=each is slide) for each in resolutions(slide, settings.resolutions_um)
        ]
    return GeneScores(tuple(found))


def score_slide(slide: JudgedSlide, settings: GeneMetricSettings, *, own: bool = True) -> SlideScores:
    """One slide at its resolution."""
    arrangement = Arrangement.of(slide, settings.block_um)
    shuffles = arrangement.shuffles(settings.permutations, settings.seed)
    scorer = _Scorer(slide, arrangement, shuffles, settings)
    size = max(1, _CHUNK // len(slide.truth))
    parts = [scorer.chunk(slice(start, start + size)) for start in range(0, len(slide.genes), size)]
    sums = {name: np.concatenate([part[0][name] for part in parts], axis=1) for name in parts[0][0]}
    shuffled = {name: np.concatenate([part[1][name] for part in parts], axis=1) for name in parts[0][1]}
    known = measures(settings)
    truth = slide.truth
    return SlideScores(
        slide.slide_id,
        slide.patient,
        slide.scale,
        slide.bin_um,
        own,
        slide.genes,
        len(truth),
        {name: known[name].of(each.sum(axis=0)) for name, each in sums.items()},
        {name: each.astype(np.float32) for name, each in sums.items()},
        shuffled,
        np.mean(truth == 0, axis=0),
        truth.mean(axis=0, dtype=np.float64),
        reasons_of(slide),
        truth_digest(slide),
    )


class _Scorer:
    """All measures of a slide, some genes at a time."""

    def __init__(
        self, slide: JudgedSlide, arrangement: Arrangement, shuffles: np.ndarray, settings: GeneMetricSettings
    ) -> None:
        self._slide, self._arrangement, self._shuffles, self._settings = slide, arrangement, shuffles, settings
        self._neighbours = moran.Neighbours.of(slide, arrangement)
        self._maps = None if slide.rc is None else ssim.Maps.of(slide, arrangement)

    def chunk(self, genes: slice) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Sums over blocks, and shuffled values, by measure."""
        pairs = Pairs(self._slide, self._arrangement, genes)
        moved = Moved(pairs, self._shuffles)
        sums = {
            correlation.PEARSON: correlation.pearson_sums(pairs),
            correlation.SPEARMAN: correlation.spearman_sums(pairs),
            **nonzero.nonzero_sums(pairs),
        }
        shuffled = {
            correlation.PEARSON: correlation.pearson_shuffled(pairs, moved),
            correlation.SPEARMAN: correlation.spearman_shuffled(pairs, moved),
            **nonzero.nonzero_shuffled(pairs, moved),
        }
        if self._slide.scale == "counts":
            sums |= deviance.deviance_sums(pairs)
            shuffled |= deviance.deviance_shuffled(pairs, moved, sums)
        for share in self._settings.hot_shares:
            name = hotspots.hotspot_name(share)
            sums[name], shuffled[name] = hotspots.hotspots(pairs, moved, share)
        sums |= moran.moran_sums(pairs, self._neighbours)
        shuffled[moran.MORAN_EXCESS] = moran.excess_shuffled(sums, len(self._shuffles))
        self._add_ssim(pairs, genes, sums, shuffled)
        return sums, shuffled

    def _add_ssim(
        self, pairs: Pairs, genes: slice, sums: dict[str, np.ndarray], shuffled: dict[str, np.ndarray]
    ) -> None:
        """SSIM where there is a map with a whole window; skill only in coarse bins."""
        maps = self._maps
        if maps is None or not len(maps.centres):
            return
        mean = self._slide.training_mean
        skilled = mean is not None and self._slide.bin_um >= self._settings.skill_from_um - _SAME
        found = ssim.ssim_sums(pairs, maps, mean[genes] if mean is not None and skilled else None)
        others = ssim.shuffled_ssim(pairs, maps, self._shuffles, _SSIM_PLACES)
        for plain, name in ssim.SKILL.items():
            if name in found:
                # Against the whole map's best constant, also where a shuffle judged a band of a large map.
                skill = found[name].sum(axis=0)[None].repeat(len(self._shuffles), axis=0)
                skill[..., 1] = others[plain] * skill[..., 0]
                shuffled[name] = ssim.skill_of(skill)
        sums |= found
        shuffled |= others


def _refuse_unusable(slide: JudgedSlide) -> None:
    if not len(slide.truth):
        raise ValueError(f"{slide.slide_id}: no place is judged")
    for name, values in (("truth", slide.truth), ("prediction", slide.predicted)):
        bad = ~np.isfinite(values).all(axis=0)
        if bad.any():
            genes = ", ".join(np.array(slide.genes)[bad][:5])
            raise ValueError(f"{slide.slide_id}: the {name} of {bad.sum()} gene(s) is not finite ({genes})")
    if slide.scale == "counts" and min(slide.truth.min(), slide.predicted.min()) < 0:
        raise ValueError(
            f"{slide.slide_id}: expected counts are never negative; are these the logarithms of rates, or values?"
        )


def reasons_of(slide: JudgedSlide) -> tuple[str, ...]:
    """Why a gene cannot be judged here, or lacks some measures; the gravest reason alone."""
    reasons = {
        ALL_ZERO: ~slide.truth.any(axis=0),
        CONSTANT_TRUTH: np.ptp(slide.truth, axis=0) == 0,
        CONSTANT_PREDICTION: np.ptp(slide.predicted, axis=0) == 0,
        NO_ZERO: (slide.truth != 0).all(axis=0),
    }
    named = np.select(list(reasons.values()), list(reasons), "")
    return tuple(str(each) for each in named)


def truth_digest(slide: JudgedSlide) -> str:
    """16 hex digits of which places were judged by which truth."""
    found = hashlib.sha256(f"{slide.slide_id} {slide.patient} {slide.bin_um:g} {slide.scale}".encode())
    found.update("\n".join(slide.genes).encode())
    found.update(np.ascontiguousarray(slide.places_um, np.float32))
    found.update(np.ascontiguousarray(slide.truth, np.float32))
    return found.hexdigest()[:16]
