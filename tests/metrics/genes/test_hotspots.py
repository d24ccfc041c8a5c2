from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.metrics.genes.judged_slides import bins, prepared, shuffled_slides

from lamella.metrics.genes.hotspots import hotspot_name, hotspots, precision_of


def drawn(x, y, share, rng):
    """One draw of the precision, ties broken by chance."""
    count = min(int(np.ceil(share * len(y))), int((y > 0).sum()))
    mixed = rng.permutation(len(y))
    tops = [set(mixed[np.argsort(-values[mixed], kind="stable")][:count]) for values in (x, y)]
    again = rng.permutation(len(y))
    tops[1] = set(again[np.argsort(-y[again], kind="stable")][:count])
    return len(tops[0] & tops[1]) / count


@pytest.mark.parametrize("share", [0.01, 0.05])
def test_is_the_mean_over_random_orders_of_ties(share):
    slide = bins(genes=2, side=20)
    slide = slide.with_predicted(np.round(slide.predicted, 1))
    pairs, _, moved = prepared(slide)
    sums, _ = hotspots(pairs, moved, share)
    rng = np.random.default_rng(0)
    for gene, found in enumerate(precision_of(sums.sum(axis=0))):
        draws = [drawn(slide.predicted[:, gene], slide.truth[:, gene], share, rng) for _ in range(1500)]
        assert found == pytest.approx(np.mean(draws), abs=4 * np.std(draws) / np.sqrt(1500) + 1e-9)


def test_the_truth_finds_all_and_a_constant_by_chance():
    # Without ties: of ties at the edge, the truth itself finds some only.
    slide = bins()
    slide = replace(slide, truth=(slide.truth + np.linspace(0, 0.5, len(slide.truth))[:, None]).astype(np.float32))
    for predicted, expected in ((slide.truth, 1.0), (np.ones_like(slide.truth), 0.05)):
        pairs, _, moved = prepared(slide.with_predicted(predicted))
        sums, _ = hotspots(pairs, moved, 0.05)
        assert precision_of(sums.sum(axis=0)) == pytest.approx(np.full(6, expected), abs=0.0005)


def test_places_without_the_gene_are_no_hotspots():
    slide = bins()
    truth = np.zeros_like(slide.truth)
    truth[5] = 1  # one place in some 1,500 expresses it; a 5 % share would be 77
    predicted = np.zeros_like(truth)
    predicted[5] = 2
    pairs, _, moved = prepared(replace(slide, truth=truth, predicted=predicted))
    sums, _ = hotspots(pairs, moved, 0.05)
    assert precision_of(sums.sum(axis=0)) == pytest.approx(np.ones(6))


def test_shuffled_equals_the_measure_of_moved_truth():
    slide = bins(level=0.05)
    pairs, _, moved = prepared(slide)
    _, found = hotspots(pairs, moved, 0.05)
    for number, other in enumerate(shuffled_slides(slide)):
        again, _, same = prepared(other)
        assert found[number] == pytest.approx(precision_of(hotspots(again, same, 0.05)[0].sum(axis=0)), abs=1e-9)


def test_names():
    assert [hotspot_name(share) for share in (0.01, 0.05, 0.005)] == ["hot_1pct", "hot_5pct", "hot_0.5pct"]
