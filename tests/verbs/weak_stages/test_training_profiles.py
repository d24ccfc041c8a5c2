"""The presets of the source: its document, its code, the paper."""

from __future__ import annotations

import pytest

from lamella.config import resolve
from lamella.engine.optim import learning_rate
from lamella.verbs.weak_stages.settings import WeakConfig
from lamella.verbs.weak_stages.training_settings import TrainingSettings

STUDY = ("class_order=[tumor, stroma]", "data.slides=[slides]", "data.labels_are=patch")


def preset(name: str) -> TrainingSettings:
    return resolve(WeakConfig, name, None, STUDY).config.train


@pytest.mark.parametrize(
    ("name", "rate", "decay", "epochs", "temperature", "weight", "threshold"),
    [
        ("pbip-doc", 1e-3, 5e-4, 8, 0.07, 0.1, 0.5),
        ("pbip-code", 5e-5, 1e-3, 8, 0.07, 0.1, 0.5),
        ("pbip-paper", 1e-5, 3e-3, 10, 1.0, 0.5, 0.15),
    ],
)
def test_the_numbers_of_the_presets(
    name: str, rate: float, decay: float, epochs: float, temperature: float, weight: float, threshold: float
) -> None:
    told = preset(name)
    contrast = told.method.loss.contrast
    assert (told.optim.lr, told.optim.weight_decay, told.optim.weight_decay_end) == (rate, decay, decay)
    assert (told.budget.epochs, told.batches.batch_size) == (epochs, 10)
    assert (contrast.temperature, contrast.weight, contrast.threshold) == (temperature, weight, threshold)
    assert told.method.loss.scale_weights[:3] == (0.0, 0.1, 1.0)


def test_the_documents_schedule_is_a_cosine_after_one_epoch() -> None:
    optim = preset("pbip-doc").optim
    assert learning_rate(1 / 8, optim) == 1e-3
    assert learning_rate(1 / 8 + 7 / 16, optim) == pytest.approx((1e-3 + 1e-6) / 2)


@pytest.mark.parametrize("name", ["pbip-code", "pbip-paper"])
def test_the_codes_schedule_is_a_line_without_warm_up(name: str) -> None:
    optim = preset(name).optim
    assert [learning_rate(progress, optim) for progress in (0, 0.25, 1)] == pytest.approx(
        [optim.lr, 0.75 * optim.lr, 0]
    )


@pytest.mark.parametrize(("name", "stride"), [("pbip-doc", 32), ("pbip-code", 16), ("pbip-paper", 16)])
def test_the_strides_of_the_presets(name: str, stride: int) -> None:
    backbone = preset(name).method.model.backbone
    assert (backbone.name, getattr(backbone, "last_stride", None)) == ("segformer", stride)
