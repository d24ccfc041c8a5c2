"""Intervals of measures of expression: resamples of patients, of genes, and of blocks of places within each slide.

A number is a mean over genes, then over slides. It would be another with other patients, another panel and other
places, so all three are drawn anew: patients with replacement (all their slides with them), and genes (the same for all
slides) and blocks of places within each slide by the Bayesian bootstrap: weights from an exponential distribution, none
of them zero (Rubin, The Annals of Statistics 9, 1981). A sparse gene that is seen in two blocks then has a number in
every draw; without those blocks it would have none, and the mean over genes would be of easier ones. The draws depend
on names and the seed only, so they are the same for all predictors and differences between them are paired.

The noise of all levels adds up: where patients differ only because few places were seen of each, that noise is in the
draws of patients and in those of places, and the interval is too wide, by a factor of 1.4 at most for two levels.

Shapes: S draws, G genes, B blocks, K sums of a measure.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import numpy as np

from lamella.metrics.bootstrap import MAX_UNDEFINED, expanded_interval
from lamella.metrics.genes.correlation import PEARSON
from lamella.metrics.genes.measures import AGREEMENT, FISHER, measures
from lamella.metrics.genes.moran import MORAN_EXCESS, moran_of
from lamella.metrics.genes.scores import GeneScores, SlideScores
from lamella.metrics.genes.settings import GeneMetricSettings

# Below this many patients no interval supports a claim about patients.
ENOUGH_PATIENTS = 4
# A correlation of 1 would have an infinite z.
_MOST_R = 1 - 1e-6
# Genes behind a correlation over genes.
_FEWEST_GENES = 3
# Numbers of one block of draws: 32 MB.
_BLOCK = 2**22


@dataclass(frozen=True)
class Drawn:
    """A number, and the same of S resamples.

    Attributes:
        value: On the data as they are; NaN where no gene of any slide has it.
        draws: (S,).
        patients: How many.
        n: Places behind it, over all slides.
        genes: Names with a number on at least one slide.
        undefined: Pairs of slide and gene without one.
        by_patient: Mean over the slides of each patient that has a number.
    """

    value: float
    draws: np.ndarray
    patients: int
    n: int
    genes: int
    undefined: int
    by_patient: dict[str, float] = field(default_factory=dict)

    def interval(self) -> tuple[float, float, str]:
        """Ends of the 95 % interval, and what must be said about it.

        Percentiles, expanded for few patients (Hesterberg, see `metrics.bootstrap`): with three or fewer this is the
        whole range of the draws. With one patient only genes and places vary.
        """
        defined = self.draws[np.isfinite(self.draws)]
        if len(defined) < (1 - MAX_UNDEFINED) * len(self.draws):
            return np.nan, np.nan, f"undefined in {1 - len(defined) / len(self.draws):.0%} of the resamples"
        if self.patients == 1:
            low, high = np.percentile(defined, [2.5, 97.5])
            return float(low), float(high), "one patient: genes and places alone vary"
        low, high = expanded_interval(defined, self.patients)
        if not low <= self.value <= high:
            # Noise that resamples add moves such a number one way: the interval is then of the moved one.
            return low, high, "resampling itself moves this number; the interval does not hold it"
        if self.patients < ENOUGH_PATIENTS:
            return low, high, f"{self.patients} patients: no claim of significance"
        return low, high, ""


class Resampler:
    """The draws of a study at one resolution.

    Args:
        scores: Any predictor's: slides, patients and genes are the same of all.
        resolution_um: Which.
        settings: Seed and number of draws.
    """

    def __init__(self, scores: GeneScores, resolution_um: float, settings: GeneMetricSettings) -> None:
        slides = scores.at(resolution_um)
        self._settings, self.resolution_um = settings, resolution_um
        self._patients = sorted({slide.patient for slide in slides})
        self._genes = {gene: number for number, gene in enumerate(scores.genes)}
        rng = np.random.default_rng([settings.seed, 11])
        count = len(self._patients)
        self._patients_SP = rng.multinomial(count, np.full(count, 1 / count), size=settings.draws)
        genes = len(self._genes)
        self._genes_SG = rng.exponential(size=(settings.draws, genes)).astype(np.float32)

    def of(self, scores: GeneScores, measure: str, *, only: dict[str, np.ndarray] | None = None) -> Drawn:
        """A measure of a predictor.

        Args:
            scores: Of the predictor.
            measure: A name of `measures`, FISHER or AGREEMENT.
            only: Slide -> (G,) bool: genes that count, for differences between predictors.

        Returns:
            NaN where nothing is defined. Means over genes leave out what is undefined, and count it.
        """
        slides = [slide for slide in scores.at(self.resolution_um) if base_of(measure) in slide.values]
        values, draws, weights = [], [], []
        n = undefined = 0
        named: set[str] = set()
        by_patient: dict[str, list[float]] = {}
        for slide in slides:
            kept = defined(slide, measure) if only is None else defined(slide, measure) & only[slide.slide_id]
            point, drawn = self._slide(slide, measure, kept)
            undefined += int((~kept).sum())
            if not np.isfinite(point):
                continue
            n += slide.n
            named |= {gene for gene, keeps in zip(slide.genes, kept, strict=True) if keeps}
            values.append(point)
            by_patient.setdefault(slide.patient, []).append(point)
            draws.append(drawn)
            weights.append(self._patients_SP[:, self._patients.index(slide.patient)])
        if not values:
            empty = np.full(self._settings.draws, np.nan)
            return Drawn(np.nan, empty, len(self._patients), n, 0, undefined)
        mean = _weighted_mean(np.stack(draws, axis=1), np.stack(weights, axis=1).astype(np.float64))
        value = float(np.mean(values))
        if measure == FISHER:
            value, mean = float(np.tanh(value)), np.tanh(mean)
        means = {patient: float(np.mean(points)) for patient, points in sorted(by_patient.items())}
        return Drawn(value, mean, len(means), n, len(named), undefined, means)

    def _slide(self, slide: SlideScores, measure: str, kept: np.ndarray) -> tuple[float, np.ndarray]:
        """Mean over the genes of a slide, on all places and for each draw (S,)."""
        columns = np.array([self._genes[gene] for gene in slide.genes], np.int64)
        weights_SG = np.where(kept, self._genes_SG[:, columns], 0)
        point = _over_genes(_point(slide, measure)[None], kept[None].astype(np.float64), measure)[0]
        drawn = np.empty(len(weights_SG))
        base = base_of(measure)
        sums = slide.sums.get(base)
        step = max(1, _BLOCK // max(1, weights_SG.shape[1] * (1 if sums is None else sums.shape[2])))
        blocks_SB = None if sums is None else self._blocks(slide, len(sums))
        for start in range(0, len(drawn), step):
            part = slice(start, start + step)
            if sums is None or blocks_SB is None:
                values_SG = np.broadcast_to(slide.values[base], weights_SG[part].shape)
            else:
                summed = np.tensordot(blocks_SB[part], sums, axes=1)
                values_SG = summed if measure == AGREEMENT else measures(self._settings)[base].of(summed)
            drawn[part] = _over_genes(values_SG, weights_SG[part], measure)
        return float(point), drawn

    def _blocks(self, slide: SlideScores, count: int) -> np.ndarray:
        """(S, B) weight of each block; by the slide's name, so that predictors share the draws."""
        rng = np.random.default_rng([self._settings.seed, 13, zlib.crc32(slide.slide_id.encode()), count])
        return rng.exponential(size=(self._settings.draws, count)).astype(np.float32)


def defined(slide: SlideScores, measure: str) -> np.ndarray:
    """(G,) genes that have the measure on this slide."""
    return np.isfinite(slide.values[base_of(measure)])


def base_of(measure: str) -> str:
    """The measure of single genes that a summary is made of."""
    return {FISHER: PEARSON, AGREEMENT: MORAN_EXCESS}.get(measure, measure)


def _point(slide: SlideScores, measure: str) -> np.ndarray:
    if measure == AGREEMENT:
        return np.asarray(slide.sums[MORAN_EXCESS].sum(axis=0, dtype=np.float64))
    return np.asarray(slide.values[base_of(measure)], np.float64)


def _over_genes(values: np.ndarray, weights_SG: np.ndarray, measure: str) -> np.ndarray:
    """(S,) one number of all genes: mean, mean of Fisher's z, or correlation of both Moran's I.

    Args:
        values: (S, G); for the agreement (S, G, 8) sums of `moran.excess_of`.
        weights_SG: How much each gene counts.
        measure: Which.
    """
    if measure == AGREEMENT:
        return _correlation(moran_of(values[..., :4]), moran_of(values[..., 4:]), weights_SG)
    if measure == FISHER:
        values = np.arctanh(np.clip(values, -_MOST_R, _MOST_R))
    return _weighted_mean(values, weights_SG)


def _weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Along the last axis, of what is defined; NaN where nothing weighs."""
    weights = np.where(np.isfinite(values), weights, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((np.where(weights > 0, values, 0) * weights).sum(axis=-1) / weights.sum(axis=-1), np.float64)


def _correlation(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted Pearson along the last axis; NaN for fewer than three genes."""
    weights = np.where(np.isfinite(x) & np.isfinite(y), weights, 0).astype(np.float64)
    x, y = (np.where(weights > 0, each, 0).astype(np.float64) for each in (x, y))
    x = x - _weighted_mean(x, weights)[..., None]
    y = y - _weighted_mean(y, weights)[..., None]
    with np.errstate(invalid="ignore", divide="ignore"):
        xy, xx, yy = ((weights * part).sum(axis=-1) for part in (x * y, x * x, y * y))
        found = np.where((xx > 0) & (yy > 0), xy / np.sqrt(xx * yy), np.nan)
    return np.where((weights > 0).sum(axis=-1) >= _FEWEST_GENES, found, np.nan)
