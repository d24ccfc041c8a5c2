"""Measures of expression on a generated slide of 500,000 bins of 2 um and 50 genes, against scipy and its kin.

Ours: every measure at 2, 8 and 16 um, with 20 shuffles of the labels behind each and sums over blocks for the
intervals; then a table with intervals. The peers do two genes, once each, at 2 um alone and without a shuffle or an
interval: scipy's `pearsonr` and `spearmanr`, scikit-learn's `roc_auc_score`, `average_precision_score` and
`d2_tweedie_score`, scikit-image's `structural_similarity`. Numbers must agree before times are compared. Usage:
`python benchmarks/gene_metrics.py [side of the slide in bins] [genes]`.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats
from skimage.metrics import structural_similarity
from sklearn.metrics import average_precision_score, d2_tweedie_score, roc_auc_score

from lamella.metrics.genes.judged import JudgedSlide
from lamella.metrics.genes.scoring import score
from lamella.metrics.genes.settings import GeneMetricSettings
from lamella.metrics.genes.summary import summarise

SIDE, GENES, BIN_UM = 707, 50, 2.0
LEVEL = 0.02  # counts a bin: some 97 % zeros
_COMPARED = ("pearson", "spearman", "auroc", "auprc", "poisson_d2", "ssim_joint")
_PEER_GENES = 2


def main() -> None:
    side, genes = (int(given) for given in (sys.argv[1:3] if len(sys.argv) > 2 else (SIDE, GENES)))
    slide = generated(side, genes)
    zeros = float(np.mean(slide.truth == 0))
    held = (slide.truth.nbytes + slide.predicted.nbytes) / 2**20
    print(f"{len(slide.truth):,} bins x {genes} genes, {zeros:.1%} zeros; truth and prediction are {held:.0f} MB")
    before = peak_mb()
    settings = GeneMetricSettings()
    scores, ours_s = timed(lambda: score([slide], settings))
    print(
        f"all measures at 2, 8, 16 um, {settings.permutations} shuffles: {ours_s:.1f} s ({ours_s / genes:.2f} a gene)"
    )
    print(f"memory above the slide's own: {peak_mb() - before:.0f} MB")
    summary, table_s = timed(lambda: summarise({"model": scores}, {"model": "model"}, settings))
    print(f"{len(summary.rows)} rows with intervals of {settings.draws} draws: {table_s:.1f} s")

    theirs, theirs_s = timed(lambda: [peers(slide, gene) for gene in range(_PEER_GENES)])
    own = scores.at(BIN_UM)[0].values
    for gene, found in enumerate(theirs):
        np.testing.assert_allclose([own[name][gene] for name in _COMPARED], found, atol=1e-5)
    once, plain_s = ours_s / genes, theirs_s / _PEER_GENES
    print(f"peers, six measures of one gene at 2 um, once: {plain_s:.2f} s; with 20 shuffles {21 * plain_s:.1f} s")
    print(f"ours, all of one gene with its shuffles: {once:.2f} s, {21 * plain_s / once:.0f}x faster than those")


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    found = work()
    return found, time.perf_counter() - started


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def generated(side: int, genes: int) -> JudgedSlide:
    """Poisson counts of smooth rates, predicted as the rates with noise."""
    rng = np.random.default_rng(0)
    row, col = np.mgrid[:side, :side]
    truth = np.empty((side * side, genes), np.float32)
    predicted = np.empty_like(truth)
    for gene in range(genes):
        rate = LEVEL * np.exp(np.sin(row / (20 + gene)) + np.cos(col / 60)).ravel()
        truth[:, gene] = rng.poisson(rate)
        predicted[:, gene] = rate * np.exp(rng.normal(0, 0.5, rate.shape))
    rc = np.stack([row.ravel(), col.ravel()], axis=1).astype(np.int32)
    total = truth.sum(axis=1)
    names = tuple(f"gene{number}" for number in range(genes))
    places = (rc[:, ::-1] * BIN_UM).astype(np.float32)
    mean = truth.mean(axis=0)
    return JudgedSlide("slide", "patient", names, truth, predicted, "counts", total, total, rc, BIN_UM, places, mean)


def peers(slide: JudgedSlide, gene: int) -> list[float]:
    counts, mu = slide.truth[:, gene].astype(np.float64), slide.predicted[:, gene].astype(np.float64)
    y, x = np.log1p(counts), np.log1p(mu)
    side = round(len(y) ** 0.5)
    span = max(x.max(), y.max()) - min(x.min(), y.min())
    return [
        float(stats.pearsonr(x, y).statistic),
        float(stats.spearmanr(x, y).statistic),
        float(roc_auc_score(counts > 0, x)),
        float(average_precision_score(counts > 0, x)),
        float(d2_tweedie_score(counts, mu, power=1)),
        float(structural_similarity(x.reshape(side, side), y.reshape(side, side), data_range=span)),
    ]


if __name__ == "__main__":
    main()
