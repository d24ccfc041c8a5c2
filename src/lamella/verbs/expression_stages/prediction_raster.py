"""The expression of a whole slide as maps, one a gene: tile by tile on tissue, blended, streamed to disk band by band.

Memory is bounded by the slide's width: of each column and gene 4 bytes for each row that two rows of tiles share, and 4
for each row of the bands at work. The slide's height and the number of its tiles do not matter.

Shapes: B tiles, G genes, n bins along the side of a tile, p bins that are pooled to one pixel along each axis.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lamella.data.expression_views import SlideViews
from lamella.dense.bands import Bands, ValueEncoding
from lamella.dense.blending import window
from lamella.dense.mosaic import Mosaic
from lamella.dense.outside import InsideTissue
from lamella.dense.tiling import Tile, Tiling
from lamella.errors import LamellaError
from lamella.formats.ome_zarr import ValueStore
from lamella.geometry import BinGrid, Frame
from lamella.models.expression.model import ExpressionModel
from lamella.slides.tissue_map import TissueMap
from lamella.verbs.expression_stages.expected import refuse_other_views, tensors_of
from lamella.verbs.expression_stages.prediction_settings import PredictionSettings

# Sides of chunks that are tried, the largest that memory allows first. Few large files are better than many small ones.
_CHUNKS_PX = (256, 128, 64, 32, 16)
_BYTES = 4  # float32: rates of rare genes are far below what half precision tells apart
_BANDS_AT_ONCE = 2


@dataclass(frozen=True)
class Ensemble:
    """Models whose expectations are averaged, each gene over those that predict it.

    Attributes:
        models: Of the same scales, bins, target and rule. Their genes may differ, as every fold chooses its own.
        genes: That any of them predicts, or those that were asked for.
        counts: How many models predict each of them.
    """

    models: tuple[ExpressionModel, ...]
    genes: tuple[str, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, models: Sequence[ExpressionModel], genes: Sequence[str] = ()) -> Ensemble:
        """Put models together.

        Args:
            models: At least one.
            genes: Only these; empty: all that any of them predicts.

        Raises:
            LamellaError: They differ in more than their genes, or none predicts a gene that is asked for.
        """
        first, *others = models
        for other in others:
            _refuse_different(first, other)
        counts = Counter(gene for model in models for gene in model.genes)
        absent = [gene for gene in genes if gene not in counts]
        if absent:
            raise LamellaError(
                "predict.genes",
                f"no model predicts {', '.join(absent[:10])}",
                "Ask for genes of the models' panels, or train with a list of your own: panel.genes.",
            )
        kept = tuple(dict.fromkeys(genes or counts))
        return cls(tuple(models), kept, tuple(counts[gene] for gene in kept))

    @property
    def first(self) -> ExpressionModel:
        return self.models[0]

    def to(self, device: torch.device) -> Ensemble:
        for model in self.models:
            model.to(device).eval()
        return self

    def expected(self, views: SlideViews, grid: BinGrid, centres_rc: np.ndarray) -> Tensor:
        """float32 (B, G, n, n): the mean of what the models expect around these centres."""
        shown = tensors_of(*views.many(grid, centres_rc, self.first.bins), self.first.device)
        place = {gene: number for number, gene in enumerate(self.genes)}
        total: Tensor | None = None
        for model in self.models:
            found = model.expected(shown)
            if total is None:
                total = found.new_zeros(len(found), len(self.genes), *found.shape[2:])
            own = [number for number, gene in enumerate(model.genes) if gene in place]
            at = torch.tensor([place[model.genes[number]] for number in own], dtype=torch.long, device=found.device)
            total.index_add_(1, at, found[:, own])
        assert total is not None
        return total / total.new_tensor(self.counts).view(-1, 1, 1)


@dataclass(frozen=True)
class RasterPlan:
    """What is to be predicted on one slide.

    Attributes:
        frame: The maps' raster from the slide's top left corner; the last row and column may reach over its edge.
        tiling: Of that raster.
        pooled: Bins of the models along each side of a pixel.
        grid: The models' bins.
        tissue: Pixels whose middle is outside are not predicted.
        chunk_px: Side of a chunk and height of a band.
    """

    frame: Frame
    tiling: Tiling
    pooled: int
    grid: BinGrid
    tissue: TissueMap
    chunk_px: int

    def centre_rc(self, tile: Tile) -> tuple[float, float]:
        """Row and column of a tile's centre among the bins."""
        half = self.pooled * self.tiling.side / 2 - 0.5
        return tile.y * self.pooled + half, tile.x * self.pooled + half


def plan_raster(ensemble: Ensemble, slide: Frame, tissue: TissueMap, settings: PredictionSettings) -> RasterPlan:
    """Lay bins and tiles over a slide.

    Raises:
        LamellaError: The asked bins are no whole multiple of the models', or do not divide their tiles.
    """
    model = ensemble.first
    pooled = _pooled(model, settings.bin_um)
    pixel_um = model.bin_um * pooled
    # 1e-6 of a pixel: the division's rounding must not add a column beyond the slide.
    width, height = (max(1, math.ceil(length / pixel_um - 1e-6)) for length in slide.size_um)
    frame = Frame(width, height, pixel_um, pixel_um)
    tiling = Tiling.over(height, width, model.bins // pooled, settings.overlap).on_tissue(tissue, frame)
    band_bytes = _BANDS_AT_ONCE * len(ensemble.genes) * width * _BYTES
    fitting = [side for side in _CHUNKS_PX if side * band_bytes <= settings.memory_mb * 1e6]
    grid = BinGrid.upright(model.bin_um, slide.mpp_x, slide.mpp_y)
    return RasterPlan(frame, tiling, pooled, grid, tissue, fitting[0] if fitting else _CHUNKS_PX[-1])


def write_raster(
    ensemble: Ensemble, views: SlideViews, plan: RasterPlan, folder: Path, settings: PredictionSettings
) -> None:
    """Predict what the raster of a folder still lacks, and finish it: float32 (G, H, W), NaN outside tissue.

    Args:
        ensemble: On its device.
        views: Of the slide.
        plan: Of the slide.
        folder: Of the raster; a stopped run goes on from its last band.
        settings: Blending and batches.

    Raises:
        LamellaError: The views are not the models', or they expect something that is no number.
        StorageError: The disk refused a write; what was finished is kept.
    """
    refuse_other_views(ensemble.first, views, folder.parent.name)
    frame, tiling, genes = plan.frame, plan.tiling, len(ensemble.genes)
    store = ValueStore(folder, ensemble.genes, frame.height_px, frame.width_px, frame.mpp, plan.chunk_px, "float32")
    if not store.finished and store.done_px < tiling.height:
        band = store.done_px // plan.chunk_px
        first_row = tiling.first_row_reaching(band * plan.chunk_px)
        # Batches are what they would have been without the stop: others could round otherwise.
        first_tile = tiling.first_tile_of(first_row) // settings.batch_size * settings.batch_size
        encoding = ValueEncoding(ensemble.first.name, genes, torch.float32)
        device = ensemble.first.device
        with Bands([store], encoding, tiling, plan.chunk_px, first=band) as bands:
            taker = InsideTissue(bands, plan.tissue, frame)
            weights = window(settings.window, tiling.side)
            mosaic = Mosaic(tiling, genes, weights, taker, first_row=first_row, device=device)
            for tile, maps in _maps(ensemble, views, plan, first_tile, settings.batch_size):
                if tile.row >= first_row:
                    mosaic.add(tile, maps)
            mosaic.finish()
            bands.finish()
    store.finish()


def _maps(
    ensemble: Ensemble, views: SlideViews, plan: RasterPlan, first_tile: int, batch_size: int
) -> Iterator[tuple[Tile, Tensor]]:
    """Tiles with their maps, (G, n / p, n / p) each."""
    mean = ensemble.first.rule == "value"
    for start in range(first_tile, len(plan.tiling), batch_size):
        tiles = list(plan.tiling.tiles(start, start + batch_size))
        centres = np.array([plan.centre_rc(tile) for tile in tiles])
        found = ensemble.expected(views, plan.grid, centres)
        if plan.pooled > 1:
            found = F.avg_pool2d(found, plan.pooled) * (1 if mean else plan.pooled**2)
        yield from zip(tiles, found, strict=True)


def _pooled(model: ExpressionModel, bin_um: float | None) -> int:
    if bin_um is None:
        return 1
    factor = round(bin_um / model.bin_um)
    if factor < 1 or abs(factor * model.bin_um - bin_um) > 1e-6 * bin_um or model.bins % factor:
        fitting = [f"{model.bin_um * each:g}" for each in range(1, model.bins + 1) if model.bins % each == 0]
        raise LamellaError(
            f"predict.bin_um={bin_um:g}",
            f"the models predict {model.bins} x {model.bins} bins of {model.bin_um:g} um at once, which are no whole "
            "number of such bins",
            f"Set one of {', '.join(fitting[:12])}, or null.",
        )
    return factor


def _refuse_different(first: ExpressionModel, other: ExpressionModel) -> None:
    for what in ("views", "bins", "bin_um", "rule", "target", "features"):
        if getattr(first, what) != getattr(other, what):
            raise LamellaError(
                "models",
                f"{first.name} and {other.name} differ in {what}, and what they expect cannot be averaged",
                "Give models of one study and one cell of its ablation.",
            )
