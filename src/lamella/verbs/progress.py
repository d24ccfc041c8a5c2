"""How far a long job is: a bar with an ETA on a terminal, one line every 30 s elsewhere (logs, clusters)."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Generic, TextIO, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

_LINE_EVERY_S = 30.0  # often enough to see life, seldom enough to keep logs short
T = TypeVar("T")


def progress(
    work: Iterable[T] | int,
    label: str,
    *,
    done: int = 0,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Progress[T]:
    """Show how far `work` is, on stderr.

    `for slide in progress(slides, "index"): ...` counts items; `with progress(1000, "pretrain") as bar: bar.advance()`
    counts what it is told.

    Args:
        work: What is iterated over, or the total.
        label: What is being done.
        done: How much of the total an earlier run did; it does not count towards the speed.
        stream: stderr by default.
        clock: Seconds, for tests.
    """
    return Progress(work, label, done, stream or sys.stderr, clock)


class Progress(Generic[T]):
    """See `progress`."""

    def __init__(
        self, work: Iterable[T] | int, label: str, done: int, stream: TextIO, clock: Callable[[], float]
    ) -> None:
        self._work = work
        self._label = label
        self._total = work if isinstance(work, int) else len(work) if isinstance(work, Sized) else None
        self._done = self._first = done
        self._stream = stream
        self._clock = clock
        self._started = self._told = clock()
        self._bar: Bar | None = None

    def __iter__(self) -> Iterator[T]:
        if isinstance(self._work, int):
            raise TypeError("a total cannot be iterated over; use it in a with statement")
        with self:
            for item in self._work:
                yield item
                self.advance()

    def __enter__(self) -> Progress[T]:
        self._started = self._told = self._clock()
        if self._stream.isatty():
            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("ETA"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(file=self._stream),
            )
            self._bar.start()
            self._task = self._bar.add_task(self._label, total=self._total, completed=self._done, note="")
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def advance(self, amount: int = 1, note: str = "") -> None:
        """`amount` more is done; `note` is shown beside it, such as the loss."""
        self._done += amount
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, note=note)
        elif not self._stream.isatty() and self._clock() - self._told >= _LINE_EVERY_S:
            self._told = self._clock()
            print(self._line(note), file=self._stream, flush=True)

    def _line(self, note: str) -> str:
        counts = f"{self._done}" if self._total is None else f"{self._done}/{self._total}"
        elapsed_s = self._clock() - self._started
        parts = [f"{self._label}: {counts}", f"{_duration(elapsed_s)} so far"]
        fresh = self._done - self._first
        if self._total is not None and fresh > 0:
            parts.append(f"about {_duration(elapsed_s / fresh * (self._total - self._done))} to go")
        return ", ".join([*parts, *([note] if note else [])])


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
