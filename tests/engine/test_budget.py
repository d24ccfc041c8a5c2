from __future__ import annotations

import pytest

from lamella.config import resolve
from lamella.engine.budget import Budget, BudgetSettings
from lamella.errors import ConfigError


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"images": 1000}, 63),  # 62.5 steps of 16
        ({"epochs": 2}, 25),  # 2 x 200 images
        ({"epochs": 0.5}, 7),
        ({}, 1250),  # 100 epochs
    ],
)
def test_images_or_epochs_become_steps(settings: dict[str, float], steps: int) -> None:
    assert BudgetSettings(**settings).resolve(200, 16) == Budget(steps, 16, 200)


def test_both_at_once_are_refused_with_the_way_out() -> None:
    with pytest.raises(ConfigError, match=r"set one of them to null, such as budget\.images=null"):
        resolve(BudgetSettings, overrides=["images=3", "epochs=4"])


def test_progress_epochs_and_milestones() -> None:
    budget = Budget(steps=10, images_per_step=8, images_per_epoch=20)
    assert [budget.progress(step) for step in (0, 5, 10)] == [0, 0.5, 1]
    assert [budget.epoch(step) for step in range(6)] == [1, 1, 1, 2, 2, 3]
    # Multiples of 30 images: 30, 60 lie in the 4th and 8th step of eight images.
    assert [step for step in range(10) if budget.crosses(step, 30)] == [3, 7]
    assert [step for step in range(10) if budget.crosses(step, 8)] == list(range(10))
