from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.metrics.image_studies import study
from torch import nn

from lamella.metrics.attentive import best_epoch, class_weights, validation_rows
from lamella.metrics.finetuned import FinetuneSettings, finetuned_scores
from lamella.metrics.image_study import Part
from lamella.metrics.scored import macro_auc
from lamella.models.encoders import InputContract, ViTEncoder, fresh_vit
from lamella.models.vit import ViTSettings


def test_the_best_epoch_is_kept_the_earliest_of_equals() -> None:
    model, seen = nn.Linear(1, 1), iter([0.2, 0.7, 0.7, 0.1])

    def train(epoch: int) -> None:
        with torch.no_grad():
            model.weight.fill_(epoch)

    assert best_epoch(model, 4, train, lambda: next(seen)) == (2, 0.7)
    assert model.weight.item() == 1


def test_classes_weigh_alike() -> None:
    weights = class_weights(np.array([0, 0, 0, 1]), 3)
    assert weights.tolist() == pytest.approx([4 / (2 * 3), 4 / 2, 0])


def test_without_a_validation_split_groups_of_the_training_part_choose_and_test_rows_never() -> None:
    base = study(split=False)
    for part in base.parts:
        fit, choose = validation_rows(base, base.labels, part)
        assert not set(base.groups[fit]) & set(base.groups[choose])
        assert set(fit) | set(choose) == set(part.train)
    lonely = Part(np.arange(2), np.zeros(0, np.int64), np.arange(4, 6))
    assert [rows.tolist() for rows in validation_rows(base, base.labels, lonely)] == [[0, 1], [0, 1]]


def test_a_whole_network_learns_what_its_labels_show_and_leaves_the_encoder_as_it_was() -> None:
    base = study(items=120)
    settings = ViTSettings(dim=16, depth=1, heads=2, patch_px=8, wave_min=8, wave_max=64)
    contract = InputContract(None, 16, (0.5,) * 3, (0.25,) * 3, patch_px=8, dim=16)
    encoder = ViTEncoder(fresh_vit(settings, 0), contract, "tiny")
    before = encoder.fingerprint

    class Bright:
        """The second class has a bright corner."""

        def batch(self, rows: np.ndarray) -> torch.Tensor:
            images = torch.randint(0, 100, (len(rows), 3, 16, 16), dtype=torch.uint8, generator=torch.manual_seed(0))
            images[:, :, :8, :8] += torch.from_numpy(base.labels[rows] * 100).to(torch.uint8)[:, None, None, None]
            return images

    quick = FinetuneSettings(steps=40, checks=4, batch_size=16, lr=3e-3)
    found = finetuned_scores(lambda: encoder, Bright(), base.labels, base, quick, seed=0)
    assert macro_auc(found.scores, base.labels[base.test_rows]) > 0.95
    assert found.note == "40 steps of 16 images, the best of 4 checks on validation"
    assert encoder.fingerprint == before
    again = finetuned_scores(lambda: encoder, Bright(), base.labels, base, quick, seed=0)
    np.testing.assert_allclose(found.scores, again.scores, atol=1e-6)
