"""Expression of whole slides: seconds, and memory that does not grow with the slide's height.

python benchmarks/predict_expression.py [--width-mm 4] [--heights-mm 4 16] [--genes 50] [--threads 2]

The network of the defaults (attention across 8 and 32 um, MiniUNet) with random weights predicts bins of 8 um of slides
whose features are on disk already: maps of all genes and the AnnData table, with the stores, blending and files of
`lamella expression predict`. Each height runs in a process of its own; memory is the peak of what the process itself
holds (anonymous pages, looked at every 20 ms) above what it holds once model and features are open. Pages of the
features' files, which the system can drop at any time, are not counted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch

from lamella.data.expression_views import SlideViews
from lamella.formats.expression_h5ad import ExpressionH5ad
from lamella.formats.feature_raster import FACTS_FILE, FEATURES_FILE, SEEN_FILE, FeatureRaster, RasterFacts
from lamella.formats.ome_zarr import open_raster
from lamella.geometry import Frame
from lamella.models.expression.contract import ViewShape
from lamella.models.expression.expectation import Needs
from lamella.models.expression.model import ExpressionModel
from lamella.models.expression.network import ExpressionNetwork
from lamella.models.expression.settings import ExpressionModelSettings
from lamella.slides.tissue_map import TissueMap
from lamella.verbs.expression_stages.prediction_raster import Ensemble, plan_raster, write_raster
from lamella.verbs.expression_stages.prediction_settings import PredictionSettings
from lamella.verbs.expression_stages.prediction_slide import rows_on_tissue

BIN_UM, BINS, WIDTH, MPP, MEMORY_MB = 8.0, 64, 24, 0.5, 32
VIEWS = (ViewShape(WIDTH, BIN_UM, BINS), ViewShape(WIDTH, 32.0, 16))


class Watch:
    """The most anonymous memory of this process while it is watched, in MiB."""

    def __init__(self) -> None:
        self.first = self.most = self._now()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.wait(0.02):
            self.most = max(self.most, self._now())

    @staticmethod
    def _now() -> float:
        state = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(state["RssAnon"].split()[0]) / 1024


def raster(folder: Path, frame: Frame, token_um: float) -> FeatureRaster:
    """Random features, a row of tokens at a time."""
    folder.mkdir()
    columns, rows = (int(np.ceil(length / token_um)) for length in frame.size_um)
    features = np.lib.format.open_memmap(folder / FEATURES_FILE, "w+", np.float16, (rows, columns, WIDTH))
    rng = np.random.default_rng(0)
    for row in features:
        row[:] = rng.normal(size=row.shape)
    features.flush()
    np.save(folder / SEEN_FILE, np.ones((rows, columns), bool))
    step = (token_um / MPP, token_um / MPP)
    half = (step[0] / 2, step[1] / 2)
    size = (frame.width_px, frame.height_px)
    zero, one = (0.0,) * WIDTH, (1.0,) * WIDTH
    facts = RasterFacts(
        "s", "random", "0" * 16, "none", 0, MPP, token_um, rows, columns, WIDTH, half, step, size, zero, one
    )
    (folder / FACTS_FILE).write_text(json.dumps(facts.as_json()))
    return FeatureRaster.open(folder)


def one(width_mm: float, height_mm: float, genes: int, folder: Path) -> None:
    """In a process of its own."""
    frame = Frame(round(width_mm * 1000 / MPP), round(height_mm * 1000 / MPP), MPP, MPP)
    torch.manual_seed(0)
    settings = PredictionSettings(memory_mb=MEMORY_MB)
    network = ExpressionNetwork(ExpressionModelSettings(), VIEWS, BINS, genes, Needs(), "rate", np.full(genes, 0.02))
    names = tuple(f"g{number}" for number in range(genes))
    model = ExpressionModel(network, names, target="counts", features={}, loss={"name": "poisson"}).eval()
    ensemble = Ensemble.of([model])
    views = SlideViews(tuple(raster(folder / str(view.token_um), frame, view.token_um) for view in VIEWS), VIEWS)
    plan = plan_raster(ensemble, frame, TissueMap(np.ones((1, 1), bool), frame.resized(1, 1)), settings)
    ensemble.expected(views, plan.grid, np.full((settings.batch_size, 2), BINS / 2 - 0.5))
    with Watch() as watch:
        began = time.perf_counter()
        write_raster(ensemble, views, plan, folder / "genes.zarr", settings)
        maps = time.perf_counter() - began
        after_maps = watch.most
        found = open_raster(folder / "genes.zarr")
        table = folder / "expression.h5ad"
        with ExpressionH5ad(table, names, name="s", bin_um=BIN_UM, mpp=(MPP, MPP), units="counts") as file:
            for rc, values in rows_on_tissue(found):
                file.append(values, rc)
        seconds = time.perf_counter() - began
    bins = plan.frame.width_px * plan.frame.height_px
    print(
        f"{width_mm:g} x {height_mm:g} mm, {bins / 1e6:.2f} million bins of {BIN_UM:g} um x {genes} genes, "
        f"{len(plan.tiling)} tiles: maps {maps:.1f} s, table {seconds - maps:.1f} s, {bins / seconds:,.0f} bins "
        f"a second; peak {watch.most - watch.first:.0f} MiB (maps {after_maps - watch.first:.0f}); all values in "
        f"float32 are {bins * genes * 4 / 2**20:.0f} MiB",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width-mm", type=float, default=4)
    parser.add_argument("--heights-mm", type=float, nargs="+", default=[4, 16])
    parser.add_argument("--genes", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.folder is not None:
        one(given.width_mm, given.heights_mm[0], given.genes, given.folder)
        return
    for height in given.heights_mm:
        with tempfile.TemporaryDirectory() as folder:
            told = {"--width-mm": given.width_mm, "--heights-mm": height, "--genes": given.genes}
            told |= {"--threads": given.threads, "--folder": folder}
            command = [sys.executable, __file__, *(str(part) for pair in told.items() for part in pair)]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
