"""The one training loop. Pretraining and every adaptation are methods; this loop trains them all."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, cast, runtime_checkable

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lamella.engine.budget import Budget
from lamella.engine.checkpoint import Checkpoints, CheckpointSettings, Progress
from lamella.engine.early_stopping import EarlyStopping, EarlyStoppingSettings
from lamella.engine.log import LogSettings, RunLog, StepRow
from lamella.engine.optim import OptimSettings, adamw, set_rates, set_trained
from lamella.engine.signals import StopSignals, stop_signals
from lamella.engine.world import World
from lamella.errors import CheckpointError, DivergedError

Batch = dict[str, torch.Tensor]


@runtime_checkable
class Method(Protocol):
    """What the loop trains: an nn.Module with two promises."""

    def forward(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """(loss, logs); both are means over the batch's samples, every sample weighing the same."""

    def after_step(self, progress: float) -> None:
        """Called after each optimiser step with the share of the run that is done, in (0, 1]."""


@runtime_checkable
class JointLoss(Protocol):
    """A method whose loss is of the batch as a whole; forward(batch) is loss_of(embed(batch), batch)."""

    def embed(self, batch: Batch) -> torch.Tensor:
        """(B, ...) embeddings; one sample's do not depend on the others."""

    def loss_of(self, embeddings: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """(loss, logs) of the embeddings of a rank's whole batch."""


@runtime_checkable
class PartlyUsed(Protocol):
    """A method some of whose parameters a step may leave unused; processes that train together must know."""

    leaves_unused: bool


@dataclass(frozen=True)
class TrainSettings:
    """Everything the loop needs to know beside the method and its batches.

    `settings_hash` is that of the claimed run folder. `early_stopping` belongs to `validate` of `train`.
    """

    budget: Budget
    optim: OptimSettings
    log: LogSettings
    checkpoint: CheckpointSettings
    seed: int
    settings_hash: str
    early_stopping: EarlyStoppingSettings = field(default_factory=EarlyStoppingSettings)


@dataclass(frozen=True)
class Outcome:
    """How the run ended. `loss` is the last step's, NaN if no step was taken.

    `stopped_by` says that it can go on; a run that validated itself to an end is `finished_early` and cannot. `best`
    is what early stopping knows, where there was a validation: `best.best_step` is the checkpoint to export.
    """

    step: int
    images_seen: int
    loss: float
    resumed_from: int
    checkpoint: Path | None
    stopped_by: Literal["SIGTERM"] | None = None
    best: EarlyStopping | None = None

    @property
    def finished_early(self) -> bool:
        """Whether early stopping ended the run."""
        return self.best is not None and self.best.exhausted


def train(
    method: Method,
    batches: Callable[[int, int], Iterable[Batch]],
    settings: TrainSettings,
    run_folder: Path,
    world: World,
    *,
    monitor: Callable[[int], Mapping[str, Any]] | None = None,
    on_step: Callable[[int, float], None] | None = None,
    validate: Callable[[int], Mapping[str, Any]] | None = None,
) -> Outcome:
    """Train until the budget is spent, going on from the newest checkpoint if there is one.

    Args:
        method: An nn.Module that keeps the promises of Method.
        batches: (first step, steps) -> this rank's batches of the steps from the first on, in order.
        settings: Budget, optimiser, logs, checkpoints.
        run_folder: Claimed before; gets checkpoints/, steps.csv, log.jsonl, monitors.jsonl.
        world: This process among its peers.
        monitor: Called on rank 0 with the images seen, at the start, at the end and every monitor_every_images.
        on_step: Called on rank 0 after each step with (steps done, loss).
        validate: Called on rank 0 with the epochs done, before the first step, every early_stopping.every_epochs and
            after the last step; its values go to monitors.jsonl, and one of them decides which weights are the best.
            It must leave the method as it found it. The other ranks wait for it.

    Raises:
        ConfigError: The warm-up is longer than the run, or a row of optim.stages names nothing.
        DivergedError: A loss or a gradient is not a number; the weights of the last checkpoint stay.
        CheckpointError: The newest checkpoint cannot be loaded.
        KeyboardInterrupt: Ctrl-C, after a checkpoint was written.
        StorageError: The disk took no more.
    """
    settings = replace(settings, optim=settings.optim.in_steps(settings.budget.steps))
    module = cast(nn.Module, method).to(world.device)
    optimizer = adamw(module, settings.optim)
    checkpoints = Checkpoints(run_folder / "checkpoints", settings.checkpoint, settings.settings_hash)
    start = checkpoints.resume(module, optimizer)
    if not world.same(start.step):
        raise CheckpointError(
            checkpoints.folder,
            "the processes found different checkpoints",
            "All machines must see one run folder.",
        )
    best = None if validate is None else EarlyStopping(settings.early_stopping)
    if best is not None and start.step > 0:  # a run that starts over validates before its first step again
        best.load(start.validated)
    validated = best is None or best.last_step >= start.step
    if (start.step >= settings.budget.steps and validated) or (best is not None and best.exhausted):
        return Outcome(start.step, start.images_seen, math.nan, start.step, checkpoints.latest(), best=best)
    run = _Run(method, module, optimizer, checkpoints, settings, world, monitor, on_step, validate, best)
    with stop_signals() as signals:
        if not world.is_main:
            return run.go_on(start.step, batches, signals, None)
        with RunLog(run_folder, settings.log, start.step) as log:
            return run.go_on(start.step, batches, signals, log)


@dataclass
class _Run:
    """The parts of one run that stay the same from step to step."""

    method: Method
    module: nn.Module
    optimizer: torch.optim.Optimizer
    checkpoints: Checkpoints
    settings: TrainSettings
    world: World
    monitor: Callable[[int], Mapping[str, Any]] | None
    on_step: Callable[[int, float], None] | None
    validate: Callable[[int], Mapping[str, Any]] | None
    best: EarlyStopping | None

    def go_on(
        self,
        first: int,
        batches: Callable[[int, int], Iterable[Batch]],
        signals: StopSignals,
        log: RunLog | None,
    ) -> Outcome:
        budget, loss, done = self.settings.budget, math.nan, first
        set_trained(self.optimizer, self.settings.optim, budget.epoch(first))
        network = self._network()
        if first == 0:
            self._watch(0, log)
        ended = self._validate(first, log)  # also where the run was stopped between a step and its validation
        started = time.perf_counter()
        for step, batch in zip(range(first, budget.steps), batches(first, budget.steps - first), strict=False):
            if ended:
                break
            if set_trained(self.optimizer, self.settings.optim, budget.epoch(step)):
                network = self._network()  # DDP exchanges the gradients of what was trained when it was made
            logs, terminated, interrupted = self._step(network, step, batch, signals)
            done, loss = step + 1, logs["loss"]
            self._report(step, logs, time.perf_counter() - started, log)
            if terminated or interrupted:
                saved = self._save(done)
                if interrupted:
                    raise KeyboardInterrupt
                return Outcome(done, budget.images(done), loss, first, saved, "SIGTERM", self.best)
            ended = self._validate(done, log)
            if not ended:
                self._save_if_due(step)
            started = time.perf_counter()
        if done < budget.steps and not ended:
            raise ValueError(f"the batches ended after step {done} of {budget.steps}")
        return Outcome(done, budget.images(done), loss, first, self._save(done), best=self.best)

    def _network(self) -> nn.Module:
        if self.world.size == 1:
            return self.module
        gc.collect()  # the one before is held by reference cycles, and its hooks with it
        unused = isinstance(self.method, PartlyUsed) and self.method.leaves_unused
        return DistributedDataParallel(self.module, find_unused_parameters=unused)

    def _validate(self, done: int, log: RunLog | None) -> bool:
        """Validate where it is due and was not done yet; returns whether early stopping ends the run."""
        if self.validate is None or self.best is None or not self._validation_due(done):
            return False
        validate, best, budget = self.validate, self.best, self.settings.budget

        def on_main() -> None:
            epochs = budget.images(done) // budget.images_per_epoch
            values = dict(validate(epochs))
            improved = best.update(values, done)
            if log is not None:
                log.monitors(done, budget.images(done), {**values, "epochs": epochs, "best_so_far": improved})
            if improved:
                self._write(done)

        self.world.on_main(on_main)
        known = [best.best, best.best_step, best.waited] if self.world.is_main else [0.0, 0.0, 0.0]
        value, at, waited = (mean * self.world.size for mean in self.world.mean(known))  # rank 0 tells the others
        if not self.world.is_main:
            best.best, best.best_step, best.waited, best.last_step = value, round(at), round(waited), done
        return best.exhausted

    def _validation_due(self, done: int) -> bool:
        budget, every = self.settings.budget, self.settings.early_stopping.every_epochs
        ends_epochs = done > 0 and budget.crosses(done - 1, every * budget.images_per_epoch)
        due = done in (0, budget.steps) or ends_epochs
        return due and self.best is not None and self.best.last_step < done

    def _step(
        self, network: nn.Module, step: int, batch: Batch, signals: StopSignals
    ) -> tuple[dict[str, float], bool, bool]:
        """One optimiser step. Returns the logs as means over all ranks, and whether any rank was asked to stop."""
        settings, world = self.settings, self.world
        torch.manual_seed(step_seed(settings.seed, step, world.rank))
        progress = settings.budget.progress(step)
        rate, decay = set_rates(self.optimizer, progress, settings.optim, settings.budget.epoch(step))
        self.optimizer.zero_grad(set_to_none=True)
        moved = {key: value.to(world.device, non_blocking=True) for key, value in batch.items()}
        logs = accumulate(network, moved, settings.optim.micro_batches, world)
        norm = nn.utils.clip_grad_norm_(self._trainable(), settings.optim.clip_norm or math.inf)
        # One exchange a step: losses, logs and the wish to stop travel together.
        names = sorted(logs)
        mine = torch.stack([*(logs[name] for name in names), norm.float()]).tolist()
        *means, terminated, interrupted = world.mean([*mine, float(signals.terminated), float(signals.interrupted)])
        means_by_name = dict(zip([*names, "grad_norm"], means, strict=True))
        for name in ("loss", "grad_norm"):
            if not math.isfinite(means_by_name[name]):
                self._diverged(step, name, means_by_name[name], rate)
        self.optimizer.step()
        self.method.after_step(settings.budget.progress(step + 1))
        return {**means_by_name, "learning_rate": rate, "weight_decay": decay}, terminated > 0, interrupted > 0

    def _trainable(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.module.parameters() if parameter.requires_grad]

    def _diverged(self, step: int, name: str, value: float, rate: float) -> None:
        last = self.checkpoints.latest()
        kept = f"the last good checkpoint is {last}" if last else "no checkpoint was written before it"
        raise DivergedError(
            f"step {step + 1}",
            f"{'the loss' if name == 'loss' else 'the gradient'} is {value} at a learning rate of {rate:.3g}; {kept}",
            "The same command would meet it again: lower optim.lr or optim.clip_norm, or set precision=fp32, "
            "in a new folder.",
        )

    def _report(self, step: int, logs: dict[str, float], seconds: float, log: RunLog | None) -> None:
        if log is None:
            return
        budget, others = self.settings.budget, dict(logs)
        row = StepRow(
            epoch=budget.epoch(step),
            iteration=step + 1,
            loss=others.pop("loss"),
            context_keep_tokens=others.pop("context_keep_tokens", 0.0),
            target_predict_tokens=others.pop("target_predict_tokens", 0.0),
            iteration_time_ms=round(1000 * seconds, 3),
            learning_rate=others.pop("learning_rate"),
            weight_decay=others.pop("weight_decay"),
            images_seen=budget.images(step + 1),
        )
        log.step(row, others)
        if step + 1 == budget.steps or budget.crosses(step, self.settings.log.monitor_every_images):
            self._watch(step + 1, log)
        if self.on_step is not None:
            self.on_step(step + 1, row.loss)

    def _watch(self, step: int, log: RunLog | None) -> None:
        if self.monitor is not None and log is not None:
            images_seen = self.settings.budget.images(step)
            log.monitors(step, images_seen, self.monitor(images_seen))

    def _save_if_due(self, step: int) -> None:
        every = self.settings.checkpoint.every_images
        last = step + 1 == self.settings.budget.steps  # go_on saves that one
        due = every is not None and self.settings.budget.crosses(step, every)
        if not last and self.world.is_main and (due or self.checkpoints.due_by_clock()):
            self._write(step + 1)

    def _save(self, step: int) -> Path | None:
        """Save and wait: a rank that ends earlier makes torchrun end the one that writes."""
        self.world.on_main(lambda: self._write(step))
        return self.checkpoints.latest()

    def _write(self, step: int) -> None:
        validated = {} if self.best is None else self.best.state()
        self.checkpoints.save(self.module, self.optimizer, Progress(step, self.settings.budget.images(step), validated))


def accumulate(network: nn.Module, batch: Batch, parts: int, world: World) -> dict[str, torch.Tensor]:
    """Add up the gradients of the batch's equal parts; returns loss and logs as means over the parts.

    With DDP the ranks exchange gradients once, in the last part's backward. A method whose loss is not a mean over
    samples takes two passes instead (see `_in_two_passes`), so that it too is the same for any number of parts.

    Raises:
        ValueError: The batch does not divide into `parts`.
    """
    size = len(next(iter(batch.values())))
    if size % parts:
        raise ValueError(f"a batch of {size} samples does not divide into {parts} micro-batches")
    pieces = [
        {key: value[index * size // parts : (index + 1) * size // parts] for key, value in batch.items()}
        for index in range(parts)
    ]
    method = network.module if isinstance(network, DistributedDataParallel) else network
    if parts > 1 and isinstance(method, JointLoss):
        return _in_two_passes(method, batch, pieces, world)
    totals: dict[str, torch.Tensor] = {}
    for index, piece in enumerate(pieces):
        waits = isinstance(network, DistributedDataParallel) and index < parts - 1
        with cast(DistributedDataParallel, network).no_sync() if waits else nullcontext():
            with world.autocast():
                loss, logs = network(piece)
            (loss / parts).backward()
        for name, value in {**logs, "loss": loss}.items():
            totals[name] = totals.get(name, 0) + value.detach().float() / parts
    return totals


def _in_two_passes(method: JointLoss, batch: Batch, pieces: Sequence[Batch], world: World) -> dict[str, torch.Tensor]:
    """The gradient of a loss over the whole batch, with the activations of one part in memory (GradCache, 2101.06983).

    First all parts are embedded without gradient, and the loss of the joined embeddings gives its gradient to each of
    them. Then each part is embedded again, from the same random state (dropout), and passes its share back.

    On several ranks the loss itself exchanges what it needs. The method is called directly, not through DDP, whose
    exchange belongs to one forward and its backward; without that forward its hooks do nothing. The mean over the
    ranks that it would take of the gradients is taken here, once, after the last part.
    """
    random_states, embedded = [], []
    with torch.no_grad():
        for piece in pieces:
            random_states.append(_random_state(world.device))
            with world.autocast():
                embedded.append(method.embed(piece))
    joined = torch.cat(embedded).requires_grad_()
    with world.autocast():
        loss, logs = method.loss_of(joined, batch)
    torch.autograd.backward(loss)
    assert joined.grad is not None
    for piece, state, gradient in zip(pieces, random_states, joined.grad.chunk(len(pieces)), strict=True):
        _set_random_state(world.device, state)
        with world.autocast():
            again = method.embed(piece)
        torch.autograd.backward(again, gradient)
    if world.size > 1:
        _average_gradients(cast(nn.Module, method), world)
    return {name: value.detach().float() for name, value in {**logs, "loss": loss}.items()}


def _average_gradients(module: nn.Module, world: World) -> None:
    """Replace each gradient by its mean over the ranks, all exchanges under way at once."""
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    for exchange in [dist.all_reduce(gradient, async_op=True) for gradient in gradients]:
        exchange.wait()
    torch._foreach_div_(gradients, world.size)


def _random_state(device: torch.device) -> list[torch.Tensor]:
    """Of torch's generators on the CPU and on the device."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def _set_random_state(device: torch.device, states: Sequence[torch.Tensor]) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)


def step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of torch's generator in one step of one rank.

    Set anew at each step, it makes dropout and the like a function of (seed, step, rank): a resume needs no saved
    generator. The multipliers are large primes that keep neighbours apart; 2**63 is the generator's range.
    """
    return (seed * 1_000_003 + step * 2_147_483_647 + rank * 15_485_863) % 2**63
