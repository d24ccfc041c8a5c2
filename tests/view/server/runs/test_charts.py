"""Places in the SVG are those of the numbers."""

from __future__ import annotations

import math
import re
import threading

import numpy as np
import pytest
from starlette.datastructures import QueryParams

from lamella.errors import LamellaError
from lamella.view.server.runs.chart import BOTTOM, LEFT, LOOKS, RIGHT, TOP, Line, draw_chart, smoothed, text_of
from lamella.view.server.runs.charts import Wish, charts_of
from lamella.view.server.runs.run_curves import LogCurves, RunCurves


def _line(y: list[float], x: list[float] | None = None, **more) -> Line:
    return Line("loss", x or list(range(len(y))), y, more.pop("low", y), more.pop("high", y), y[-1], **more)


def _points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", path)]


def test_the_ends_of_the_values_are_the_ends_of_the_axes() -> None:
    chart = draw_chart("t", [_line([1.0, 3.0, 2.0], [10, 20, 30])], False)
    assert _points(chart.lines[0].path) == [(LEFT, BOTTOM), ((LEFT + RIGHT) / 2, TOP), (RIGHT, (TOP + BOTTOM) / 2)]
    assert chart.ends == (10, 30, 1, 3)
    assert [tick.text for tick in chart.up] == ["1", "1.5", "2", "2.5", "3"]
    assert chart.up[2].at == (TOP + BOTTOM) / 2


def test_a_logarithmic_axis_has_a_decade_at_its_place_and_counts_what_it_cannot_show() -> None:
    chart = draw_chart("t", [_line([1.0, 10.0, 100.0, 0.0, -1.0])], True)
    assert [y for _, y in _points(chart.lines[0].path)] == [BOTTOM, (TOP + BOTTOM) / 2, TOP]
    assert [tick.text for tick in chart.up] == ["1", "10", "100"]
    assert chart.hidden == 2


def test_gaps_lift_the_pen_and_single_values_are_dots() -> None:
    chart = draw_chart("t", [_line([1.0, math.nan, 2.0, 3.0])], False)
    assert chart.lines[0].path.count("M") == 2
    alone = draw_chart("t", [_line([5.0])], False)
    assert alone.lines[0].path.endswith("h.1")
    none = draw_chart("t", [_line([math.nan])], False)
    assert none.lines[0].path == ""
    assert none.lines[0].last == "no number"


def test_the_range_behind_merged_points_is_an_area() -> None:
    chart = draw_chart("t", [_line([1.0, 1.0], low=[0.0, 0.5], high=[2.0, 1.5])], False)
    assert chart.lines[0].band.startswith("M")
    assert chart.lines[0].band.endswith("Z")
    assert chart.ends[2:] == (0.0, 2.0)


def test_smoothing_is_the_mean_of_the_last_values_and_keeps_gaps() -> None:
    values = np.random.default_rng(1).normal(size=60).tolist()
    values[7] = math.nan
    found = smoothed(values, 5)
    for at, value in enumerate(found):
        expected = math.nan if at == 7 else np.nanmean(values[max(0, at - 4) : at + 1])
        assert value == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(("value", "text"), [(0.0, "0"), (1e-5, "1e-5"), (1234.5, "1,234.5"), (2.5e9, "2.5e9")])
def test_numbers_of_ticks_are_short(value: float, text: str) -> None:
    assert text_of(value) == text


def _run(columns: dict[str, list[float]], title: str = "", held: bool = False) -> RunCurves:
    log = LogCurves(title, held)
    for at in range(len(next(iter(columns.values())))):
        log.add({"step": at, "images_seen": 8 * at, **{name: values[at] for name, values in columns.items()}})
    return RunCurves({"log": log})


def test_trivial_answers_stand_beside_the_model_and_what_never_changes_is_said() -> None:
    values = {"loss_prediction": [3.0, 2.0, 1.0], "loss_mean_predictor": [4.0, 4.0, 5.0], "lidar": [7.0, 7.0, 7.0]}
    found = charts_of({"a": _run(values, held=True)}, Wish())
    assert [chart.title for chart in found.charts] == ["loss on held views"]
    assert [line.label for line in found.charts[0].lines] == ["the model", "mean embedding of all"]
    assert found.constant == ["LiDAR (held views) 7"]


def test_what_tells_most_stands_first() -> None:
    steps = _run({"grad_norm": [1.0, 2.0], "loss_dice": [1.0, 2.0], "loss": [1.0, 2.0]}).logs["log"]
    held = _run({"lidar": [1.0, 2.0]}, held=True).logs["log"]
    titles = [chart.title for chart in charts_of({"a": RunCurves({"log": steps, "held": held})}, Wish()).charts]
    assert titles == ["training loss", "parts of the training loss", "LiDAR (held views)", "norm of the gradient"]


def test_two_runs_share_a_chart_and_the_axis_can_be_images() -> None:
    runs = {"a": _run({"loss": [1.0, 2.0]}), "b": _run({"loss": [3.0, 4.0, 5.0]})}
    found = charts_of(runs, Wish(axis="images_seen"))
    assert [line.label for line in found.charts[0].lines] == ["a: loss", "b: loss"]
    assert found.charts[0].ends == (0, 16, 1, 5)


def test_a_log_without_images_has_curves_along_steps_alone() -> None:
    log = LogCurves("", False)
    for step in (1, 2):
        log.add({"step": step, "loss": step})
    run = RunCurves({"log": log})
    assert len(charts_of({"a": run}, Wish()).charts[0].up) > 1
    assert charts_of({"a": run}, Wish(axis="images_seen")).charts[0].up == ()


def test_more_lines_than_kinds_of_them_get_a_chart_for_each_column() -> None:
    logs = {f"fold{at}": LogCurves(f"fold{at}", False) for at in range(LOOKS + 2)}
    for log in logs.values():
        for step in (1, 2):
            log.add({"step": step, "images_seen": step, "loss_dice": step, "loss_focal": 2 * step})
    found = charts_of({"a": RunCurves(logs)}, Wish())
    assert [chart.title for chart in found.charts] == [
        "parts of the training loss: dice",
        "parts of the training loss: focal",
    ]
    assert [len(chart.lines) for chart in found.charts] == [LOOKS, LOOKS]
    assert sum(shown for _, shown in found.logs) == LOOKS
    chosen = charts_of({"a": RunCurves(logs)}, Wish(logs=("fold7",)))
    assert [line.label for line in chosen.charts[0].lines] == ["fold7: dice", "fold7: focal"]


@pytest.mark.parametrize("query", ["x=time", "smooth=0", "smooth=-3", "smooth=1e9", "smooth=9999999"])
def test_impossible_wishes_are_refused(query: str) -> None:
    with pytest.raises(LamellaError, match=r"one of|number"):
        Wish.of_query(QueryParams(query))


def test_curves_are_drawn_while_another_request_reads_on() -> None:
    run, stop = RunCurves({"log": LogCurves("", False)}), threading.Event()

    def grow() -> None:
        step = 0
        while not stop.is_set():
            step += 1
            with run.lock:
                run.logs["log"].add({"step": step, "images_seen": step, "loss": step % 7, "grad_norm": step % 5})

    thread = threading.Thread(target=grow)
    thread.start()
    try:
        for _ in range(30):
            for chart in charts_of({"a": run}, Wish(smooth=3)).charts:
                assert all(line.last != "no number" for line in chart.lines)
    finally:
        stop.set()
        thread.join()
