"""One column of a log, however long, in bounded memory."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field

MOST_POINTS = 1024
"""Points that a curve holds at most; a chart is narrower than that on any screen."""


@dataclass
class Curve:
    """Values in order. Once there are too many, neighbours share a point: their mean, their least and greatest.

    A value that is no number is NaN: alone it makes a gap, beside numbers it is left out of the mean.

    Attributes:
        each: Values behind one point.
        x: Place of a point on each axis: of the last of its values.
        mean, low, high: Of its values; NaN if none is a number.
        last: The newest value.
    """

    axes: int
    each: int = 1
    x: list[array[float]] = field(default_factory=list)
    mean: array[float] = field(default_factory=lambda: array("d"))
    low: array[float] = field(default_factory=lambda: array("d"))
    high: array[float] = field(default_factory=lambda: array("d"))
    last: float = math.nan
    _waiting: list[tuple[tuple[float, ...], float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.x = [array("d") for _ in range(self.axes)]

    def add(self, places: tuple[float, ...], value: float) -> None:
        """A value and its place on each axis."""
        self.last = value
        if self.each == 1:
            self._put(places, (value, value, value))
        else:
            self._waiting.append((places, value))
            if len(self._waiting) < self.each:
                return
            self._put(self._waiting[-1][0], _summary([value for _, value in self._waiting]))
            self._waiting.clear()
        if len(self.mean) >= MOST_POINTS:
            self._halve()

    def points(self, axis: int) -> tuple[list[float], list[float], list[float], list[float]]:
        """(x, mean, low, high), the values that wait for a whole point as one more."""
        held = (self.x[axis], self.mean, self.low, self.high)
        if not self._waiting:
            return tuple(list(part) for part in held)  # type: ignore[return-value]
        mean, low, high = _summary([value for _, value in self._waiting])
        rest = (self._waiting[-1][0][axis], mean, low, high)
        return tuple([*part, one] for part, one in zip(held, rest, strict=True))  # type: ignore[return-value]

    def _put(self, places: tuple[float, ...], summary: tuple[float, float, float]) -> None:
        for axis, place in zip(self.x, places, strict=True):
            axis.append(place)
        for part, number in zip((self.mean, self.low, self.high), summary, strict=True):
            part.append(number)

    def _halve(self) -> None:
        pairs = range(0, len(self.mean) - 1, 2)
        self.x = [array("d", (axis[at + 1] for at in pairs)) for axis in self.x]
        self.mean = array("d", (_mean([self.mean[at], self.mean[at + 1]]) for at in pairs))
        self.low = array("d", (_least([self.low[at], self.low[at + 1]]) for at in pairs))
        self.high = array("d", (_greatest([self.high[at], self.high[at + 1]]) for at in pairs))
        self.each *= 2


def _mean(values: list[float]) -> float:
    return _summary(values)[0]


def _least(values: list[float]) -> float:
    return _summary(values)[1]


def _greatest(values: list[float]) -> float:
    return _summary(values)[2]


def _summary(values: list[float]) -> tuple[float, float, float]:
    """(mean, least, greatest) of the numbers among them; NaN if there are none."""
    numbers = [value for value in values if value - value == 0]  # neither NaN nor infinite, and faster than asking
    if not numbers:
        return math.nan, math.nan, math.nan
    return math.fsum(numbers) / len(numbers), min(numbers), max(numbers)
