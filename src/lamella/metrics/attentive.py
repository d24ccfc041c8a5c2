"""A probe that learns which tokens to look at: one trained query and a linear classifier on frozen tokens.

How many epochs, is chosen on validation rows: the data set's own, else a fold of the training groups.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lamella.metrics.image_study import ImageStudy, Part
from lamella.metrics.scored import Scored, macro_auc
from lamella.models.heads import AttentivePooling

# A query and a classifier on frozen tokens settle within a few dozen passes; the best on validation is kept.
_EPOCHS, _BATCH, _RATE, _DECAY = 30, 256, 1e-3, 0.05


def attentive_scores(tokens: np.ndarray, labels: np.ndarray, study: ImageStudy) -> Scored:
    """Class probabilities of the judged rows; arguments as for `scored.linear_scores`, but `tokens` (N, T, D)."""
    found = [_fit_part(tokens, labels, study, part) for part in study.parts]
    return Scored(np.concatenate(found), f"epochs (of {_EPOCHS}) chosen on validation")


def validation_rows(study: ImageStudy, labels: np.ndarray, part: Part) -> tuple[np.ndarray, np.ndarray]:
    """(fit, choose) row numbers: the part's own validation rows, else an inner fold of its training groups.

    With one training group, or an inner fold of one class, all training rows do both; the test rows do neither.
    """
    if len(np.unique(labels[part.val])) > 1:
        return part.train, part.val
    if len(np.unique(study.groups[part.train])) < 2:
        return part.train, part.train
    folds = study.make_folds(study.groups[part.train], labels[part.train], study.probes.inner_folds + 1)
    held = folds == 0
    usable = len(np.unique(labels[part.train[held]])) > 1 and len(np.unique(labels[part.train[~held]])) > 1
    return (part.train[~held], part.train[held]) if usable else (part.train, part.train)


def class_weights(labels: np.ndarray, classes: int) -> Tensor:
    """(C,) float32: each class that occurs weighs alike; the same rule as the linear probe's."""
    counts = np.bincount(labels, minlength=classes)
    weights = np.divide(len(labels), (counts > 0).sum() * counts, out=np.zeros(classes), where=counts > 0)
    return torch.from_numpy(weights).float()


def best_epoch(
    model: nn.Module, epochs: int, train_epoch: Callable[[int], None], score: Callable[[], float]
) -> tuple[int, float]:
    """Train and leave the model as it was after the epoch (1 ...) with the highest score; the earliest of equals."""
    best, kept, when = -np.inf, copy.deepcopy(model.state_dict()), 0
    for epoch in range(epochs):
        model.train()
        train_epoch(epoch)
        model.eval()
        found = score()
        if found > best:
            best, kept, when = found, copy.deepcopy(model.state_dict()), epoch + 1
    model.load_state_dict(kept)
    return when, float(best)


def _fit_part(tokens: np.ndarray, labels: np.ndarray, study: ImageStudy, part: Part) -> np.ndarray:
    classes = len(study.class_names)
    fit, choose = validation_rows(study, labels, part)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(study.seed)
        head = AttentivePooling(tokens.shape[-1], classes)
    optimiser = torch.optim.AdamW(head.parameters(), lr=_RATE, weight_decay=_DECAY)
    weight_C, rng = class_weights(labels[fit], classes), np.random.default_rng(study.seed)

    def train_epoch(epoch: int) -> None:
        for rows in _batches(rng.permutation(fit)):
            loss = F.cross_entropy(head(torch.from_numpy(tokens[rows])), torch.from_numpy(labels[rows]), weight_C)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    best_epoch(head, _EPOCHS, train_epoch, lambda: float(macro_auc(_proba(head, tokens, choose), labels[choose])))
    return _proba(head, tokens, part.test)


@torch.no_grad()
def _proba(head: nn.Module, tokens: np.ndarray, rows: np.ndarray) -> np.ndarray:
    parts = [head(torch.from_numpy(tokens[some])).softmax(-1).numpy() for some in _batches(rows)]
    return np.concatenate(parts)


def _batches(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH)]
