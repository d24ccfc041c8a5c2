"""Simple predictors that a network has to beat, on the same folds, places and targets: ridge and retrieval.

Shapes: N places of a slide, D features, G genes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lamella.errors import LamellaError
from lamella.methods.expression_knn import Memory, fit_memory
from lamella.methods.expression_ridge import Moments, Ridge, fit_ridge
from lamella.verbs.expression_stages.evaluation_features import PlaceFeatures
from lamella.verbs.expression_stages.evaluation_settings import BaselineSettings

# With one training slide, its strips stand in for slides: enough to choose by, each still many spots.
_STRIPS = 4
# No place is called impossible: the deviance of a count where 0 was expected is infinite.
_LEAST_SHARE = 0.01
# Training places that the mean of expected counts is matched on.
_MATCHED = 20_000


@dataclass(frozen=True)
class Learned:
    """A training slide: features and truth at the same places.

    Attributes:
        features: Of its places.
        truth_NG: float32, on the study's target.
        um: (N, 2) float32, where the places lie.
    """

    features: PlaceFeatures
    truth_NG: np.ndarray
    um: np.ndarray


@dataclass(frozen=True)
class RidgeBaseline:
    """A ridge and the way back to expected counts.

    Attributes:
        ridge: Learned on log1p of counts, or on the values of the target.
        counts: Whether the target is counts.
        factor_G: What makes the mean of the expected counts that of the training places.
        least_G: Below this no count is expected.
        said: How it was chosen, for the report.
    """

    ridge: Ridge
    counts: bool
    factor_G: np.ndarray
    least_G: np.ndarray
    said: str

    def predict(self, features: PlaceFeatures) -> np.ndarray:
        """(N, G) float32 expected counts or values."""
        found = np.empty((len(features), len(self.factor_G)), np.float32)
        for rows, x, _ in features.parts():
            found[rows] = self._expected(x)
        return found

    def _expected(self, x_ND: np.ndarray) -> np.ndarray:
        values = self.ridge.predict(x_ND)
        if not self.counts:
            return values
        expected: np.ndarray = np.maximum(np.expm1(np.maximum(values, 0)) * self.factor_G, self.least_G)
        return expected


def fit_ridge_baseline(
    slides: Sequence[Learned], settings: BaselineSettings, *, counts: bool, seed: int
) -> RidgeBaseline:
    """A ridge of some training slides.

    Counts are learned as log1p, in which a place with many counts does not outweigh all others; the way back is expm1,
    times a factor for each gene that gives the training places their mean again (Duan's smearing of a single factor).

    Args:
        slides: To learn from.
        settings: Penalties.
        counts: The target is counts.
        seed: Of the draw of places for the factor.

    Raises:
        LamellaError: Nothing varies.
    """
    groups = [group for slide in slides for group in _groups(slide, alone=len(slides) == 1)]
    moments = [Moments.of(_pairs(slide, chosen, counts=counts)) for slide, chosen in groups]
    try:
        ridge = fit_ridge(moments, settings.alphas)
    except ValueError as error:
        raise LamellaError(
            "evaluate", f"a ridge cannot be fitted: {error}", "Give genes that vary in training."
        ) from error
    genes = slides[0].truth_NG.shape[1]
    mean_G = np.sum([slide.truth_NG.sum(0, dtype=np.float64) for slide in slides], axis=0) / sum(map(_count, slides))
    said = f"alpha {ridge.alpha:g} per place, chosen by leaving out {_left(slides)}"
    if ridge.alpha in (min(settings.alphas), max(settings.alphas)) and len(settings.alphas) > 1:
        said += " (the end of what was tried)"
    plain = RidgeBaseline(ridge, counts, np.ones(genes), np.zeros(genes), said)
    if not counts:
        return plain
    x, truth = _drawn(slides, _MATCHED, seed)[:2]
    expected_G = plain._expected(x).mean(0, dtype=np.float64)
    factor_G = np.where(expected_G > 0, truth.mean(0, dtype=np.float64) / np.where(expected_G > 0, expected_G, 1), 1)
    return RidgeBaseline(ridge, counts, factor_G, _LEAST_SHARE * mean_G, said)


@dataclass(frozen=True)
class RetrievalBaseline:
    """Training places and what is said of how many are averaged."""

    memory: Memory
    said: str

    def predict(self, features: PlaceFeatures) -> np.ndarray:
        """(N, G) float32: the mean of the nearest places' counts or values."""
        found = np.empty((len(features), self.memory.targets_MG.shape[1]), np.float32)
        for rows, x, _ in features.parts():
            found[rows] = self.memory.predict(x)
        return found


def fit_neighbours(slides: Sequence[Learned], settings: BaselineSettings, *, seed: int) -> RetrievalBaseline:
    """Retrieval from some training slides.

    Raises:
        LamellaError: Nothing varies.
    """
    x, truth, slide_M = _drawn(slides, settings.retrieval_places, seed)
    try:
        memory = fit_memory(x, truth, slide_M, settings.neighbours)
    except ValueError as error:
        raise LamellaError(
            "evaluate", f"nothing can be retrieved: {error}", "Give genes that vary in training."
        ) from error
    said = f"{memory.neighbours} neighbours of {len(x):,} places, chosen by leaving out {_left(slides)}"
    return RetrievalBaseline(memory, said)


def _groups(slide: Learned, *, alone: bool) -> Iterator[tuple[Learned, np.ndarray]]:
    """The slide and all its places, or, where it is alone, its strips from top to bottom."""
    if not alone:
        yield slide, np.arange(_count(slide))
        return
    for strip in _strips(slide):
        yield slide, strip


def _strips(slide: Learned) -> list[np.ndarray]:
    order = np.argsort(slide.um[:, 1], kind="stable")
    return [np.sort(part) for part in np.array_split(order, _STRIPS)]


def _pairs(slide: Learned, chosen: np.ndarray, *, counts: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Features and targets of those of the chosen places that are seen."""
    wanted = np.zeros(_count(slide), bool)
    wanted[chosen] = True
    for rows, x, seen in slide.features.parts():
        kept = wanted[rows] & seen
        truth = slide.truth_NG[rows][kept]
        yield x[kept], np.log1p(truth) if counts else truth


def _drawn(slides: Sequence[Learned], most: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, truth and slide numbers (strips of a lone slide) of at most so many places, the same of each slide."""
    rng = np.random.default_rng(seed)
    each, found = max(1, most // len(slides)), []
    for number, slide in enumerate(slides):
        rows = np.arange(_count(slide))
        if len(rows) > each:
            rows = np.sort(rng.choice(len(rows), each, replace=False))
        x, seen = slide.features.of(rows)
        rows, x = rows[seen], x[seen]
        groups = np.full(len(rows), number)
        if len(slides) == 1:
            strip_N = np.zeros(_count(slide), np.int64)
            for strip, inside in enumerate(_strips(slide)):
                strip_N[inside] = strip
            groups = strip_N[rows]
        found.append((x, slide.truth_NG[rows], groups))
    x, truth, groups = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return x, truth, groups


def _left(slides: Sequence[Learned]) -> str:
    return "each training slide in turn" if len(slides) > 1 else f"{_STRIPS} strips of the only training slide in turn"


def _count(slide: Learned) -> int:
    return len(slide.truth_NG)
