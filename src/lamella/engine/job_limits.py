"""In a worker: a time limit that ends even code that holds the interpreter, and last words of a process that dies."""

# mypy: allow-untyped-calls
# Dask annotates its functions in part.
from __future__ import annotations

import faulthandler
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from distributed.protocol.pickle import loads

from lamella.engine.jobs import Attempt, attempt

# Where a worker writes its stack when it dies; its own stderr (the cluster's log) unless the variable is set.
LAST_WORDS = "LAMELLA_LAST_WORDS"
_STDERR = 2


def dask_setup(worker: object) -> None:
    """Called by Dask in each new local worker, before its first task."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; ours ends its workers
    for handler in logging.getLogger("distributed").handlers:
        handler.setLevel(logging.CRITICAL)  # what becomes of a slide is told by the client
    _listen()


def limited_attempt(parcel: bytes, time_limit_s: float | None) -> Attempt[Any]:
    """Try once; the process ends if it takes longer than the limit.

    Args:
        parcel: Work and item, packed by the client: the scheduler would open them otherwise, and need what they need.
        time_limit_s: Seconds, or None.
    """
    _listen()
    with _deadline(time_limit_s):
        work, item = loads(parcel)
        return attempt(work, item)


_lock = threading.Lock()
_deadlines: list[float] = []
_last_words: int | None = None
"""File descriptor; open for as long as the process lives, because it is written to when the process dies."""


def _listen() -> None:
    """From now on a crash in native code leaves a stack."""
    global _last_words
    with _lock:
        if _last_words is None:
            path = os.environ.get(LAST_WORDS)
            _last_words = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600) if path else _STDERR
            faulthandler.enable(_last_words)


@contextmanager
def _deadline(time_limit_s: float | None) -> Iterator[None]:
    if time_limit_s is None:
        yield
        return
    deadline = time.monotonic() + time_limit_s
    with _lock:
        _deadlines.append(deadline)
        _arm()
    try:
        yield
    finally:
        with _lock:
            _deadlines.remove(deadline)
            _arm()


def _arm() -> None:
    """Set the process's one alarm to the first deadline of its threads.

    The alarm is a thread without the interpreter lock: it rings in code that never gives the lock back, too.
    """
    if not _deadlines:
        faulthandler.cancel_dump_traceback_later()
        return
    left_s = max(0.001, min(_deadlines) - time.monotonic())
    faulthandler.dump_traceback_later(left_s, exit=True, file=_STDERR if _last_words is None else _last_words)
