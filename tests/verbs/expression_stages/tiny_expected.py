"""Features that say where they lie, and a model that repeats it: what comes out must be the place it is written at."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from lamella.data.expression_views import SlideViews
from lamella.formats.feature_raster import FACTS_FILE, FEATURES_FILE, SEEN_FILE, FeatureRaster, RasterFacts
from lamella.geometry import Frame
from lamella.models.expression.contract import ViewShape
from lamella.models.expression.expectation import Needs, Rule
from lamella.models.expression.model import ExpressionModel
from lamella.models.expression.network import ExpressionNetwork
from lamella.models.expression.settings import (
    AddedSettings,
    AnyFusionSettings,
    ExpressionModelSettings,
    LinearDecoderSettings,
    NoFusionSettings,
)

SCALE_UM = 128.0  # a power of two: places of whole micrometres are exact in half precision
TOKEN_UM = 4.0
GENES = ("X", "Y")


def place_raster(folder: Path, frame: Frame, token_um: float = TOKEN_UM, fingerprint: str = "f" * 16) -> FeatureRaster:
    """Features (x, y, 1, 0), in micrometres / SCALE_UM, over a slide."""
    folder.mkdir(parents=True)
    columns, rows = (int(np.ceil(length / token_um)) for length in frame.size_um)
    x, y = ((np.arange(count) + 0.5) * token_um / SCALE_UM for count in (columns, rows))
    features = np.zeros((rows, columns, 4), np.float16)
    features[..., 0], features[..., 1], features[..., 2] = x[None], y[:, None], 1
    np.save(folder / FEATURES_FILE, features)
    np.save(folder / SEEN_FILE, np.ones((rows, columns), bool))
    step = (token_um / frame.mpp_x, token_um / frame.mpp_y)
    facts = RasterFacts(
        slide="s",
        encoder="places",
        fingerprint=fingerprint,
        licence="none",
        level=0,
        mpp=frame.mpp,
        token_um=token_um,
        rows=rows,
        columns=columns,
        width=4,
        first_px0=(step[0] / 2, step[1] / 2),
        step_px0=step,
        slide_px0=(frame.width_px, frame.height_px),
        mean=(0.0,) * 4,
        std=(1.0,) * 4,
    )
    (folder / FACTS_FILE).write_text(json.dumps(facts.as_json()))
    return FeatureRaster.open(folder)


def place_views(folder: Path, frame: Frame, model: ExpressionModel) -> SlideViews:
    rasters = tuple(place_raster(folder / str(number), frame) for number in range(len(model.views)))
    return SlideViews(rasters, model.views, "none")


def place_model(
    bins: int = 8,
    bin_um: float = 4.0,
    *,
    rule: Rule = "value",
    fusion: AnyFusionSettings | None = None,
    kind: str = "bin",
) -> ExpressionModel:
    """Gene X is x and gene Y is y, in micrometres. Of the rule `rate`: 0.25 and 0.5 counts in every bin."""
    views = (ViewShape(4, bin_um, bins), ViewShape(4, 4 * bin_um, 6))
    settings = ExpressionModelSettings(
        fusion=fusion or NoFusionSettings(), decoder=LinearDecoderSettings(), width=4, projector="linear"
    )
    network = ExpressionNetwork(settings, views, bins, len(GENES), Needs(), rule, np.array([0.25, 0.5]))
    with torch.no_grad():
        share = len(network.projectors)  # views that are added up say the same
        for projector in network.projectors:
            projector.map.weight.copy_(torch.eye(4)[..., None, None] / share)
            projector.map.bias.zero_()
        network.rate.weight.zero_()
        if rule == "value":
            network.rate.weight[0, 0] = network.rate.weight[1, 1] = SCALE_UM
            network.rate.bias.zero_()
    return ExpressionModel(
        network,
        GENES,
        target="values" if rule == "value" else "counts",
        features={"encoder": "colour", "fingerprints": ["f" * 16] * 2},
        loss={"name": "mse"},
        kind=kind,
        facts={"cell": "base", "fold": 0, "seed": 0, "test_patient": "P1"},
        name=f"{rule} of places",
    ).eval()


def added_model(bins: int = 8, bin_um: float = 4.0) -> ExpressionModel:
    return place_model(bins, bin_um, fusion=AddedSettings())
