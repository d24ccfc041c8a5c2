from __future__ import annotations

import math

import pytest

from lamella.engine.early_stopping import EarlyStopping, EarlyStoppingSettings


def rule(**settings: object) -> EarlyStopping:
    return EarlyStopping(EarlyStoppingSettings(**{"monitor": "dice", **settings}))


def fed(stopping: EarlyStopping, values: list[float]) -> list[bool]:
    return [stopping.update({"dice": value}, step) for step, value in enumerate(values)]


def test_the_best_is_remembered_and_the_patience_counts_from_it() -> None:
    stopping = rule(patience=2)
    assert fed(stopping, [0.5, 0.7, 0.6]) == [True, True, False]
    assert (stopping.best, stopping.best_step, stopping.exhausted) == (0.7, 1, False)
    stopping.update({"dice": 0.7}, 3)  # as good is not better
    assert stopping.exhausted


def test_small_improvements_count_only_beyond_min_delta() -> None:
    stopping = rule(patience=5, min_delta=0.001)
    assert fed(stopping, [0.5, 0.5009, 0.502]) == [True, False, True]


def test_smaller_is_better_where_that_is_asked() -> None:
    assert fed(rule(mode="min"), [0.5, 0.6, 0.4]) == [True, False, True]


def test_without_patience_a_run_is_never_ended() -> None:
    stopping = rule(patience=None)
    fed(stopping, [0.5] * 100)
    assert not stopping.exhausted


def test_a_value_that_is_no_number_is_no_improvement_and_the_first_number_is() -> None:
    stopping = rule(patience=3)
    assert fed(stopping, [math.nan, math.nan, 0.1, math.nan]) == [True, False, True, False]
    assert stopping.best_step == 2


def test_the_state_goes_on_where_it_was() -> None:
    one, other = rule(patience=3), rule(patience=3)
    fed(one, [0.5, 0.4])
    other.load(one.state())
    assert other == one


def test_a_validation_without_the_number_that_decides_is_a_fault() -> None:
    with pytest.raises(ValueError, match="returned loss, and dice is to decide"):
        rule().update({"loss": 1.0}, 0)
