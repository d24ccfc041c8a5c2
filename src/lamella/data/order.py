"""Which catalogue row comes at which position of training: a pure function, in memory that does not grow with the rows.

Nothing is shuffled in memory and nothing is counted along the way, so a worker, a rank or a resumed run that knows the
position knows the row. A virtual epoch is only a name for a run of positions: the permutation goes on through it until
every row was seen.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence

_WORD = (1 << 64) - 1
# Each round mixes one half into the other; beyond 8 (four a half) the permutations of small n no longer get more even.
_ROUNDS = 8


class Order:
    """The numbers 0..n-1 in another order on every pass.

    A Feistel network over the rectangle of about sqrt(n) x sqrt(n) that holds n, walked until it lands below n (Black
    and Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002: generalised Feistel and cycle walking).
    """

    def __init__(self, n: int, seed: int) -> None:
        if n < 1:
            raise ValueError(f"an order needs at least one row, got {n}")
        self.n = n
        self.seed = seed
        self._left = math.isqrt(n - 1) + 1
        self._right = -(-n // self._left)

    def __len__(self) -> int:
        return self.n

    def at(self, position: int) -> tuple[int, int]:
        """(pass, row) of a position counted from the start of training; every row comes once per pass."""
        if position < 0:
            raise ValueError(f"positions start at 0, got {position}")
        pass_index, index = divmod(position, self.n)
        key = _mix(_mix(self.seed) ^ pass_index)
        index = self._permuted(index, key)
        while index >= self.n:  # the rectangle is at most sqrt(n) larger than n, so this is rare
            index = self._permuted(index, key)
        return pass_index, index

    def _permuted(self, index: int, key: int) -> int:
        left, right = divmod(index, self._right)
        for turn in range(0, _ROUNDS, 2):
            left = (left + _mix(key ^ _mix(turn << 56 ^ right))) % self._left
            right = (right + _mix(key ^ _mix(turn + 1 << 56 ^ left))) % self._right
        return left * self._right + right


def _mix(value: int) -> int:
    """A 64-bit number that looks unrelated to `value`: the SplitMix64 generator (Steele, Lea, Flood, OOPSLA 2014)."""
    value = (value + 0x9E3779B97F4A7C15) & _WORD
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _WORD
    return value ^ (value >> 31)


class StratifiedOrder:
    """Rows of several strata, every stratum equally often: each run of S positions visits each of the S strata once.

    Within a stratum the rows follow an `Order` of their own, so a small stratum simply comes round sooner. With one
    stratum this is `Order` over its rows.
    """

    def __init__(self, strata: Sequence[Sequence[range]], seed: int) -> None:
        """Args: the row ranges of each stratum (none empty), and a seed."""
        self._ranges = [list(ranges) for ranges in strata]
        self._ends = [list(itertools.accumulate(map(len, ranges))) for ranges in self._ranges]
        self._orders = [Order(ends[-1], _mix(seed) ^ number) for number, ends in enumerate(self._ends)]
        self._turns = Order(len(self._orders), _mix(seed + 1))

    def __len__(self) -> int:
        """Rows of all strata."""
        return sum(ends[-1] for ends in self._ends)

    def at(self, position: int) -> tuple[int, int]:
        """(pass over the row's stratum, row) of a position."""
        turn, stratum = self._turns.at(position)
        pass_index, index = self._orders[stratum].at(turn)
        number = bisect.bisect_right(self._ends[stratum], index)
        before = self._ends[stratum][number - 1] if number else 0
        return pass_index, self._ranges[stratum][number][index - before]
