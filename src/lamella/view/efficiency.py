"""What labels are worth: a metric against how many of them are used, encoder beside its baselines.

Drawn from the tables that `lamella evaluate` writes (efficiency.csv, nshot.csv), never from anything else.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from lamella.errors import LamellaError
from lamella.view.maps import save_figure
from lamella.view.marks import FAINT, INK, LINE, PALETTE, web

EFFICIENCY_FILE, NSHOT_FILE = "efficiency.csv", "nshot.csv"
_MEASURES = {"auc": "AUC", "balanced_accuracy": "balanced accuracy"}
_STYLES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 2)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# The judged encoder, which comes first in every table, gets the colour that stands out most on white.
_COLOURS = tuple(PALETTE[number] for number in (4, 3, 1, 0, 5, 2, 6))


@dataclass(frozen=True)
class Point:
    """One place of a curve.

    Attributes:
        place: Share of the labels (0 to 1), or labels of each class.
        labels: How many labels that is.
        value: Mean over draws of the labels.
        low: Lower end of its interval.
        high: Upper end.
        draws: Draws behind it.
    """

    place: float
    labels: int
    value: float
    low: float
    high: float
    draws: int


Curves = dict[str, list[Point]]
"""Encoder -> its points, fewest labels first."""


def read_curves(path: Path, column: str) -> dict[str, Curves]:
    """Measure -> the curves of a table, in the table's order of encoders.

    The table has the columns encoder, `column`, labels, draws, and of each measure `auc`, `auc_low`, `auc_high`.

    Args:
        path: efficiency.csv or nshot.csv of `lamella evaluate`.
        column: What counts the labels there: `share` or `shots`.

    Raises:
        LamellaError: A column is missing, or a cell is no number.
    """
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        names = reader.fieldnames or ()
        rows = list(reader)
    measures = [name for name in names if f"{name}_low" in names and f"{name}_high" in names]
    missing = [name for name in ("encoder", column, "labels", "draws") if name not in names]
    missing += [] if measures else ["of any measure"]
    if missing:
        raise LamellaError(path, f"it lacks the columns {', '.join(missing)}", "Write it with `lamella evaluate`.")
    found: dict[str, Curves] = {measure: {} for measure in measures}
    for measure, curves in found.items():
        for number, row in enumerate(rows, start=2):
            curves.setdefault(row["encoder"], []).append(_point(row, column, measure, f"{path}, line {number}"))
        for points in curves.values():
            points.sort(key=lambda point: point.place)
    return found


def draw_efficiency(
    curves: Curves, path: Path, *, title: str, measure: str, share: bool = True, judged: str = ""
) -> None:
    """Draw a metric against the labels, with ribbons for the intervals.

    Args:
        curves: The judged encoder first.
        path: PNG to write.
        title: Above the figure.
        measure: Name of the metric, for the axis.
        share: Whether labels are counted as a share of all, or as labels of each class.
        judged: On what, such as `624 test images`.
    """
    figure, axis = plt.subplots(figsize=(8.4, 5.2))
    labels = {point.place: point.labels for points in curves.values() for point in points}
    for number, (name, points) in enumerate(curves.items()):
        # At a single place, encoders stand beside each other.
        aside = 1.04 ** (number - (len(curves) - 1) / 2) if len(labels) == 1 else 1.0
        _draw_curve(axis, name, points, number, aside)
    _scale_labels(axis, labels, share)
    axis.set_ylabel(_MEASURES.get(measure, measure.replace("_", " ")), color=web(FAINT))
    axis.grid(axis="y", color=web(LINE), linewidth=0.8)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    axis.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.01, 0.5))
    figure.suptitle(title, fontsize=13, fontweight="bold", x=0.02, ha="left", color=web(INK))
    figure.text(0.02, 0.905, _counts(curves, judged), fontsize=9.5, color=web(FAINT), va="top")
    figure.tight_layout(rect=(0, 0, 1, 0.92))
    save_figure(figure, path)


def _draw_curve(axis: Axes, name: str, points: Sequence[Point], number: int, aside: float) -> None:
    rgb = web(_COLOURS[number % len(_COLOURS)])
    style, marker = _STYLES[number % len(_STYLES)], _MARKERS[number % len(_MARKERS)]
    places = [point.place * aside for point in points]
    axis.fill_between(places, [p.low for p in points], [p.high for p in points], color=rgb, alpha=0.15, linewidth=0)
    axis.plot(
        places, [p.value for p in points], linestyle=style, marker=marker, markersize=5, linewidth=2, color=rgb,
        label=name,
    )  # fmt: skip
    if len(points) == 1:  # a ribbon of one point has no width
        point = points[0]
        axis.vlines(places[0], point.low, point.high, color=rgb, alpha=0.4, linewidth=4)


def _scale_labels(axis: Axes, labels: Mapping[float, int], share: bool) -> None:
    """Labels in even steps of their logarithm: the first ones count most."""
    places = sorted(labels)
    axis.set_xscale("log")
    axis.set_xticks(places)
    axis.set_xticklabels(
        [(f"{100 * place:g} %" if share else f"{place:g}") + f"\n{labels[place]:,}" for place in places]
    )
    axis.xaxis.set_minor_locator(NullLocator())
    what = "share of the training labels" if share else "labels of each class"
    axis.set_xlabel(f"{what}; below, how many labels that is in all", color=web(FAINT))
    if len(places) == 1:
        axis.set_xlim(places[0] / 2, places[0] * 2)


def _counts(curves: Curves, judged: str) -> str:
    draws = sorted({point.draws for points in curves.values() for point in points})
    span = f"{draws[0]:,}" if draws[0] == draws[-1] else f"{draws[0]:,} to {draws[-1]:,}"
    texts = ["ribbons: 95 % intervals", f"judged on {judged}" if judged else "", f"{span} draws of labels a point"]
    return "; ".join(text for text in texts if text)


def _point(row: Mapping[str, str], column: str, measure: str, place: str) -> Point:
    try:
        numbers = [float(row[key]) for key in (column, measure, f"{measure}_low", f"{measure}_high")]
        point = Point(numbers[0], int(row["labels"]), *numbers[1:], int(row["draws"]))
    except (TypeError, ValueError) as error:
        raise LamellaError(place, str(error), "Write the table anew with `lamella evaluate`.") from error
    if not all(math.isfinite(number) for number in numbers) or point.place <= 0:
        raise LamellaError(place, "labels and numbers must be finite", "Write the table anew with `lamella evaluate`.")
    return point
