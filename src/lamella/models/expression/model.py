"""A trained network with all that its numbers need to be understood: genes, scales, bins, target, loss.

Shapes: B tiles, G genes, n bins along a side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lamella.models.expression.contract import Views, ViewShape
from lamella.models.expression.expectation import Rule, at_spots, expected, on_target_scale
from lamella.models.expression.network import ExpressionNetwork
from lamella.models.fingerprint import module_fingerprint


class ExpressionModel(nn.Module):
    """Features in, expected expression out.

    Args:
        network: Trained.
        genes: G names.
        target: What it was trained to predict: `counts`, `log1p`, ... of the study's settings.
        features: The settings that its features are made by (encoder, views, standardise), and `fingerprint` of the
            encoder: those of a slide must be made alike.
        loss: The settings of its loss.
        kind: Whether it learned from bins or from spots.
        facts: How it was trained: patients, fold, seed, steps, ...; written into its folder.
        name: For tables and pictures.

    Raises:
        ValueError: The names are not as many as the network's genes, or two are alike.
    """

    def __init__(
        self,
        network: ExpressionNetwork,
        genes: tuple[str, ...],
        *,
        target: str,
        features: Mapping[str, Any],
        loss: Mapping[str, Any],
        kind: str = "bin",
        facts: Mapping[str, Any] | None = None,
        name: str = "expression model",
    ) -> None:
        super().__init__()
        if len(genes) != network.genes or len(set(genes)) != len(genes):
            raise ValueError(f"{len(genes)} names ({len(set(genes))} different) for {network.genes} genes")
        self.network, self.genes, self.target, self.kind = network, tuple(genes), target, kind
        self.features, self.loss, self.facts, self.name = dict(features), dict(loss), dict(facts or {}), name

    @property
    def views(self) -> tuple[ViewShape, ...]:
        return self.network.views

    @property
    def bins(self) -> int:
        """Along the side of the tiles that it was trained on."""
        return self.network.bins

    @property
    def bin_um(self) -> float:
        return self.network.bin_um

    @property
    def rule(self) -> Rule:
        return self.network.rule

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def units(self) -> str:
        """What one number of `expected` is, for files."""
        if self.rule == "value":
            return f"expected {self.target}"
        return f"expected count per bin of {self.bin_um:g} um"

    @torch.no_grad()
    def expected(self, views: Views) -> Tensor:
        """float32 (B, G, n, n) expected counts of the bins; of a model of values, expected values.

        Mistake of the source: the network's raw outputs, logarithms of rates, were scored.
        """
        return expected(self.network(views), self.rule)

    @torch.no_grad()
    def expected_spots(self, views: Views, disk_Bnn: Tensor) -> Tensor:
        """float32 (B, G): sums of the expected counts under each disk; of a model of values, their weighted mean."""
        return expected(at_spots(self.network(views), disk_Bnn, self.rule), self.rule)[..., 0, 0]

    def judged(self, expected_values: Tensor) -> Tensor:
        """Expected counts of places on the scale that the target is judged on: log1p of them, or as they are."""
        return on_target_scale(expected_values, self.rule, self.target)

    @property
    def fingerprint(self) -> str:
        return module_fingerprint(self, {**self.description(), "genes": list(self.genes)})

    def description(self) -> dict[str, Any]:
        """What config.json says of it, beside genes and facts."""
        return {
            "network": self.network.description(),
            "target": self.target,
            "kind": self.kind,
            "features": self.features,
            "loss": self.loss,
        }
