"""Collections of generated volumes and films, read from memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lamella.imaging.datasets.collection import Collection, Item, Kind, Measured
from lamella.imaging.measured import Video, Volume


def made_collection(
    kind: Kind,
    contents: Mapping[str, Measured],
    *,
    masks: Mapping[str, np.ndarray] | None = None,
    splits: Mapping[str, str] | None = None,
    groups: Mapping[str, str] | None = None,
    reads: list[str] | None = None,
) -> Collection:
    """A collection whose items are the contents, by id; `reads` notes what was read."""

    def read(item: Item) -> Measured:
        if reads is not None:
            reads.append(item.item_id)
        return contents[item.item_id]

    items = tuple(
        Item(
            name,
            (Path(f"{name}.nii.gz"),),
            group=(groups or {}).get(name, name),
            split=(splits or {}).get(name),  # type: ignore[arg-type]
            mask=Path(f"{name}_mask.nii.gz") if masks and name in masks else None,
        )
        for name in contents
    )
    read_mask = None if masks is None else lambda item: masks[item.item_id]
    return Collection(f"made-{kind}s", kind, items, read, read_mask=read_mask)


def made_volume(
    shape: Sequence[int] = (1, 6, 8, 10),
    *,
    seed: int = 0,
    spacing_mm: tuple[float, float, float] = (2.0, 1.0, 1.0),
    fourth: str = "channel",
    values: np.ndarray | None = None,
) -> Volume:
    """A volume of noise of any brightness, or of these values; MRI as far as its unit tells."""
    if values is None:
        values = np.random.default_rng(seed).gamma(2, 100, shape)
    affine = np.diag([*spacing_mm[::-1], 1.0])
    return Volume(values.astype(np.float32), "stored", spacing_mm, affine, fourth=fourth, source=f"volume {seed}")  # type: ignore[arg-type]


def made_film(frames: int = 12, height: int = 20, width: int = 30, *, frame_ms: float | None = None) -> Video:
    """A film whose red is the frame's number, green the row and blue the column."""
    pixels = np.zeros((frames, height, width, 3), np.uint8)
    pixels[..., 0] = np.arange(frames)[:, None, None]
    pixels[..., 1] = np.arange(height)[:, None]
    pixels[..., 2] = np.arange(width)
    return Video(pixels, "byte", frame_ms=frame_ms, source="film")
