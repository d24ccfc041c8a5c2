"""From features of several scales to what is said of every gene in every bin.

Shapes: B tiles, C width, G genes, n bins along a side, t tokens along a view's side.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lamella.models.expression.contract import Prediction, Views, ViewShape
from lamella.models.expression.expectation import Needs, Rule, starting
from lamella.models.expression.fusion import make_fusion, used_views
from lamella.models.expression.hist2st import Hist2ST
from lamella.models.expression.mini_unet import MiniUNet
from lamella.models.expression.projectors import Projector
from lamella.models.expression.settings import ExpressionModelSettings, Hist2STSettings, MiniUNetSettings

# Rates from 3e-7 to 3e6 a bin: beyond what any count of a bin shows, and exp() of either end is far from overflow.
LOG_RATE_RANGE = (-15.0, 15.0)
_HEAD_STD = 1e-3  # of the last map's weights: the start is the mean rate, and gradients flow from the first step on


class ExpressionNetwork(nn.Module):
    """Projectors, fusion, decoder, and one linear map to the genes.

    Args:
        settings: The network.
        views: The inputs; the first is the bins.
        bins: Along the side of the tiles it is trained on. Others can be shown to it.
        genes: G.
        needs: What the loss asks for beside the rate.
        rule: What is expected, given the outputs; of `value` the output is the value itself and is not clamped.
        mean_rate: (G,) mean count of a bin (or value of a place, of losses on values) over the training slides. Fresh
            networks predict it everywhere. None: 1 (or 0); for networks whose weights are then loaded.

    Raises:
        ValueError: Views are not finest first, or the mean is not one number per gene, finite, and of rates not
            negative.
    """

    def __init__(
        self,
        settings: ExpressionModelSettings,
        views: tuple[ViewShape, ...],
        bins: int,
        genes: int,
        needs: Needs,
        rule: Rule,
        mean_rate: np.ndarray | Tensor | None = None,
    ) -> None:
        super().__init__()
        steps = [view.token_um for view in views]
        if not views or sorted(steps) != steps:
            raise ValueError(f"views must come finest first, not with tokens of {steps} um")
        self.settings, self.views, self.bins, self.genes = settings, views, bins, genes
        self.needs, self.rule = needs, rule
        used = used_views(settings.fusion, views)
        self.projectors = nn.ModuleList(Projector(view.width, settings.width, settings.projector) for view in used)
        self.fusion = make_fusion(settings.fusion, settings.width, used)
        self.dropout = nn.Dropout2d(settings.dropout)
        self.decoder = _decoder(settings, bins, views[0].token_um)
        self.rate = nn.Conv2d(settings.width, genes, 1)
        self.zero = nn.Conv2d(settings.width, genes, 1) if needs.zero == "bin" else None
        self.zero_G = nn.Parameter(torch.empty(genes)) if needs.zero == "gene" else None
        self.log_theta_G = nn.Parameter(torch.empty(genes)) if needs.theta else None
        self._start(mean_rate)

    @property
    def bin_um(self) -> float:
        return self.views[0].token_um

    def forward(self, views: Views) -> Prediction:
        """What is said of the tiles. All numbers are float32, whatever arithmetic the layers run in."""
        used = range(len(self.projectors))
        projected = [self.projectors[i](views.features[i], views.seen[i]) for i in used]
        x_BCnn = self.decoder(self.dropout(self.fusion(projected, [views.seen[i] for i in used])))
        log_rate = self.rate(x_BCnn).float()
        if self.rule != "value":
            log_rate = log_rate.clamp(*LOG_RATE_RANGE)
        zero = None if self.zero is None else self.zero(x_BCnn).float()
        if self.zero_G is not None:
            zero = self.zero_G.float().view(1, -1, 1, 1)
        theta = None if self.log_theta_G is None else self.log_theta_G.float().view(1, -1, 1, 1)
        return Prediction(log_rate, zero, theta)

    def description(self) -> dict[str, Any]:
        """What config.json says of it."""
        return {
            "settings": self.settings.model_dump(mode="json"),
            "views": [asdict(view) for view in self.views],
            "bins": self.bins,
            "needs": self.needs._asdict(),
            "rule": self.rule,
        }

    @torch.no_grad()
    def _start(self, mean_rate: np.ndarray | Tensor | None) -> None:
        """Give the last maps the biases that say the training mean."""
        values = self.rule == "value"
        mean_G = torch.full((self.genes,), 0.0 if values else 1.0) if mean_rate is None else torch.as_tensor(mean_rate)
        if (
            mean_G.shape != (self.genes,)
            or not bool(mean_G.isfinite().all())
            or bool((mean_G < 0).any() and not values)
        ):
            raise ValueError(f"the mean of {self.genes} genes must be as many finite numbers, of rates not below 0")
        start = starting(mean_G, self.rule, theta=self.needs.theta)
        _set(self.rate, start.log_rate_G)
        if self.zero is not None and start.zero_logit_G is not None:
            _set(self.zero, start.zero_logit_G)
        for parameter, first in ((self.zero_G, start.zero_logit_G), (self.log_theta_G, start.log_theta_G)):
            if parameter is not None and first is not None:
                parameter.copy_(first)


def _set(layer: nn.Conv2d, bias_G: Tensor) -> None:
    nn.init.normal_(layer.weight, std=_HEAD_STD)
    assert layer.bias is not None
    layer.bias.copy_(bias_G)


def _decoder(settings: ExpressionModelSettings, bins: int, bin_um: float) -> nn.Module:
    if isinstance(settings.decoder, MiniUNetSettings):
        return MiniUNet(settings.decoder, settings.width, bins)
    if isinstance(settings.decoder, Hist2STSettings):
        return Hist2ST(settings.decoder, settings.width, bin_um)
    return nn.Identity()
