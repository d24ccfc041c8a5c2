"""Does an encoder see the tissue or the scanner? Neighbours across sites, and probes trained on confounded sites."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from lamella.config import Settings
from lamella.metrics.probes import ProbeSettings, fit_predict, standardise

# Rows of similarities held at once: 512 x 20,000 float32 are 40 MB.
_CHUNK = 512


class RobustnessSettings(Settings):
    """How robustness to the site is measured."""

    neighbours: Annotated[int, Field(ge=1)] = 10
    """k of the robustness index."""
    correlations: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (0.25, 0.5, 0.75, 1.0)
    """Strengths of the link between class and site in the training sets of the accuracy drop."""
    repeats: Annotated[int, Field(ge=1)] = 3
    """Training sets drawn for each strength."""
    least_cell: Annotated[int, Field(ge=1)] = 5
    """Fewest training tiles of a class at a site with which the accuracy drop is asked."""
    drop_c: Annotated[float, Field(gt=0)] = 0.1
    """C of the probes of the accuracy drop; one value for all strengths, so that only the training data changes."""


def neighbour_counts(
    features: np.ndarray, labels: np.ndarray, sites: np.ndarray, groups: np.ndarray, k: int
) -> np.ndarray:
    """Count, among each row's k nearest rows of other groups, the two kinds that tell tissue from site.

    Nearest by cosine on standardised features. Neighbours of the same class and site, or of another class and
    site, tell nothing and are not counted.

    Returns:
        (N, 2) float64: same class & other site, other class & same site.
    """
    unit, _ = standardise(features, features)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    counts = np.zeros((len(unit), 2))
    for start in range(0, len(unit), _CHUNK):
        rows = slice(start, start + _CHUNK)
        similarity = unit[rows] @ unit.T
        similarity[groups[rows, None] == groups[None, :]] = -np.inf
        nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        usable = np.isfinite(np.take_along_axis(similarity, nearest, axis=1))
        same_class = labels[nearest] == labels[rows, None]
        same_site = sites[nearest] == sites[rows, None]
        counts[rows, 0] = (usable & same_class & ~same_site).sum(axis=1)
        counts[rows, 1] = (usable & ~same_class & same_site).sum(axis=1)
    return counts


def robustness_index(counts: np.ndarray) -> np.ndarray:
    """Share of tissue among the telling neighbours: 1 = only class matters, 0 = only site matters.

    R_k = sum(same class & other site) / sum(same class & other site + other class & same site).
    Source: de Jong et al., "Current Pathology Foundation Models are unrobust to Medical Center Differences" (arXiv
    2501.18055). What an encoder without any preference gets depends on the design; the control row shows it.

    Args:
        counts: (..., 2) summed counts of `neighbour_counts`.

    Returns:
        (...) float64, NaN where no neighbour tells.
    """
    total = counts.sum(axis=-1)
    return np.divide(counts[..., 0], total, out=np.full(np.shape(total), np.nan), where=total > 0)


@dataclass(frozen=True)
class DropDesign:
    """The crossed design of the accuracy drop: which class is at home at which site, and how strongly."""

    classes: int
    sites: int

    def cell_rows(self, rows_per_class: int, correlation: float, rotation: int) -> np.ndarray:
        """(C, S) training rows of each class at each site.

        At correlation 0 each class is spread evenly over the sites; at 1 it comes from its home site alone. Class c is
        at home at site (c + rotation) mod S, so that over the rotations no site is favoured.
        """
        home = np.zeros((self.classes, self.sites))
        home[np.arange(self.classes), (np.arange(self.classes) + rotation) % self.sites] = 1
        share = (1 - correlation) / self.sites + correlation * home
        return np.rint(share * rows_per_class).astype(int)


def confounded_hits(
    features: np.ndarray,
    labels: np.ndarray,
    sites: np.ndarray,
    folds: np.ndarray,
    settings: RobustnessSettings,
    *,
    seed: int,
) -> np.ndarray:
    """Predict held-out rows with probes whose training sets tie class to site more and more.

    All training sets of a fold have the same size and hold every class equally often; only the site of each class's
    tiles changes.

    Args:
        features: (N, D).
        labels: (N,) int, 0..C-1.
        sites: (N,) int, 0..S-1.
        folds: (N,); no group in two folds.
        settings: Strengths, repeats, limits.
        seed: Of the draws.

    Returns:
        (N, 1 + strengths) share of the repeats in which the row was predicted rightly, correlation 0 first.

    Raises:
        ValueError: A class has fewer than `least_cell` training tiles at a site in some fold.
    """
    rng = np.random.default_rng(seed)
    design = DropDesign(int(labels.max()) + 1, int(sites.max()) + 1)
    strengths = (0.0, *settings.correlations)
    hits = np.zeros((len(labels), len(strengths)))
    probe = ProbeSettings()
    for fold in np.unique(folds):
        test = folds == fold
        cells = _cells(np.flatnonzero(~test), labels, sites, design)
        per_class = min(len(rows) for row in cells for rows in row)
        if per_class < settings.least_cell:
            raise ValueError(
                f"a training set holds only {per_class} tiles of some class at some site; {settings.least_cell} needed"
            )
        for column, strength in enumerate(strengths):
            for repeat in range(settings.repeats):
                wanted = design.cell_rows(per_class, strength, repeat)
                drawn = [rng.permutation(cells[c][s])[: wanted[c, s]] for c, s in np.ndindex(wanted.shape)]
                train = np.concatenate(drawn)
                guess, _ = fit_predict(features[train], labels[train], features[test], settings.drop_c, probe)
                hits[test, column] += (guess == labels[test]) / settings.repeats
    return hits


def cell_sums(hits: np.ndarray, labels: np.ndarray, sites: np.ndarray) -> np.ndarray:
    """(N, C, S, strengths + 1): each row's hits, and a 1 in the last place, in its cell; sum them over rows."""
    sums = np.zeros((len(hits), int(labels.max()) + 1, int(sites.max()) + 1, hits.shape[1] + 1))
    sums[np.arange(len(hits)), labels, sites, :-1] = hits
    sums[np.arange(len(hits)), labels, sites, -1] = 1
    return sums


def cell_accuracy(sums: np.ndarray) -> np.ndarray:
    """(..., C, S, strengths + 1) -> (..., strengths): accuracy averaged over the class-at-site cells that hold rows."""
    tries = sums[..., -1:]
    share = np.divide(sums[..., :-1], tries, out=np.zeros_like(sums[..., :-1]), where=tries > 0)
    return share.sum(axis=(-3, -2)) / (tries > 0).sum(axis=(-3, -2))


def accuracy_drop(sums: np.ndarray) -> np.ndarray:
    """APD: balanced accuracy at correlation 0 minus its mean over the stronger correlations, in points of accuracy.

    After the average performance drop of Koemen et al., "Towards Robust Foundation Models for Digital Pathology" (arXiv
    2507.17845), as an absolute difference: a relative one makes a probe at chance look robust. Read it beside
    the accuracy at correlation 0: who knows nothing has nothing to lose.
    """
    accuracy = cell_accuracy(sums)
    return accuracy[..., 0] - accuracy[..., 1:].mean(axis=-1)


def _cells(rows: np.ndarray, labels: np.ndarray, sites: np.ndarray, design: DropDesign) -> list[list[np.ndarray]]:
    return [
        [rows[(labels[rows] == label) & (sites[rows] == site)] for site in range(design.sites)]
        for label in range(design.classes)
    ]
