"""Sums over the batch of all ranks, that autograd can pass: what makes two processes equal one.

A loss that is not a mean over samples (SIGReg, VICReg, batch statistics) must see the whole batch. Each rank adds up
its own share, and the sums are exchanged, never the embeddings; so shards may be uneven.

Every rank's loss is then the loss of the whole batch. Its gradient to a rank's share comes back times the number of
ranks, because every rank's loss depends on it; the mean that DDP takes of the weights' gradients undoes this.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

_alone: ContextVar[bool] = ContextVar("alone", default=False)


@contextmanager
def alone() -> Iterator[None]:
    """Within, this rank takes its own share for the whole: for what one rank computes while the others wait."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def several_ranks() -> bool:
    """Whether sums are exchanged here."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1 and not _alone.get()


def sum_over_ranks(value: Tensor) -> Tensor:
    """The sum of every rank's tensor of this shape; the tensor itself where there is one rank."""
    return _SumOverRanks.apply(value) if several_ranks() else value


def count_over_ranks(count: int, like: Tensor) -> Tensor:
    """Samples of all ranks together, a float32 scalar on the device of `like`."""
    return sum_over_ranks(torch.tensor(float(count), device=like.device))


class _SumOverRanks(torch.autograd.Function):
    """All-reduce forward and backward: gradients of sums add up over the ranks too."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        total = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total
