"""Cut the tissue tiles of indexed slides into PNG files: a folder that the image methods can learn from.

lamella index SLIDE -o index
python docs/results/cut_tiles.py index tiles 0.5015 512     # mpp, side in pixels
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from PIL import Image

from lamella.data.tiles import TileBatches
from lamella.slides.grid import GridSettings, tile_corners_px0, tile_grid
from lamella.slides.index import SlideIndex


def main(index: str, out: str, mpp: str, side_px: str) -> None:
    """Write `out/<slide>/<x>_<y>.png` for every tissue tile."""
    for slide in SlideIndex.load(Path(index)):
        table = tile_grid(slide, float(mpp), int(side_px), GridSettings())
        folder = Path(out) / slide.slide_id
        folder.mkdir(parents=True, exist_ok=True)
        images = torch.cat(list(TileBatches({slide.slide_id: slide}, table, batch_size=16)))
        for (x, y), image in zip(tile_corners_px0(table), images, strict=True):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{x:.0f}_{y:.0f}.png")
        print(f"{slide.slide_id}: {len(images)} tiles of {side_px} px at {mpp} um per pixel")


if __name__ == "__main__":
    main(*sys.argv[1:])
