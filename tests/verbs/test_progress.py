from __future__ import annotations

import io

import pytest

from lamella.verbs.progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """Ten seconds pass between two looks."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_one_line_every_30_s_away_from_a_terminal() -> None:
    stream, clock = io.StringIO(), Clock()
    for _ in progress(range(10), "index", stream=stream, clock=clock):
        clock.now += 10
    assert stream.getvalue().splitlines() == [
        "index: 3/10, 30 s so far, about 1 min 10 s to go",
        "index: 6/10, 1 min 0 s so far, about 40 s to go",
        "index: 9/10, 1 min 30 s so far, about 10 s to go",
    ]


def test_a_resumed_job_counts_only_its_own_speed() -> None:
    stream, clock = io.StringIO(), Clock()
    with progress(100, "pretrain", done=90, stream=stream, clock=clock) as bar:
        clock.now = 7200.0
        bar.advance(4, note="loss 0.30")
    assert stream.getvalue() == "pretrain: 94/100, 2 h 0 min so far, about 3 h 0 min to go, loss 0.30\n"


def test_an_unknown_total_has_no_eta() -> None:
    stream, clock = io.StringIO(), Clock()
    for _ in progress(iter([1]), "read", stream=stream, clock=clock):
        clock.now = 31.0
    assert stream.getvalue() == "read: 1, 31 s so far\n"


def test_a_bar_with_an_eta_on_a_terminal() -> None:
    stream = Terminal()
    assert list(progress(["a", "b"], "index", stream=stream)) == ["a", "b"]
    assert "index" in stream.getvalue()
    assert "2/2" in stream.getvalue()
    assert "ETA" in stream.getvalue()


def test_a_total_cannot_be_iterated_over() -> None:
    with pytest.raises(TypeError, match="with statement"):
        list(progress(3, "index"))
