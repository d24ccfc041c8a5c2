"""What a pretraining run is asked again and again on the same views: does it learn, and has it collapsed?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from lamella.data.augment import StainSettings
from lamella.data.cross import CrossSamples
from lamella.data.sample import Batch, collate
from lamella.engine.world import World
from lamella.metrics.representation import per_dimension_std, rankme

_VIEWS_AT_ONCE = 16  # whole contexts go through the teacher: this many of 1,024 tokens fit beside a training step
_LOSSES = ("loss_prediction", "loss_mean_predictor", "loss_same_slide")

# Below these a run has collapsed. Measured on 64 views of two real slides, 300 steps of a small network: a healthy run
# ended with a relative deviation of 0.73, a centred rank of 6.7 and 0.96 of its first RankMe; one driven into collapse
# (no slow teacher, 25 times the learning rate) with 0.37 of its first RankMe, and no better than the mean embedding.
LEAST_RELATIVE_STD = 0.01  # features differ by less than 1 % of their size: all views look alike
LEAST_RANK = 2.0  # of the centred features: one direction holds nearly everything
LEAST_RANK_KEPT = 0.5  # of the untrained network's RankMe; training should add directions, not lose half of them
LEAST_TARGET_SPREAD = 0.01  # smooth L1 against the mean target; 0.07 even in that collapsed run
_MUST_HAVE_LEARNED = 0.5  # share of the run after which the prediction must beat a constant answer


class Watched(Protocol):
    """What is asked of a method."""

    training: bool

    def __call__(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]: ...

    def features(self, batch: Batch) -> torch.Tensor: ...

    def train(self, mode: bool = True) -> Any: ...


def held_views(samples: CrossSamples, images: int) -> list[Batch]:
    """The first views of the training order, without any augmentation: the same in every run of the catalogue and seed.

    Args:
        samples: Of the run.
        images: How many views, at most.
    """
    plain = samples.settings.model_copy(
        update={
            "stain": StainSettings(enabled=False),
            "flips": False,
            "same_resolution_fraction": 0.0,
            "scale_factors": (1.0,),
        }
    )
    held = CrossSamples(samples.catalogue, plain, samples.seed)
    count = min(images, len(held))
    views = [held.sample(position) for position in range(count)]
    held.close()
    return [collate(views[first : first + _VIEWS_AT_ONCE]) for first in range(0, count, _VIEWS_AT_ONCE)]


@torch.no_grad()
def measure(method: Watched, held: Sequence[Batch], world: World) -> dict[str, float]:
    """The monitors of a method.

    Returns:
        rankme (as published), rankme_centred, std_mean and std_min over dimensions, std_relative (spread over the root
        mean square of the features), the prediction loss and those of the two trivial predictors.
    """
    was_training = method.training
    method.train(False)
    features, losses = [], []
    for batch in held:
        moved = {key: value.to(world.device) for key, value in batch.items()}
        with world.autocast():
            features.append(method.features(moved).float().cpu().numpy())
            losses.append({key: float(value) for key, value in method(moved)[1].items() if key in _LOSSES})
    method.train(was_training)
    return {**_spread(np.concatenate(features)), **_mean_losses(losses)}


def alarms(values: Mapping[str, float], first: Mapping[str, float], progress: float) -> list[str]:
    """Plain sentences, one per monitor that says the run has collapsed or does not learn; none if it is healthy.

    Args:
        values: What `measure` gave.
        first: What it gave before the first step.
        progress: Share of the run that is done.
    """
    signs = _collapse_signs(values)
    if values["rankme"] < LEAST_RANK_KEPT * first["rankme"]:
        signs.append(
            f"rankme: the effective rank fell from {first['rankme']:.1f} to {values['rankme']:.1f}; "
            "the encoder tells fewer things apart than before training"
        )
    if progress >= _MUST_HAVE_LEARNED and values["loss_prediction"] >= values["loss_mean_predictor"]:
        signs.append(
            f"loss_prediction: the prediction loses {values['loss_prediction']:.3f}, one constant answer "
            f"{values['loss_mean_predictor']:.3f}; nothing was learned from the context"
        )
    return signs


def _collapse_signs(values: Mapping[str, float]) -> list[str]:
    signs = []
    if not math.isfinite(values["rankme"]):
        signs.append("rankme: the features are not numbers")
    if values["std_relative"] < LEAST_RELATIVE_STD:
        signs.append(
            f"std_relative: the features of different views differ by {values['std_relative']:.2%} of their size, less "
            f"than {LEAST_RELATIVE_STD:.0%}; all views look alike to the encoder"
        )
    if values["rankme_centred"] < LEAST_RANK:
        signs.append(
            f"rankme_centred: the effective rank is {values['rankme_centred']:.2f}, less than {LEAST_RANK:g}; "
            "one direction holds nearly all differences"
        )
    if values["loss_mean_predictor"] < LEAST_TARGET_SPREAD:
        signs.append(
            f"loss_mean_predictor: one constant answer loses only {values['loss_mean_predictor']:.2g}; "
            "the targets are all alike"
        )
    return signs


def _spread(features: np.ndarray) -> dict[str, float]:
    if not np.isfinite(features).all():
        return dict.fromkeys(("rankme", "rankme_centred", "std_mean", "std_min", "std_relative"), math.nan)
    std = per_dimension_std(features)
    size = float(np.sqrt(np.square(features, dtype=np.float64).mean()))
    return {
        "rankme": rankme(features),
        "rankme_centred": rankme(features - features.mean(axis=0, dtype=np.float64)),
        "std_mean": float(std.mean()),
        "std_min": float(std.min()),
        "std_relative": float(std.mean()) / size if size > 0 else 0.0,
    }


def _mean_losses(losses: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over the batches that could measure a loss; NaN where none could."""
    means = {}
    for name in _LOSSES:
        known = [entry[name] for entry in losses if math.isfinite(entry.get(name, math.nan))]
        means[name] = sum(known) / len(known) if known else math.nan
    return means
