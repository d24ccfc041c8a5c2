"""Feature rasters of known numbers, written without an encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from lamella.formats.feature_raster import FACTS_FILE, FEATURES_FILE, SEEN_FILE, FeatureRaster, RasterFacts


def made_raster(
    folder: Path, features: np.ndarray, seen: np.ndarray | None = None, *, mpp0: float = 0.5, **facts: Any
) -> FeatureRaster:
    """A raster of (rows, columns, D) features; its tokens begin at the slide's top left corner and cover it."""
    rows, columns, width = features.shape
    token_um = facts.pop("token_um", 2.0)
    step = token_um / mpp0
    told: dict[str, Any] = {
        "slide": "slide",
        "encoder": "made",
        "fingerprint": "0" * 16,
        "licence": "none",
        "level": 0,
        "mpp": 0.5,
        "token_um": token_um,
        "rows": rows,
        "columns": columns,
        "width": width,
        "first_px0": (step / 2, step / 2),
        "step_px0": (step, step),
        "slide_px0": (round(columns * step), round(rows * step)),
        "mean": tuple(features.reshape(-1, width).mean(0).tolist()),
        "std": tuple(features.reshape(-1, width).std(0).tolist()),
        **facts,
    }
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / FEATURES_FILE, features.astype(np.float16))
    np.save(folder / SEEN_FILE, np.ones((rows, columns), bool) if seen is None else seen)
    (folder / FACTS_FILE).write_text(json.dumps(RasterFacts(**told).as_json()))
    return FeatureRaster.open(folder)
