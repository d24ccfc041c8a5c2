"""SIGTERM and Ctrl-C ask for an end after the current step; a second Ctrl-C ends at once."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# torchrun passes the terminal's Ctrl-C on to its workers, which may then get it twice within milliseconds.
_ECHO_S = 1.0


class StopSignals:
    """What was asked for so far. Both may be set; Ctrl-C wins."""

    def __init__(self) -> None:
        self.terminated = False
        self.interrupted = False
        self._interrupted_at = 0.0

    def on_terminate(self, number: int, frame: FrameType | None) -> None:
        self.terminated = True

    def on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.interrupted and time.monotonic() - self._interrupted_at > _ECHO_S:
            raise KeyboardInterrupt
        if not self.interrupted:
            self.interrupted, self._interrupted_at = True, time.monotonic()
            print("Ctrl-C: saving after this step. Ctrl-C again stops at once.", file=sys.stderr, flush=True)


@contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Listen while the block runs; the former handlers come back afterwards."""
    signals = StopSignals()
    if threading.current_thread() is not threading.main_thread():  # Python gives signals to the main thread only
        yield signals
        return
    former = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, signals.on_terminate),
        signal.SIGINT: signal.signal(signal.SIGINT, signals.on_interrupt),
    }
    try:
        yield signals
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
