"""What a pretraining run is asked again and again on the same views: does it learn, and has it collapsed?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch

from lamella.data.augment import StainSettings
from lamella.data.cross import CrossSamples
from lamella.data.sample import Batch, collate
from lamella.engine.world import World
from lamella.methods.sigreg import EXPECTED, sigreg
from lamella.metrics.representation import alpha_req, lidar, per_dimension_std, rankme, variance_shares
from lamella.models.over_ranks import alone

_VIEWS_AT_ONCE = 16  # whole contexts go through the teacher: this many of 1,024 tokens fit beside a training step
_MOST_TOKENS = 2048  # of all held views, evenly spaced: the rank of more takes seconds and says the same
_SLICES = 256
_SIGREG_STEP = 0  # one set of directions, so that only the embeddings change

# Below these a run has collapsed. Measured on 64 views of two real slides, 300 steps of a small network: a healthy run
# ended with a relative deviation of 0.73, a centred rank of 6.7 and 0.96 of its first RankMe; one driven into collapse
# (no slow teacher, 25 times the learning rate) with 0.37 of its first RankMe, and no better than the mean embedding.
LEAST_RELATIVE_STD = 0.01  # features differ by less than 1 % of their size: all views look alike
LEAST_RANK = 2.0  # of the centred features: one direction holds nearly everything
LEAST_RANK_KEPT = 0.5  # of the untrained network's RankMe; training should add directions, not lose half of them
LEAST_TARGET_SPREAD = 0.01  # smooth L1 against the mean target; 0.07 even in that collapsed run
# Share of the tokens' variance that says where a token is, not what is there. Fresh networks have 0.97 on digits, where
# positions outweigh pixels; training should lower it.
MOST_POSITION = 0.9
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
    """The monitors of a method, whatever it learns from.

    Called on one rank alone: nothing is exchanged with the others.

    Returns:
        Of the pooled features: rankme (as published), rankme_centred, alpha_req, std_mean and std_min over dimensions,
        std_relative (spread over the root mean square), sigreg_excess. The last is of the features as they are, not
        standardised: encoders are not asked to be N(0, I), so its course tells more than its size. Where the method
        has `token_features`, the same of the tokens as tokens_..., and position_share and image_share: what explains
        the tokens' variance. Where it has a slowly following target encoder, target_distance: how far the features
        of the encoder that learns are from the target's, over the root mean square spread of the latter. Where the
        views hold several crops of an image, lidar. All losses that the method logs, and regularised_sigreg_excess,
        of the embeddings that it regularises.
    """
    was_training = method.training
    method.train(False)
    seen: dict[str, list[np.ndarray]] = {}
    logs: list[dict[str, float]] = []
    with alone():
        for batch in held:
            moved = {key: value.to(world.device) for key, value in batch.items()}
            with world.autocast():
                for name, embedded in _embeddings(method, moved).items():
                    seen.setdefault(name, []).append(embedded.float().cpu().numpy())
                logs.append(_told(method(moved)[1]))
    method.train(was_training)
    pooled = np.concatenate(seen["pooled"])
    values = _spread(pooled)
    if "tokens" in seen:
        values |= _of_tokens(seen["tokens"])
    if "learning" in seen:
        values["target_distance"] = _distance(np.concatenate(seen["learning"]), pooled)
    if "crops" in seen:
        crops = np.concatenate(seen["crops"])
        values["lidar"] = lidar(crops) if np.isfinite(crops).all() and len(crops) > 1 else math.nan
    return {**values, **_means(logs)}


def alarms(values: Mapping[str, float], first: Mapping[str, float], progress: float) -> list[str]:
    """Plain sentences, one per monitor that says the run has collapsed or does not learn; none if it is healthy.

    Args:
        values: What `measure` gave.
        first: What it gave before the first step.
        progress: Share of the run that is done.
    """
    signs = _collapse_signs(values)
    for name, what in (("rankme", "the encoder"), ("tokens_rankme", "a token of the encoder")):
        if _known(values, name) < LEAST_RANK_KEPT * _known(first, name):
            signs.append(
                f"{name}: the effective rank fell from {first[name]:.1f} to {values[name]:.1f}; "
                f"{what} tells fewer things apart than before training"
            )
    position = _known(values, "position_share")
    if progress >= _MUST_HAVE_LEARNED and position > MOST_POSITION and position >= _known(first, "position_share"):
        signs.append(
            f"position_share: {position:.1%} of the tokens' variance says where a token is, and before training "
            f"{first['position_share']:.1%}; the encoder has not learned to look at the image"
        )
    if progress >= _MUST_HAVE_LEARNED and _known(values, "loss_prediction") >= _known(values, "loss_mean_predictor"):
        signs.append(
            f"loss_prediction: the prediction loses {values['loss_prediction']:.3f}, one constant answer "
            f"{values['loss_mean_predictor']:.3f}; nothing was learned from the context"
        )
    return signs


def _collapse_signs(values: Mapping[str, float]) -> list[str]:
    signs = []
    for prefix, noun, alike in (("", "features of different views", "views"), ("tokens_", "tokens", "tokens")):
        if f"{prefix}rankme" in values and not math.isfinite(_known(values, f"{prefix}rankme")):
            signs.append(f"{prefix}rankme: the {noun.partition(' ')[0]} are not numbers")
        if _known(values, f"{prefix}std_relative") < LEAST_RELATIVE_STD:
            signs.append(
                f"{prefix}std_relative: the {noun} differ by {values[f'{prefix}std_relative']:.2%} of their size, less "
                f"than {LEAST_RELATIVE_STD:.0%}; all {alike} look alike to the encoder"
            )
        if _known(values, f"{prefix}rankme_centred") < LEAST_RANK:
            signs.append(
                f"{prefix}rankme_centred: the effective rank is {values[f'{prefix}rankme_centred']:.2f}, less than "
                f"{LEAST_RANK:g}; one direction holds nearly all differences"
            )
    if _known(values, "loss_mean_predictor") < LEAST_TARGET_SPREAD:
        signs.append(
            f"loss_mean_predictor: one constant answer loses only {values['loss_mean_predictor']:.2g}; "
            "the targets are all alike"
        )
    return signs


def _known(values: Mapping[str, float], name: str) -> float:
    """NaN, which no comparison is true of, for what was not measured; files hold None for it."""
    value = values.get(name)
    return math.nan if value is None else value


# ---- what is measured -----------------------------------------------------------------------------------------------


def _embeddings(method: Watched, batch: Batch) -> dict[str, torch.Tensor]:
    """Pooled features (B, D), and where the method or the batch has them tokens (B, T, D), ... see `measure`."""
    found = {"pooled": method.features(batch)}
    if hasattr(method, "token_features"):
        found["tokens"] = method.token_features(batch)
    if hasattr(method, "target_encoder"):
        with _learning_encoder_as_target(method):
            found["learning"] = method.features(batch)
    if "globals" in batch and batch["globals"].shape[1] > 1:
        crops = batch["globals"].unbind(1)
        found["crops"] = torch.stack([method.features({**batch, "image": crop}) for crop in crops], dim=1)
    return found


@contextmanager
def _learning_encoder_as_target(method: Any) -> Iterator[None]:
    """Within, `features` are those of the context encoder."""
    target = method.target_encoder
    method.target_encoder = method.context_encoder
    try:
        yield
    finally:
        method.target_encoder = target


def _spread(features: np.ndarray) -> dict[str, float]:
    if not np.isfinite(features).all():
        names = ("rankme", "rankme_centred", "alpha_req", "std_mean", "std_min", "std_relative", "sigreg_excess")
        return dict.fromkeys(names, math.nan)
    std = per_dimension_std(features)
    size = float(np.sqrt(np.square(features, dtype=np.float64).mean()))
    return {
        "rankme": rankme(features),
        "rankme_centred": rankme(features - features.mean(axis=0, dtype=np.float64)),
        "alpha_req": alpha_req(features),
        "std_mean": float(std.mean()),
        "std_min": float(std.min()),
        "std_relative": float(std.mean()) / size if size > 0 else 0.0,
        "sigreg_excess": _sigreg_excess(features),
    }


def _sigreg_excess(features: np.ndarray) -> float:
    with alone():
        return float(sigreg(torch.from_numpy(features.astype(np.float32)), _SIGREG_STEP, _SLICES)) - EXPECTED


def _of_tokens(batches: Sequence[np.ndarray]) -> dict[str, float]:
    """Of (B, T, D) tokens; their positions mean the same in all batches only where T is the same."""
    flat = np.concatenate([tokens.reshape(-1, tokens.shape[2]) for tokens in batches])
    chosen = flat[np.linspace(0, len(flat) - 1, min(_MOST_TOKENS, len(flat))).astype(np.int64)]
    values = {f"tokens_{name}": value for name, value in _spread(chosen).items()}
    position, image = math.nan, math.nan
    if len({tokens.shape[1] for tokens in batches}) == 1 and np.isfinite(flat).all():
        position, image = variance_shares(np.concatenate(batches))
    return {**values, "position_share": position, "image_share": image}


def _distance(learning: np.ndarray, target: np.ndarray) -> float:
    spread = np.square(target - target.mean(axis=0)).sum(axis=1).mean()
    return float(np.sqrt(np.square(learning - target).sum(axis=1).mean() / spread)) if spread > 0 else math.nan


def _told(logs: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """The losses that a method logs, and its own SIGReg by another name than that of its features."""
    told = {name: float(value) for name, value in logs.items() if name.startswith("loss_")}
    if "sigreg_excess" in logs:
        told["regularised_sigreg_excess"] = float(logs["sigreg_excess"])
    return told


def _means(logs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over the batches that could measure a value; NaN where none could."""
    means = {}
    for name in dict.fromkeys(name for entry in logs for name in entry):
        known = [entry[name] for entry in logs if math.isfinite(entry.get(name, math.nan))]
        means[name] = sum(known) / len(known) if known else math.nan
    return means
