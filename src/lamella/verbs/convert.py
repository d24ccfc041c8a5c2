"""`lamella convert SOURCE -o OUT to=clam`: tiles and features between CLAM, TRIDENT, slide2vec, QuPath and tables."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, cast

import numpy as np
import pyarrow as pa
from pydantic import Field

from lamella.config import Request, Resolved, Settings
from lamella.data.drawn import DrawnSettings
from lamella.engine.rundir import claim
from lamella.errors import LamellaError, MissingExtraError, SlideError, StorageError
from lamella.formats.placed_tiles import PlacedTiles
from lamella.formats.tables import write_csv
from lamella.slides.anchors.catalogue import CATALOGUE_FILE, Catalogue
from lamella.slides.grid import read_tile_table
from lamella.slides.index import IndexedSlide, SlideIndex
from lamella.slides.placing import Stated, from_table, settle, slide_of, slides_by_name, stem
from lamella.slides.tile_files import TABLES, read_tile_file, tables_by_slide, tile_files
from lamella.verbs.annotated.roads import convert_annotations
from lamella.verbs.exports import EXPORTS, Export, Target, to_geojson
from lamella.verbs.expression_conversion import (
    EXPRESSION_TARGETS,
    READERS,
    ExpressionTarget,
    Wanted,
    convert_expression,
    expression_jobs,
    listed_genes,
)
from lamella.verbs.progress import progress

FAILED = "failed.csv"
_SHOWN = 5  # reasons printed; failed.csv has them all
_READERS = {
    "trident": "TRIDENT",
    "clam": "CLAM",
    "slide2vec": "slide2vec",
    "anndata": "anndata, scanpy and squidpy",
    "geojson": "QuPath (drop the file onto the open slide)",
    "parquet": "Lamella, pandas and every Parquet reader",
    "csv": "Lamella and spreadsheets",
}
_NEXT_ANNDATA = "next: anndata.read_h5ad(...), or squidpy.pl.spatial_scatter"


class Config(Settings):
    """Settings of `lamella convert`."""

    to: Target | ExpressionTarget | Literal["masks"] | None = None
    """What to write; must be given. Of measured expression: expression (AnnData), spatialdata, or patches (labels cut
    into tiles of 128 x 128 bins, and pictures of them). Of annotations of `lamella view`: masks (images, masks and a
    manifest for `lamella adapt`)."""
    mpp: Annotated[float, Field(gt=0)] | None = None
    """Micrometres per pixel at which tiles are read, for files that do not say it; of masks: of the images, null takes
    the slide's own."""
    tile_px: Annotated[int, Field(ge=1)] | None = None
    """Side of a tile in pixels, for files that do not say it."""
    place: Literal["corner", "centre"] | None = None
    """What a bare (N, 2) array holds: the top-left corners of tiles, or their centres."""
    gzip: bool = False
    """Write .geojson.gz, a tenth of the size; QuPath 0.5 opens them only when they are unpacked."""
    bin_um: Annotated[float, Field(gt=0)] | None = None
    """Of expression: side of the bins; null: the finest of the source. Coarser bins are sums."""
    genes: Path | tuple[str, ...] | None = None
    """Of expression: these genes, or those of a text file with one name a line; null: all."""
    scales_um: tuple[Annotated[float, Field(gt=0)], ...] = (2.0, 8.0, 32.0, 128.0)
    """Of patches: micrometres per pixel of the pictures."""
    masks: DrawnSettings = DrawnSettings()
    """Of masks: whose annotations, and how they become images."""


@dataclass(frozen=True)
class _Job:
    """One slide of the source; its tiles are read when its turn comes."""

    path: Path
    name: str
    read: Callable[[], PlacedTiles]


def run(request: Request) -> int:
    """Convert every slide of the source; one that fails is listed in failed.csv and the others go on."""
    resolved = request.resolve(Config)
    config = resolved.config
    if len(request.paths) != 1 or config.to is None:
        raise LamellaError(
            "lamella convert",
            "it takes one file or folder of tiles, and to=...",
            "For example: lamella convert features -o out to=clam. Targets: "
            f"{', '.join((*EXPORTS, *EXPRESSION_TARGETS, 'masks'))}.",
        )
    if config.to in EXPRESSION_TARGETS:
        return _run_expression(request, resolved, config.to)
    if config.to == "masks":
        return convert_annotations(request, resolved, config.masks, config.mpp)
    to = cast("Target", config.to)
    source, index_folder = request.paths[0], request.options.get("index")
    index = None if index_folder is None else SlideIndex.load(index_folder)
    if (source / CATALOGUE_FILE).is_file() and index is None:
        index = Catalogue.load(source).index
    jobs = list(_jobs(source, index, config))
    if request.dry_run:
        return _dry_run(jobs, resolved)
    out = request.folder()
    inputs = {"source": _relative(source, out), "index": None if index is None else _relative(index.folder, out)}
    claimed = claim(out, resolved.tree(), resolved.origins, verb="convert", inputs=inputs)
    packed = partial(to_geojson, suffix=".geojson.gz")
    export = packed if to == "geojson" and config.gzip else EXPORTS[to]
    counts, failed = _convert_all(jobs, claimed.folder, export, index)
    if failed:
        write_csv(out / FAILED, failed, ["slide_id", "path", "error"])
    else:
        (out / FAILED).unlink(missing_ok=True)
    _tell(out, to, counts, failed)
    return 1 if failed else 0


def _run_expression(request: Request, resolved: Resolved[Config], to: ExpressionTarget) -> int:
    """Convert the expression of every slide of the source."""
    config, source = resolved.config, request.paths[0]
    jobs = expression_jobs(source)
    if request.dry_run:
        print(resolved.text())
        print(f"would convert the expression of {len(jobs)} slides to {to}")
        return 0
    wanted = Wanted(to, config.bin_um, listed_genes(config.genes), config.mpp, config.scales_um)
    out = request.folder()
    inputs = {"source": _relative(source, out)}
    claimed = claim(out, resolved.tree(), resolved.origins, verb="convert", inputs=inputs)
    counts, failed = convert_expression(jobs, claimed.folder, wanted)
    if failed:
        write_csv(out / FAILED, failed, ["slide_id", "path", "error"])
    else:
        (out / FAILED).unlink(missing_ok=True)
    for row in failed[:_SHOWN]:
        print(f"{row['slide_id']} failed: {row['error']}")
    print(f"wrote the expression of {sum(counts.values())} places of {len(counts)} slides to {out}, for {READERS[to]}")
    if failed:
        print(f"slides that failed: {len(failed)}, see {out / FAILED}. The same command tries them again.")
    return 1 if failed else 0


def _jobs(source: Path, index: SlideIndex | None, config: Config) -> Iterator[_Job]:
    """The slides of the source."""
    if (source / CATALOGUE_FILE).is_file():
        yield from _anchors(source)
        return
    stated = Stated(config.mpp, config.tile_px, config.place)
    names = None if index is None else slides_by_name(index)
    files = tile_files(source)
    if files[0].suffix.lower() in TABLES and names is None:
        raise LamellaError(source, "tile tables need the index of their slides", "Add --index INDEX.")
    for path in files:
        if path.suffix.lower() not in TABLES:
            yield _Job(path, stem(path), partial(_read_file, path, names, stated))
        elif len(files) > 1:
            yield _Job(path, stem(path), partial(_read_one, path, names or {}, config))
        else:
            for slide, rows in _slides(path, names or {}, config):
                yield _Job(path, slide.slide_id, partial(from_table, path, rows, slide))


def _read_file(path: Path, names: Mapping[str, IndexedSlide] | None, stated: Stated) -> PlacedTiles:
    found = read_tile_file(path)
    if names is None:
        return settle(replace(found, name=stem(path)), None, stated)
    return settle(found, slide_of(found, names), stated)


def _slides(path: Path, names: Mapping[str, IndexedSlide], config: Config) -> Iterator[tuple[IndexedSlide, pa.Table]]:
    return tables_by_slide(path, read_tile_table(path, mpp=config.mpp, tile_px=config.tile_px), names)


def _read_one(path: Path, names: Mapping[str, IndexedSlide], config: Config) -> PlacedTiles:
    """One of many tables, which holds one slide: memory holds one of them."""
    (slide, rows), *more = _slides(path, names, config)
    if more:
        raise SlideError(path, f"it holds {len(more) + 1} slides", "In a folder of tables, give each slide its own.")
    return from_table(path, rows, slide)


def _anchors(folder: Path) -> Iterator[_Job]:
    """The contexts of an anchor catalogue as tiles."""
    catalogue = Catalogue.load(folder)
    for slide_id, _, _ in catalogue.shards:
        yield _Job(folder, slide_id, partial(_contexts, catalogue, catalogue.index[slide_id]))


def _contexts(catalogue: Catalogue, slide: IndexedSlide) -> PlacedTiles:
    columns, sampling = catalogue.slide_anchors(slide.slide_id), catalogue.sampling
    tiles = PlacedTiles(
        catalogue.folder,
        slide.slide_id,
        np.stack([columns["center_x_px0"], columns["center_y_px0"]], axis=1),
        place="centre",
        side_px0=sampling.context_fov_um / slide.frame.mpp,
        tile_px=sampling.context_px,
        columns={"tissue_fraction": columns["tissue_fraction"]},
    )
    return settle(tiles, slide, Stated())


def _convert_all(
    jobs: Sequence[_Job], out: Path, export: Export, index: SlideIndex | None
) -> tuple[dict[str, int], list[dict[str, str]]]:
    """Tiles of each finished slide, and the rows of failed.csv. A rerun leaves files that come out the same alone."""
    counts: dict[str, int] = {}
    failed: list[dict[str, str]] = []
    for job in progress(jobs, "convert"):
        try:
            tiles = job.read()
            if tiles.name in counts:
                raise SlideError(job.path, f"slide {tiles.name} came in another file too", "Keep one of them.")
            export(out, tiles, None if index is None else index[tiles.name])
            counts[tiles.name] = len(tiles)
        except (StorageError, MissingExtraError):  # no slide is at fault: the next would fail too
            raise
        except (LamellaError, OSError) as error:
            failed.append({"slide_id": job.name, "path": str(job.path), "error": str(error)})
    return counts, failed


def _dry_run(jobs: Sequence[_Job], resolved: Resolved[Config]) -> int:
    print(resolved.text())
    total, faults = 0, 0
    for job in jobs:
        try:
            tiles = job.read()
            total += len(tiles)
            kept = f", {tiles.features.dim} numbers each" if tiles.features is not None else ""
            print(f"{job.name}: {len(tiles)} tiles{kept}")
        except (LamellaError, OSError) as error:
            faults += 1
            print(f"{job.name} would fail: {error}")
    print(f"would convert {total} tiles of {len(jobs) - faults} slides to {resolved.config.to}; {faults} would fail")
    return 0


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


def _tell(out: Path, to: Target, counts: dict[str, int], failed: list[dict[str, str]]) -> None:
    for row in failed[:_SHOWN]:
        print(f"{row['slide_id']} failed: {row['error']}")
    print(f"wrote {sum(counts.values())} tiles of {len(counts)} slides to {out}, for {_READERS[to]}")
    if failed:
        print(f"slides that failed: {len(failed)}, see {out / FAILED}. The same command tries them again.")
    print(f"next: lamella embed MODEL INDEX tiles={out} -o features" if to != "anndata" else _NEXT_ANNDATA)
