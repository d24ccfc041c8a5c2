"""The tiles that `evaluate` judges: placed, labelled, drawn and embedded, slide by slide."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from lamella.data.labels import MASK_COLUMN, LabelSettings, label_source, mask_labels, table_labels
from lamella.data.tiles import TileBatches
from lamella.errors import SlideError
from lamella.formats.h5 import read_features
from lamella.models.encoders import Encoder
from lamella.slides.grid import GridSettings, tile_boxes_um, tile_grid
from lamella.slides.index import IndexedSlide
from lamella.slides.tile_files import read_tiles
from lamella.verbs.progress import progress
from lamella.verbs.slide_jobs import failure
from lamella.verbs.tile_features import is_embedded, write_slide

Failures = list[dict[str, str]]


@dataclass(frozen=True)
class JudgedSlide:
    """The drawn tiles of one slide and their classes, in the table's order."""

    slide: IndexedSlide
    table: pa.Table
    labels: list[str | None]


@dataclass(frozen=True)
class TileChoice:
    """How tiles are placed, labelled and drawn."""

    labels: LabelSettings
    grid: GridSettings
    mpp: float
    tile_px: int
    per_slide: int
    seed: int


def choose_tiles(slides: Sequence[IndexedSlide], choice: TileChoice) -> tuple[list[JudgedSlide], Failures, str]:
    """Place, label and draw the tiles of every slide.

    Returns:
        The slides with their tiles, the slides that failed, and a sentence on where the classes come from.

    Raises:
        LamellaError: The wished labels are not there.
    """
    source = label_source(choice.labels, {slide.slide_id: slide.metadata for slide in slides})
    given: Mapping[str, pa.Table] = {}
    if source == "table":
        given = read_tiles(choice.labels.table, slides, mpp=choice.mpp, tile_px=choice.tile_px)
        slides = [slide for slide in slides if slide.slide_id in given]
    column = choice.labels.column or "label"
    label: dict[str, Callable[[IndexedSlide, pa.Table], list[str | None]]] = {
        "mask": lambda slide, table: _from_mask(slide, table, choice.labels),
        "table": lambda slide, table: table_labels(table, column, choice.labels.table),
        "manifest": lambda slide, table: [slide.metadata.get(column) or None] * table.num_rows,
        "none": lambda slide, table: [None] * table.num_rows,
    }
    judged, failed = [], []
    for slide in progress(slides, "tiles"):
        try:
            table = given.get(slide.slide_id)
            if table is None:
                table = tile_grid(slide, choice.mpp, choice.tile_px, choice.grid)
            labels = label[source](slide, table)
        except (SlideError, OSError) as error:
            failed.append(failure(slide, error))
            continue
        rows = draw_rows(labels, choice.per_slide, slide.slide_id, choice.seed)
        judged.append(JudgedSlide(slide, table.take(pa.array(rows)), [labels[row] for row in rows]))
    return judged, failed, _source_sentence(source, column, choice.labels)


def draw_rows(labels: Sequence[str | None], count: int, slide_id: str, seed: int) -> np.ndarray:
    """Sorted row numbers of at most `count` tiles: of labelled tiles if there are any, the classes evenly.

    The draw depends on the seed and the slide alone, so that other slides change nothing.
    """
    rng = np.random.default_rng([seed, zlib.crc32(slide_id.encode())])
    classes = sorted({label for label in labels if label is not None})
    by_class = [
        rng.permutation([row for row, label in enumerate(labels) if label == name]) for name in (classes or [None])
    ]
    drawn: list[int] = []
    for rank, rows in enumerate(sorted(by_class, key=len)):  # what a rare class leaves over goes to the others
        drawn.extend(rows[: (count - len(drawn)) // (len(by_class) - rank)].tolist())
    return np.array(sorted(drawn), np.int64)


def embed_judged(
    judged: Sequence[JudgedSlide],
    encoders: Mapping[str, Sequence[Callable[[], Encoder]]],
    folder: Path,
    *,
    device: torch.device,
    batch_size: int,
    threads: int,
) -> tuple[dict[str, tuple[np.ndarray, ...]], list[JudgedSlide], Failures]:
    """Embed all tiles with all encoders, one encoder in memory at a time; what an earlier run embedded is kept.

    Args:
        judged: Slides and their tiles.
        encoders: Name -> makers of its replicates.
        folder: One folder for each of them is made here.
        device: Where the encoders run.
        batch_size: Tiles encoded at once.
        threads: Tiles read at once.

    Returns:
        Name -> replicates, each (N, D) float32 in the order of the slides that could be read; these slides; the rest.
    """
    failed: dict[str, dict[str, str]] = {}
    dims: dict[Path, int] = {}
    for name, makers in encoders.items():
        for place, make in zip(_places(folder, name, len(makers)), makers, strict=True):
            encoder = make()
            encoder.to(device)
            dims[place] = encoder.contract.dim
            for item in progress(judged, f"embed, {name}"):
                try:
                    _embed_slide(item, place, encoder, device, batch_size, threads)
                except (SlideError, OSError) as error:
                    failed.setdefault(item.slide.slide_id, failure(item.slide, error))
    kept = [item for item in judged if item.slide.slide_id not in failed]
    features = {
        name: tuple(_read_all(place, kept, dims[place]) for place in _places(folder, name, len(makers)))
        for name, makers in encoders.items()
    }
    return features, kept, list(failed.values())


def _embed_slide(
    item: JudgedSlide, folder: Path, encoder: Encoder, device: torch.device, batch_size: int, threads: int
) -> None:
    path = folder / f"{item.slide.slide_id}.h5"
    if is_embedded(path, item.slide, item.table, encoder):
        return
    batches = TileBatches({item.slide.slide_id: item.slide}, item.table, batch_size=batch_size, threads=threads)
    write_slide(path, item.slide, item.table, batches, encoder, device=device)


def _places(folder: Path, name: str, replicates: int) -> list[Path]:
    return [folder / slug(f"{name} {i}") for i in range(replicates)]


def _read_all(folder: Path, kept: Sequence[JudgedSlide], dim: int) -> np.ndarray:
    parts = [read_features(folder / f"{item.slide.slide_id}.h5").features for item in kept]
    return np.concatenate([np.zeros((0, dim), np.float32), *parts])


def slug(name: str) -> str:
    """A name as a folder name."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower()


def _from_mask(slide: IndexedSlide, table: pa.Table, settings: LabelSettings) -> list[str | None]:
    path = slide.metadata.get(MASK_COLUMN)
    if not path:
        return [None] * table.num_rows
    return mask_labels(Path(path), slide.frame, tile_boxes_um(table, slide.frame), settings)


def _source_sentence(source: str, column: str, settings: LabelSettings) -> str:
    return {
        "mask": f"label masks ({MASK_COLUMN}), a class covering at least {settings.min_cover:.0%} of a tile",
        "table": f"column {column} of {settings.table}",
        "manifest": f"column {column} of the manifest: one class for all tiles of a slide",
        "none": "none given",
    }[source]
