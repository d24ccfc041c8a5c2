"""How training went, drawn from a run's own logs: the loss, the losses of trivial answers, and the collapse monitors.

Whatever the method logs is shown: monitors are told apart by their names, and one that was not logged has no panel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lamella.engine.log import StepRow, read_monitors, read_steps
from lamella.view.maps import save_figure
from lamella.view.marks import FAINT, INK, LINE, PALETTE, Colour, web
from lamella.view.monitor_panels import KNOWN, PANELS, Panel

_SMOOTH_STEPS = 20  # single steps are noisy; the trend is what tells
_MOST_COLUMNS = 4
_KNOWN_LINES: dict[str, tuple[Colour, str]] = {
    "loss_prediction": (PALETTE[4], "-"),
    "loss_mean_predictor": (PALETTE[3], "--"),
    "loss_same_slide": (PALETTE[0], ":"),
}
_LINES: tuple[tuple[Colour, str], ...] = (
    (PALETTE[4], "-"),
    (PALETTE[3], "--"),
    (PALETTE[1], "-."),
    (PALETTE[0], ":"),
    (PALETTE[5], "-"),
    (PALETTE[2], "--"),
)


def draw_training(run_folder: Path, path: Path) -> None:
    """Draw the loss per step and every monitor that the run has logged.

    Args:
        run_folder: A folder of `lamella pretrain`.
        path: PNG to write.

    Raises:
        FileNotFoundError: The run has no steps yet.
    """
    steps, monitors = read_steps(run_folder), read_monitors(run_folder)
    if not steps:
        raise FileNotFoundError(run_folder / "steps.csv")
    seen = [entry["images_seen"] for entry in monitors]
    series = _series(monitors)
    panels = [(panel, shown) for panel in PANELS if (shown := _shown(panel, series))]
    count = 1 + len(panels)
    columns = count if count <= _MOST_COLUMNS else -(-count // 2)
    rows = -(-count // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4.5 * columns, 3.9 * rows), squeeze=False)
    noun = "contexts seen" if "loss_same_slide" in series else "images seen"
    _draw_loss(axes.flat[0], steps, noun)
    for axis, (panel, shown) in zip(axes.flat[1:], panels, strict=False):
        _draw_panel(axis, panel, seen, shown, noun)
    for axis in axes.flat[count:]:
        axis.set_axis_off()
    warnings = sorted({text.partition(":")[0] for entry in monitors for text in entry.get("warnings") or ()})
    if warnings:
        text = f"Monitors that gave a warning during the run: {', '.join(warnings)} (monitors.jsonl)"
        figure.text(0.01, 0.005, text, fontsize=9.5, color=web(PALETTE[3]), va="bottom")
    figure.tight_layout(rect=(0, 0.05 / rows if warnings else 0, 1, 1))
    save_figure(figure, path)


def _series(monitors: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Name -> values over time of every monitor that was a number at least once; NaN where it was none."""
    found = {}
    for name in dict.fromkeys(name for entry in monitors for name in entry):
        values = [entry.get(name) for entry in monitors]
        if name in ("step", "images_seen") or not any(isinstance(value, int | float) for value in values):
            continue
        found[name] = np.array([value if isinstance(value, int | float) else np.nan for value in values], float)
    return found


def _shown(panel: Panel, series: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The monitors of a panel; of a rank and its centred form, the centred one."""
    names = [name for name in series if panel.holds(name)]
    centred = {name.replace("_centred", "") for name in names if "_centred" in name}
    return {name: series[name] for name in names if name not in centred and np.isfinite(series[name]).any()}


def _draw_loss(axis: Axes, steps: Sequence[StepRow], noun: str) -> None:
    images, loss = np.array([row.images_seen for row in steps]), np.array([row.loss for row in steps])
    axis.plot(images, loss, color=web(LINE), linewidth=1, label="each step")
    axis.plot(images, _smoothed(loss), color=web(PALETTE[4]), linewidth=2, label=f"mean of {_SMOOTH_STEPS} steps")
    axis.legend(frameon=False, fontsize=9)
    _finish(axis, "training loss", noun)


def _draw_panel(axis: Axes, panel: Panel, seen: list[int], shown: Mapping[str, np.ndarray], noun: str) -> None:
    for (name, values), (rgb, style) in zip(shown.items(), _LINES, strict=False):
        rgb, style = _KNOWN_LINES.get(name, (rgb, style))
        text = KNOWN.get(name, _plain(name))
        axis.plot(seen, values, style, color=web(rgb), linewidth=2, marker="o", markersize=4, label=text)
    if not panel.title.startswith("loss"):
        every = np.concatenate(list(shown.values()))
        every = every[np.isfinite(every)]
        top = panel.top or 1.1 * max(every.max(), 0.0)
        low = min(0.0, 1.1 * float(every.min()))
        if top > low:
            axis.set_ylim(low, top)  # from 0, so that a fall looks its size
    if len(shown) > 1 or panel.title.startswith("loss"):
        axis.legend(frameon=False, fontsize=9)
    trivial = ", beside trivial answers" if "loss_mean_predictor" in shown else ""
    _finish(axis, panel.title + trivial, noun)


def _plain(name: str) -> str:
    """`tokens_rankme_centred` -> `tokens`: the panel's title says the rest; other names lose their underscores."""
    for known in ("rankme_centred", "rankme", "std_relative", "sigreg_excess", "alpha_req"):
        if name.endswith(known):
            return name.removesuffix(known).strip("_").replace("_", " ") or "pooled"
    return name.removeprefix("loss_").removesuffix("_share").replace("_", " ")


def _finish(axis: Axes, title: str, noun: str) -> None:
    axis.set_title(title, fontsize=11, color=web(INK), loc="left")
    axis.set_xlabel(noun, color=web(FAINT))
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.grid(axis="y", color=web(LINE), linewidth=0.8)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Mean over the last steps, fewer at the beginning."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    first = np.maximum(0, np.arange(1, len(values) + 1) - _SMOOTH_STEPS)
    last = np.arange(1, len(values) + 1)
    return (sums[last] - sums[first]) / (last - first)
