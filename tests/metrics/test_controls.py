from __future__ import annotations

import numpy as np
import pytest

from lamella.metrics.controls import exchange_labels


def test_slides_of_one_label_swap_them_whole() -> None:
    slides = np.repeat(np.arange(6), 10)
    labels = np.repeat([0, 0, 0, 1, 1, 1], 10)
    exchanged = exchange_labels(labels, slides, 2, seed=0)
    by_slide = exchanged.reshape(6, 10)
    assert (by_slide == by_slide[:, :1]).all()
    assert sorted(by_slide[:, 0]) == [0, 0, 0, 1, 1, 1]
    # Three of three cannot be split in half: one or two of each class keep their label, never all or none.
    assert (exchanged == labels).mean() in (pytest.approx(1 / 3), pytest.approx(2 / 3))


def test_labels_within_slides_are_renamed_slide_by_slide() -> None:
    rng = np.random.default_rng(0)
    slides, labels = np.repeat(np.arange(4), 50), rng.integers(0, 3, 200)
    exchanged = exchange_labels(labels, slides, 3, seed=1)
    for slide in range(4):
        inside = slides == slide
        renamed = {(old, new) for old, new in zip(labels[inside], exchanged[inside], strict=True)}
        assert len(renamed) == 3  # one new name for each old one: tiles of a class stay together
    assert len({tuple((exchanged - labels)[slides == slide] % 3)[:1] for slide in range(4)}) > 1


def test_agreement_with_the_truth_is_chance_and_seeds_differ() -> None:
    slides, labels = np.repeat(np.arange(8), 40), np.tile(np.arange(4), 80)
    first, again, other = (exchange_labels(labels, slides, 4, seed) for seed in (0, 0, 3))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert (first == labels).mean() == pytest.approx(0.25)
