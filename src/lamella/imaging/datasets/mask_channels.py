"""Masks as class indices: the one place where values of masks become channels of a model."""

from __future__ import annotations

import numpy as np

from lamella.formats.label_values import NOT_LABELLED
from lamella.imaging.datasets.collection import Collection


def channels_of(collection: Collection) -> tuple[str, ...]:
    """The classes of a collection's masks in the order of a model's channels; the background, if it is one, first."""
    named = sorted(collection.mask_classes, key=lambda name: collection.mask_classes[name])
    return tuple(named) if collection.mask_background is None else (collection.mask_background, *named)


def as_channels(mask: np.ndarray, collection: Collection) -> np.ndarray:
    """A mask of `read_mask` as channel indices.

    Returns:
        uint8 of the mask's shape: an index into `channels_of`, or NOT_LABELLED.

    Raises:
        ValueError: A value is of no class.
    """
    values = [collection.mask_classes[name] for name in channels_of(collection) if name in collection.mask_classes]
    table = np.full(256, -1, np.int16)
    table[NOT_LABELLED] = NOT_LABELLED
    first = 0
    if collection.mask_background is not None:
        table[0], first = 0, 1
    table[values] = np.arange(first, first + len(values))
    if mask.size and (mask.min() < 0 or mask.max() > NOT_LABELLED):
        raise ValueError(f"mask values of {collection.name} go from {mask.min()} to {mask.max()}, not 0 to 255")
    channels = table[mask]
    if (channels < 0).any():
        raise ValueError(f"mask values {np.unique(mask[channels < 0]).tolist()} are of no class of {collection.name}")
    return channels.astype(np.uint8)
