"""Collections of generated labelled images, read from memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.measured import MedicalImage


def coloured(mask: np.ndarray, seed: int = 0) -> np.ndarray:
    """(Y, X, 3) uint8 whose red is 50 for each class, with some noise in green and blue."""
    pixels = np.random.default_rng(seed).integers(0, 200, (*mask.shape, 3)).astype(np.uint8)
    pixels[..., 0] = np.where(mask == 255, 250, 50 * mask.clip(0, 4))
    return pixels


def made_labels(
    masks: Mapping[str, np.ndarray],
    *,
    classes: Sequence[str] = ("tumor", "stroma"),
    groups: Mapping[str, str] | None = None,
    splits: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    mpp: float | None = 0.5,
    background: str | None = "other",
    name: str = "made",
    reads: list[str] | None = None,
) -> Collection:
    """A collection whose items are the masks, by id, with pixels that show the classes; `reads` notes what was read."""

    def read(item: Item) -> MedicalImage:
        if reads is not None:
            reads.append(item.item_id)
        spacing = None if item.mpp is None else (item.mpp / 1000, item.mpp / 1000)
        return MedicalImage(coloured(masks[item.item_id]), "byte", spacing_mm=spacing, source=f"{item.item_id}.png")

    items = tuple(
        Item(
            item_id,
            (Path(name) / f"{item_id}.png",),
            labels=(labels[item_id],) if labels else None,
            group=(groups or {}).get(item_id, item_id),
            split=(splits or {}).get(item_id),  # type: ignore[arg-type]
            mask=Path(name) / f"{item_id}_mask.png",
            mpp=mpp,
        )
        for item_id in masks
    )
    return Collection(
        name,
        "image",
        items,
        read,
        group_noun="patient",
        read_mask=lambda item: masks[item.item_id].astype(np.int32),
        mask_classes={name: number for number, name in enumerate(classes, start=1)},
        mask_background=background,
    )
