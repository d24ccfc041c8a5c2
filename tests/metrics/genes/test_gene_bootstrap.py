from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.metrics.genes.judged_slides import bins

from lamella.metrics.genes.bootstrap import Resampler
from lamella.metrics.genes.measures import AGREEMENT, FISHER
from lamella.metrics.genes.scores import GeneScores, SlideScores
from lamella.metrics.genes.scoring import score
from lamella.metrics.genes.settings import GeneMetricSettings

SETTINGS = GeneMetricSettings(draws=2000, block_um=20)
MEAN = "hot_1pct"  # a plain ratio of sums


def by_hand(values_BG: np.ndarray, name: str, patient: str, genes: tuple[str, ...] | None = None) -> SlideScores:
    """A slide whose measure is the mean over its blocks."""
    blocks, count = values_BG.shape
    sums = np.stack([values_BG, np.ones_like(values_BG)], axis=-1).astype(np.float32)
    return SlideScores(
        name,
        patient,
        "counts",
        2.0,
        True,
        genes or tuple(f"gene{number}" for number in range(count)),
        100 * blocks,
        {MEAN: values_BG.mean(axis=0)},
        {MEAN: sums},
        {MEAN: np.zeros((20, count))},
        np.zeros(count),
        np.ones(count),
        ("",) * count,
        name,
    )


def drawn(*slides: SlideScores):
    scores = GeneScores(slides)
    return Resampler(scores, 2.0, SETTINGS).of(scores, MEAN)


def test_blocks_alone():
    values = np.random.default_rng(0).normal(0.5, 0.1, (30, 1))
    found = drawn(by_hand(values, "s", "A"))
    assert found.value == pytest.approx(values.mean())
    assert found.draws.std() == pytest.approx(values.std() / np.sqrt(30), rel=0.1)
    low, high, note = found.interval()
    assert low < values.mean() < high
    assert note == "one patient: genes and places alone vary"


def test_genes_alone():
    level = np.random.default_rng(1).normal(0.5, 0.1, 40)
    found = drawn(by_hand(np.tile(level, (10, 1)), "s", "A"))
    assert found.draws.std() == pytest.approx(level.std() / np.sqrt(40), rel=0.1)


def test_genes_are_the_same_on_all_slides():
    """Genes that are easy are easy everywhere: ten slides do not make them more."""
    level = np.random.default_rng(1).normal(0.5, 0.1, 40)
    slides = [by_hand(np.tile(level, (10, 1)), f"s{number}", f"p{number}") for number in range(10)]
    assert drawn(*slides).draws.std() == pytest.approx(level.std() / np.sqrt(40), rel=0.1)


def test_patients_alone_and_their_slides_move_together():
    level = np.random.default_rng(2).normal(0.5, 0.1, 8)
    slides = [
        by_hand(np.full((10, 3), each), f"s{number}{half}", f"p{number}")
        for number, each in enumerate(level)
        for half in "ab"
    ]
    found = drawn(*slides)
    assert found.patients == 8
    assert found.draws.std() == pytest.approx(level.std() / np.sqrt(8), rel=0.1)
    assert found.interval()[2] == ""


def test_three_patients_allow_no_claim():
    slides = [by_hand(np.full((10, 3), 0.1 * number), f"s{number}", f"p{number}") for number in range(3)]
    low, high, note = drawn(*slides).interval()
    assert (low, high) == pytest.approx((0.0, 0.2))  # some draw holds one patient only
    assert note == "3 patients: no claim of significance"


def test_mean_over_genes_then_slides_and_undefined_genes_are_left_out():
    one = np.tile([0.2, np.nan, 0.6], (4, 1))
    two = np.tile([0.8, 0.8, 0.8], (4, 1))
    found = drawn(by_hand(one, "a", "A"), by_hand(two, "b", "A"))
    assert found.value == pytest.approx((0.4 + 0.8) / 2)
    assert (found.undefined, found.genes, found.n) == (1, 3, 800)


def test_panels_of_folds_are_joined_by_name():
    one = by_hand(np.full((4, 2), 0.2), "a", "A", ("x", "y"))
    two = by_hand(np.full((4, 2), 0.4), "b", "B", ("y", "z"))
    found = drawn(one, two)
    assert found.value == pytest.approx(0.3)
    assert found.genes == 3


def test_nothing_defined_is_nan():
    found = drawn(by_hand(np.full((4, 2), np.nan), "a", "A"))
    assert np.isnan(found.value)
    low, _, note = found.interval()
    assert np.isnan(low)
    assert note.startswith("undefined in 100%")


def test_fisher_and_agreement_on_real_scores():
    settings = GeneMetricSettings(block_um=20, resolutions_um=(2,))
    scores = score([bins(), bins(1, slide_id="b", patient="B")], settings)
    resampler = Resampler(scores, 2.0, settings)
    z = [np.arctanh(slide.values["pearson"]).mean() for slide in scores.slides]
    assert resampler.of(scores, FISHER).value == pytest.approx(np.tanh(np.mean(z)))
    over_genes = [
        np.corrcoef(slide.values["moran_truth"], slide.values["moran_predicted"])[0, 1] for slide in scores.slides
    ]
    assert resampler.of(scores, AGREEMENT).value == pytest.approx(np.mean(over_genes), abs=1e-4)


def test_draws_are_the_same_for_every_predictor_and_another_seed_has_others():
    scores = GeneScores((by_hand(np.random.default_rng(0).normal(size=(20, 5)), "s", "A"),))
    other = GeneScores(tuple(replace(slide, values=dict(slide.values)) for slide in scores.slides))
    first = Resampler(scores, 2.0, SETTINGS).of(scores, MEAN).draws
    assert np.array_equal(first, Resampler(other, 2.0, SETTINGS).of(other, MEAN).draws)
    seeded = SETTINGS.model_copy(update={"seed": 1})
    assert not np.array_equal(first, Resampler(scores, 2.0, seeded).of(scores, MEAN).draws)


def test_a_gene_of_one_block_has_a_number_in_every_draw():
    sums = np.zeros((20, 2, 2), np.float32)
    sums[:, 0], sums[4, 1] = (0.5, 1), (0.9, 1)  # the second gene is defined by one block alone
    slide = replace(by_hand(np.full((20, 2), 0.5), "s", "A"), values={MEAN: np.array([0.5, 0.9])}, sums={MEAN: sums})
    found = drawn(slide)
    assert np.isfinite(found.draws).all()
    assert found.draws.mean() == pytest.approx(0.7, abs=0.01)


def test_an_interval_that_does_not_hold_its_number_says_so():
    values = np.zeros((20, 1))
    values[0] = 1
    found = drawn(by_hand(values, "s", "A"))
    moved = replace(found, value=-1.0, patients=5)
    assert "resampling itself moves this number" in moved.interval()[2]
