"""Does the encoder wait for tiles? `embed` of a slide against the model alone on tiles that lie in memory.

Ours: tiles read by `TileBatches` (256 px at 0.5 um per pixel) and encoded by a ViT-S/16 of 21 M weights, as
`lamella embed` does it. The limit: the same encoder on the same batches, decoded beforehand. Slides: JPEG Q80 at 0.5 um
per pixel (tiles are copied) and at 0.252 (each tile is averaged from four times the pixels). Peak memory is that of the
whole command.

    python benchmarks/embed.py [-n TILES]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import torch

from lamella.data.tiles import TileBatches
from lamella.models.encoders import InputContract, ViTEncoder, fresh_vit
from lamella.models.vit import ViTSettings
from lamella.slides.grid import GridSettings, tile_grid
from lamella.slides.index import IndexedSlide, SlideIndex
from lamella.slides.indexing import build_index
from lamella.slides.manifest import find_slides
from lamella.slides.tissue import TissueSettings
from lamella.verbs.tile_features import embedded
from samples import write_slide

MPP, TILE_PX, BATCH = 0.5, 256, 32
TARGET = 0.9
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def vit_small() -> ViTEncoder:
    settings = ViTSettings(patch_px=16, dim=384, depth=12, heads=6)
    contract = InputContract(MPP, TILE_PX, (0.7, 0.55, 0.7), (0.2, 0.2, 0.2), patch_px=16, dim=384)
    return ViTEncoder(fresh_vit(settings, seed=0), contract, "vit-small")


def indexed(path: Path, folder: Path) -> IndexedSlide:
    build_index(find_slides([path]), folder, TissueSettings(), {})
    return next(iter(SlideIndex.load(folder)))


def tiles_per_s(encoder: ViTEncoder, batches: Iterable[torch.Tensor]) -> float:
    start = time.perf_counter()
    rows = sum(len(features) for features in embedded(batches, encoder, MPP, DEVICE))
    return rows / (time.perf_counter() - start)


def gpu_utilisation(encoder: ViTEncoder, reading: TileBatches) -> str:
    """Median of nvidia-smi's utilisation while a slide is embedded; in words where there is no GPU."""
    if DEVICE.type != "cuda":
        return "no GPU here: its utilisation was not measured"
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "100"]
    with subprocess.Popen(query, stdout=subprocess.PIPE, text=True) as watch:
        tiles_per_s(encoder, reading)
        watch.terminate()
        shares = [float(line) for line in watch.stdout or () if line.strip()]
    return f"GPU utilisation {statistics.median(shares):.0f} % (median of {len(shares)} readings)"


def compare(path: Path, n: int, rounds: int) -> None:
    encoder = vit_small().to(DEVICE)
    with tempfile.TemporaryDirectory() as folder:
        slide = indexed(path, Path(folder))
        table = tile_grid(slide, MPP, TILE_PX, GridSettings()).slice(0, n)
        reading = TileBatches({slide.slide_id: slide}, table, batch_size=BATCH, pinned=DEVICE.type == "cuda")
        in_memory = [batch.clone() for batch in reading]
        tiles_per_s(encoder, in_memory[:1])  # the first call sets the libraries up
        ours, limit = [], []
        for _ in range(rounds):
            ours.append(tiles_per_s(encoder, reading))
            limit.append(tiles_per_s(encoder, in_memory))
        utilisation = gpu_utilisation(encoder, reading)
    mine, model = statistics.median(ours), statistics.median(limit)
    verdict = "ok" if mine >= TARGET * model else "MISS"
    print(
        f"embed ViT-S {path.name} against the model alone, {mine:.1f}/s, {model:.1f}/s, {mine / model:.2f}x, "
        f"n={table.num_rows} x {rounds} on {DEVICE.type} (target {TARGET}: {verdict}); {utilisation}"
    )


# Runs one command and prints the highest memory its process had (kB). Not rusage: a child's begins at its parent's.
MEASURED = """
import sys
from lamella.cli import main
if main(sys.argv[1:]):
    sys.exit("the command failed")
print([line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")][0])
"""


def peak_mb(path: Path, folder: Path) -> float:
    """Peak memory of a whole `lamella embed` process, Python and PyTorch included; its encoder has no weights."""
    indexed(path, folder / "index")
    command = ["embed", "colour-stats", folder / "index", "-o", folder / "features", "maps=false", "batch_size=32"]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *map(str, command)], capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[-1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=192, help="tiles per round")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print("name, ours, limit, ratio, n")
    with tempfile.TemporaryDirectory() as folder:
        slides = [write_slide(Path(folder) / f"generated_{mpp}.tif", mpp) for mpp in (0.5, 0.252)]
        for slide in slides:
            compare(slide, arguments.n, arguments.rounds)
        peaks = []
        for side_px in (8192, 16384):
            place = Path(folder) / str(side_px)
            place.mkdir()
            peaks.append(peak_mb(write_slide(place / "slide.tif", 0.252, side_px), place))
        print(
            f"lamella embed, peak memory at 16,384 and 8,192 px a side, {peaks[1]:.0f} MB, {peaks[0]:.0f} MB, ", end=""
        )
        print(f"{peaks[1] / peaks[0]:.2f}x, n=1 each (four times the tiles)")


if __name__ == "__main__":
    main()
