"""Validation on the inner patient: numbers against numpy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lamella.verbs.expression_stages.training_validation import CorrelationSums


def drawn(genes: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(4)
    truth = torch.poisson(torch.full((5, genes, 6, 6), 2.0), generator=rng)
    return truth + torch.rand(truth.shape, generator=rng) + 1000, truth, torch.rand((5, 6, 6), generator=rng) < 0.5


@pytest.mark.parametrize("log", [False, True])
def test_correlation_of_parts_is_that_of_the_whole(log: bool) -> None:
    values, truth, mask = drawn()
    sums = CorrelationSums(log)
    for part in (slice(0, 1), slice(1, 5)):
        sums.add(values[part], truth[part], mask[part])
    x, y = (each.transpose(0, 1)[:, mask].double().numpy() for each in (values, truth))
    if log:
        x, y = np.log1p(x), np.log1p(y)
    assert sums.mean() == pytest.approx(np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(x, y, strict=True)]))


def test_a_gene_that_is_the_same_everywhere_has_no_part() -> None:
    values, truth, mask = drawn()
    both = CorrelationSums(False)
    both.add(values, truth, mask)
    values[:, 1], truth[:, 2] = 0.3, 0.0
    one = CorrelationSums(False)
    one.add(values, truth, mask)
    x, y = (each[:, 0][mask].double().numpy() for each in (values, truth))
    assert one.mean() == pytest.approx(np.corrcoef(x, y)[0, 1])
    none = CorrelationSums(False)
    none.add(torch.zeros_like(values), truth, mask)
    assert np.isnan(none.mean())
    assert np.isnan(CorrelationSums(False).mean())
