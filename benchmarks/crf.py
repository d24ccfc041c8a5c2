"""The dense CRF: this package's beside pydensecrf2 on the same tiles; what windows lose; memory of a whole slide.

python benchmarks/crf.py [--part speed|windows|memory] [--tiles 6] [--memory-side 20000] [--no-crf] [--folder /tmp]

speed: H&E tiles of GlaS (generated tissue where it is absent) with probabilities made from their masks, blurred and
noisy; one thread; megapixels per second of both engines, agreement of labels and mean |difference| of probabilities.
windows: an image of several windows against the same in one. memory: peak of a process above what it holds before, for
a raster of that many pixels a side and one of a quarter; CRF, closing, edges and small pieces, pieces of it counted.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, label

from lamella.dense.refining.bands import refine_maps, refine_raster
from lamella.dense.refining.crf import crf_probabilities
from lamella.dense.refining.settings import CrfSettings, RefineSettings
from lamella.dense.refining.windows import halo_px, side_px
from lamella.errors import MissingExtraError
from lamella.formats.ome_zarr import ProbabilityStore, open_raster
from lamella.slides.readers.mpp import Resolution
from lamella.slides.slide import Slide

GLAS = Path(__file__).resolve().parents[2] / "shared" / "data" / "segmentation" / "glas"
MPP, CHANNELS = 0.62, ("gland", "other", "background")


def tiles(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """uint8 (H, W, 3) pictures and bool (H, W) masks."""
    if not GLAS.is_dir():
        from lamella.slides.phantom_tissue import draw_tissue

        drawn = [draw_tissue(seed, 512) for seed in range(count)]
        colours = (70, 150, 80)  # what stains take of red, green and blue where they are the densest
        return [((255 - one.density[..., None] * colours).astype(np.uint8), one.labels == 1) for one in drawn]
    with open(GLAS / "manifest.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    chosen = rows[:: max(1, len(rows) // count)][:count]
    return [
        (
            np.asarray(Image.open(GLAS / row["image_path"]).convert("RGB")),
            np.asarray(Image.open(GLAS / row["mask_path"])) > 0,
        )
        for row in chosen
    ]


def doubtful(mask: np.ndarray, channels: int, seed: int) -> np.ndarray:
    """float32 (C, H, W) as of a model: right at large, coarse at edges, unsure in places."""
    rng = np.random.default_rng(seed)
    noise = [gaussian_filter(rng.normal(size=mask.shape), 8) for _ in range(channels)]
    inside = 5 * gaussian_filter(mask.astype(np.float32), 10) - 2.5
    others = [one / one.std() - 1.5 for one in noise[1:-1]]
    scores = np.exp(np.stack([inside + noise[0] / noise[0].std(), *others, -inside]))
    return (scores / scores.sum(0)).astype(np.float32)


def speed(count: int, channels: int) -> None:
    rates: dict[str, list[float]] = {"mean_field": [], "pydensecrf2": []}
    agree, differ, gained = [], [], []
    for number, (picture, mask) in enumerate([*tiles(1), *tiles(count)]):  # the first warms up
        maps, found = doubtful(mask, channels, number), {}
        for engine, taken in rates.items():
            began = time.perf_counter()
            found[engine] = crf_probabilities(maps, picture, CrfSettings(engine=engine))
            taken.append(mask.size / 1e6 / (time.perf_counter() - began))
        own, original = found["mean_field"], found["pydensecrf2"]
        agree.append(float((own.argmax(0) == original.argmax(0)).mean()))
        differ.append(float(np.abs(own - original).mean()))
        right = [float(((one.argmax(0) == 0) == mask).mean()) for one in (maps, own)]
        gained.append(right[1] - right[0])
    own_rate, original_rate = (statistics.median(taken[1:]) for taken in rates.values())
    ratios = [own / original for own, original in list(zip(*rates.values(), strict=True))[1:]]
    print(
        f"{count} H&E tiles, {channels} channels, 5 iterations, one thread: "
        f"mean_field {own_rate:.2f} MP/s, pydensecrf2 {original_rate:.2f}; "
        f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}); "
        f"labels agree {min(agree):.6f} at least, mean |difference| of Q {max(differ):.1e} at most; "
        f"accuracy {statistics.mean(gained):+.4f} by the CRF",
        flush=True,
    )


def windows() -> None:
    picture, mask = tiles(1)[0]
    picture, mask = (np.concatenate([one, one[::-1]]) for one in (picture, mask))
    picture, mask = (np.concatenate([one, one[:, ::-1]], axis=1) for one in (picture, mask))
    maps = doubtful(mask, 3, 0)
    given = RefineSettings(use_crf=True)
    whole = refine_maps(maps, picture, given, 2, core_px=10_000)
    parts = refine_maps(maps, picture, given, 2, core_px=256)
    print(
        f"{mask.shape[0]} x {mask.shape[1]} px in windows of 256 with halos of {halo_px(given)} px against one window: "
        f"labels agree {float((whole == parts).mean()):.6f} (by default windows are of {side_px(given)} px)",
        flush=True,
    )


class Repeating:
    """A reader of one picture, repeated without end: a slide that takes no memory."""

    name, properties = "repeating", {}

    def __init__(self, picture: np.ndarray, side: int) -> None:
        self.picture, self.level_sizes = picture, [(side, side)]

    def read_level(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        rows, columns = (
            np.arange(first, first + length) % period
            for first, length, period in zip((y, x), (height, width), self.picture.shape[:2], strict=True)
        )
        return self.picture[rows[:, None], columns[None]]

    def close(self) -> None:
        """Nothing is open."""


def peak_mb(reset: bool = False) -> tuple[float, float]:
    """Memory of this process now and at its peak, in MiB; `reset` begins a new peak."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    state = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(state["VmRSS"].split()[0]) / 1024, int(state["VmHWM"].split()[0]) / 1024


def memory_of(side: int, crf: bool, folder: Path) -> None:
    """In a process of its own."""
    picture, mask = tiles(1)[0]
    slide = Slide(Path("repeating"), Repeating(picture, side), Resolution(MPP, MPP, "stated"))
    store = ProbabilityStore(folder / "probabilities.zarr", CHANNELS, side, side, MPP)
    maps = np.rint(255 * doubtful(mask, len(CHANNELS), 0)).astype(np.uint8)
    columns = np.arange(side) % mask.shape[1]
    for y in range(0, side, 512):
        rows = np.arange(y, min(y + 512, side)) % mask.shape[0]
        store.write(y, maps[:, rows[:, None], columns[None]])
    store.finish()
    given = RefineSettings(use_crf=crf)
    refine_maps(maps, picture, given, 2)  # what is loaded at first use
    before, _ = peak_mb(reset=True)
    began = time.perf_counter()
    refine_raster(store.folder, slide, given, folder / "out", threads=2)
    seconds = time.perf_counter() - began
    _, peak = peak_mb()
    corner = np.asarray(open_raster(folder / "out" / "labels.zarr").levels[0][:4096, :4096])
    pieces = sum(int(label(corner == value)[1]) for value in range(len(CHANNELS)))
    print(
        f"{side} x {side} px, {'CRF, ' if crf else ''}closing, edges, pieces of 100 px: peak {peak - before:,.0f} MiB "
        f"above the {before:,.0f} MiB of the loaded process (labels of the whole raster: {side**2 / 2**20:,.0f} MiB); "
        f"{side**2 / 1e6 / seconds:.2f} MP/s with 2 threads, {pieces} pieces left in its first 4096 px",
        flush=True,
    )


def memory(side: int, crf: bool, parent: Path) -> None:
    for one in (side // 4, side):
        with tempfile.TemporaryDirectory(dir=parent) as folder:
            command = [sys.executable, __file__, "--memory-of", str(one), "--folder", folder]
            subprocess.run(command + ([] if crf else ["--no-crf"]), check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["speed", "windows", "memory"])
    parser.add_argument("--tiles", type=int, default=6)
    parser.add_argument("--memory-side", type=int, default=20_000)
    parser.add_argument("--no-crf", action="store_true", help="memory of all but the CRF: a minute instead of ten")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.memory_of:
        memory_of(given.memory_of, not given.no_crf, given.folder)
        return
    if given.part in (None, "speed"):
        try:
            for channels in (2, 4):
                speed(given.tiles, channels)
        except MissingExtraError as error:
            print(error)
    if given.part in (None, "windows"):
        windows()
    if given.part in (None, "memory"):
        memory(given.memory_side, not given.no_crf, given.folder)


if __name__ == "__main__":
    main()
