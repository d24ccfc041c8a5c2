"""Expression of genes from features of several scales: network, likelihood, and spots as sums of bins.

Shapes: B samples, G genes, n bins along the side of a sample.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lamella.methods.expression_losses import AnyExpressionLossSettings, make_loss
from lamella.models.expression.contract import Prediction, Views
from lamella.models.expression.expectation import Rule, at_spots, expected, on_target_scale
from lamella.models.expression.network import ExpressionNetwork

Batch = dict[str, Tensor]
Logs = dict[str, Tensor]
# A place without any count is taken for one with a single count: the logarithm of its library is finite.
_LEAST_LIBRARY = 1.0


class ExpressionMethod(nn.Module):
    """The method of `lamella expression train`. Its parameters are the network's and the loss's.

    Args:
        network: What is trained.
        loss: What it is punished by.
        target: What batches hold: counts, or values of another scale.
        library_reference: Rates are those of a place with so many counts in all, and are multiplied by what a place has
            over it (an offset). None: no offset, library size is part of what is predicted.

    Raises:
        ConfigError: Sizes of multi_resolution do not fit the bins.
    """

    def __init__(
        self,
        network: ExpressionNetwork,
        loss: AnyExpressionLossSettings,
        target: str,
        library_reference: float | None = None,
    ) -> None:
        super().__init__()
        self.network, self.target, self.library_reference = network, target, library_reference
        self.rule: Rule = loss.rule(target)
        # mistake: parameters of the source's loss were in no optimiser; here they are a submodule's.
        self.loss = make_loss(loss, target, network.bin_um, network.bins)
        self.undoes_log = loss.of_counts_only and target == "log1p"

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        """The loss of a batch of `data.expression_batches`: a float32 scalar, and scalars to log."""
        loss, logs, *_ = self.judged(batch)
        return loss, logs

    def judged(self, batch: Batch) -> tuple[Tensor, Logs, Tensor, Tensor, Tensor]:
        """The loss and its logs; and what is expected of each place, the truth (B, G, n, n), the mask (B, n, n).

        The last three are for validation, on the target's scale; n is 1 where places are spots. An offset by the
        library has no part in what is expected: a new slide has none.
        """
        prediction, truth, mask = self.told(batch)
        counts = torch.expm1(truth).round() if self.undoes_log else truth
        with torch.autocast(truth.device.type, enabled=False):  # likelihoods are in 32 bits
            loss, logs = self.loss(self._offset(prediction, batch), counts, mask)
            with torch.no_grad():
                values = on_target_scale(expected(prediction, self.rule), self.rule, self.target)
        return loss, {name: value.detach() for name, value in logs.items()}, values, truth, mask

    def told(self, batch: Batch) -> tuple[Prediction, Tensor, Tensor]:
        """Prediction, truth (B, G, n, n) and mask (B, n, n) of a batch."""
        prediction = self.network(views_of(batch))
        if "spots" not in batch:
            return prediction, batch["counts"].float(), batch["mask"]
        truth = batch["spots"].float()[..., None, None]
        mask = torch.ones_like(truth[:, 0], dtype=torch.bool)
        return at_spots(prediction, batch["disk"], self.rule), truth, mask

    def _offset(self, prediction: Prediction, batch: Batch) -> Prediction:
        """Rates times what each place has of all genes over the reference."""
        if self.library_reference is None:
            return prediction
        library = batch["library"].float()
        library = library[:, None, None] if "spots" in batch else library
        offset = (library.clamp(min=_LEAST_LIBRARY) / self.library_reference).log()
        return prediction._replace(log_rate=prediction.log_rate + offset[:, None])

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Nothing follows a step."""


def views_of(batch: Mapping[str, Tensor]) -> Views:
    """The inputs in a batch: view0, seen0, view1, seen1, ..."""
    count = sum(name.startswith("view") for name in batch)
    features = tuple(batch[f"view{number}"].float() for number in range(count))
    return Views(features, tuple(batch[f"seen{number}"] for number in range(count)))
