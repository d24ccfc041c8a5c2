"""A stage of `lamella expression` over small generated slides without expression: all that features need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from lamella.config import Request, Resolved
from lamella.data.expression import ExpressionSlide, ExpressionStudy
from lamella.formats.spatial_counts import SpatialCounts
from lamella.geometry import Frame
from lamella.verbs.expression_stages.feature_settings import FeatureSettings
from lamella.verbs.expression_stages.settings import ExpressionConfig
from lamella.verbs.expression_stages.stage import Stage


def no_counts() -> SpatialCounts:
    raise AssertionError("features are made without looking at expression")


def tissue_picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8: violet, mottled tissue on the left two thirds, glass on the right."""
    rng = np.random.default_rng(seed)
    picture = np.full((height, width, 3), 243, np.uint8)
    left = rng.normal((150, 80, 160), 25, (height, 2 * width // 3, 3)).clip(0, 255)
    picture[:, : 2 * width // 3] = left.astype(np.uint8)
    return picture


def made_slide(
    folder: Path, name: str, picture: np.ndarray, mpp: float = 0.5, patient: str | None = None
) -> ExpressionSlide:
    path = folder / f"{name}.tif"
    tifffile.imwrite(path, picture, photometric="rgb", tile=(64, 64))
    frame = Frame(picture.shape[1], picture.shape[0], mpp, mpp)
    return ExpressionSlide(name, path, frame, patient or name, no_counts)


def made_stage(
    out: Path, slides: list[ExpressionSlide], *, bin_um: float = 2.0, tile_bins: int = 16, **features: Any
) -> Stage:
    settings: dict[str, Any] = {"encoder": "colour", "device": "cpu", **features}
    tissue = {"min_object_um2": 100, "max_hole_um2": 100, "closing_um": 4, "mpp": 2}
    config = ExpressionConfig.model_validate(
        {
            "data": {"slides": out / "slides.csv", "bin_um": bin_um, "tile_bins": tile_bins, "tissue": tissue},
            "features": FeatureSettings.model_validate(settings),
        }
    )
    study = ExpressionStudy(tuple(slides), "bin", bin_um, tile_bins)
    return Stage(Request("expression"), Resolved(config, {}), study, out)
