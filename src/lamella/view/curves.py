"""How training went: the loss beside those of trivial predictors, and the effective rank."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from lamella.engine.log import read_monitors, read_steps
from lamella.view.maps import save_figure
from lamella.view.marks import FAINT, INK, LINE, PALETTE, web

_SMOOTH_STEPS = 20  # single steps are noisy; the trend is what tells
_TRIVIAL = {
    "loss_prediction": ("the model", PALETTE[4], "-"),
    "loss_mean_predictor": ("mean embedding of all", PALETTE[3], "--"),
    "loss_same_slide": ("mean embedding of the slide", PALETTE[0], ":"),
}


def draw_training(run_folder: Path, path: Path) -> None:
    """Draw the loss per step, the losses on the held views and the effective rank.

    Args:
        run_folder: A folder of `lamella pretrain`.
        path: PNG to write.

    Raises:
        FileNotFoundError: The run has no steps yet.
    """
    steps, monitors = read_steps(run_folder), read_monitors(run_folder)
    if not steps:
        raise FileNotFoundError(run_folder / "steps.csv")
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13.5, 3.9))
    images = np.array([row.images_seen for row in steps])
    loss = np.array([row.loss for row in steps])
    left.plot(images, loss, color=web(LINE), linewidth=1)
    left.plot(images, _smoothed(loss), color=web(PALETTE[4]), linewidth=2)
    _finish(left, "training loss")
    seen = [entry["images_seen"] for entry in monitors]
    for name, (text, rgb, style) in _TRIVIAL.items():
        values = [np.nan if entry.get(name) is None else entry[name] for entry in monitors]
        middle.plot(seen, values, style, color=web(rgb), linewidth=2, marker="o", markersize=4, label=text)
    middle.legend(frameon=False, fontsize=9)
    _finish(middle, "loss on held views, beside trivial answers")
    ranks = [np.nan if entry.get("rankme_centred") is None else entry["rankme_centred"] for entry in monitors]
    right.plot(seen, ranks, color=web(PALETTE[1]), linewidth=2, marker="o", markersize=4)
    right.set_ylim(0, 1.1 * max([1.0, *np.array(ranks)[np.isfinite(ranks)]]))  # from 0, so that a fall looks its size
    _finish(right, "effective rank of the features (centred RankMe)")
    figure.tight_layout()
    save_figure(figure, path)


def _finish(axis: Axes, title: str) -> None:
    axis.set_title(title, fontsize=11, color=web(INK), loc="left")
    axis.set_xlabel("contexts seen", color=web(FAINT))
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
