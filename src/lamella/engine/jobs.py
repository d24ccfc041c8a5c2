"""One runner for every per-slide verb: in this process, on local workers, or on any Dask cluster.

A slide that raises, or ends the process it runs in, fails alone with its reason; the others finish. What concerns the
whole run (a full disk, an output folder of other settings) ends it, and what was finished is kept.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Generic, TypeVar

from pydantic import Field, model_validator

from lamella.config import Settings
from lamella.errors import (
    CheckpointError,
    ConfigError,
    EmptyTissueError,
    LamellaError,
    MaskMismatchError,
    MissingExtraError,
    OutputConflictError,
    ResolutionError,
    StorageError,
    first_line,
)

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

LEAST_MEMORY_GB = 0.5  # Python, torch and the readers take most of it before the first slide
# The next slide would meet the same fault: the run ends.
_ENDS_THE_RUN = (StorageError, OutputConflictError, CheckpointError, ConfigError)
# The slide itself says so, and says so again: no second try.
_STAYS_SO = (EmptyTissueError, MaskMismatchError, ResolutionError, MissingExtraError)


class JobSettings(Settings):
    """Where per-slide work runs, and what a slide may cost."""

    workers: Annotated[int, Field(ge=0)] = 0
    """Processes on this machine, one slide each at a time and one GPU each where there are GPUs; 0: in this process."""
    scheduler: str | None = None
    """A Dask cluster to use instead: the address of its scheduler (tcp://host:8786) or its scheduler file."""
    time_limit_s: Annotated[float, Field(gt=0)] | None = None
    """Seconds a slide may take on a worker; its worker is ended then and the slide fails. None: no limit."""
    memory_limit_gb: Annotated[float, Field(ge=LEAST_MEMORY_GB)] | None = None
    """Memory of a local worker; the slide that needs more fails. None: this machine's memory, in equal shares."""
    retries: Annotated[int, Field(ge=0)] = 1
    """How often a slide that failed is tried again, after all others."""
    wait_s: Annotated[float, Field(gt=0)] = 600.0
    """Seconds to wait for a worker of the cluster when there is none (a queue may be long), before giving up."""

    @model_validator(mode="after")
    def _agrees(self) -> JobSettings:
        if self.workers and self.scheduler:
            raise ValueError("workers and scheduler exclude each other: local workers, or those of a cluster")
        if self.time_limit_s and not (self.workers or self.scheduler):
            raise ValueError("time_limit_s needs a worker that can be ended; set jobs.workers=1 (or more)")
        if self.memory_limit_gb and not self.workers:
            raise ValueError("memory_limit_gb is for local workers; set jobs.workers=1 (or more), or the cluster's own")
        return self


@dataclass(frozen=True)
class Outcome(Generic[ItemT, ResultT]):
    """What became of one item."""

    number: int
    """Its place among the items; outcomes come as they are ready."""
    item: ItemT
    result: ResultT | None = None
    error: str = ""
    """The reason in plain words; empty if it was done."""
    attempts: int = 1
    trace: str = ""
    """Where an unexpected fault happened, for whoever mends it."""

    @property
    def ok(self) -> bool:
        return not self.error


@dataclass(frozen=True)
class Attempt(Generic[ResultT]):
    """What one try came to, as told by the process that made it."""

    result: ResultT | None = None
    error: str = ""
    trace: str = ""
    again: bool = False
    """Whether another try may go better."""
    ends_the_run: LamellaError | None = None


def run_jobs(
    work: Callable[[ItemT], ResultT],
    items: Sequence[ItemT],
    settings: JobSettings,
    *,
    label: str,
    gpus: bool = False,
) -> Iterator[Outcome[ItemT, ResultT]]:
    """Do `work` on every item; one outcome each, as they are ready.

    Args:
        work: A function that other processes can import (or a partial of one). What it writes must appear whole or not
            at all, because it may be ended at any moment and be done twice.
        items: Small and picklable.
        settings: Where, and within which limits.
        label: The verb, for messages.
        gpus: The work computes on a GPU: each local worker gets one for itself.

    Raises:
        LamellaError: What concerns the whole run: the disk refused a write, the folder holds other results, the cluster
            cannot be reached or lost its workers.
    """
    if not items:
        return
    if settings.workers or settings.scheduler:
        from lamella.engine.dask_jobs import run_on_workers  # Dask takes half a second to import

        yield from run_on_workers(work, items, settings, label=label, gpus=gpus)
        return
    waiting = deque((number, 1) for number in range(len(items)))
    while waiting:
        number, tries = waiting.popleft()
        done = attempt(work, items[number])
        if done.ends_the_run is not None:
            raise done.ends_the_run
        if done.error and done.again and tries <= settings.retries:
            waiting.append((number, tries + 1))  # at the end: what failed for the moment may have passed by then
        else:
            yield outcome(number, items[number], done, tries)


def attempt(work: Callable[[ItemT], ResultT], item: ItemT) -> Attempt[ResultT]:
    """Try once, and turn whatever is raised into words that travel between processes."""
    try:
        return Attempt(work(item))
    except _ENDS_THE_RUN as error:
        return Attempt(error=str(error), ends_the_run=error)
    except LamellaError as error:
        return Attempt(error=str(error), again=not isinstance(error, _STAYS_SO))
    except MemoryError:
        return Attempt(error="it needs more memory than there is", trace=traceback.format_exc(), again=True)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a bug that one slide meets must not end the night's run
        return Attempt(error=_unexpected(error), trace=traceback.format_exc(), again=True)


def outcome(number: int, item: ItemT, done: Attempt[ResultT], tries: int) -> Outcome[ItemT, ResultT]:
    return Outcome(number, item, done.result, done.error, tries, done.trace)


def _unexpected(error: BaseException) -> str:
    """Type, words and place: enough to find it without the trace."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    words = first_line(error)
    kind = type(error).__name__
    return f"{kind}{place}" if words == kind else f"{kind}: {words}{place}"
