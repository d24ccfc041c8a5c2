"""Random numbers that are counted, not consumed: each depends on (seed, use, position of the sample, its number) alone.

A numpy Generator per sample would cost 20 us to seed, as much as a whole mask. Here the draws of a batch are one
vectorised SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), started anew for every sample: a sample gets the same numbers
in any batch, on any rank, after any resume.

Shapes: S samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_WORD = (1 << 64) - 1
_DOUBLE_BITS = np.uint64(11)  # a double holds 53 of the 64 bits


class Draws:
    """The random numbers of some samples, in the order in which they are asked for.

    Args:
        seed: Of the run.
        positions: Of the samples, counted from the start of training.
        use: What the numbers are for; another use gives unrelated ones.
    """

    def __init__(self, seed: int, positions: Sequence[int] | np.ndarray, use: int = 0) -> None:
        start = mixed(mixed(np.array([seed & _WORD], np.uint64)) ^ np.uint64(use & _WORD))
        self._start_S = mixed(start ^ np.asarray(positions, np.int64).astype(np.uint64))
        self._drawn = 0

    def __len__(self) -> int:
        return len(self._start_S)

    def uniform(self, *shape: int) -> np.ndarray:
        """(S, *shape) float64 in [0, 1)."""
        count = int(np.prod(shape, dtype=np.int64))
        number = np.arange(self._drawn + 1, self._drawn + 1 + count, dtype=np.uint64) * _GOLDEN
        self._drawn += count
        words = _finished(self._start_S[:, None] + number)
        return ((words >> _DOUBLE_BITS) * 2.0**-53).reshape(len(self), *shape)

    def between(self, low: float, high: float, *shape: int) -> np.ndarray:
        """(S, *shape) float64 in [low, high)."""
        return low + (high - low) * self.uniform(*shape)

    def below(self, limits: np.ndarray) -> np.ndarray:
        """int64 of the limits' shape (S, ...): each uniform over 0 .. limit - 1."""
        return (self.uniform(*limits.shape[1:]) * limits).astype(np.int64)

    def again(self, attempt: int, samples: np.ndarray) -> Draws:
        """Fresh numbers for some of the samples.

        Args:
            attempt: Number of the new attempt, from 1.
            samples: Their indices among these.
        """
        fresh = object.__new__(Draws)
        fresh._start_S = mixed(self._start_S[samples] ^ mixed(np.array([attempt], np.uint64)))
        fresh._drawn = 0
        return fresh


def mixed(words: np.ndarray) -> np.ndarray:
    """uint64 that look unrelated to `words`: one step of SplitMix64."""
    return _finished(words + _GOLDEN)


def _finished(words: np.ndarray) -> np.ndarray:
    words = (words ^ (words >> np.uint64(30))) * _FIRST
    words = (words ^ (words >> np.uint64(27))) * _SECOND
    return words ^ (words >> np.uint64(31))
