"""How much of the deviance of counts the expected counts explain: D2, 1 - deviance / deviance of the gene's own mean.

The reference is the mean of the judged slide itself, as in scikit-learn's `d2_tweedie_score` with power 1: a predictor
that knows a gene's level and nothing of its places reaches 0 at best, and a wrong level costs. NB has the variance
mu + mu^2 / theta, and theta is taken by moments from the judged truth at that resolution, the same for every
predictor; no model is judged by a dispersion of its own.

Shapes: g genes, N places, B blocks, P shuffles.
"""

from __future__ import annotations

import numpy as np
from scipy import special

from lamella.metrics.genes.moved import Moved
from lamella.metrics.genes.pairs import Pairs

POISSON, NB = "poisson_d2", "nb_d2"
# Beyond, a negative binomial is a Poisson; below, all its mass is at zero.
_THETAS = (1e-3, 1e6)


def explained_of(sums: np.ndarray) -> np.ndarray:
    """Share explained from (..., 2): deviance of the prediction and of the mean."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(sums[..., 1] > 0, 1 - sums[..., 0] / sums[..., 1], np.nan)


def moment_theta(counts_gN: np.ndarray) -> np.ndarray:
    """(g,) inverse dispersion m^2 / (v - m) of counts; 1e6 where they vary no more than a Poisson."""
    mean, variance = counts_gN.mean(axis=1), counts_gN.var(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.where(variance > mean, mean**2 / (variance - mean), _THETAS[1])
    return np.clip(found, *_THETAS)


def poisson_deviance(counts: np.ndarray, mu: np.ndarray) -> np.ndarray:
    """Of every place: 2 (y ln(y / mu) - y + mu)."""
    return 2 * (special.xlogy(counts, counts) - special.xlogy(counts, mu) - counts + mu)


def nb_deviance(counts: np.ndarray, mu: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """Of every place: 2 (y ln(y / mu) - (y + theta) ln((y + theta) / (mu + theta)))."""
    other = (counts + theta) * np.log1p((counts - mu) / (mu + theta))
    return 2 * (special.xlogy(counts, counts) - special.xlogy(counts, mu) - other)


def deviance_sums(pairs: Pairs) -> dict[str, np.ndarray]:
    """(B, g, 2) sums of Poisson's and of NB's deviance; NaN for genes that do not vary."""
    counts, mu = pairs.truth, pairs.mu
    mean = np.maximum(counts.mean(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    theta = moment_theta(counts)[:, None]
    found = {
        POISSON: pairs.blocks(poisson_deviance(counts, mu), poisson_deviance(counts, mean)),
        NB: pairs.blocks(nb_deviance(counts, mu, theta), nb_deviance(counts, mean, theta)),
    }
    for sums in found.values():
        sums[:, pairs.y_constant] = np.nan
    return found


def deviance_shuffled(pairs: Pairs, moved: Moved, sums: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """(P, g) shares explained with the truth of other places. Only y ln(...) depends on which truth is where."""
    theta = moment_theta(pairs.truth)[:, None]
    found = {}
    for name, log_gN in ((POISSON, np.log(pairs.mu)), (NB, np.log(pairs.mu / (pairs.mu + theta)))):
        own = sums[name].sum(axis=0)
        paired = (pairs.truth * log_gN).sum(axis=1)
        moved_deviance = own[:, 0] + 2 * (paired - moved.cross(pairs.truth, log_gN))
        found[name] = explained_of(
            np.stack([moved_deviance, np.broadcast_to(own[:, 1], moved_deviance.shape)], axis=-1)
        )
    return found
