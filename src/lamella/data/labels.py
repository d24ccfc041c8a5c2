"""Which class a tile is of: from a mask of classes over the slide, from the tile table, or from the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from lamella.config import Settings
from lamella.errors import LamellaError
from lamella.geometry import Frame, mask_frame
from lamella.slides.masks import open_mask
from lamella.slides.tissue_map import TissueMap

MASK_COLUMN = "label_mask_path"


class LabelSettings(Settings):
    """Where the tiles' classes come from."""

    source: Literal["auto", "mask", "table", "manifest", "none"] = "auto"
    """auto: the table if one is given, else the column if one is given, else label masks if the manifest names any,
    else the manifest's column `label`."""
    table: Path | None = None
    """CSV or Parquet of tiles (slide_id, x_px0, y_px0, ...) with the label column; these tiles are then used."""
    column: str | None = None
    """Column of the table or of the manifest that holds the class; `label` unless given."""
    classes: dict[str, int] = Field(default_factory=dict)
    """Class name -> value in the label masks. Empty: every value but 0 is a class, named by its number."""
    min_cover: Annotated[float, Field(gt=0, le=1)] = 0.5
    """A tile is of its most frequent class if that covers at least this share of the tile; else it has no class."""


def label_source(
    settings: LabelSettings, metadata: Mapping[str, Mapping[str, str]]
) -> Literal["mask", "table", "manifest", "none"]:
    """Resolve `auto` by what there is.

    Args:
        settings: The user's wish.
        metadata: slide_id -> manifest columns.

    Raises:
        LamellaError: The wished source is not there.
    """
    columns = {name for row in metadata.values() for name, value in row.items() if value}
    source, column = settings.source, settings.column or "label"
    if source == "auto":
        if settings.table:
            source = "table"
        elif settings.column is None and MASK_COLUMN in columns:
            source = "mask"
        else:
            source = "manifest" if settings.column or column in columns else "none"
    if source == "table" and settings.table is None:
        raise LamellaError("labels.table", "no table is given", "Set labels.table=FILE, or another labels.source.")
    if source == "mask" and MASK_COLUMN not in columns:
        raise LamellaError(
            "labels", f"the index has no column {MASK_COLUMN}", f"Add {MASK_COLUMN} to the manifest and index again."
        )
    if source == "manifest" and column not in columns:
        raise LamellaError(
            "labels.column",
            f"the index has no column {column!r} (it has: {', '.join(sorted(columns)) or 'none'})",
            "Name a column of the manifest, or index again with it.",
        )
    return source


def class_fractions(
    values: np.ndarray, frame: Frame, boxes_um: np.ndarray, classes: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """Exact share of each class in each box.

    Args:
        values: (H, W) class numbers of the label mask.
        frame: The mask's frame over the slide.
        boxes_um: (N, 4) in micrometres of the slide.
        classes: Class name -> value.

    Returns:
        Class name -> (N,) float64 in 0..1. What lies outside the mask is of no class.
    """
    return {name: TissueMap(values == value, frame).fractions(boxes_um) for name, value in classes.items()}


def majority_class(fractions: Mapping[str, np.ndarray], min_cover: float) -> list[str | None]:
    """The most frequent class of each tile if it covers at least `min_cover`, else None; ties have no class.

    Args:
        fractions: Class name -> (N,) shares.
        min_cover: Least share of the whole tile.
    """
    names = list(fractions)
    if not names:
        return []
    shares = np.stack([fractions[name] for name in names])  # (C, N)
    best = shares.max(axis=0)
    tied = (shares >= best - 1e-9).sum(axis=0) > 1
    # 1e-9: an exact half counts as a half after rounding.
    labelled = (best >= min_cover - 1e-9) & ~tied
    return [names[index] if kept else None for index, kept in zip(shares.argmax(axis=0), labelled, strict=True)]


def mask_labels(path: Path, slide: Frame, boxes_um: np.ndarray, settings: LabelSettings) -> list[str | None]:
    """The class of each box from a label mask over the slide.

    Args:
        path: The label mask.
        slide: The slide's level-0 frame.
        boxes_um: (N, 4) in micrometres of the slide.
        settings: Classes and least cover.

    Raises:
        MaskMismatchError: The mask is missing, unreadable or does not lie over the slide.
    """
    mask = open_mask(path)
    height_px, width_px = mask.values.shape
    frame = mask_frame(slide, width_px, height_px, mpp=mask.mpp, name=path)
    classes = settings.classes or {str(value): int(value) for value in np.unique(mask.values) if value != 0}
    if not classes:
        return [None] * len(boxes_um)
    return majority_class(class_fractions(mask.values, frame, boxes_um, classes), settings.min_cover)


def table_labels(table: pa.Table, column: str, name: object) -> list[str | None]:
    """The label column of a tile table as text; empty cells have no class.

    Raises:
        LamellaError: The table has no such column.
    """
    if column not in table.column_names:
        raise LamellaError(
            name, f"it has no column {column!r}", f"Set labels.column to one of: {', '.join(table.column_names)}."
        )
    return [str(value) if value not in (None, "") else None for value in table.column(column).to_pylist()]


def numbered(labels: list[str | None]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Class names to numbers in alphabetical order: (N,) int64 with -1 for no class, and the names."""
    names = tuple(sorted({label for label in labels if label is not None}))
    number = {name: index for index, name in enumerate(names)}
    return np.array([-1 if label is None else number[label] for label in labels], np.int64), names
