"""Ridge regression from features of places to genes, chosen and fitted from sums over places alone.

All that a ridge needs of a slide, also to be judged on it, are sums of products: slides of a million bins are read
once, in pieces, and leaving each slide out in turn costs no second reading.

Shapes: N places, D features, G genes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

# Of the sum of squares of a target: what rounding leaves of the spread of a constant one.
_CONSTANT = 1e-9


@dataclass(frozen=True)
class Moments:
    """Sums over the places of one slide, in float64.

    Attributes:
        count: N.
        x_D: Sum of the features.
        y_G: Sum of the targets.
        xx_DD: Sum of products of features.
        xy_DG: Sum of products of features and targets.
        yy_G: Sum of squares of the targets.
    """

    count: int
    x_D: np.ndarray
    y_G: np.ndarray
    xx_DD: np.ndarray
    xy_DG: np.ndarray
    yy_G: np.ndarray

    @classmethod
    def of(cls, parts: Iterable[tuple[np.ndarray, np.ndarray]]) -> Moments:
        """Of (N, D) features and (N, G) targets, in as many parts as there are.

        Raises:
            ValueError: There is no part, or a value is not finite.
        """
        found: Moments | None = None
        for x_ND, y_NG in parts:
            x, y = x_ND.astype(np.float64), y_NG.astype(np.float64)
            if not (np.isfinite(x).all() and np.isfinite(y).all()):
                raise ValueError("features and targets of a ridge must be finite")
            part = cls(len(x), x.sum(0), y.sum(0), x.T @ x, x.T @ y, (y * y).sum(0))
            found = part if found is None else found + part
        if found is None:
            raise ValueError("a ridge needs places")
        return found

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.count + other.count,
            self.x_D + other.x_D,
            self.y_G + other.y_G,
            self.xx_DD + other.xx_DD,
            self.xy_DG + other.xy_DG,
            self.yy_G + other.yy_G,
        )

    @property
    def mean_D(self) -> np.ndarray:
        """Mean of each feature."""
        return self.x_D / self.count


@dataclass(frozen=True)
class Ridge:
    """A fitted ridge.

    Attributes:
        weights_DG: Of the features.
        offset_G: What is added.
        alpha: The penalty for each place that was chosen.
        scores: (alpha, mean correlation over genes and left-out slides) of all that were tried.
    """

    weights_DG: np.ndarray
    offset_G: np.ndarray
    alpha: float
    scores: tuple[tuple[float, float], ...] = ()

    def predict(self, x_ND: np.ndarray) -> np.ndarray:
        """(N, G) float32 on the scale of the targets it learned from."""
        return (x_ND @ self.weights_DG.astype(np.float32) + self.offset_G.astype(np.float32)).astype(np.float32)


def fit_ridge(slides: Sequence[Moments], alphas: Sequence[float]) -> Ridge:
    """The ridge of some slides, with the penalty that predicts each slide best from the others.

    Minimises sum (y - x w - b)^2 + alpha N w^2; b is not punished. Best: the highest Pearson correlation over a slide's
    places, mean of genes and slides, as it is what most tables of expression are read by.

    Args:
        slides: Of each slide; with several alphas at least two.
        alphas: To choose from.

    Raises:
        ValueError: There is nothing to choose by.
    """
    if len(alphas) == 1:
        return _solved(sum_of(slides), alphas[0])
    if len(slides) < 2:
        raise ValueError("a penalty is chosen by leaving slides out: at least two are needed")
    found = np.zeros((len(slides), len(alphas)))
    for number, left in enumerate(slides):
        others = sum_of([slide for at, slide in enumerate(slides) if at != number])
        found[number] = [_mean(left_correlation(left, ridge)) for ridge in _path(others, alphas)]
    means = np.array([_mean(column) for column in found.T])
    if not np.isfinite(means).any():
        raise ValueError("no gene varies on any slide: no penalty can be chosen")
    best = alphas[int(np.nanargmax(means))]
    ridge = _solved(sum_of(slides), best)
    scores = tuple((float(alpha), float(mean)) for alpha, mean in zip(alphas, means, strict=True))
    return Ridge(ridge.weights_DG, ridge.offset_G, float(best), scores)


def sum_of(slides: Sequence[Moments]) -> Moments:
    """All of them as one."""
    total = slides[0]
    for slide in slides[1:]:
        total = total + slide
    return total


def left_correlation(slide: Moments, ridge: Ridge) -> np.ndarray:
    """(G,) Pearson correlation of the ridge's predictions with the targets of a slide; NaN where one is constant."""
    w, count = ridge.weights_DG, slide.count
    predicted = slide.x_D @ w
    both = (w * slide.xy_DG).sum(0) - predicted * slide.y_G / count
    spread_p = (w * (slide.xx_DD @ w)).sum(0) - predicted**2 / count
    spread_y = slide.yy_G - slide.y_G**2 / count
    varies = (spread_p > 0) & (spread_y > _CONSTANT * slide.yy_G)
    spread = np.where(varies, spread_p * spread_y, np.nan)
    correlation: np.ndarray = both / np.sqrt(spread)
    return correlation


def _path(total: Moments, alphas: Sequence[float]) -> Iterable[Ridge]:
    """A ridge for each penalty: one decomposition serves all."""
    mean_D, mean_G = total.mean_D, total.y_G / total.count
    xx = total.xx_DD - total.count * np.outer(mean_D, mean_D)
    xy = total.xy_DG - np.outer(mean_D, total.y_G)
    values, vectors = np.linalg.eigh(xx)
    turned = vectors.T @ xy
    for alpha in alphas:
        weights = vectors @ (turned / (np.maximum(values, 0) + alpha * total.count)[:, None])
        yield Ridge(weights, mean_G - mean_D @ weights, float(alpha))


def _solved(total: Moments, alpha: float) -> Ridge:
    return next(iter(_path(total, [alpha])))


def _mean(values: np.ndarray) -> float:
    """Of those that are defined."""
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if len(defined) else float("nan")
