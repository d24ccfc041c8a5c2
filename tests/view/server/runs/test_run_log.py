"""Logs that grow, are cut and are written anew, and curves however long."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.view.server.runs.conftest import write_steps

from lamella.view.server.runs.curve import MOST_POINTS, Curve
from lamella.view.server.runs.run_curves import RunCurves
from lamella.view.server.runs.run_files import list_run
from lamella.view.server.runs.run_log import Mark, last_row, read_on


def _loss(run: RunCurves) -> list[float]:
    return run.logs["log.jsonl"].curves["loss"].points(0)[1]


def test_a_log_is_read_on_from_where_it_was_read(make_run) -> None:
    folder = make_run("a", steps=3)
    first = read_on(folder / "log.jsonl", Mark(), 1 << 20)
    assert [row["step"] for row in first.rows] == [1, 2, 3]
    assert first.mark.offset == (folder / "log.jsonl").stat().st_size
    assert first.left_bytes == 0
    assert read_on(folder / "log.jsonl", first.mark, 1 << 20).rows == []
    write_steps(folder, 4, 5, resumed=3)
    added = read_on(folder / "log.jsonl", first.mark, 1 << 20)
    assert [row["step"] for row in added.rows] == [4, 5]
    assert not added.again


def test_a_line_that_is_being_written_waits(make_run) -> None:
    folder = make_run("a", steps=1)
    path = folder / "log.jsonl"
    mark = read_on(path, Mark(), 1 << 20).mark
    with open(path, "a") as file:
        file.write('{"step": 2, "images_')
    assert read_on(path, mark, 1 << 20).rows == []
    with open(path, "a") as file:
        file.write('seen": 16, "loss": 0.5}\n')
    assert [row["step"] for row in read_on(path, mark, 1 << 20).rows] == [2]


def test_a_resumed_run_is_drawn_from_its_beginning(make_run) -> None:
    """The lines after the checkpoint are other ones now, and the file may be as long as it was."""
    folder, run = make_run("a", steps=5), RunCurves()
    run.read(list_run(folder).logs.values())
    assert _loss(run) == [1, 2, 3, 4, 5]
    lines = (folder / "log.jsonl").read_text().splitlines(keepends=True)
    changed = [line.replace(f'"loss": {step}.0', f'"loss": {step}.5') for step, line in enumerate(lines, 1)]
    (folder / "log.jsonl").write_text("".join([*lines[:3], *changed[3:]]))
    version = run.version
    run.read(list_run(folder).logs.values())
    assert _loss(run) == [1, 2, 3, 4.5, 5.5]
    assert run.version > version
    (folder / "log.jsonl").write_text("".join(lines[:2]))
    run.read(list_run(folder).logs.values())
    assert _loss(run) == [1, 2]


def test_damaged_lines_are_counted_and_the_others_are_read(make_run) -> None:
    folder, run = make_run("a", steps=2), RunCurves()
    with open(folder / "log.jsonl", "a") as file:
        file.write('{"step": 3, "loss":\n[1]\n{"loss": 7}\n')
    write_steps_behind = {"step": 4, "images_seen": 32, "loss": 4.0}
    with open(folder / "log.jsonl", "a") as file:
        file.write(json.dumps(write_steps_behind) + "\n")
    run.read(list_run(folder).logs.values())
    assert _loss(run) == [1, 2, 4]
    assert run.logs["log.jsonl"].damaged == 3
    assert last_row(folder / "log.jsonl") == write_steps_behind


def test_long_logs_are_read_piece_by_piece(make_run) -> None:
    folder, run = make_run("a"), RunCurves()
    line = json.dumps({"step": 1, "images_seen": 1, "loss": 1.0, "text": "x" * 900}) + "\n"
    (folder / "log.jsonl").write_text(line * 300)
    files = list_run(folder).logs.values()
    run.read(files, max_bytes=100_000)
    assert run.left_bytes > 100_000
    assert 50 < len(_loss(run)) < 150
    for _ in range(5):
        run.read(files, max_bytes=100_000)
    assert run.left_bytes == 0
    assert len(_loss(run)) == 300


def test_values_that_are_no_numbers_make_gaps(make_run) -> None:
    folder, run = make_run("a"), RunCurves()
    rows = [{"step": at, "images_seen": at, "lidar": None if at == 2 else at, "warnings": ["odd"]} for at in (1, 2, 3)]
    (folder / "monitors.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run.read(list_run(folder).logs.values())
    log = run.logs["monitors.jsonl"]
    assert log.held
    assert np.array_equal(log.curves["lidar"].points(0)[1], [1, math.nan, 3], equal_nan=True)
    assert log.warnings[-1] == "step 3: odd"


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-1e6, 1e6) | st.just(math.nan), min_size=1, max_size=200), st.integers(0, 40))
def test_a_long_curve_loses_no_spike_and_stays_small(values: list[float], times: int) -> None:
    values = values * (1 + times)
    curve = Curve(1)
    for at, value in enumerate(values):
        curve.add((float(at),), value)
    x, mean, low, high = curve.points(0)
    assert len(x) == len(mean) <= MOST_POINTS
    assert x == sorted(x)
    assert x[-1] == len(values) - 1
    numbers = [value for value in values if math.isfinite(value)]
    if numbers:
        assert np.nanmin(low) == min(numbers)
        assert np.nanmax(high) == max(numbers)
        assert all(
            not (mean < low - 1e-6 or mean > high + 1e-6) for mean, low, high in zip(mean, low, high, strict=True)
        )
    else:
        assert all(map(math.isnan, mean))


def test_means_of_a_merged_curve_are_of_all_values() -> None:
    curve = Curve(1)
    values = np.random.default_rng(0).normal(size=MOST_POINTS * 4)
    for at, value in enumerate(values):
        curve.add((float(at),), float(value))
    _, mean, _, _ = curve.points(0)
    assert curve.each > 1
    whole = values[: len(values) // curve.each * curve.each].reshape(-1, curve.each).mean(1)
    assert mean[: len(whole)] == pytest.approx(whole.tolist())
