"""A confusion matrix of pixels as a picture: of each true class, the share that was given each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from lamella.view.maps import save_figure
from lamella.view.marks import FAINT, INK, web

_CELL_IN, _MARGIN_IN = 0.75, 2.6  # of a cell, and of the room for names
_DARK = 0.55  # above this share, white letters are legible on the cell


def draw_confusion(
    matrix: np.ndarray, classes: Sequence[str], path: Path, *, title: str, area_px_mm2: float | None = None
) -> None:
    """Draw the shares of each row, and beside it how much area the row stands for.

    Args:
        matrix: (C, C + 1) pixels as of `metrics.segments.confusion.confusion_of`.
        classes: C names.
        path: PNG to write.
        title: Above the figure.
        area_px_mm2: Area of a pixel; None states pixels.
    """
    columns = list(classes)
    if matrix[:, -1].any():
        columns.append("not looked at")
    cells = matrix[:, : len(columns)].astype(np.float64)
    total = matrix.sum(1)
    share = np.divide(cells, total[:, None], out=np.full(cells.shape, np.nan), where=total[:, None] > 0)
    width, height = len(columns) * _CELL_IN + _MARGIN_IN + 1.2, len(classes) * _CELL_IN + _MARGIN_IN
    figure, axis = plt.subplots(figsize=(max(width, 5.5), height))
    axis.imshow(np.nan_to_num(share), cmap="Blues", vmin=0, vmax=1, aspect="equal")
    for row in range(len(classes)):
        for column in range(len(columns)):
            value = share[row, column]
            ink = "white" if value > _DARK else web(INK)
            weight = "bold" if row == column else "normal"
            text = "" if np.isnan(value) else _percent(value)
            axis.text(column, row, text, ha="center", va="center", color=ink, fontsize=10, fontweight=weight)
        text = _amount(int(total[row]), area_px_mm2) if total[row] else "not in the truth"
        axis.text(len(columns) - 0.4, row, text, ha="left", va="center", color=web(FAINT), fontsize=9)
    axis.set_xticks(range(len(columns)), columns, rotation=35, ha="right")
    axis.set_yticks(range(len(classes)), classes)
    axis.set_xlabel("predicted", color=web(FAINT))
    axis.set_ylabel("true (each row adds up to 100 %)", color=web(FAINT))
    axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)
    figure.suptitle(title, fontsize=11, color=web(INK), x=0.02, ha="left")
    figure.tight_layout()
    save_figure(figure, path)


def _percent(share: float) -> str:
    """`97 %`; what is there and rounds to nothing is not called nothing."""
    return "0" if share == 0 else "<1 %" if share < 0.005 else f"{100 * share:.0f} %"


def _amount(pixels: int, area_px_mm2: float | None) -> str:
    return f"{pixels:,} px" if area_px_mm2 is None else f"{pixels * area_px_mm2:.3g} mm²"
