"""Protocols and rows for the tests of segmentation tables."""

from __future__ import annotations

from typing import Any

from lamella.metrics.bootstrap import Estimate
from lamella.metrics.report import Reference, Row
from lamella.metrics.segments.protocol import Protocol, split_digest

SPLIT = split_digest([("a", "p1"), ("b", "p2")])
AUTOMATIC: dict[str, Any] = {
    "task": "automatic",
    "oracle": False,
    "prompt": "none",
    "ignored": ("255 (not labelled)",),
    "split": SPLIT,
    "classes": ("background", "gland"),
    "mpp": 0.5,
    "scored": "pixels",
    "n": 2,
}
PROMPTED = {**AUTOMATIC, "task": "prompted", "oracle": True, "prompt": "box"}
WEAK = {**AUTOMATIC, "task": "weak"}


def protocol(given: dict[str, Any] = AUTOMATIC, **changes: Any) -> Protocol:
    return Protocol(**{**given, **changes})


def row(under: Protocol | None, question: str | None = None, *, value: float = 0.9, n: int = 2) -> Row:
    """A row with a Dice, under the title that its protocol asks for unless another is given."""
    title = question or (under.question("toys") if under else "Segmentation: toys")
    name = "sam" if under is None else f"{under.task} {under.prompt}"
    baseline = Reference("all gland", 0.5)
    return Row(title, "Dice", "pooled", name, Estimate(value, 0.1, 1.0, n, 2), baseline, "higher", protocol=under)
