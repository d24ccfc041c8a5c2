"""Are exemplars encoded as fast as `lamella embed` encodes a slide's tiles?

Ours: stage 1 of `lamella weak` (`FeatureWork`, with its parts on disk) on tiles drawn at random from several slides, as
stage 0 draws them, in the order of their classes. Embed: `TileBatches` and `embedded` on as many tiles of a grid over
one of the slides, which lie beside each other. The encoder is a ViT-S/16; a second row has colour statistics, which are
so cheap that reading alone is measured. Slides: JPEG Q80 at 0.5 um per pixel.

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

SLIDES, BATCH, TARGET = 5, 64, 0.9  # slides: num_per_class of stage 0
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def several_slides(folder: Path) -> list[IndexedSlide]:
    slides = []
    for number in range(SLIDES):
        place = folder / str(number)
        place.mkdir()
        slides.append(indexed(write_slide(place / f"slide{number}.tif", MPP), place / "index"))
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


def embed_per_s(encoder: Encoder, slide: IndexedSlide, table: pa.Table) -> float:
    batches = TileBatches({slide.slide_id: slide}, table, batch_size=BATCH, pinned=DEVICE.type == "cuda")
    start = time.perf_counter()
    rows = sum(len(features) for features in embedded(batches, encoder, MPP, DEVICE))
    return rows / (time.perf_counter() - start)


def compare(name: str, encoder: Encoder, slides: list[IndexedSlide], n: int, rounds: int) -> None:
    grids = [tile_grid(slide, MPP, TILE_PX, GridSettings()) for slide in slides]
    rng = np.random.default_rng(0)
    drawn = [grid.take(np.sort(rng.choice(grid.num_rows, n // SLIDES, replace=False))) for grid in grids]
    scattered = pa.concat_tables([drawn[number] for number in rng.permutation(SLIDES)])
    beside = pa.concat_tables([grids[0]] * -(-n // grids[0].num_rows)).slice(0, scattered.num_rows)
    ours_per_s(encoder, slides, scattered.slice(0, 2))  # the first call sets the libraries up
    ours, limit = [], []
    for _ in range(rounds):
        ours.append(ours_per_s(encoder, slides, scattered))
        limit.append(embed_per_s(encoder, slides[0], beside))
    mine, theirs = statistics.median(ours), statistics.median(limit)
    verdict = "ok" if mine >= TARGET * theirs else "MISS"
    print(
        f"weak features, {name}, against embed, {mine:.1f}/s, {theirs:.1f}/s, {mine / theirs:.2f}x, "
        f"n={scattered.num_rows} tiles of {SLIDES} slides x {rounds} on {DEVICE.type} (target {TARGET}: {verdict})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=160, help="tiles per round of the ViT; colour statistics: four times as many")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print("name, ours, embed, ratio, n")
    with tempfile.TemporaryDirectory() as folder:
        slides = several_slides(Path(folder))
        compare("colour statistics", ColourStatistics(), slides, 4 * arguments.n, arguments.rounds)
        compare("ViT-S", vit_small().to(DEVICE), slides, arguments.n, arguments.rounds)


if __name__ == "__main__":
    main()
