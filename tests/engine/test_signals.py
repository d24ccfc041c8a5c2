from __future__ import annotations

import signal
import threading

import pytest

from lamella.engine import signals as module
from lamella.engine.signals import stop_signals


def test_a_second_ctrl_c_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [10.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with stop_signals() as asked:
        signal.raise_signal(signal.SIGINT)
        assert asked.interrupted
        now[0] = 10.2
        signal.raise_signal(signal.SIGINT)  # torchrun's echo of the first
        now[0] = 12.0
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_the_former_handlers_come_back() -> None:
    former = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with stop_signals() as asked:
        signal.raise_signal(signal.SIGTERM)
        assert (asked.terminated, asked.interrupted) == (True, False)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == former


def test_outside_the_main_thread_nothing_is_caught() -> None:
    seen: list[bool] = []

    def work() -> None:
        with stop_signals() as asked:
            seen.append(asked.terminated)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
