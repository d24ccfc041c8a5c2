"""Small judged slides with known rates."""

from __future__ import annotations

import numpy as np

from lamella.metrics.genes.arrangement import Arrangement
from lamella.metrics.genes.judged import JudgedSlide
from lamella.metrics.genes.moved import Moved
from lamella.metrics.genes.pairs import Pairs

GENES = 6


def bins(
    seed: int = 0,
    *,
    side: int = 40,
    genes: int = GENES,
    level: float = 0.3,
    hole: bool = True,
    slide_id: str = "slide",
    patient: str = "A",
) -> JudgedSlide:
    """Poisson counts of waves along the lattice, predicted as the rates with noise; a hole in the tissue."""
    rng = np.random.default_rng(seed)
    row, col = np.mgrid[:side, :side]
    waves = np.sin(row[..., None] / np.linspace(4, 9, genes)) + np.cos(col[..., None] / 7)
    rate = (level * np.exp(waves)).reshape(-1, genes)
    rc = np.stack([row.ravel(), col.ravel()], axis=1).astype(np.int32)
    kept = np.hypot(rc[:, 0] - 30, rc[:, 1] - 8) > 4 if hole else np.ones(len(rc), bool)
    mixed = rng.permutation(np.flatnonzero(kept))  # places come in any order
    rc, rate = rc[mixed] + np.array([100, -3], np.int32), rate[mixed]
    truth = rng.poisson(rate).astype(np.float32)
    predicted = (rate * np.exp(rng.normal(0, 0.4, rate.shape))).astype(np.float32)
    return JudgedSlide(
        slide_id,
        patient,
        tuple(f"gene{number}" for number in range(genes)),
        truth,
        predicted,
        "counts",
        truth.sum(axis=1) + 3,
        (0.2 + rate.mean(axis=1)).astype(np.float32),
        rc,
        2.0,
        (rc[:, ::-1] * 2.0).astype(np.float32),
        rate.mean(axis=0).astype(np.float32),
    )


def spots(seed: int = 0, *, genes: int = GENES, slide_id: str = "spots", patient: str = "A") -> JudgedSlide:
    """Ten by twelve spots, 200 um apart, a little off the lattice; values on a logarithmic scale."""
    rng = np.random.default_rng(seed)
    row, col = (each.ravel() for each in np.mgrid[:10, :12])
    places = np.stack([col, row], axis=1) * 200.0 + rng.normal(0, 8, (120, 2))
    truth = np.log1p(rng.poisson(np.exp(np.sin(row[:, None] / 2 + np.arange(genes))), (120, genes)))
    predicted = truth + rng.normal(0, 1, truth.shape)
    total = truth.sum(axis=1)
    return JudgedSlide(
        slide_id,
        patient,
        tuple(f"gene{number}" for number in range(genes)),
        truth.astype(np.float32),
        predicted.astype(np.float32),
        "log",
        total.astype(np.float32),
        (total / 9).astype(np.float32),
        None,
        100.0,
        places.astype(np.float32),
        truth.mean(axis=0).astype(np.float32),
    )


def prepared(slide: JudgedSlide, shuffles: int = 3) -> tuple[Pairs, Arrangement, Moved]:
    """What the measures take, of all genes."""
    arrangement = Arrangement.of(slide, 20.0 if slide.rc is not None else 500.0)
    pairs = Pairs(slide, arrangement, slice(None))
    return pairs, arrangement, Moved(pairs, arrangement.shuffles(shuffles, 0))


def shuffled_slides(slide: JudgedSlide, shuffles: int = 3) -> list[JudgedSlide]:
    """The slide with the truth of other places, made plainly: what a measure of shuffled labels must equal."""
    from dataclasses import replace

    arrangement = Arrangement.of(slide, 20.0 if slide.rc is not None else 500.0)
    found = []
    for goes in arrangement.shuffles(shuffles, 0):
        truth = np.empty_like(slide.truth)
        truth[arrangement.order[goes]] = slide.truth[arrangement.order]
        found.append(replace(slide, truth=truth))
    return found
