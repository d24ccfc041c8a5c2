"""Batches read ahead by worker processes. The steps are the data set: batch = f(step), so workers hold no state."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from lamella.errors import LamellaError

BatchT = TypeVar("BatchT")

# Batches each worker reads ahead: one being read, one ready.
_PREFETCH = 2


class _Fault:
    """A LamellaError on its way out of a worker. Raised there, torch would turn it into another type of error."""

    def __init__(self, error: LamellaError) -> None:
        self.error = error


class _Steps(Dataset[BatchT | _Fault], Generic[BatchT]):
    def __init__(self, batch: Callable[[int], BatchT]) -> None:
        self.batch = batch

    def __getitem__(self, step: int) -> BatchT | _Fault:
        try:
            return self.batch(step)
        except LamellaError as error:
            return _Fault(error)


def batches(
    batch: Callable[[int], BatchT], first_step: int, steps: int, workers: int = 0, *, pin_memory: bool = False
) -> Iterator[BatchT]:
    """Yield batch(first_step), ..., batch(first_step + steps - 1), in this order.

    The same values come out for any number of workers, and for any first step: a resumed run starts at its own.

    Args:
        batch: A pure function of the step, such as `CrossSamples.batch`.
        first_step: First step.
        steps: How many.
        workers: Processes that read ahead; 0 reads here.
        pin_memory: Copy the tensors to pinned memory, for faster transfer to a GPU.

    Raises:
        LamellaError: The one that `batch` raised, with its own type and words, when its step comes.
    """
    loader = DataLoader(
        _Steps(batch),
        batch_size=None,
        sampler=range(first_step, first_step + steps),
        num_workers=workers,
        collate_fn=_as_is,
        prefetch_factor=_PREFETCH if workers else None,
        worker_init_fn=_start_worker,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # or torch would draw a seed from the global one: a resumed run would differ
    )
    values = iter(loader)
    try:
        for value in values:
            if isinstance(value, _Fault):
                raise value.error
            yield value
    finally:
        if workers:
            # Now, in any case. Left to the garbage collector, their queues may be closed before they hear of the end,
            # and torch waits 5 s for each.
            values._shutdown_workers()  # type: ignore[attr-defined]


def _as_is(value: BatchT) -> BatchT:
    return value


def _start_worker(worker: int) -> None:
    torch.set_num_threads(1)  # the workers themselves are the parallelism
    # Ctrl-C and a scheduler's SIGTERM reach all processes of a job. What they mean is for the training process to say:
    # it still wants the batch it waits for, saves, and then ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # macOS does not tell who sent a signal: torch's own handling stays
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_when_told_by, args=(os.getppid(),), daemon=True).start()


def _end_when_told_by(parent: int) -> None:
    """End this process at a SIGTERM from `parent`, and from nobody else."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
