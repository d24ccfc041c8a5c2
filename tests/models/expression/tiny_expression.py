"""Small networks and inputs of expression models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from lamella.models.expression.contract import Views, ViewShape
from lamella.models.expression.expectation import Needs, Rule
from lamella.models.expression.model import ExpressionModel
from lamella.models.expression.network import ExpressionNetwork
from lamella.models.expression.settings import ExpressionModelSettings

BIN_UM, BINS = 2.0, 8
SHAPES = (ViewShape(5, BIN_UM, BINS), ViewShape(3, 8.0, 6), ViewShape(4, 32.0, 5))
GENES = ("ALB", "KRT8", "CD3E")


def views_of(shapes: Sequence[ViewShape] = SHAPES, samples: int = 2, seed: int = 0, bins: int | None = None) -> Views:
    """Random features, all seen."""
    draw = torch.Generator().manual_seed(seed)
    sides = [shape.tokens if bins is None or number else bins for number, shape in enumerate(shapes)]
    features = [
        torch.randn(samples, shape.width, side, side, generator=draw) for shape, side in zip(shapes, sides, strict=True)
    ]
    return Views(tuple(features), tuple(torch.ones(samples, side, side, dtype=torch.bool) for side in sides))


def network_of(
    settings: ExpressionModelSettings | None = None,
    *,
    needs: Needs | None = None,
    rule: Rule = "rate",
    mean: Sequence[float] | None = (0.01, 0.2, 3.0),
    seed: int = 0,
    shapes: Sequence[ViewShape] = SHAPES,
) -> ExpressionNetwork:
    """A network of 16 channels and three genes, in eval mode."""
    torch.manual_seed(seed)
    settings = settings or ExpressionModelSettings(width=16)
    start = None if mean is None else np.array(mean)
    views, bins = tuple(shapes), shapes[0].tokens
    return ExpressionNetwork(settings, views, bins, len(GENES), needs or Needs(), rule, start).eval()


def stirred(network: ExpressionNetwork, seed: int = 1) -> ExpressionNetwork:
    """The same with a last map that is not nearly nothing, so that inputs show in the outputs."""
    torch.manual_seed(seed)
    torch.nn.init.normal_(network.rate.weight, std=0.3)
    return network


def model_of(network: ExpressionNetwork | None = None, **told: object) -> ExpressionModel:
    facts = {"cell": "base", "fold": "without_P1", "seed": 0}
    loss = {"name": "poisson"}
    kept = {"target": "counts", "features": {"encoder": "colour"}, "loss": loss, "facts": facts, **told}
    return ExpressionModel(network or stirred(network_of()), GENES, **kept).eval()  # type: ignore[arg-type]
