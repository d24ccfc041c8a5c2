"""The workers that per-slide work runs on: local processes, or those of a Dask cluster that someone else started."""

# mypy: allow-untyped-calls
# Dask annotates its functions in part.
from __future__ import annotations

import logging
import os
import secrets
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask
from dask.system import CPU_COUNT
from distributed import Client, Nanny, Scheduler, SpecCluster
from distributed.system import MEMORY_LIMIT
from distributed.utils import silence_logging_cmgr

from lamella.engine.job_limits import LAST_WORDS
from lamella.engine.jobs import LEAST_MEMORY_GB, JobSettings
from lamella.errors import LamellaError, first_line

_GB = 1e9
_START_S = 120.0  # a process that imports Python's and our libraries from a slow network disk takes a minute
_CONNECT_S = 10.0  # a scheduler that answers at all answers within a second
_AUTOPSY_S = 2.0  # the nanny hears of a death at about the same time as the scheduler
_TRACE_CHARS = 4000  # the innermost frames of each thread stand first
# Workers hold no data for each other, so Dask's ways of sparing memory would only stop them from working.
_LOCAL_CONFIG = {
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    "distributed.scheduler.worker-ttl": None,  # native code may hold the interpreter for minutes; limits are ours
    "distributed.scheduler.work-stealing": False,
    # It gives memory back after every array, and takes it page by page for the next: slow for array work.
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
    "distributed.worker.profile.enabled": False,  # nobody looks at it
    # Set for each worker below; here they would be set in this process too.
    **{f"distributed.nanny.pre-spawn-environ.{name}_NUM_THREADS": None for name in ("OMP", "MKL", "OPENBLAS")},
}


@dataclass(frozen=True)
class _Death:
    exit_code: int
    out_of_memory: bool


@dataclass
class Crew:
    """A client of a cluster, and what is known about workers that died."""

    client: Client
    settings: JobSettings
    memory_gb: float = 0.0
    """What a local worker may use; 0 on a cluster, which has its own limits."""
    deaths: dict[Any, _Death] = field(default_factory=dict)
    last_words: Mapping[Any, Path] = field(default_factory=dict)
    run_id: str = field(default_factory=lambda: secrets.token_hex(4))

    def places(self) -> int:
        """Threads of all workers that are there now."""
        try:
            return sum(self.client.nthreads().values())
        except Exception as error:
            raise scheduler_lost(error) from error

    def autopsy(self, worker: Any, ran_s: float) -> tuple[str, str]:
        """Why a worker died, in plain words, and the stack it left."""
        death = self._death(worker)
        words = self._last_words(worker)
        limit_s = self.settings.time_limit_s
        if death is not None and death.out_of_memory:
            return (
                f"it needed more memory than a worker may use ({self.memory_gb:.3g} GB). "
                "Raise jobs.memory_limit_gb, or use fewer jobs.workers.",
                words,
            )
        # The alarm ends a process with status 1. Of a cluster's workers only the time is known.
        if limit_s is not None and ran_s >= limit_s and (death is None or death.exit_code == 1):
            return f"it ran longer than jobs.time_limit_s={limit_s:g}. Raise the limit, or look at the slide.", words
        if death is None:
            return "the worker it was on died. The log of the cluster's worker says more.", words
        return f"the worker it was on died: {_cause(death.exit_code)}.", words

    def _death(self, worker: Any) -> _Death | None:
        give_up = time.monotonic() + _AUTOPSY_S
        while worker not in self.deaths and self.last_words and time.monotonic() < give_up:
            time.sleep(0.02)
        return self.deaths.pop(worker, None)

    def _last_words(self, worker: Any) -> str:
        path = self.last_words.get(worker)
        return path.read_text(encoding="utf-8", errors="replace")[:_TRACE_CHARS] if path and path.is_file() else ""


def scheduler_lost(error: BaseException) -> LamellaError:
    return LamellaError(
        "the Dask scheduler",
        f"it went away ({type(error).__name__})",
        "Start the cluster again and run the same command; what was finished is kept.",
    )


@contextmanager
def hire(settings: JobSettings, jobs: int, *, gpus: bool) -> Iterator[Crew]:
    """Workers for as long as the context lasts: started here, or lent by a cluster.

    Raises:
        LamellaError: There are more workers than GPUs, or the scheduler cannot be reached.
    """
    # Dask tells of every worker that dies; what became of the slide is told by us.
    with silence_logging_cmgr(logging.CRITICAL):
        if settings.scheduler:
            with _connected(settings.scheduler) as client:
                yield Crew(client, settings)
        else:
            with _local(settings, min(settings.workers, jobs), gpus) as crew:
                yield crew


@contextmanager
def _local(settings: JobSettings, workers: int, gpus: bool) -> Iterator[Crew]:
    memory_gb = settings.memory_limit_gb or max(LEAST_MEMORY_GB, MEMORY_LIMIT / _GB / workers)
    environments = worker_environments(workers, visible_gpus() if gpus else None)
    deaths: dict[Any, _Death] = {}
    with (
        tempfile.TemporaryDirectory(prefix="lamella-", ignore_cleanup_errors=True) as folder,
        dask.config.set(_LOCAL_CONFIG),
    ):
        last_words = {number: Path(folder, f"last-words-{number}.txt") for number in range(workers)}
        spec = {
            number: {
                "cls": _nanny(deaths),
                "options": {
                    "nthreads": 1,
                    "memory_limit": int(memory_gb * _GB),
                    "env": {**environment, LAST_WORDS: str(last_words[number])},
                    "local_directory": folder,
                    "death_timeout": _START_S,
                    "preload": ["lamella.engine.job_limits"],
                    "silence_logs": logging.CRITICAL,
                    "dashboard": False,
                },
            }
            for number, environment in enumerate(environments)
        }
        scheduler = {
            "cls": Scheduler,
            "options": {"dashboard": False, "host": "127.0.0.1", "port": 0, "allowed_failures": 0},
        }
        with (
            _own_environment(),
            _started(spec, scheduler) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            yield Crew(client, settings, memory_gb, deaths, last_words)


def _started(spec: dict[int, Any], scheduler: dict[str, Any]) -> SpecCluster:
    try:
        return SpecCluster(spec, scheduler, silence_logs=logging.CRITICAL)
    except (OSError, RuntimeError) as error:  # TimeoutError is an OSError
        raise LamellaError(
            f"jobs.workers={len(spec)}",
            f"the worker processes could not be started ({type(error).__name__}: {first_line(error)})",
            "Look at the memory and the number of processes that this machine allows, or run without jobs.workers.",
        ) from error


@contextmanager
def _connected(scheduler: str) -> Iterator[Client]:
    remedy = "Give the address it prints (tcp://host:8786), or its --scheduler-file."
    is_address = "://" in scheduler
    if not is_address and not Path(scheduler).is_file():
        raise LamellaError(f"jobs.scheduler={scheduler}", "it is neither an address nor a scheduler file", remedy)
    where = {"address": scheduler} if is_address else {"scheduler_file": scheduler}
    try:
        client = Client(**where, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:  # TimeoutError and CommClosedError are OSErrors
        raise LamellaError(
            f"jobs.scheduler={scheduler}", f"no Dask scheduler answers there ({first_line(error)})", remedy
        ) from error
    with client:
        yield client


def worker_environments(workers: int, gpus: list[str] | None) -> list[dict[str, str]]:
    """The environment of each local worker: its share of the cores, and its own GPU.

    Args:
        workers: How many.
        gpus: The GPUs as CUDA_VISIBLE_DEVICES names them; None if the work needs none.

    Raises:
        LamellaError: There are more workers than GPUs: two encoders on one would run out of its memory.
    """
    if gpus is not None and workers > len(gpus):
        raise LamellaError(
            f"jobs.workers={workers}",
            f"this machine shows {len(gpus)} GPU(s), and each worker needs its own",
            f"Set jobs.workers={len(gpus)}, or device=cpu.",
        )
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, CPU_COUNT // workers)))
    return [
        {"OMP_NUM_THREADS": threads, **({} if gpus is None else {"CUDA_VISIBLE_DEVICES": gpus[number]})}
        for number in range(workers)
    ]


def visible_gpus() -> list[str]:
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]


def _nanny(deaths: dict[Any, _Death]) -> type[Nanny]:
    """A nanny that notes how its worker died before it starts a new one."""

    class WatchfulNanny(Nanny):
        _terminated = -1

        async def _on_worker_exit(self, exitcode: int) -> None:
            terminated = self.memory_manager._last_terminated_pid
            deaths[self.name] = _Death(exitcode, out_of_memory=terminated != self._terminated)
            self._terminated = terminated
            await super()._on_worker_exit(exitcode)

    return WatchfulNanny


def _cause(exit_code: int) -> str:
    if exit_code >= 0:
        return f"its process ended with status {exit_code}"
    name = signal.Signals(-exit_code).name
    if -exit_code == signal.SIGKILL:
        return f"it was killed ({name}; the system may have run out of memory)"
    return f"it crashed in native code ({name}; failed.log shows where)"


@contextmanager
def _own_environment() -> Iterator[None]:
    """A nanny sets variables in this process before it starts a worker; they are not ours to keep."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
