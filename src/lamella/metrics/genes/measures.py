"""Every measure of expression by name: how its number comes from sums over places, and how to read it.

A measure is a function of sums over blocks of places, so that a resample of blocks is a weighted sum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lamella.metrics.genes import correlation, deviance, hotspots, moran, nonzero, ssim
from lamella.metrics.genes.settings import GeneMetricSettings

Better = Literal["higher", "lower", "neither"]
Average = Literal["plain", "fisher", "correlation"]


@dataclass(frozen=True)
class Measure:
    """One measure.

    Attributes:
        name: In files.
        title: In tables.
        of: (..., K) sums to (...) numbers, NaN where undefined.
        better: Which way.
        descriptive: Not to be taken for accuracy.
    """

    name: str
    title: str
    of: Callable[[np.ndarray], np.ndarray]
    better: Better = "higher"
    descriptive: bool = False


FISHER = "pearson_fisher"
"""Pearson averaged over genes by Fisher's z: a row of summaries, not a measure of single genes."""
AGREEMENT = "moran_agreement"
"""Pearson over genes of both Moran's I: a row of summaries as well."""


def measures(settings: GeneMetricSettings) -> dict[str, Measure]:
    """All measures by name, in the order of the tables."""
    hot = [
        Measure(hotspots.hotspot_name(share), f"top {100 * share:g} % hotspots, precision", hotspots.precision_of)
        for share in settings.hot_shares
    ]
    found = [
        Measure(correlation.PEARSON, "Pearson", correlation.pearson_of),
        Measure(correlation.SPEARMAN, "Spearman", correlation.pearson_of),
        Measure(nonzero.AUROC, "AUROC of non-zero", nonzero.auroc_of),
        Measure(nonzero.AUPRC, "AUPRC of non-zero", nonzero.auprc_of),
        Measure(deviance.POISSON, "Poisson deviance explained", deviance.explained_of),
        Measure(deviance.NB, "NB deviance explained", deviance.explained_of),
        *hot,
        Measure(moran.MORAN_TRUE, "Moran's I of the truth", moran.moran_of, "neither"),
        Measure(moran.MORAN_PREDICTED, "Moran's I of the prediction", moran.moran_of, "neither"),
        Measure(moran.MORAN_EXCESS, "Moran's I, prediction less truth", moran.excess_of, "neither"),
        Measure(ssim.SEPARATE, "SSIM, separate range", ssim.mean_of, descriptive=True),
        Measure(ssim.JOINT, "SSIM, joint range", ssim.mean_of, descriptive=True),
        Measure(ssim.SKILL[ssim.SEPARATE], "SSIM skill, separate range", ssim.skill_of, descriptive=True),
        Measure(ssim.SKILL[ssim.JOINT], "SSIM skill, joint range", ssim.skill_of, descriptive=True),
    ]
    return {measure.name: measure for measure in found}
