"""IoU, Dice, precision, recall and F1 of one predictor: of each class, their mean, and their mean weighted by area.

Letters: C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lamella.metrics.segments.confusion import (
    class_counts,
    dice_per_class,
    iou_per_class,
    precision_per_class,
    recall_per_class,
)

# F1 of pixels is their Dice: 2 TP / (2 TP + FP + FN). Both names are asked for.
MEASURES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "iou": iou_per_class,
    "dice": dice_per_class,
    "precision": precision_per_class,
    "recall": recall_per_class,
    "f1": dice_per_class,
}
_DECIMALS = 6


def summary(matrix: np.ndarray, classes: Sequence[str], background: int | None) -> dict[str, Any]:
    """All numbers of a pooled confusion as plain values for JSON.

    A class that is neither in the truth nor in the prediction has no number (None) and is in no mean. Weights are the
    true pixels of each class, so a class that is only called falsely weighs nothing there; it counts 0 in the macro
    means.

    Args:
        matrix: (C, C + 1) pixels as of `confusion.confusion_of`.
        classes: C names.
        background: Channel that the means of the tissues leave out; None where there is none.

    Returns:
        `macro` and `weighted` (over the tissues), `macro_with_background` and `weighted_with_background` (over all
        classes), `per_class` (name -> its numbers, `true_px`, `predicted_px`), `n_present`.
    """
    values = {name: of(matrix) for name, of in MEASURES.items()}
    counts_C3 = class_counts(matrix)
    tissues = [number for number in range(len(classes)) if number != background]
    everything = list(range(len(classes)))
    per_class = {
        name: {
            **{measure: _plain(value[number]) for measure, value in values.items()},
            "true_px": int(counts_C3[number, 1]),
            "predicted_px": int(counts_C3[number, 2]),
        }
        for number, name in enumerate(classes)
    }
    found: dict[str, Any] = {}
    for suffix, kept in (("", tissues), ("_with_background", everything)):
        own_C = counts_C3[kept, 1].astype(np.float64)
        found[f"macro{suffix}"] = {name: _mean(value[kept], np.ones(len(kept))) for name, value in values.items()}
        found[f"weighted{suffix}"] = {name: _mean(value[kept], own_C) for name, value in values.items()}
    there = int(np.isfinite(values["dice"][tissues]).sum())
    return {**found, "per_class": per_class, "n_present": there, "n_classes": len(tissues)}


def _mean(values_C: np.ndarray, weights_C: np.ndarray) -> float | None:
    """Weighted mean of what is defined; None where nothing is, or nothing weighs."""
    defined = np.isfinite(values_C)
    total = weights_C[defined].sum()
    return None if total == 0 else _plain((values_C[defined] * weights_C[defined]).sum() / total)


def _plain(value: float) -> float | None:
    return round(float(value), _DECIMALS) if np.isfinite(value) else None
