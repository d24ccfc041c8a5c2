"""How good a model is on the inner patient of its fold: what says when training stops.

Mistake of the source: the patient that was reported chose the epoch. Here validation is given the inner patient's
slides alone; those of the test patient are never opened while training.

Shapes: G genes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lamella.data.expression_batches import ExpressionBatches
from lamella.methods.expression import Batch, ExpressionMethod


@dataclass(frozen=True)
class ExpressionValidation:
    """Validates a method on slides.

    Attributes:
        method: What is trained; left as it was.
        slides: Batches of each slide, of centres that cover it, not augmented.
        samples: At most so many of each slide, the same every time; None: all.
        log: Correlations are taken of log1p: places are counted.
        device: Where the weights are.
    """

    method: ExpressionMethod
    slides: tuple[ExpressionBatches, ...]
    samples: int | None
    log: bool
    device: torch.device

    @torch.no_grad()
    def __call__(self, epochs: int) -> Mapping[str, float]:
        """val_loss: mean of the loss over mask x genes. val_correlation: mean over slides of that over genes.

        A gene that is the same everywhere, in truth or prediction, has no correlation and no part in the mean.
        """
        was = self.method.training
        self.method.eval()
        try:
            losses, weights, correlations = [], [], []
            for slide in self.slides:
                sums = CorrelationSums(self.log)
                for batch in self._batches(slide):
                    loss, _, values, truth, mask = self.method.judged(batch)
                    losses.append(float(loss))
                    weights.append(float(mask.sum()))
                    sums.add(values, truth, mask)
                correlations.append(sums.mean())
        finally:
            self.method.train(was)
        if not sum(weights):
            return {"val_loss": float("nan"), "val_correlation": float("nan")}
        known = [value for value in correlations if np.isfinite(value)]
        return {
            "val_loss": float(np.average(losses, weights=weights)),
            "val_correlation": float(np.mean(known)) if known else float("nan"),
        }

    def _batches(self, slide: ExpressionBatches) -> Iterator[Batch]:
        size, count = slide.settings.batch_size, min(self.samples or len(slide), len(slide))
        for first in range(0, count, size):
            batch = slide.at(range(first, min(first + size, count)))
            yield {name: value.to(self.device) for name, value in batch.items()}


class CorrelationSums:
    """Sums of which Pearson's correlation of every gene follows, batch by batch.

    Args:
        log: Take log1p of truth and prediction.
    """

    def __init__(self, log: bool) -> None:
        self.log = log
        self._sums: Tensor | None = None
        self._origin: tuple[Tensor, Tensor] | None = None

    def add(self, values_BGnn: Tensor, truth_BGnn: Tensor, mask_Bnn: Tensor) -> None:
        """Take in the places of the mask."""
        if not bool(mask_Bnn.any()):
            return
        x_GN, y_GN = (
            each.transpose(0, 1)[:, mask_Bnn].double() for each in (values_BGnn, truth_BGnn)
        )  # (G, B, n, n) by (B, n, n)
        if self.log:
            x_GN, y_GN = x_GN.log1p(), y_GN.log1p()
        if self._origin is None:  # sums about the first batch's means do not cancel
            self._origin = (x_GN.mean(1, keepdim=True), y_GN.mean(1, keepdim=True))
        x_GN, y_GN = x_GN - self._origin[0], y_GN - self._origin[1]
        count_GN = torch.ones_like(x_GN)
        parts = torch.stack([each.sum(1) for each in (count_GN, x_GN, y_GN, x_GN**2, y_GN**2, x_GN * y_GN)])
        self._sums = parts if self._sums is None else self._sums + parts

    def mean(self) -> float:
        """Mean over the genes that have a correlation; NaN where none has."""
        if self._sums is None:
            return float("nan")
        n, x, y, xx, yy, xy = self._sums.cpu().numpy()
        var_x, var_y = xx - x * x / n, yy - y * y / n
        # Rounding alone gives deviations of 1e-16 of what was summed.
        varies = (var_x > 1e-12 * np.maximum(xx, 1e-300)) & (var_y > 1e-12 * np.maximum(yy, 1e-300))
        if not varies.any():
            return float("nan")
        return float(np.mean(((xy - x * y / n) / np.sqrt(np.where(varies, var_x * var_y, 1)))[varies]))
