"""Retrieval against scikit-learn's neighbours."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.neighbors import KNeighborsRegressor

from lamella.methods.expression_knn import fit_memory, unit_length


def places(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(150, 6))
    y = np.stack([x[:, 0] / np.linalg.norm(x, axis=1), x[:, 1] * x[:, 2]], 1) + rng.normal(size=(150, 2)) / 4
    return x, y.astype(np.float32), np.repeat([0, 1, 2], 50)


def test_the_mean_of_the_nearest_is_that_of_scikit_learn() -> None:
    x, y, slides = places()
    asked = places(1)[0]
    memory = fit_memory(x, y, slides, [7])
    reference = KNeighborsRegressor(7, metric="cosine", algorithm="brute").fit(x, y)
    np.testing.assert_allclose(memory.predict(asked), reference.predict(asked), rtol=1e-4, atol=1e-5)


def test_the_number_of_neighbours_is_the_one_that_predicts_left_out_slides_best() -> None:
    x, y, slides = places()
    tried = (1, 5, 20, 90)
    memory = fit_memory(x, y, slides, tried)
    means = []
    for count in tried:
        found = []
        for number in range(3):
            left = slides == number
            reference = KNeighborsRegressor(count, metric="cosine", algorithm="brute").fit(x[~left], y[~left])
            predicted = reference.predict(x[left])
            found.append(np.mean([stats.pearsonr(predicted[:, g], y[left][:, g]).statistic for g in range(2)]))
        means.append(np.mean(found))
    assert [count for count, _ in memory.scores] == list(tried)
    np.testing.assert_allclose([score for _, score in memory.scores], means, rtol=1e-3)
    assert memory.neighbours == tried[int(np.argmax(means))]


def test_more_neighbours_than_places_are_as_many_as_there_are() -> None:
    x, y, slides = places()
    memory = fit_memory(x, y, slides, [10_000])
    np.testing.assert_allclose(memory.predict(x[:3]), np.tile(y.mean(0), (3, 1)), rtol=1e-5)
    assert max(count for count, _ in fit_memory(x, y, slides, [5, 10_000]).scores) == 100


def test_length_says_nothing() -> None:
    x, y, slides = places()
    memory = fit_memory(x, y, slides, [3])
    np.testing.assert_array_equal(memory.predict(x[:20]), memory.predict(4 * x[:20]))
    assert not unit_length(np.zeros((1, 4))).any()


def test_nothing_to_choose_by_is_refused() -> None:
    x, y, slides = places()
    with pytest.raises(ValueError, match="at least two"):
        fit_memory(x, y, np.zeros_like(slides), [3, 5])
    with pytest.raises(ValueError, match="no gene varies"):
        fit_memory(x, np.ones_like(y), slides, [3, 5])
