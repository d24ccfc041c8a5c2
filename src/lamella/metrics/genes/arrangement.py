"""Places of a slide sorted into square blocks, that the shuffle exchanges and the bootstrap resamples.

Neighbouring places share their expression, so single places are no independent draws: blocks of about a tile are.

Shapes: N places, B blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lamella.metrics.genes.judged import JudgedSlide

# Fewer blocks than 16 give too few different resamples; more than 48 cost memory and no longer change an interval.
_FEWEST, _MOST = 16, 48
# Sides from a millionth to the millionfold of the wanted one.
_STEPS = 40


@dataclass(frozen=True)
class Arrangement:
    """The places of a slide in the order of their blocks.

    Attributes:
        order: (N,) places, block by block; rows of the lattice within a block.
        starts: (B,) where each block begins in `order`.
        block_um: Side of the blocks.
        exchanges_blocks: The shuffle exchanges whole blocks (bins), or single places (spots).
    """

    order: np.ndarray
    starts: np.ndarray
    block_um: float
    exchanges_blocks: bool

    @classmethod
    def of(cls, slide: JudgedSlide, block_um: float) -> Arrangement:
        """Sort the places of a slide into blocks of about this side."""
        if slide.rc is None:
            across_N2 = slide.places_um.astype(np.float64)
        else:
            across_N2 = slide.rc[:, ::-1].astype(np.float64) * slide.bin_um
        across_N2 = across_N2 - across_N2.min(axis=0)
        side = _side(across_N2, block_um)
        block_N = _blocks(across_N2, side)
        order = np.lexsort((across_N2[:, 0], across_N2[:, 1], block_N))
        starts = np.flatnonzero(np.r_[True, np.diff(block_N[order]) > 0])
        return cls(order, starts, side, slide.rc is not None)

    @property
    def sizes(self) -> np.ndarray:
        """(B,) places of each block."""
        return np.diff(np.r_[self.starts, len(self.order)])

    def shuffles(self, number: int, seed: int) -> np.ndarray:
        """(number, N) where the truth of each place (in `order`) goes: permutations of the places.

        Bins: the blocks are laid one after the other in a random order, and their truth is given to the places as
        they lie. A map keeps its texture within a block, and its histogram; only its place beside the image is lost. A
        shuffle of single bins would lose the texture, too, and be too easy a control.
        """
        count, rng = len(self.order), np.random.default_rng([seed, 7])
        if not self.exchanges_blocks or len(self.starts) < 2:
            return np.stack([rng.permutation(count) for _ in range(number)])
        found = np.empty((number, count), np.int64)
        sizes = self.sizes
        for row in found:
            blocks = rng.permutation(len(sizes))
            at = np.zeros(len(sizes), np.int64)
            at[blocks] = np.cumsum(sizes[blocks]) - sizes[blocks]
            row[:] = np.arange(count) + np.repeat(at - self.starts, sizes)
        return found


def _side(across_N2: np.ndarray, block_um: float) -> float:
    """The side nearest to the wanted one that gives a fitting number of blocks; else the most blocks below the limit.

    A step of sqrt(2) halves or doubles the number, and the fitting numbers span a factor of three.
    """
    best, best_blocks = block_um, 0
    for step in sorted(range(-_STEPS, _STEPS + 1), key=abs):
        side = block_um * 2 ** (step / 2)
        blocks = len(np.unique(_blocks(across_N2, side)))
        if _FEWEST <= blocks <= _MOST:
            return side
        if best_blocks < blocks <= _MOST:
            best, best_blocks = side, blocks
    return best


def _blocks(across_N2: np.ndarray, side: float) -> np.ndarray:
    block_N2 = np.floor(across_N2 / side).astype(np.int64)
    return block_N2[:, 1] * (int(block_N2[:, 0].max()) + 1) + block_N2[:, 0]
