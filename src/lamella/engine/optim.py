"""AdamW and its schedules. A schedule depends on the run's progress (0 to 1) alone, and so survives a resume."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from lamella.config import Settings

Rate = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class OptimSettings(Settings):
    """AdamW with linear warm-up, cosine decay of the rate and cosine growth of the weight decay (as in I-JEPA)."""

    lr_start: NotNegative = 2e-5
    """Learning rate of the first step; a tenth of the peak, since Adam's moments are still unknown."""
    lr: Rate = 2e-4
    """Peak learning rate, for batches of some hundred images."""
    lr_end: NotNegative = 1e-6
    """Learning rate at the end."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the run over which the rate rises to its peak."""
    weight_decay: NotNegative = 0.04
    """Weight decay of the first step."""
    weight_decay_end: NotNegative = 0.1
    """Weight decay at the end; it grows while the rate falls, so that their product does not vanish."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """Decay of Adam's two moments; PyTorch's defaults."""
    clip_norm: Rate | None = 1.0
    """Largest norm of the gradient; null does not clip. Larger gradients come from rare, odd views."""
    micro_batches: Annotated[int, Field(ge=1)] = 1
    """Split each process's share of a batch into this many equal parts and add up their gradients: same step, less
    memory."""


def learning_rate(progress: float, settings: OptimSettings) -> float:
    """Linear from lr_start to lr over the warm-up, then half a cosine down to lr_end."""
    if progress < settings.warmup:
        return settings.lr_start + (settings.lr - settings.lr_start) * progress / settings.warmup
    return half_cosine(settings.lr, settings.lr_end, (progress - settings.warmup) / (1 - settings.warmup))


def weight_decay(progress: float, settings: OptimSettings) -> float:
    """Half a cosine from weight_decay to weight_decay_end."""
    return half_cosine(settings.weight_decay, settings.weight_decay_end, progress)


def half_cosine(start: float, end: float, progress: float) -> float:
    """From `start` at 0 to `end` at 1, flat at both ends."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def adamw(module: nn.Module, settings: OptimSettings) -> torch.optim.AdamW:
    """AdamW over the trainable parameters, in two groups: with and without weight decay.

    Biases, norms, single vectors such as mask tokens, and positions are not decayed: pulling them to zero does not
    limit what the network can express, it only shifts it.
    """
    trainable = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for name, p in trainable if decays(name, p) is flag], "decays": flag} for flag in (True, False)
    ]
    return torch.optim.AdamW(groups, lr=settings.lr_start, betas=settings.betas)


def decays(name: str, parameter: torch.Tensor) -> bool:
    """Whether weight decay applies: to matrices and larger, but not to positions."""
    is_vector = all(size == 1 for size in parameter.shape[:-1])
    return not is_vector and "position" not in name


def set_rates(optimizer: torch.optim.Optimizer, progress: float, settings: OptimSettings) -> tuple[float, float]:
    """Put the schedules' values into the optimiser; returns (learning rate, weight decay)."""
    rate, decay = learning_rate(progress, settings), weight_decay(progress, settings)
    for group in optimizer.param_groups:
        group["lr"] = rate
        group["weight_decay"] = decay if group["decays"] else 0.0
    return rate, decay
