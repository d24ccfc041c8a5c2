"""Per-slide work on Dask workers: dispatched so that a worker that dies costs the one slide it was on.

A worker has no more tasks than threads, so none waits behind another on the same process. A slide whose worker died is
tried again after all others and with nothing beside it: if it dies again, it is guilty.
"""

# mypy: allow-untyped-calls
# Dask annotates its functions in part.
from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any, Generic

from distributed import Future, wait
from distributed.protocol.pickle import dumps
from distributed.scheduler import KilledWorker

from lamella.engine.dask_workers import Crew, hire, scheduler_lost
from lamella.engine.job_limits import limited_attempt
from lamella.engine.jobs import Attempt, ItemT, JobSettings, Outcome, ResultT, outcome
from lamella.errors import LamellaError, first_line

# A local worker that died is back within seconds, on a slow network disk within a minute.
_LOCAL_WAIT_S = 60.0
_IDLE_CREWS = 2  # crews that may vanish one after the other without having done anything
_LOOK_EVERY_S = 0.25  # clusters grow and shrink; between looks the first finished task wakes the loop


def run_on_workers(
    work: Callable[[ItemT], ResultT], items: Sequence[ItemT], settings: JobSettings, *, label: str, gpus: bool
) -> Iterator[Outcome[ItemT, ResultT]]:
    """See `lamella.engine.jobs.run_jobs`."""
    dispatch = _Dispatch(work, items, settings, label)
    while not dispatch.done:
        with hire(settings, len(items), gpus=gpus) as crew:
            yield from dispatch.outcomes(crew)


@dataclass(frozen=True)
class _Try:
    number: int
    tries: int
    started: float = 0.0


class _Dispatch(Generic[ItemT, ResultT]):
    _crew: Crew

    def __init__(
        self, work: Callable[[ItemT], ResultT], items: Sequence[ItemT], settings: JobSettings, label: str
    ) -> None:
        self._work, self._items, self._settings, self._label = work, items, settings, label
        self._wait_s = settings.wait_s if settings.scheduler else min(settings.wait_s, _LOCAL_WAIT_S)
        self._idle_crews = 0
        self._waiting = deque(_Try(number, 1) for number in range(len(items)))
        self._suspects: deque[_Try] = deque()
        self._flying: dict[Future[Any], _Try] = {}
        self._last_worker_seen = time.monotonic()
        self._places, self._look_at = 0, 0.0

    @property
    def done(self) -> bool:
        return not (self._waiting or self._suspects or self._flying)

    def outcomes(self, crew: Crew) -> Iterator[Outcome[ItemT, ResultT]]:
        """Outcomes until all is done, or until this crew of local workers is gone and another is wanted."""
        self._crew, self._last_worker_seen, self._look_at = crew, time.monotonic(), 0.0
        while not self.done:
            places = self._crew_places()
            if places is None:
                self._waiting.extendleft(self._flying.values())  # sent, and never begun: the dead are known by name
                self._flying.clear()
                return
            self._send(places)
            for future in self._landed():
                self._idle_crews = 0
                done = self._outcome(future, self._flying.pop(future))
                if done is not None:
                    yield done

    def _crew_places(self) -> int | None:
        """Threads of all workers; None if the local ones did not come back (a nanny can fail to start the next).

        Raises:
            LamellaError: A cluster has no worker, or crew after crew of local ones did nothing.
        """
        places = self._places_now()
        now = time.monotonic()
        if places:
            self._last_worker_seen = now
        if now - self._last_worker_seen <= self._wait_s:
            return places
        self._idle_crews += 1
        if self._settings.scheduler or self._idle_crews > _IDLE_CREWS:
            raise LamellaError(
                f"lamella {self._label}",
                f"no worker was there for {self._wait_s:g} s (jobs.wait_s)",
                "Look at the cluster's logs and run the same command again; what was finished is kept.",
            )
        return None

    def _send(self, places: int) -> None:
        while self._waiting and len(self._flying) < places:
            self._submit(self._waiting.popleft())
        if self._suspects and places and not self._flying:
            self._submit(self._suspects.popleft())

    def _places_now(self) -> int:
        if time.monotonic() >= self._look_at:
            self._places = self._crew.places()
            self._look_at = time.monotonic() + _LOOK_EVERY_S
        return self._places

    def _submit(self, task: _Try) -> None:
        parcel = dumps((self._work, self._items[task.number]))
        future = self._crew.client.submit(
            limited_attempt,
            parcel,
            self._settings.time_limit_s,
            key=f"{self._label}-{self._crew.run_id}-{task.number}-{task.tries}",
            pure=False,
        )
        self._flying[future] = _Try(task.number, task.tries, time.monotonic())

    def _landed(self) -> set[Future[Any]]:
        if not self._flying:
            time.sleep(_LOOK_EVERY_S)
            return set()
        try:
            with self._crew.client.as_current():
                done, _ = wait(list(self._flying), timeout=_LOOK_EVERY_S, return_when="FIRST_COMPLETED")
        except TimeoutError:
            return set()
        except CancelledError as error:
            raise scheduler_lost(error) from error
        return set(done)

    def _outcome(self, future: Future[Any], task: _Try) -> Outcome[ItemT, ResultT] | None:
        """The item's outcome, or None if it is to be tried again."""
        try:
            done: Attempt[Any] = future.result()
        except KilledWorker as error:
            reason, trace = self._crew.autopsy(error.last_worker.name, time.monotonic() - task.started)
            done = Attempt(error=reason, trace=trace, again=True)
            again = self._suspects
            self._look_at = 0.0  # one place less
        except CancelledError as error:
            raise scheduler_lost(error) from error
        except Exception as error:
            # Faults of the work itself came back as an Attempt: this one is between us and the workers.
            raise LamellaError(
                f"lamella {self._label}",
                f"the workers cannot do this work ({type(error).__name__}: {first_line(error)})",
                "They need the same version of Lamella, a running scheduler, and the same paths to slides and output.",
            ) from error
        else:
            again = self._waiting
        if done.ends_the_run is not None:
            raise done.ends_the_run
        if done.error and done.again and task.tries <= self._settings.retries:
            again.append(_Try(task.number, task.tries + 1))
            return None
        return outcome(task.number, self._items[task.number], done, task.tries)
