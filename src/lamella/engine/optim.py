"""AdamW and its schedules. A schedule depends on the run's progress (0 to 1) alone, and so survives a resume."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn

from lamella.config import Settings
from lamella.engine.layer_depth import layer_factors
from lamella.engine.stages import Stage, check_stages, rate_in, rows_naming
from lamella.errors import ConfigError

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
    decay: Literal["cosine", "linear"] = "cosine"
    """How the rate falls after the warm-up: half a cosine, or a line (what others call polynomial, of power 1)."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the run over which the rate rises to its peak."""
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    """The same as a number of steps; given, it counts instead of the share."""
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
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The rate of each layer of the encoder is this much lower than that of the layer after it; 1 treats all alike."""
    layer_decay_under: tuple[str, ...] = ("*encoder*",)
    """Patterns of the names of the parameters that layer_decay applies to."""
    stages: tuple[Stage, ...] = ()
    """Staged unfreezing: rows of from_epoch, parameters (patterns of names) and factor or lr. Named parameters are
    frozen until their first row begins; those that no row names are trained throughout."""

    def in_steps(self, steps: int) -> OptimSettings:
        """The same with the warm-up as a share of a run of `steps` steps.

        Raises:
            ConfigError: The warm-up is as long as the run.
        """
        if self.warmup_steps is None:
            return self
        if self.warmup_steps >= steps:
            raise ConfigError(
                [f"optim.warmup_steps: {self.warmup_steps}, and the whole run has {steps} steps; set fewer"]
            )
        return self.model_copy(update={"warmup": self.warmup_steps / steps, "warmup_steps": None})


def learning_rate(progress: float, settings: OptimSettings) -> float:
    """Linear from lr_start to lr over the warm-up, then half a cosine, or a line, down to lr_end."""
    if progress < settings.warmup:
        return settings.lr_start + (settings.lr - settings.lr_start) * progress / settings.warmup
    after = (progress - settings.warmup) / (1 - settings.warmup)
    if settings.decay == "linear":
        return settings.lr + (settings.lr_end - settings.lr) * after
    return half_cosine(settings.lr, settings.lr_end, after)


def weight_decay(progress: float, settings: OptimSettings) -> float:
    """Half a cosine from weight_decay to weight_decay_end."""
    return half_cosine(settings.weight_decay, settings.weight_decay_end, progress)


def half_cosine(start: float, end: float, progress: float) -> float:
    """From `start` at 0 to `end` at 1, flat at both ends."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def adamw(module: nn.Module, settings: OptimSettings) -> torch.optim.AdamW:
    """AdamW over the trainable parameters, in two groups: with and without weight decay.

    Biases, norms, single vectors such as mask tokens, and positions are not decayed: pulling them to zero does not
    limit what the network can express, it only shifts it. Stages and layer decay make more groups, which are the same
    throughout the run; what is frozen has no gradient, and AdamW neither moves it nor keeps moments of it.

    Raises:
        ConfigError: A row of the stages names nothing, or nothing would be trained.
    """
    trainable = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    names = [name for name, _ in trainable]
    check_stages(names, settings.stages)
    factors = layer_factors(names, settings.layer_decay, settings.layer_decay_under)
    groups: dict[Any, dict[str, Any]] = {flag: {"params": [], "decays": flag} for flag in (True, False)}
    for name, parameter in trainable:
        flag, factor, rows = decays(name, parameter), factors[name], rows_naming(name, settings.stages)
        plain = factor == 1 and not rows
        key = flag if plain else (flag, factor, rows)
        more = {"factor": factor, "stages": rows}
        groups.setdefault(key, {"params": [], "decays": flag, **more})["params"].append(parameter)
    return torch.optim.AdamW(list(groups.values()), lr=settings.lr_start, betas=settings.betas)


def decays(name: str, parameter: torch.Tensor) -> bool:
    """Whether weight decay applies: to matrices and larger, but not to positions."""
    is_vector = all(size == 1 for size in parameter.shape[:-1])
    return not is_vector and "position" not in name


def set_rates(
    optimizer: torch.optim.Optimizer, progress: float, settings: OptimSettings, epoch: int = 1
) -> tuple[float, float]:
    """Put the schedules' values into the optimiser; returns (learning rate, weight decay) of the schedules."""
    rate, decay = learning_rate(progress, settings), weight_decay(progress, settings)
    for group in optimizer.param_groups:
        group["lr"] = rate_in(epoch, group.get("stages", ()), settings.stages, rate) * group.get("factor", 1.0)
        group["weight_decay"] = decay if group["decays"] else 0.0
    return rate, decay


def set_trained(optimizer: torch.optim.Optimizer, settings: OptimSettings, epoch: int) -> bool:
    """Freeze and unfreeze as the stages say for an epoch; returns whether anything changed.

    What is frozen loses its gradient and its moments. A pure function of the epoch, so a resumed run that calls it
    before its first step stands where the run that was cut short stood.
    """
    changed = False
    for group in optimizer.param_groups:
        if not group.get("stages"):
            continue
        trained = rate_in(epoch, group["stages"], settings.stages, 1.0) > 0
        for parameter in group["params"]:
            changed |= parameter.requires_grad is not trained
            parameter.requires_grad_(trained)
            if not trained:
                parameter.grad = None
                optimizer.state.pop(parameter, None)
    return changed
