"""The dense engine on whole slides: its own speed beside MONAI's, its memory, and what is left of a model's speed.

python benchmarks/predict_slide.py [--part speed|memory|model] [--side 8192] [--memory-side 60000] [--folder /tmp]

speed: the same whole work with a model that costs nothing (tiles of 512 px, 6 classes, a quarter of overlap, Gaussian
weights; blend, argmax, quantise, write zarr with its pyramid): MONAI's SlidingWindowInferer with the whole canvas, its
canvas then cut into the same bands and written by the same stores; and this engine. Both begin with the whole image in
memory. memory: peak of a process above what it holds once the model is loaded, for a generated JPEG slide of 60,000 x
60,000 px; of the rasters, and with the label TIFF. model: SegFormer B0 from end to end beside the network alone.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from lamella.dense import engine
from lamella.dense.bands import first_largest
from lamella.dense.engine import DenseSettings, plan_slide, predict_slide, stream_rasters
from lamella.dense.exports import ExportSettings
from lamella.dense.runtime import Runtime
from lamella.formats.ome_zarr import LabelStore, ProbabilityStore
from lamella.models.dense_contract import DenseContract
from lamella.slides.readers.mpp import Resolution
from lamella.slides.slide import Slide, open_slide
from predicting import CLASSES, MPP, TILE_PX, NullModel, tissue_tile, write_repeating_slide

EVERYWHERE, BATCH = DenseSettings(everywhere=True), 8
NEITHER = ExportSettings(label_tiff=False, geojson=False)


class InMemory:
    """A reader whose only level is an array."""

    name, properties = "array", {}

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels, self.level_sizes = pixels, [(pixels.shape[1], pixels.shape[0])]

    def read_level(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        return self.pixels[y : y + height, x : x + width]

    def close(self) -> None:
        """Nothing is open."""


def image(side: int) -> np.ndarray:
    tile = tissue_tile()
    return np.tile(tile, (-(-side // len(tile)), -(-side // len(tile)), 1))[:side, :side]


def with_this(pixels: np.ndarray, model: NullModel, folder: Path) -> float:
    """Seconds."""
    slide = Slide(Path("array"), InMemory(pixels), Resolution(MPP, MPP, "stated"))
    began = time.perf_counter()
    stream_rasters(model, slide, plan_slide(model, slide, EVERYWHERE), EVERYWHERE, folder, Runtime(batch_size=BATCH))
    return time.perf_counter() - began


def with_monai(pixels: np.ndarray, model: NullModel, folder: Path) -> tuple[float, float]:
    """Seconds of all, and of MONAI's part alone."""
    from monai.inferers import SlidingWindowInferer

    side, names = len(pixels), model.contract.channels
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()  # MONAI wants floats; not timed
    began = time.perf_counter()
    canvas = SlidingWindowInferer((TILE_PX, TILE_PX), BATCH, overlap=0.25, mode="gaussian")(images, model.maps)[0]
    blended = time.perf_counter() - began
    stores = (
        LabelStore(folder / "labels.zarr", names, side, side, MPP),
        ProbabilityStore(folder / "probabilities.zarr", names, side, side, MPP),
    )
    for y in range(0, side, engine.BAND_PX):
        band = canvas[:, y : y + engine.BAND_PX]
        stores[0].write(y, first_largest(band).numpy())
        stores[1].write(y, band.mul_(255).add_(0.5).to(torch.uint8).numpy())
    for store in stores:
        store.finish()
    return time.perf_counter() - began, blended


def speed(side: int, rounds: int, parent: Path) -> None:
    pixels, model, mpx = image(side), NullModel(BATCH), side**2 / 1e6
    this, monai, blended = [], [], []
    for turn in range(rounds + 1):
        for one in (True, False):
            with tempfile.TemporaryDirectory(dir=parent) as folder:
                if one:
                    this.append(with_this(pixels, model, Path(folder)))
                else:
                    both = with_monai(pixels, model, Path(folder))
                    monai.append(both[0])
                    blended.append(both[1])
        if turn == 0:  # the first of each warms caches and allocators up
            this, monai, blended = [], [], []
    ratios = [slow / fast for fast, slow in zip(this, monai, strict=True)]
    print(
        f"null model, {side} x {side} px, {CLASSES} classes, {torch.get_num_threads()} threads, n {rounds}: "
        f"this engine {mpx / statistics.median(this):.1f} MP/s, MONAI and the same writing "
        f"{mpx / statistics.median(monai):.1f} MP/s (its blending alone {mpx / statistics.median(blended):.1f}); "
        f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    )


def peak_mb(reset: bool = False) -> tuple[float, float]:
    """Memory of this process now and at its peak, in MiB; `reset` begins a new peak."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    state = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(state["VmRSS"].split()[0]) / 1024, int(state["VmHWM"].split()[0]) / 1024


def memory_of(path: Path, folder: Path) -> None:
    """In a process of its own."""
    model = NullModel(BATCH)
    model.maps(torch.zeros(1, 3, 8, 8))
    with open_slide(path) as slide:
        width, height, settings = slide.frame.width_px, slide.frame.height_px, EVERYWHERE
        plan = plan_slide(model, slide, settings)
        before, _ = peak_mb(reset=True)
        began = time.perf_counter()
        stream_rasters(model, slide, plan, settings, folder / "s", Runtime(batch_size=BATCH))
        seconds = time.perf_counter() - began
        _, peak = peak_mb()
        print(
            f"rasters of {width} x {height} px, {CLASSES} classes: peak {peak - before:,.0f} MiB above the "
            f"{before:,.0f} MiB of the loaded process "
            f"(the whole canvas: {width * height * CLASSES * 4 / 2**20:,.0f} MiB); "
            f"{width * height / 1e6 / seconds:.1f} MP/s with decoding, {len(plan.tiling)} tiles",
            flush=True,
        )
        before, _ = peak_mb(reset=True)
        exports = ExportSettings(geojson=False)
        engine.export_prediction(folder / "s" / engine.LABELS, folder / "s", slide.frame, settings=exports)
        print(f"label TIFF of it: peak {peak_mb()[1] - before:,.0f} MiB more")


def memory(side: int, height: int | None, parent: Path) -> None:
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        path = Path(folder) / "slide.tif"
        write_repeating_slide(path, side, height or side)
        command = [sys.executable, __file__, "--memory-of", str(path), "--folder", folder]
        subprocess.run(command, check=True)


def with_model(side: int, rounds: int, parent: Path) -> None:
    from lamella.models.decoders.building import make_head
    from lamella.models.decoders.fpn import FpnSettings
    from lamella.models.pyramids.mix_transformer import fresh_mix_transformer
    from lamella.models.segmenter import Segmenter

    torch.manual_seed(0)
    trunk = fresh_mix_transformer("b0")
    contract = DenseContract(tuple(f"class {number}" for number in range(CLASSES)), MPP, TILE_PX, 32)
    model = Segmenter(trunk, make_head(FpnSettings(), trunk.widths, CLASSES), contract, "segformer-b0")
    ratios = []
    for turn in range(rounds + 1):
        with tempfile.TemporaryDirectory(dir=parent) as folder:
            path = Path(folder) / "slide.tif"
            write_repeating_slide(path, side, side)
            with open_slide(path) as slide:
                tiles = len(plan_slide(model, slide, EVERYWHERE).tiling)
                began = time.perf_counter()
                predict_slide(
                    model, slide, Path(folder) / "s", EVERYWHERE, runtime=Runtime(batch_size=BATCH), exports=NEITHER
                )
                whole = time.perf_counter() - began
        images = torch.from_numpy(image(TILE_PX)).permute(2, 0, 1)[None].expand(BATCH, -1, -1, -1).contiguous()
        began = time.perf_counter()
        for start in range(0, tiles, BATCH):
            model.maps(images[: min(BATCH, tiles - start)])
        alone = time.perf_counter() - began
        if turn:
            ratios.append(alone / whole)
    print(
        f"SegFormer B0, {side} x {side} px from a JPEG TIFF, {tiles} tiles of {TILE_PX} px: "
        f"{tiles / whole:.2f} tiles/s from end to end, {tiles / alone:.2f} of the network alone; "
        f"ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}), n {rounds}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["speed", "memory", "model"])
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--memory-side", type=int, default=60_000)
    parser.add_argument("--memory-height", type=int, help="less than the side, to be quick: memory hangs on the width")
    parser.add_argument("--model-side", type=int, default=3200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.memory_of:
        memory_of(given.memory_of, given.folder)
        return
    if given.part in (None, "speed"):
        speed(given.side, given.rounds, given.folder)
    if given.part in (None, "model"):
        with_model(given.model_side, given.rounds, given.folder)
    if given.part in (None, "memory"):
        memory(given.memory_side, given.memory_height, given.folder)


if __name__ == "__main__":
    main()
