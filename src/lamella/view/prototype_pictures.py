"""What prototypes look like: the exemplars nearest to each, a page for each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from lamella.data.tiles import Readable, TileBatches
from lamella.models.prototype_clusters import Cluster
from lamella.view.marks import draw_scale_bar
from lamella.view.panels import Cell, sheet, write_sheet

_PICTURE_PX = 224  # glands are seen; six fit beside each other on a screen
_SCALE_BAR_PX = 11


def draw_prototypes(
    slides: Mapping[str, Readable],
    table: pa.Table,
    clusters: Sequence[Cluster],
    folder: Path | str,
    *,
    shown: int,
) -> list[Path]:
    """Draw a page for each class: a row for each cluster, its nearest exemplars first.

    Args:
        slides: Of the exemplars.
        table: The exemplars' tiles.
        clusters: Of all classes.
        folder: Where `<class>.png` are written.
        shown: Exemplars of a cluster.

    Returns:
        The pages' paths.

    Raises:
        SlideError: A tile cannot be read.
        StorageError: The disk refused the write.
    """
    paths = []
    for number, name in enumerate(dict.fromkeys(cluster.name for cluster in clusters)):
        own = [cluster for cluster in clusters if cluster.name == name]
        pictures = _pictures(slides, table, [int(row) for cluster in own for row in cluster.rows[:shown]])
        total = sum(len(cluster.rows) for cluster in own)
        side_um = float(table.column("fov_um")[0].as_py())
        rows = [
            [_cell(pictures[int(row)], table, int(row), cosine, side_um)
             for row, cosine in zip(cluster.rows[:shown], cluster.cosines[:shown], strict=True)]
            for cluster in own
        ]  # fmt: skip
        page = sheet(
            f"{name}: {_counted(sum(cluster.kept for cluster in own), 'prototype')} of {total:,} exemplars",
            [
                "The exemplars nearest to each prototype; the cosine tells how near. Margin: how much nearer its own "
                "exemplars are than the nearest ones of other classes. A prototype that shows other tissue than its "
                "class misleads the training."
            ],
            rows,
            names=[_title(cluster, table, total) for cluster in own],
        )
        path = Path(folder) / f"prototypes_{number}_{_plain(name)}.png"
        write_sheet(page, path)
        paths.append(path)
    return paths


def _pictures(slides: Mapping[str, Readable], table: pa.Table, rows: list[int]) -> dict[int, Image.Image]:
    """Row -> the tile, small; slide by slide, so that each is opened once."""
    names = table.column("slide_id").to_pylist()
    rows = sorted(set(rows), key=lambda row: (names[row], row))
    batches = TileBatches(slides, table.take(pa.array(rows)), batch_size=16)
    tiles = [tile for batch in batches for tile in batch.permute(0, 2, 3, 1).numpy()]
    return {
        row: Image.fromarray(np.ascontiguousarray(tile)).resize((_PICTURE_PX, _PICTURE_PX), Image.Resampling.BICUBIC)
        for row, tile in zip(rows, tiles, strict=True)
    }


def _cell(picture: Image.Image, table: pa.Table, row: int, cosine: float, side_um: float) -> Cell:
    picture = picture.copy()
    draw_scale_bar(picture, side_um / picture.width, _SCALE_BAR_PX)
    return Cell(picture, f"{cosine:.3f}  {table.column('slide_id')[row].as_py()}")


def _title(cluster: Cluster, table: pa.Table, total: int) -> str:
    slides = len(set(table.column("slide_id").take(pa.array(cluster.rows)).to_pylist()))
    left_out = "" if cluster.kept else ", LEFT OUT: most like exemplars of other classes"
    return (
        f"{cluster.title}: {_counted(len(cluster.rows), 'exemplar')} ({len(cluster.rows) / total:.0%}) of "
        f"{_counted(slides, 'slide')}, mean cosine {cluster.cosines.mean():.3f}, margin {cluster.margin:.2f}{left_out}"
    )


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _plain(name: str) -> str:
    """A class's name as part of a file's."""
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name)
