"""Which pixels? A small head on frozen tokens, trained on masks of some groups and judged on those of others.

Predicted on the encoder's grid, upsampled, and judged on the full grid of the mask: 2-D images are one window, volumes
are covered by overlapping ones.

Shapes: W windows, T tokens, D width, C classes without the background, G sides of the grid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from lamella.config import Settings
from lamella.formats.label_values import NOT_LABELLED
from lamella.metrics.attentive import best_epoch
from lamella.metrics.detection import Found
from lamella.metrics.dice import overlaps
from lamella.metrics.image_study import Count, Part
from lamella.models.heads import GridHead, upsampled

_MOMENTS = 128  # windows whose tokens' mean and deviation standardise all: a hundred thousand tokens and more
_HIDDEN = 64  # channels of the convolutional head: wide enough to join neighbours, small beside any encoder


class SegmentationSettings(Settings):
    """A head that labels pixels."""

    head: Literal["linear", "conv"] = "linear"
    """linear: what the tokens hold by themselves. conv: two small convolutions join neighbouring tokens."""
    side_px: Annotated[int, Field(ge=1)] | None = None
    """Side to which images are brought (rounded to whole patches); twice the encoder's own unless given, because masks
    are finer than classes. Images only."""
    epochs: Count = 40
    """Passes over the training images; the best on validation is kept."""
    batch_size: Count = 8
    """Windows of a step."""
    lr: Annotated[float, Field(gt=0)] = 2e-3
    """Learning rate of AdamW."""
    random_inits: Count = 3
    """Networks with random weights beside the model; of fewer than three, the interval of the difference is as wide as
    can be."""


@dataclass(frozen=True)
class Windows:
    """What the heads see and what they are judged on.

    Attributes:
        owner_W: Row of the item that each window is of.
        targets: (W, ...) uint8 classes (or NOT_LABELLED) at a resolution for training: the grid's or finer.
        grid: G.
        assemble: (row, (w, C + 1, *grid) logits of its windows in order) to probabilities (C + 1, ...) on the grid of
            the row's mask.
        truth: Row to its mask, classes 1..C, 0 background, NOT_LABELLED where nothing is known.
        lesions: (row, probability of any class) to what was found, for detection.
    """

    owner_W: np.ndarray
    targets: np.ndarray
    grid: tuple[int, ...]
    assemble: Callable[[int, Tensor], np.ndarray]
    truth: Callable[[int], np.ndarray]
    lesions: Callable[[int, np.ndarray], Found] | None = None


@dataclass(frozen=True)
class Segmented:
    """What one head did: overlap counts (N, C, 3) of the judged rows, what it found, and a note on its training."""

    counts: np.ndarray
    found: tuple[Found, ...]
    note: str


def segment(
    tokens_WTD: np.ndarray,
    windows: Windows,
    parts: Sequence[Part],
    groups: np.ndarray,
    classes: int,
    settings: SegmentationSettings,
    seed: int,
) -> Segmented:
    """Train a head for each part, and judge its test rows.

    Args:
        tokens_WTD: Frozen tokens of every window.
        windows: Their owners, targets and how to assemble them.
        parts: Row numbers.
        groups: (N,) group of each row.
        classes: C.
        settings: Head and training.
        seed: Of the head's weights and the order.
    """
    counts, found, epochs = [], [], []
    for part in parts:
        fit, choose = _fit_and_choose(part, groups)
        head, epoch = _train(tokens_WTD, windows, fit, choose, classes, settings, seed)
        epochs.append(epoch)
        for row in part.test:
            own = np.flatnonzero(windows.owner_W == row)
            with torch.inference_mode():
                logits = head(torch.from_numpy(tokens_WTD[own]), windows.grid)
            chance = windows.assemble(int(row), logits)
            counts.append(overlaps(windows.truth(int(row)), chance.argmax(0), classes))
            if windows.lesions is not None:
                found.append(windows.lesions(int(row), 1 - chance[0]))
    kept = ", ".join(map(str, epochs))
    return Segmented(np.stack(counts), tuple(found), f"epochs kept of {settings.epochs}: {kept}")


def _fit_and_choose(part: Part, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The part's validation rows, else about a quarter of its training groups, choose; one group alone does both."""
    if len(part.val):
        return part.train, part.val
    names = np.unique(groups[part.train])
    if len(names) < 2:
        return part.train, part.train
    held = np.isin(groups[part.train], names[:: max(2, min(4, len(names)))])
    return part.train[~held], part.train[held]


def _train(
    tokens_WTD: np.ndarray,
    windows: Windows,
    fit: np.ndarray,
    choose: np.ndarray,
    classes: int,
    settings: SegmentationSettings,
    seed: int,
) -> tuple[GridHead, int]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hidden = _HIDDEN if settings.head == "conv" else 0
        head = GridHead(tokens_WTD.shape[-1], classes + 1, len(windows.grid), hidden)
    optimiser = torch.optim.AdamW(head.parameters(), lr=settings.lr, weight_decay=0.01)
    rng = np.random.default_rng(seed)
    train, val = (np.flatnonzero(np.isin(windows.owner_W, rows)) for rows in (fit, choose))
    head.standardise_like(torch.from_numpy(tokens_WTD[rng.permutation(train)[:_MOMENTS]]))

    def logits_of(some: np.ndarray) -> Tensor:
        return upsampled(head(torch.from_numpy(tokens_WTD[some]), windows.grid), windows.targets.shape[1:])

    def train_epoch(epoch: int) -> None:
        for some in _batches(rng.permutation(train), settings.batch_size):
            loss = segmentation_loss(logits_of(some), torch.from_numpy(windows.targets[some]).long())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    @torch.inference_mode()
    def score() -> float:
        """Minus the mean loss of the validation windows: defined also where they hold no lesion, unlike Dice."""
        total = 0.0
        for some in _batches(val, settings.batch_size):
            truth = torch.from_numpy(windows.targets[some]).long()
            total += len(some) * float(segmentation_loss(logits_of(some), truth))
        return -total

    epoch, _ = best_epoch(head, settings.epochs, train_epoch, score)
    return head, epoch


def segmentation_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy plus one minus the soft Dice of every class in the batch, as in nnU-Net (arXiv:1809.10486).

    Args:
        logits: (B, C + 1, ...).
        truth: (B, ...) int64; NOT_LABELLED counts nothing.
    """
    known = truth != NOT_LABELLED
    truth = truth.where(known, torch.zeros_like(truth))
    share = (logits.softmax(1) * known[:, None]).flatten(2)
    wanted = (F.one_hot(truth, logits.shape[1]).movedim(-1, 1) * known[:, None]).flatten(2).float()
    both, size = (share * wanted).sum((0, 2)), share.sum((0, 2)) + wanted.sum((0, 2))
    # The background would hide the lesions: it is left out of the Dice, as there.
    soft = (2 * both[1:] + 1) / (size[1:] + 1)
    entropy = F.cross_entropy(logits, truth, reduction="none")[known].sum() / known.sum().clamp(min=1)
    return entropy + 1 - soft.mean()


def constant_counts(windows: Windows, rows: Sequence[int], classes: int) -> np.ndarray:
    """(C, N, C, 3) counts of the constant answers: every pixel is of class 1, of class 2, ..."""
    found = np.zeros((classes, len(rows), classes, 3))
    for number, row in enumerate(rows):
        truth = windows.truth(int(row))
        for constant in range(classes):
            found[constant, number] = overlaps(truth, np.full(truth.shape, constant + 1), classes)
    return found


def _batches(rows: np.ndarray, size: int) -> list[np.ndarray]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


Tokens = Mapping[str, Sequence[np.ndarray]]
"""Encoder name -> replicates, each (W, T, D)."""
