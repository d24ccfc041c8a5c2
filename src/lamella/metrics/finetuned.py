"""A whole encoder trained with labels: from its pretrained weights, or from scratch as the supervised baseline.

When to stop is chosen on validation rows, never on the judged ones. Every run has the same budget of steps.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Annotated, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from lamella.config import Settings
from lamella.metrics.attentive import best_epoch, class_weights, validation_rows
from lamella.metrics.image_study import ImageStudy, Part
from lamella.metrics.scored import Scored, macro_auc

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


class FinetuneSettings(Settings):
    """How a whole network is trained with labels."""

    steps: Count = 400
    """Optimiser steps of every run, whatever the number of labels: the budget."""
    checks: Count = 10
    """Times that the validation rows are looked at; the best network of them is kept."""
    batch_size: Count = 64
    """Images of a step."""
    lr: Positive = 3e-4
    """Peak learning rate of AdamW, after a tenth of the steps; then a cosine to zero."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    """Of AdamW."""
    repeats: Count = 1
    """Runs of each kind, with other seeds (fine-tuning only)."""

    def budget(self) -> str:
        """In words, for the table."""
        return f"{self.steps} steps of {self.batch_size} images, the best of {self.checks} checks on validation"


class Pixels(Protocol):
    """Where the inputs of the network come from."""

    def batch(self, rows: np.ndarray) -> Tensor:
        """What the encoder takes, (B, ...), of these rows."""


def finetuned_scores(
    make: Callable[[], nn.Module],
    pixels: Pixels,
    labels: np.ndarray,
    study: ImageStudy,
    settings: FinetuneSettings,
    *,
    seed: int,
    parts: tuple[Part, ...] | None = None,
    device: torch.device | None = None,
) -> Scored:
    """Class probabilities of the judged rows from networks trained on the training rows of each part.

    Args:
        make: A fresh copy of the encoder to start from.
        pixels: The images.
        labels: (N,) int, 0..C-1.
        study: Classes, groups, parts.
        settings: The budget.
        seed: Of the classifier's weights and the order of the images.
        parts: Other parts than the study's.
        device: Where it is trained.
    """
    device = device or torch.device("cpu")
    found = [
        _train_part(Classifier(make(), len(study.class_names), seed).to(device), pixels, labels, study, part, settings)
        for part in parts or study.parts
    ]
    return Scored(np.concatenate(found), settings.budget())


class Classifier(nn.Module):
    """A thawed encoder and a linear classifier on its pooled feature. The encoder given is not changed."""

    def __init__(self, encoder: nn.Module, classes: int, seed: int) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder).requires_grad_(True)
        self.seed = seed
        dim = int(encoder.contract.dim)  # type: ignore[union-attr, arg-type]
        self.norm = nn.LayerNorm(dim)
        self.classify = nn.Linear(dim, classes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            nn.init.trunc_normal_(self.classify.weight, std=0.02)
            nn.init.zeros_(self.classify.bias)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C) logits."""
        logits: Tensor = self.classify(self.norm(self.encoder.pooled(images).float()))
        return logits


def _train_part(
    model: Classifier, pixels: Pixels, labels: np.ndarray, study: ImageStudy, part: Part, settings: FinetuneSettings
) -> np.ndarray:
    fit, choose = validation_rows(study, labels, part)
    device = next(model.parameters()).device
    weight_C = class_weights(labels[fit], len(study.class_names)).to(device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    rng = np.random.default_rng([model.seed, 1])
    order: list[int] = []
    checks = min(settings.checks, settings.steps)

    def train_epoch(check: int) -> None:
        for step in range(settings.steps * check // checks, settings.steps * (check + 1) // checks):
            while len(order) < settings.batch_size:
                order.extend(rng.permutation(fit).tolist())
            rows = np.array(order[: settings.batch_size])
            del order[: settings.batch_size]
            for group in optimiser.param_groups:
                group["lr"] = settings.lr * _rate(step, settings.steps)
            truth = torch.from_numpy(labels[rows]).to(device)
            loss = F.cross_entropy(model(pixels.batch(rows).to(device)), truth, weight_C)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()

    def score() -> float:
        return float(macro_auc(_proba(model, pixels, choose, settings), labels[choose]))

    best_epoch(model, checks, train_epoch, score)
    return _proba(model, pixels, part.test, settings)


def _rate(step: int, steps: int) -> float:
    """Share of the peak learning rate: linear over the first tenth, then a cosine to zero."""
    warm = max(1, steps // 10)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


@torch.inference_mode()
def _proba(model: Classifier, pixels: Pixels, rows: np.ndarray, settings: FinetuneSettings) -> np.ndarray:
    device = next(model.parameters()).device
    found = [
        model(pixels.batch(rows[start : start + settings.batch_size]).to(device)).softmax(-1).cpu().numpy()
        for start in range(0, len(rows), settings.batch_size)
    ]
    return np.concatenate(found)
