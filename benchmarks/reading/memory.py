"""Reads a dense grid over a whole slide and prints by how much the process grew at most.

python memory.py SLIDE
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from lamella.geometry import Box
from lamella.slides.slide import open_slide

BATCH, THREADS, VIEW_PX = 64, 2, 256


def peak_mb() -> float:
    return float(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    with open_slide(sys.argv[1]) as slide:
        steps = [range(0, side - VIEW_PX + 1, VIEW_PX // 2) for side in (slide.frame.width_px, slide.frame.height_px)]
        places = [(x, y) for y in steps[1] for x in steps[0]]
        out = np.ones((BATCH, VIEW_PX, VIEW_PX, 3), np.uint8)
        before_mb, start = peak_mb(), time.perf_counter()
        for first in range(0, len(places), BATCH):
            boxes = [Box(x, y, x + VIEW_PX, y + VIEW_PX) for x, y in places[first : first + BATCH]]
            slide.read_many(boxes, slide.mpp, threads=THREADS, out=out[: len(boxes)])
        seconds = time.perf_counter() - start
        print(f"grew by {peak_mb() - before_mb:.0f} MB, {len(places)} views, {len(places) / seconds:.0f}/s")


if __name__ == "__main__":
    main()
