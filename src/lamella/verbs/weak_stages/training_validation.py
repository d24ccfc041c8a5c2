"""How good a model is on slides that it is not trained on: by their own labels, or by their pixel truth.

The tiles are the same at every validation: all of a slide, or a sample drawn once. (The source looked at each slide's
first coordinate alone.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lamella.data.bag_batches import BagBatches
from lamella.data.bag_tiles import read_truth
from lamella.data.kept import Kept
from lamella.formats.label_values import NOT_LABELLED
from lamella.methods.weak import WeakMethod
from lamella.metrics.segments.confusion import confusion_of, iou_per_class, mean_of_present
from lamella.verbs.weak_stages.training_settings import Criterion

_BATCH = 32  # tiles at a time: they need no gradient
_DRAW = 40  # first number of the random stream that picks tiles; others have other ones
_TRUTH_MB = 512


@dataclass(frozen=True)
class WeakValidation:
    """Validates a method on slides.

    Attributes:
        method: What is trained; left as it was.
        batches: The slides that validate.
        criterion: loss or masks.
        tiles_per_bag: At most so many of each slide; None: all.
        device: Where the weights are.
    """

    method: WeakMethod
    batches: BagBatches
    criterion: Criterion
    tiles_per_bag: int | None
    device: torch.device
    truth: Kept[np.ndarray]

    @classmethod
    def of(
        cls,
        method: WeakMethod,
        batches: BagBatches,
        criterion: Criterion,
        tiles_per_bag: int | None,
        device: torch.device,
    ) -> WeakValidation:
        return cls(method, batches, criterion, tiles_per_bag, device, Kept(_TRUTH_MB))

    @torch.no_grad()
    def __call__(self, epochs: int) -> Mapping[str, float]:
        """The loss of the labels, how many are right, and with masks the IoU of each class and their mean.

        A class that is neither in the truth nor predicted has no IoU (NaN) and no part in the mean: it can neither
        spoil a best value nor make one.
        """
        was = {module: module.training for module in self.method.modules()}
        self.method.eval()
        try:
            values = self._by_labels()
            return {**values, **self._by_masks()} if self.criterion == "masks" else values
        finally:
            for module, training in was.items():
                module.training = training

    def rows(self, number: int) -> np.ndarray:
        """The tiles of slide `number` that are looked at; the same every time."""
        tiles = len(self.batches.bags[number])
        if self.tiles_per_bag is None or tiles <= self.tiles_per_bag:
            return np.arange(tiles)
        rng = np.random.default_rng((_DRAW, number, 0, self.batches.seed))
        return np.sort(rng.choice(tiles, self.tiles_per_bag, replace=False))

    def _by_labels(self) -> dict[str, float]:
        """Mean loss of the labels that are known, and the share of known labels on the right side of zero."""
        losses, weights, right, known = [], [], 0.0, 0.0
        for logits, label, certain in self._answered():
            count = float(certain.sum())
            if count == 0:
                continue
            losses.append(float(self.method.label_loss(logits, label, certain)))
            weights.append(count)
            last = next(each for each in reversed(logits) if each is not None)
            right += float((((last > 0) == (label > 0)) * certain).sum())
            known += count
        if not known:
            return {"val_loss": float("nan"), "val_label_accuracy": float("nan")}
        return {"val_loss": float(np.average(losses, weights=weights)), "val_label_accuracy": right / known}

    def _answered(self) -> Iterator[tuple[list[Tensor | None], Tensor, Tensor]]:
        """Logits of each level, labels and which are known: slide by slide, or for patches batch by batch."""
        if self.batches.labels_are == "slide":
            for number in range(len(self.batches.bags)):
                yield self._of([(number, int(row)) for row in self.rows(number)])
            return
        places = [(number, int(row)) for number in range(len(self.batches.bags)) for row in self.rows(number)]
        for start in range(0, len(places), _BATCH):
            yield self._of(places[start : start + _BATCH])

    def _of(self, places: Sequence[tuple[int, int]]) -> tuple[list[Tensor | None], Tensor, Tensor]:
        """The same of some tiles; those of one slide are pooled together, however many they are."""
        targets = [self.batches.target(*place) for place in places]
        batch = {
            "label": torch.from_numpy(np.stack([label for label, _ in targets])).to(self.device),
            "known": torch.from_numpy(np.stack([known for _, known in targets])).to(self.device),
        }
        if self.batches.labels_are == "slide":
            batch["bag"] = torch.tensor([number for number, _ in places], device=self.device)
        chunks = [self._image(places[start : start + _BATCH]) for start in range(0, len(places), _BATCH)]
        return self.method.answers_of(chunks, batch)

    def _image(self, places: Sequence[tuple[int, int]]) -> Tensor:
        tiles = [self.batches.tiles(number, [row]) for number, row in places]
        return torch.cat(tiles).to(self.device)

    def _by_masks(self) -> dict[str, float]:
        """IoU of each channel over the pixels of all tiles with truth together, and the mean of the classes'."""
        study = self.batches.study
        matrix = np.zeros((len(study.channels), len(study.channels) + 1), np.int64)
        for number, bag in enumerate(self.batches.bags):
            if bag.mask_path is None:
                continue
            rows = self.rows(number)
            for start in range(0, len(rows), _BATCH):
                some = rows[start : start + _BATCH]
                truth = self.truth.get((number, start), lambda bag=bag, some=some: read_truth(study, bag, some))
                if (truth == NOT_LABELLED).all():
                    continue
                maps = self.method.probabilities(self._image([(number, int(row)) for row in some]))
                matrix += confusion_of(truth, maps.argmax(1).to(torch.uint8).cpu().numpy(), len(study.channels))
        iou = iou_per_class(matrix)
        background = None if study.background is None else len(study.channels) - 1
        named = {f"val_iou_{name}": float(value) for name, value in zip(study.channels, iou, strict=True)}
        return {"val_miou": float(mean_of_present(iou, background)), **named}
