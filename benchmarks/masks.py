"""Masks per second of one core, for each kind, drawn and padded into the arrays that a method gets.

python benchmarks/masks.py [--batch 64]
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import statistics
import time

from lamella.data.masks.exact import Block3dMaskSettings, BlockMaskSettings, Random3dMaskSettings, RandomMaskSettings
from lamella.data.masks.kinds import draw_masks
from lamella.data.masks.multiblock import MultiBlockMaskSettings
from lamella.data.masks.temporal import TemporalMaskSettings
from lamella.data.masks.tube import LONG_RANGE, SHORT_RANGE

# Images of 224 px at patch 16; volumes of 64 x 128 x 128 at 8 x 16 x 16; clips of 16 frames of 224 px at 2 x 16 x 16.
IMAGE, VOLUME, CLIP = (14, 14), (8, 8, 8), (8, 14, 14)
KINDS = {
    "random": (RandomMaskSettings(), IMAGE),
    "block": (BlockMaskSettings(), IMAGE),
    "multiblock": (MultiBlockMaskSettings(), IMAGE),
    "random3d": (Random3dMaskSettings(), VOLUME),
    "block3d": (Block3dMaskSettings(), VOLUME),
    "tube, short range": (SHORT_RANGE, CLIP),
    "tube, long range": (LONG_RANGE, CLIP),
    "temporal": (TemporalMaskSettings(), CLIP),
}


def rate(kind: object, grid: tuple[int, ...], batch: int, masks: int) -> float:
    started = time.process_time()
    for first in range(0, masks, batch):
        draw_masks(kind, grid, 0, range(first, first + batch)).arrays()
    return masks / (time.process_time() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--masks", type=int, default=4096, help="per round")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    for name, (kind, grid) in KINDS.items():
        rates = [rate(kind, grid, arguments.batch, arguments.masks) for _ in range(arguments.rounds + 1)]
        size = " x ".join(map(str, grid))
        print(
            f"masks {name}, grid {size}, batch {arguments.batch}: {statistics.median(rates[1:]):,.0f} per second, "
            f"n {arguments.rounds} x {arguments.masks}"
        )


if __name__ == "__main__":
    main()
