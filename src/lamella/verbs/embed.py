"""`lamella embed MODEL INDEX -o features`: tile features, one HDF5 file per slide in TRIDENT's layout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import Field

from lamella.config import Request, Resolved, Settings
from lamella.data.tiles import TileBatches
from lamella.engine.rundir import claim
from lamella.engine.world import DeviceName, choose_device
from lamella.errors import LamellaError, SlideError
from lamella.formats.h5 import read_features
from lamella.formats.tables import write_csv
from lamella.models.encoders import Encoder
from lamella.models.hub import load_encoder
from lamella.slides.grid import GridSettings, read_tile_table, tile_grid
from lamella.slides.index import IndexedSlide, SlideIndex
from lamella.verbs.progress import progress
from lamella.verbs.tile_features import is_embedded, tile_size, tiles_digest, write_slide
from lamella.view.maps import TileFeatures, draw_feature_map, pca_colours

_IGNORED = ("batch_size", "threads", "device", "maps")  # they change speed, memory and pictures, not results
FAILED = "failed.csv"
_LEAST_TILES = 3  # a colour has three components


class Config(Settings):
    """Settings of `lamella embed`."""

    mpp: Annotated[float, Field(gt=0)] | None = None
    """Micrometres per pixel of the tiles; the model's own unless given."""
    tile_px: Annotated[int, Field(ge=1)] | None = None
    """Side of a tile in pixels; the model's own unless given."""
    grid: GridSettings = GridSettings()
    """Where the tiles are, unless `tiles` is given."""
    tiles: Path | None = None
    """CSV or Parquet with slide_id, x_px0, y_px0 (and fov_um, mpp): these tiles, in this order, instead of a grid."""
    half: bool = False
    """Store features with 16 instead of 32 bits."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Tiles encoded at once."""
    threads: Annotated[int, Field(ge=1)] = 2
    """Tiles read at once."""
    device: DeviceName = "auto"
    """Where the encoder runs."""
    maps: bool = True
    """Also draw, for each slide, its tiles in the colours of their features: maps/<slide_id>.png."""


@dataclass(frozen=True)
class _Work:
    """What is embedded with what."""

    encoder: Encoder
    slides: tuple[IndexedSlide, ...]
    config: Config
    mpp: float
    tile_px: int
    given: Mapping[str, pa.Table] | None
    """slide_id -> the user's tiles."""

    def table(self, slide: IndexedSlide) -> pa.Table:
        if self.given is not None:
            return self.given[slide.slide_id]
        return tile_grid(slide, self.mpp, self.tile_px, self.config.grid)


def run(request: Request) -> int:
    """Embed every slide of the index; a slide that fails is listed in failed.csv and the others go on."""
    resolved = request.resolve(Config)
    model, index_folder = model_and_index(request)
    work = _work(load_encoder(model), SlideIndex.load(index_folder), resolved.config)
    device, reason = choose_device(resolved.config.device)
    if request.dry_run:
        return _dry_run(work, resolved, reason)
    out = request.folder()
    inputs = {"encoder_fingerprint": work.encoder.fingerprint}
    if work.given is not None:
        inputs["tiles"] = {slide_id: tiles_digest(table) for slide_id, table in work.given.items()}
    claim(out, resolved.tree(), resolved.origins, verb="embed", ignore=_IGNORED, inputs=inputs)
    print(f"embed with {work.encoder.name} on {device.type} ({reason}): {work.tile_px} px at {work.mpp:g} um per pixel")
    work.encoder.to(device)
    counts, failed = _embed_all(work, out, device)
    record_failures(out, failed)
    _say(out, counts, failed, index_folder, model)
    return 1 if failed else 0


def model_and_index(request: Request) -> tuple[str, Path]:
    """The two paths that embed and evaluate take.

    Raises:
        LamellaError: There are not two.
    """
    if len(request.paths) != 2:
        raise LamellaError(
            f"lamella {request.verb}",
            f"it takes a model and an index folder, {len(request.paths)} path(s) given",
            f"For example: lamella {request.verb} runs/first/model index -o out.",
        )
    return str(request.paths[0]), request.paths[1]


def record_failures(folder: Path, failed: list[dict[str, str]]) -> None:
    """Write failed.csv, or remove the one of an earlier run when nothing failed any more."""
    if failed:
        write_csv(folder / FAILED, failed, ["slide_id", "path", "error"])
    else:
        (folder / FAILED).unlink(missing_ok=True)


def failure(slide: IndexedSlide, error: Exception) -> dict[str, str]:
    """A row of failed.csv."""
    return {"slide_id": slide.slide_id, "path": str(slide.wsi_path), "error": str(error)}


def given_tiles(path: Path, slides: Iterable[IndexedSlide], *, mpp: float, tile_px: int) -> dict[str, pa.Table]:
    """A user's tile table, split by slide; rows keep their order.

    Raises:
        LamellaError: The table is wrong, or names slides that are not among `slides`.
    """
    table = read_tile_table(path, mpp=mpp, tile_px=tile_px)
    known = {slide.slide_id for slide in slides}
    ids = list(dict.fromkeys(table.column("slide_id").to_pylist()))
    unknown = [str(slide_id) for slide_id in ids if slide_id not in known]
    if unknown:
        raise LamellaError(
            path,
            f"it names {len(unknown)} slide(s) that the index does not have ({', '.join(unknown[:3])})",
            "Index these slides too, or remove their rows.",
        )
    return {slide_id: table.filter(pc.equal(table.column("slide_id"), slide_id)) for slide_id in ids}


def _work(encoder: Encoder, index: SlideIndex, config: Config) -> _Work:
    mpp, tile_px = tile_size(encoder.contract, config.mpp, config.tile_px)
    given = given_tiles(config.tiles, index, mpp=mpp, tile_px=tile_px) if config.tiles else None
    slides = tuple(slide for slide in index if given is None or slide.slide_id in given)
    return _Work(encoder, slides, config, mpp, tile_px, given)


def _embed_all(work: _Work, folder: Path, device: torch.device) -> tuple[dict[str, int], list[dict[str, str]]]:
    """Tiles of each finished slide, and the rows of failed.csv."""
    counts: dict[str, int] = {}
    failed: list[dict[str, str]] = []
    for slide in progress(work.slides, "embed"):
        try:
            path = folder / f"{slide.slide_id}.h5"
            counts[slide.slide_id] = _embed_slide(work, slide, path, device)
            if work.config.maps and counts[slide.slide_id] >= _LEAST_TILES:
                _draw_map(slide, path, folder / "maps" / f"{slide.slide_id}.png")
        except (SlideError, OSError) as error:
            failed.append(failure(slide, error))
            print(f"{slide.slide_id} failed: {error}")
    return counts, failed


def _embed_slide(work: _Work, slide: IndexedSlide, path: Path, device: torch.device) -> int:
    config, table = work.config, work.table(slide)
    if not is_embedded(path, slide, table, work.encoder):
        batches = TileBatches(
            {slide.slide_id: slide}, table, batch_size=config.batch_size, threads=config.threads
        )  # fmt: skip
        overlap_px = 0 if work.given is not None else round(work.tile_px * config.grid.overlap)
        write_slide(
            path, slide, table, batches, work.encoder, device=device, overlap_px=overlap_px, half=config.half
        )  # fmt: skip
    return table.num_rows


def _draw_map(slide: IndexedSlide, features: Path, picture: Path) -> None:
    """The slide beside its tiles in the first three components of its own features, unless it was drawn since."""
    if picture.exists() and picture.stat().st_mtime_ns >= features.stat().st_mtime_ns:
        return
    stored = read_features(features)
    tiles = TileFeatures(slide, stored.coords_px0, float(stored.attributes["patch_size_level0"]), stored.features)
    (colours,) = pca_colours([stored.features])
    draw_feature_map(tiles, colours, picture)


def _dry_run(work: _Work, resolved: Resolved[Config], reason: str) -> int:
    print(resolved.text())
    counts = {slide.slide_id: work.table(slide).num_rows for slide in work.slides}
    for slide_id, count in counts.items():
        print(f"{slide_id}: {count} tiles")
    print(
        f"would embed {sum(counts.values())} tiles of {len(counts)} slides, {work.tile_px} px at {work.mpp:g} um per "
        f"pixel, with {work.encoder.name} ({work.encoder.contract.dim} numbers each); {reason}"
    )
    return 0


def _say(folder: Path, counts: dict[str, int], failed: list[dict[str, str]], index: Path, model: str) -> None:
    print(f"wrote {sum(counts.values())} tiles of {len(counts)} slides to {folder} (<slide_id>.h5)")
    if (folder / "maps").exists():
        print(f"look at {folder / 'maps'}: tiles whose features are alike have like colours")
    empty = [slide_id for slide_id, count in counts.items() if count == 0]
    if empty:
        print(f"no tile holds enough tissue (grid.min_tissue_fraction) on: {', '.join(empty)}; their files are empty")
    if failed:
        print(f"slides that failed: {len(failed)}, see {folder / FAILED}. The same command tries them again.")
    print(f"next: lamella evaluate {model} {index} -o results")
