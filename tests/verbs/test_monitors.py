from __future__ import annotations

import math

import pytest
import torch

from lamella.engine.world import World
from lamella.verbs.monitors import alarms, measure

CPU = World(0, 1, torch.device("cpu"), "fp32", "a test")
HEALTHY = {
    "rankme": 9.0,
    "rankme_centred": 12.0,
    "std_relative": 0.4,
    "loss_prediction": 0.3,
    "loss_mean_predictor": 0.38,
}


class Watched:
    """A method whose features and losses are given."""

    def __init__(self, features: torch.Tensor, losses: list[float]) -> None:
        self.given, self.losses = features, list(losses)
        self.training, self.modes = True, []

    def train(self, mode: bool = True) -> Watched:
        self.training = mode
        self.modes.append(mode)
        return self

    def features(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.given[batch["position"]]

    def __call__(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        loss = torch.tensor(self.losses.pop(0))
        return loss, {"loss_prediction": loss, "loss_mean_predictor": torch.tensor(0.4), "other": loss}


def held(*sizes: int) -> list[dict[str, torch.Tensor]]:
    return [{"position": part} for part in torch.arange(sum(sizes)).split(list(sizes))]


def test_the_monitors_of_features_with_a_known_spread() -> None:
    method = Watched(torch.eye(4) + 1, [0.2, 0.4])
    values = measure(method, held(2, 2), CPU)
    # The centred features span three equal directions; each dimension is 2, 1, 1, 1: std = sqrt(3) / 4.
    assert values["rankme_centred"] == pytest.approx(3.0, abs=1e-4)
    assert values["std_mean"] == pytest.approx(math.sqrt(3) / 4)
    assert values["std_relative"] == pytest.approx(math.sqrt(3) / 4 / math.sqrt(7 / 4))
    assert values["loss_prediction"] == pytest.approx(0.3)
    assert (method.modes, method.training) == ([False, True], True)


def test_a_loss_that_one_batch_cannot_measure_is_the_mean_of_the_others() -> None:
    assert measure(Watched(torch.eye(4), [math.nan, 0.4]), held(2, 2), CPU)["loss_prediction"] == pytest.approx(0.4)
    assert math.isnan(measure(Watched(torch.eye(4), [math.nan]), held(4), CPU)["loss_prediction"])


def signs(features: torch.Tensor) -> list[str]:
    """The monitors that fire for features whose first measurement was the same."""
    values = measure(Watched(features, [0.3]), held(len(features)), CPU)
    return alarms(values, values, progress=0.0)


def test_equal_features_are_a_collapse_that_names_the_monitor() -> None:
    (sign, *_) = signs(torch.ones(6, 4) + 1e-4 * torch.eye(6, 4))
    assert sign.startswith("std_relative: the features of different views differ by 0.0")


def test_features_along_one_line_are_a_collapse() -> None:
    (sign,) = signs(torch.linspace(1, 2, 6)[:, None] * torch.tensor([1.0, 2.0, -1.0]))
    assert sign.startswith("rankme_centred: the effective rank is 1.0")


def test_features_that_are_not_numbers_are_reported() -> None:
    features = torch.eye(4)
    features[0, 0] = math.nan
    assert signs(features) == ["rankme: the features are not numbers"]


def test_features_of_zero_are_a_collapse() -> None:
    assert [sign.partition(":")[0] for sign in signs(torch.zeros(4, 3))] == ["std_relative", "rankme_centred"]


@pytest.mark.parametrize(
    ("changed", "progress", "sign"),
    [
        ({"loss_mean_predictor": 0.001, "loss_prediction": 0.0005}, 0.1, "one constant answer loses only 0.001"),
        ({"rankme": 4.4}, 0.1, "rankme: the effective rank fell from 9.0 to 4.4"),
        ({"loss_prediction": 0.38}, 0.5, "loss_prediction: the prediction loses 0.380, one constant answer 0.380"),
    ],
)
def test_one_sign_is_enough(changed: dict[str, float], progress: float, sign: str) -> None:
    assert alarms(HEALTHY, HEALTHY, progress) == []
    (found,) = alarms({**HEALTHY, **changed}, HEALTHY, progress)
    assert sign in found


def test_a_young_run_need_not_have_learned_yet() -> None:
    assert alarms({**HEALTHY, "loss_prediction": 0.9}, HEALTHY, progress=0.49) == []
