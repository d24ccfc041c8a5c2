"""Where this process runs: its rank, its device, its precision, and why these were chosen."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, TypeVar

import torch
import torch.distributed as dist

from lamella.errors import LamellaError

DeviceName = Literal["auto", "cuda", "mps", "cpu"]
PrecisionName = Literal["auto", "bf16", "fp32"]
T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process among its peers.

    `reason` says in one line why device and precision are what they are; verbs print it.
    """

    rank: int
    size: int
    device: torch.device
    precision: Literal["bf16", "fp32"]
    reason: str

    @property
    def is_main(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def autocast(self) -> AbstractContextManager[object]:
        """bf16 arithmetic where chosen. bf16 has the exponent of fp32, so the loss needs no scaling."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()

    def mean(self, values: Sequence[float]) -> list[float]:
        """Mean of each value over all ranks; float64, so that one rank or many give the same number."""
        if self.size == 1:
            return list(values)
        summed = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(summed)
        return [float(value) for value in (summed / self.size).tolist()]

    def same(self, value: int) -> bool:
        """Whether every rank holds this value."""
        if self.size == 1:
            return True
        ends = torch.tensor([value, -value], dtype=torch.int64, device=self.device)
        dist.all_reduce(ends, op=dist.ReduceOp.MAX)
        return int(ends[0]) == value and int(ends[1]) == -value

    def barrier(self) -> None:
        """Wait until every rank is here."""
        self.same(0)

    def on_main(self, work: Callable[[], T]) -> T | None:
        """Run `work` on rank 0 alone; None elsewhere. Where it fails, every rank stops instead of waiting forever.

        Raises:
            LamellaError: What `work` raised on rank 0; on the others, that rank 0 stopped.
        """
        result, fault = None, None
        if self.is_main:
            try:
                result = work()
            except LamellaError as error:
                fault = error
        failed = max(self.mean([float(fault is not None)])) > 0
        if fault is not None:
            raise fault
        if failed:
            raise LamellaError(
                f"rank {self.rank}", "rank 0 stopped with an error", "Its message stands beside this one."
            )
        return result

    def __enter__(self) -> World:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.size > 1 and dist.is_initialized():
            if kind is None:
                self.barrier()  # nobody hangs up while another still speaks
            gc.collect()  # DDP's reference cycles hold the group; freed after it, they end the process with SIGABRT
            dist.destroy_process_group()

    def __str__(self) -> str:
        peers = "one process" if self.size == 1 else f"{self.size} processes"
        return f"{self.device.type}, {self.precision}, {peers} ({self.reason})"


def start_world(
    device: DeviceName = "auto", precision: PrecisionName = "auto", environment: Mapping[str, str] | None = None
) -> World:
    """Join the processes that torchrun started, or stand alone.

    Use it as a context manager, so that the process group is left behind in order.

    Args:
        device: `auto` takes CUDA, then Apple's MPS, then the CPU.
        precision: `auto` takes bf16 where the device computes it natively, else fp32.
        environment: RANK, WORLD_SIZE and LOCAL_RANK as torchrun sets them; the process's own by default.

    Raises:
        LamellaError: The device or precision is not there, or torchrun's variables are incomplete.
    """
    environment = os.environ if environment is None else environment
    rank, size, local_rank = _ranks(environment)
    chosen, reason = choose_device(device, local_rank)
    dtype, dtype_reason = choose_precision(chosen, precision)
    if size > 1:
        if chosen.type == "mps":
            raise LamellaError("device mps", "it cannot share training among processes", "Set device=cpu.")
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", rank=rank, world_size=size)
    return World(rank, size, chosen, dtype, f"{reason}; {dtype_reason}")


def choose_device(device: DeviceName = "auto", local_rank: int = 0) -> tuple[torch.device, str]:
    """The device and the reason for it.

    Raises:
        LamellaError: The device asked for is not there.
    """
    if device in ("auto", "cuda") and torch.cuda.is_available():
        count = torch.cuda.device_count()
        if local_rank >= count:
            raise LamellaError(
                f"local rank {local_rank}",
                f"this machine shows {count} CUDA device(s)",
                f"Start torchrun with --nproc-per-node {count} or fewer.",
            )
        return torch.device("cuda", local_rank), f"CUDA is there: {torch.cuda.get_device_name(local_rank)}"
    if device in ("auto", "mps") and torch.backends.mps.is_available():
        return torch.device("mps"), "Apple GPU through MPS, no CUDA"
    if device in ("auto", "cpu"):
        return torch.device("cpu"), "neither CUDA nor MPS is there" if device == "auto" else "CPU was asked for"
    raise LamellaError(f"device={device}", "PyTorch does not see such a device", "Set device=auto or device=cpu.")


def choose_precision(device: torch.device, precision: PrecisionName = "auto") -> tuple[Literal["bf16", "fp32"], str]:
    """The arithmetic of the forward pass and the reason for it.

    Raises:
        LamellaError: bf16 was asked for where the GPU only emulates it.
    """
    if precision == "fp32":
        return "fp32", "fp32 was asked for"
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bf16":
        if device.type == "cuda" and not native:
            raise LamellaError("precision=bf16", "this GPU has no bf16 units", "Set precision=fp32 or auto.")
        return "bf16", "bf16 was asked for"
    if native:
        return "bf16", "bf16 is native, no loss scaling needed"
    # On CPUs bf16 is mostly emulated and slower; on MPS autocast does not cover every operator used here.
    return "fp32", f"fp32 is the safe choice on {device.type}"


def _ranks(environment: Mapping[str, str]) -> tuple[int, int, int]:
    """(rank, size, local rank); (0, 1, 0) without torchrun."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    given = [name for name in names if name in environment]
    if not given:
        return 0, 1, 0
    missing = sorted(set(names) - set(given))
    if missing:
        raise LamellaError(
            "environment",
            f"{', '.join(given)} is set but {', '.join(missing)} is not",
            "Start with torchrun, or unset them for a single process.",
        )
    rank, size, local_rank = (int(environment[name]) for name in names)
    return rank, size, local_rank
