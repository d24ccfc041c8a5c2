from __future__ import annotations

import math

import pytest
import torch

from lamella.engine.world import World
from lamella.verbs.pretraining.monitors import alarms, measure

CPU = World(0, 1, torch.device("cpu"), "fp32", "a test")
HEALTHY = {
    "rankme": 9.0,
    "rankme_centred": 12.0,
    "std_relative": 0.4,
    "tokens_rankme": 20.0,
    "tokens_rankme_centred": 19.0,
    "tokens_std_relative": 0.6,
    "position_share": 0.95,  # of a fresh network, say: no alarm while it does not rise
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


class Tokened(Watched):
    """A method with tokens, and with a target encoder beside the one that learns."""

    def __init__(self, tokens: torch.Tensor, learning: torch.Tensor | None = None) -> None:
        super().__init__(tokens.mean(1), [])
        self.losses = [0.3] * len(tokens)
        if learning is not None:
            self.target_encoder, self.context_encoder = tokens, learning
        self.plain = tokens

    def features(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.token_features(batch).mean(1)

    def token_features(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return getattr(self, "target_encoder", self.plain)[batch["position"]]


def test_tokens_are_measured_where_a_method_has_them() -> None:
    rng = torch.Generator().manual_seed(0)
    by_position, by_image = torch.randn(1, 5, 4, generator=rng), 0.1 * torch.randn(6, 1, 4, generator=rng)
    values = measure(Tokened(by_position + by_image), held(4, 2), CPU)
    shares = by_position.var(1, correction=0).sum(), by_image.var(0, correction=0).sum()
    assert values["position_share"] == pytest.approx(float(shares[0] / sum(shares)), rel=1e-4)
    assert values["image_share"] == pytest.approx(float(shares[1] / sum(shares)), rel=1e-4)
    every = (by_position + by_image).flatten(0, 1)
    assert values["tokens_std_mean"] == pytest.approx(float(every.std(0, correction=0).mean()), rel=1e-4)
    assert {"tokens_rankme", "tokens_alpha_req", "tokens_sigreg_excess", "alpha_req", "sigreg_excess"} <= set(values)
    assert {"target_distance", "lidar"}.isdisjoint(values)


def test_the_distance_to_the_target_is_in_units_of_the_targets_spread() -> None:
    target = torch.tensor([1.0, -1.0])[:, None, None].expand(2, 3, 4)
    method = Tokened(target, target + 0.5)
    values = measure(method, held(2), CPU)
    assert values["target_distance"] == pytest.approx(0.5)
    assert method.target_encoder is target  # as it was
    assert values["std_mean"] == pytest.approx(1.0)  # features are those of the target


def test_crops_of_images_give_lidar_and_the_methods_own_sigreg_has_its_own_name() -> None:
    class Cropped(Watched):
        def features(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
            return batch["image"]

        def __call__(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            return torch.tensor(0.0), {"loss_invariance": torch.tensor(0.2), "sigreg_excess": torch.tensor(3.0)}

    images = torch.eye(8)[:, None] * 5
    batch = {"image": images[:, 0], "globals": images + torch.tensor([[0.1], [-0.1]])}
    values = measure(Cropped(images[:, 0], []), [batch], CPU)
    assert values["lidar"] == pytest.approx(7, rel=0.01)
    assert (values["loss_invariance"], values["regularised_sigreg_excess"]) == pytest.approx((0.2, 3.0))
    assert values["sigreg_excess"] != 3.0
    assert "loss_prediction" not in values
    assert alarms(values, values, 1.0) == []


def test_normal_features_have_no_sigreg_excess_and_collapsed_ones_much() -> None:
    normal = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    values = measure(Watched(normal, [0.3]), held(200), CPU)
    assert abs(values["sigreg_excess"]) < 0.5
    assert measure(Watched(0.01 * normal, [0.3]), held(200), CPU)["sigreg_excess"] > 50


def test_what_a_file_holds_as_null_gives_no_alarm() -> None:
    first = {**HEALTHY, "rankme": None, "loss_mean_predictor": None}
    assert alarms({**HEALTHY, "position_share": 0.8}, first, 1.0) == []  # type: ignore[arg-type]


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
        ({"tokens_rankme": 9.9}, 0.1, "tokens_rankme: the effective rank fell from 20.0 to 9.9"),
        ({"tokens_std_relative": 0.005}, 0.1, "tokens_std_relative: the tokens differ by 0.50% of their size"),
        ({"tokens_rankme_centred": 1.5}, 0.1, "tokens_rankme_centred: the effective rank is 1.50"),
        ({"position_share": 0.98}, 0.5, "position_share: 98.0% of the tokens' variance"),
        ({"loss_prediction": 0.38}, 0.5, "loss_prediction: the prediction loses 0.380, one constant answer 0.380"),
    ],
)
def test_one_sign_is_enough(changed: dict[str, float], progress: float, sign: str) -> None:
    healthy = {**HEALTHY, "position_share": 0.5}
    assert alarms(healthy, HEALTHY, progress) == []
    (found,) = alarms({**healthy, **changed}, HEALTHY, progress)
    assert sign in found


def test_a_young_run_need_not_have_learned_yet() -> None:
    assert alarms({**HEALTHY, "loss_prediction": 0.9}, HEALTHY, progress=0.49) == []
