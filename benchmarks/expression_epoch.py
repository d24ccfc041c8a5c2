"""An epoch of training on expression: features from the cache against features made anew for every sample.

Cached: rasters of the two default views (EfficientNet-Lite0, tokens of 2 and 8 um) are made once, and `SlideViews`
samples them for each batch. Anew: the encoder is shown the pixels of each sample's views, with the halo that rasters
have, in every epoch. Forward pass, loss (NB), backward pass and optimiser are the same: a linear network, then the
default one; 50 genes, tiles of 128 x 128 bins of 2 um. Slide: JPEG Q80 at 0.5 um per pixel.

    python benchmarks/expression_epoch.py [--tiles 8] [--rounds 3]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lamella.data.expression_views import SlideViews
from lamella.dense.feature_rasters import RasterWork, write_feature_raster
from lamella.dense.feature_windows import ViewLevel, level_for
from lamella.dense.window_pixels import read_windows
from lamella.geometry import BinGrid, Box
from lamella.methods.count_losses import NbSettings
from lamella.methods.expression import ExpressionMethod
from lamella.models.expression.contract import ViewShape
from lamella.models.expression.network import ExpressionNetwork
from lamella.models.expression.settings import ExpressionModelSettings
from lamella.models.pyramids.backbone import Backbone
from lamella.models.pyramids.efficientnet import pretrained_efficientnet
from lamella.slides.slide import Slide, open_slide
from lamella.slides.tissue_map import TissueMap
from samples import write_slide

MPP, SIDE_PX, BIN_UM, BINS, GENES, BATCH, HALO = 0.5, 2048, 2.0, 128, 50, 4, 8
TOKENS_UM = (2.0, 8.0)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
Inputs = Callable[[list[tuple[float, float]]], tuple[list[Tensor], list[Tensor]]]


def shapes_of(levels: list[ViewLevel]) -> tuple[ViewShape, ...]:
    return tuple(ViewShape(level.width, level.token_um, round(BINS * BIN_UM / level.token_um)) for level in levels)


def from_cache(slide: Slide, backbone: Backbone, levels: list[ViewLevel], folder: Path) -> tuple[Inputs, float]:
    """What asks the rasters, and the seconds that making them took."""
    start = time.perf_counter()
    tissue = TissueMap(np.ones((64, 64), bool), slide.frame.resized(64, 64))
    rasters = tuple(
        write_feature_raster(
            folder / f"{level.token_um:g}", slide, tissue, RasterWork(backbone, "efficientnet", level, 1, device=DEVICE)
        )
        for level in levels
    )
    seconds = time.perf_counter() - start
    views, grid = SlideViews(rasters, shapes_of(levels)), BinGrid.upright(BIN_UM, MPP, MPP)

    def inputs(centres_rc: list[tuple[float, float]]) -> tuple[list[Tensor], list[Tensor]]:
        features, seen = views.many(grid, centres_rc)
        return [torch.from_numpy(each).to(DEVICE) for each in features], [torch.from_numpy(each) for each in seen]

    return inputs, seconds


def anew(slide: Slide, backbone: Backbone, levels: list[ViewLevel]) -> Inputs:
    """What shows the encoder every sample; tokens are not standardised, which costs nothing."""
    grid = BinGrid.upright(BIN_UM, MPP, MPP)

    @torch.inference_mode()
    def encoded(level: ViewLevel, tokens: int, centres_rc: list[tuple[float, float]]) -> Tensor:
        side = tokens + 2 * HALO
        boxes = [
            Box.around(*grid.place_px0(*centre), side * level.token_um / MPP, side * level.token_um / MPP)
            for centre in centres_rc
        ]
        pixels = read_windows(slide, boxes, level.mpp, round(side * level.stride), threads=2)
        maps = backbone.level(torch.from_numpy(pixels).to(DEVICE).permute(0, 3, 1, 2), level.level)
        return maps[:, :, HALO:-HALO, HALO:-HALO].clone()

    def inputs(centres_rc: list[tuple[float, float]]) -> tuple[list[Tensor], list[Tensor]]:
        features = [
            encoded(level, shape.tokens, centres_rc).clone()
            for level, shape in zip(levels, shapes_of(levels), strict=True)
        ]
        return features, [torch.ones(each.shape[0], *each.shape[2:], dtype=torch.bool) for each in features]

    return inputs


def epoch_s(method: ExpressionMethod, inputs: Inputs, centres_rc: list[tuple[float, float]]) -> tuple[float, float]:
    """Seconds of an epoch, and of its inputs alone."""
    optimiser = torch.optim.AdamW(method.parameters(), lr=1e-4)
    counts = torch.from_numpy(np.random.default_rng(0).poisson(0.04, (BATCH, GENES, BINS, BINS)).astype(np.float32))
    mask = torch.ones(BATCH, BINS, BINS, dtype=torch.bool)
    start, asked = time.perf_counter(), 0.0
    for first in range(0, len(centres_rc), BATCH):
        before = time.perf_counter()
        features, seen = inputs(centres_rc[first : first + BATCH])
        asked += time.perf_counter() - before
        batch = {"counts": counts.to(DEVICE), "mask": mask.to(DEVICE)}
        for number, (each, there) in enumerate(zip(features, seen, strict=True)):
            batch |= {f"view{number}": each, f"seen{number}": there.to(DEVICE)}
        loss, _ = method(batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, asked


def compare(name: str, settings: ExpressionModelSettings, shapes: tuple[ViewShape, ...], ways: tuple[Inputs, Inputs],
            centres_rc: list[tuple[float, float]], rounds: int) -> None:  # fmt: skip
    """Print both epochs of one network, medians of the rounds."""
    loss = NbSettings()
    network = ExpressionNetwork(settings, shapes, BINS, GENES, loss.needs, loss.rule("counts"))
    method = ExpressionMethod(network, loss, "counts").to(DEVICE)
    for inputs in ways:
        epoch_s(method, inputs, centres_rc[:BATCH])  # the first step of all is slower
    found = [[each for inputs in ways for each in epoch_s(method, inputs, centres_rc)] for _ in range(rounds)]
    cached, asked, fresh, encoded = (statistics.median(each) for each in zip(*found, strict=True))
    print(
        f"{name}: epoch with cached features {cached:.2f} s ({asked:.2f} s of them for features), "
        f"made anew {fresh:.2f} s ({encoded:.2f} s): {fresh / cached:.2f} times as long, "
        f"features alone {encoded / asked:.1f} times"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    backbone = pretrained_efficientnet().requires_grad_(False).eval().to(DEVICE)
    with tempfile.TemporaryDirectory() as folder:
        slide = open_slide(write_slide(Path(folder) / "slide.tif", MPP, SIDE_PX))
        levels = [level_for(backbone, token_um, slide.mpp) for token_um in TOKENS_UM]
        cached, made_s = from_cache(slide, backbone, levels, Path(folder) / "rasters")
        print(f"{DEVICE.type}, {torch.get_num_threads()} threads; {args.tiles} tiles of {BINS} x {BINS} bins an epoch")
        print(f"rasters of both views, once: {made_s:.1f} s for {(SIDE_PX * MPP / 1000) ** 2:.1f} mm2 of tissue")
        # Middles of tiles that lie wholly on the slide; a tile and its halo may reach over its edge.
        places = np.random.default_rng(0).uniform(BINS / 2, SIDE_PX * MPP / BIN_UM - BINS / 2, (args.tiles, 2))
        centres_rc = [(float(row), float(col)) for row, col in places]
        ways, shapes = (cached, anew(slide, backbone, levels)), shapes_of(levels)
        linear = {"fusion": {"name": "added"}, "decoder": {"name": "linear"}, "projector": "linear"}
        for name, settings in (
            ("added and linear", ExpressionModelSettings.model_validate(linear)),
            ("the default network", ExpressionModelSettings()),
        ):
            compare(name, settings, shapes, ways, centres_rc, args.rounds)


if __name__ == "__main__":
    main()
