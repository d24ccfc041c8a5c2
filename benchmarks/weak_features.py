"""Are exemplars encoded as fast as `lamella embed` encodes a slide's tiles?

Ours: stage 1 of `lamella weak` (`FeatureWork`, with its parts on disk) on tiles drawn at random from several slides, as
stage 0 draws them, in the order of their classes. Embed: the same tiles as `lamella embed tiles=...` reads them, slide
by slide through `TileBatches` and `embedded`, in batches of the same size. The encoder is a ViT-S/16; a first row has
colour statistics, which are so cheap that mostly reading is measured. Slides: JPEG Q80 at 0.5 um per pixel.

    python benchmarks/weak_features.py [-n TILES]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from embed import MPP, TILE_PX, indexed, vit_small
from lamella.data.tiles import TileBatches
from lamella.models.encoders import ColourStatistics, Encoder
from lamella.slides.grid import GridSettings, tile_grid
from lamella.slides.index import IndexedSlide
from lamella.verbs.tile_features import embedded
from lamella.verbs.weak_stages.feature_work import FeatureWork
from samples import write_slide

SLIDES, BATCH, TARGET = 5, 32, 0.9  # slides: num_per_class of stage 0; batches of both are of one size where n is 160
SIDE_PX = 4096  # 256 tiles a slide
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def several_slides(folder: Path) -> list[IndexedSlide]:
    slides = []
    for number in range(SLIDES):
        place = folder / str(number)
        place.mkdir()
        slides.append(indexed(write_slide(place / f"slide{number}.tif", MPP, SIDE_PX), place / "index"))
    return slides


def ours_per_s(encoder: Encoder, slides: list[IndexedSlide], table: pa.Table) -> float:
    work = FeatureWork({slide.slide_id: slide for slide in slides}, table, encoder, DEVICE, batch_size=BATCH)
    with tempfile.TemporaryDirectory() as parts:
        start = time.perf_counter()
        features, done, _ = work.features(Path(parts))
        seconds = time.perf_counter() - start
    if not done.all() or len(features) != table.num_rows:
        raise SystemExit("not all tiles were encoded")
    return table.num_rows / seconds


def embed_per_s(encoder: Encoder, slides: list[IndexedSlide], tables: list[pa.Table]) -> float:
    """Slide by slide, as `lamella embed` does it."""
    start, rows = time.perf_counter(), 0
    for slide, table in zip(slides, tables, strict=True):
        batches = TileBatches({slide.slide_id: slide}, table, batch_size=BATCH, pinned=DEVICE.type == "cuda")
        rows += sum(len(features) for features in embedded(batches, encoder, MPP, DEVICE))
    return rows / (time.perf_counter() - start)


def compare(name: str, encoder: Encoder, slides: list[IndexedSlide], n: int, rounds: int) -> None:
    rng = np.random.default_rng(0)
    drawn = []
    for slide in slides:
        grid = tile_grid(slide, MPP, TILE_PX, GridSettings())
        drawn.append(grid.take(np.sort(rng.choice(grid.num_rows, min(n // SLIDES, grid.num_rows), replace=False))))
    mixed = pa.concat_tables([drawn[number] for number in rng.permutation(SLIDES)])
    ours_per_s(encoder, slides, mixed.slice(0, 2))  # the first call sets the libraries up
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(ours_per_s(encoder, slides, mixed))
        theirs.append(embed_per_s(encoder, slides, drawn))
    mine, limit = statistics.median(ours), statistics.median(theirs)
    verdict = "ok" if mine >= TARGET * limit else "MISS"
    print(
        f"weak features, {name}, against embed, {mine:.1f}/s, {limit:.1f}/s, {mine / limit:.2f}x, "
        f"n={mixed.num_rows} tiles of {SLIDES} slides x {rounds} on {DEVICE.type} (target {TARGET}: {verdict})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "-n", type=int, default=160, help="tiles per round of the ViT; colour statistics: four times as many"
    )
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print("name, ours, embed, ratio, n")
    with tempfile.TemporaryDirectory() as folder:
        slides = several_slides(Path(folder))
        compare("colour statistics", ColourStatistics(), slides, 4 * arguments.n, arguments.rounds)
        compare("ViT-S", vit_small().to(DEVICE), slides, arguments.n, arguments.rounds)


if __name__ == "__main__":
    main()
