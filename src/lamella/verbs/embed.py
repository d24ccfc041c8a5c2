"""`lamella embed MODEL INDEX -o features`: tile features, one HDF5 file per slide in TRIDENT's layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import Field

from lamella.config import Request, Resolved, Settings
from lamella.engine.jobs import JobSettings
from lamella.engine.rundir import claim
from lamella.engine.world import DeviceName, PrecisionName, choose_device
from lamella.errors import LamellaError
from lamella.formats.tables import write_csv
from lamella.models.encoders import Encoder
from lamella.models.hub import load_encoder, portable_spec
from lamella.slides.grid import GridSettings
from lamella.slides.index import INDEX_FILE, IndexedSlide, SlideIndex
from lamella.slides.tile_files import read_tiles
from lamella.verbs import embed_collection
from lamella.verbs.embedding import EmbeddedSlide, EmbedSlide
from lamella.verbs.slide_jobs import (
    Selection,
    SlideRunner,
    failure,
    record_failures,
    refuse_unseen,
    say_failed,
    say_shard,
)
from lamella.verbs.tile_features import one_mpp, tile_size, tiles_digest

_IGNORED = ("batch_size", "threads", "device", "maps", "jobs")  # they change speed, memory and pictures, not results


class Config(Settings):
    """Settings of `lamella embed`."""

    mpp: Annotated[float, Field(gt=0)] | None = None
    """Micrometres per pixel of the tiles; the model's own unless given."""
    tile_px: Annotated[int, Field(ge=1)] | None = None
    """Side of a tile in pixels; the model's own unless given."""
    grid: GridSettings = GridSettings()
    """Where the tiles are, unless `tiles` is given."""
    tiles: Path | None = None
    """These tiles, in this order, instead of a grid: CSV or Parquet with slide_id, x_px0, y_px0 (and fov_um, mpp), or a
    file or folder of CLAM, TRIDENT, slide2vec or QuPath."""
    dct_scaling: bool = False
    """Decode JPEG at 1/2 or 1/4 where the tiles are that much coarser than the slide: faster, not the exact average."""
    unreadable_tiles: Literal["fail", "skip"] = "fail"
    """A tile that cannot be decoded: the slide fails, or the tile is left out and listed in skipped.csv."""
    precision: PrecisionName = "fp32"
    """Arithmetic of the encoder. bf16 is faster on a GPU and rounds the features; auto takes it where it is native."""
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
    jobs: JobSettings = JobSettings()
    """Where the slides are done."""


CONFIGS: dict[str, type[Settings]] = {
    "of slides (DATA is the folder of a slide index)": Config,
    "of images (DATA is a data set of 2-D images)": embed_collection.SCHEMAS["image"],
    "of volumes (DATA is a data set of 3-D images)": embed_collection.SCHEMAS["volume"],
    "of films (DATA is a data set of films, or of volumes in time)": embed_collection.SCHEMAS["video"],
}


@dataclass(frozen=True)
class _Work:
    """What is embedded with what."""

    model: str
    encoder: Encoder
    slides: tuple[IndexedSlide, ...]
    config: Config
    mpp: float
    tile_px: int
    given: Mapping[str, pa.Table] | None
    """slide_id -> the user's tiles."""

    def items(self, slide_ids: Sequence[str]) -> list[tuple[IndexedSlide, pa.Table | None]]:
        taken = set(slide_ids)
        return [
            (slide, self.given[slide.slide_id] if self.given is not None else None)
            for slide in self.slides
            if slide.slide_id in taken
        ]

    def job(self, folder: Path) -> EmbedSlide:
        config = self.config
        return EmbedSlide(
            model=portable_spec(self.model),  # workers may stand elsewhere
            fingerprint=self.encoder.fingerprint,
            folder=folder.absolute(),
            mpp=self.mpp,
            tile_px=self.tile_px,
            grid=config.grid,
            half=config.half,
            batch_size=config.batch_size,
            threads=config.threads,
            device=config.device,
            maps=config.maps,
            dct_scaling=config.dct_scaling,
            skip_unreadable=config.unreadable_tiles == "skip",
            precision=config.precision,
            encoder=self.encoder,
        )


def run(request: Request) -> int:
    """Embed every slide, image, volume or film; what fails is listed in failed.csv and the others go on."""
    model, index_folder = model_and_index(request)
    if index_folder.exists() and not (index_folder / INDEX_FILE).is_file():
        return embed_collection.run(request, embed_collection.open_data(request))
    resolved = request.resolve(Config)
    selection = Selection.of(request)
    work = _work(model, SlideIndex.load(index_folder), resolved.config)
    todo = selection.take([slide.slide_id for slide in work.slides], request.out)
    device, reason = choose_device(resolved.config.device)
    if part := selection.describe(len(todo), len(work.slides)):
        print(part)
    if request.dry_run:
        return _dry_run(work, todo, resolved, reason)
    out, encoder, jobs = request.folder(), work.encoder, resolved.config.jobs
    inputs = {"encoder_fingerprint": encoder.fingerprint}
    if work.given is not None:
        inputs["tiles"] = {slide_id: tiles_digest(table) for slide_id, table in work.given.items()}
    tree, shared = resolved.tree(), selection.shard is not None
    claimed = claim(out, tree, resolved.origins, verb="embed", ignore=_IGNORED, inputs=inputs, shared=shared)
    print(f"embed with {encoder.name} on {device.type} ({reason}): {work.tile_px} px at {work.mpp:g} um per pixel")
    if not (jobs.workers or jobs.scheduler):
        encoder.to(device)
    runner = SlideRunner(jobs, "embed", gpus=device.type == "cuda")
    done, failed = _embed_all(work, claimed.folder, todo, runner)
    refuse_unseen([claimed.folder / f"{slide_id}.h5" for slide_id in done], jobs)
    record_failures(out, failed, selection.mark)
    if skipped := _record_skipped(out, done, selection.mark):
        print(f"tiles left out because they cannot be decoded: {skipped}, see {out / f'skipped{selection.mark}.csv'}")
    _say(out, {slide_id: slide.tiles for slide_id, slide in done.items()}, failed, runner, selection)
    if not selection.shard:
        print(f"next: lamella evaluate {model} {index_folder} -o results")
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


def _work(model: str, index: SlideIndex, config: Config) -> _Work:
    encoder = load_encoder(model)
    mpp, tile_px = tile_size(encoder.contract, config.mpp, config.tile_px)
    given = read_tiles(config.tiles, index, mpp=mpp, tile_px=tile_px) if config.tiles else None
    for slide_id, table in (given or {}).items():
        if table.num_rows:
            one_mpp(table, slide_id)  # refuses several
    slides = tuple(slide for slide in index if given is None or slide.slide_id in given)
    return _Work(model, encoder, slides, config, mpp, tile_px, given)


def _embed_all(
    work: _Work, folder: Path, todo: Sequence[str], runner: SlideRunner
) -> tuple[dict[str, EmbeddedSlide], list[dict[str, str]]]:
    """What was embedded of each finished slide, and the rows of failed.csv, both in the index's order."""
    items = work.items(todo)
    done: dict[int, EmbeddedSlide] = {}
    errors: dict[int, str] = {}
    for number, slide, error in runner(work.job(folder), items):
        if error:
            errors[number] = error
            print(f"{items[number][0].slide_id} failed: {error}")
        else:
            done[number] = slide
            if slide.no_map:
                print(f"{items[number][0].slide_id}: no map of it: {slide.no_map}")
    embedded = {items[number][0].slide_id: done[number] for number in sorted(done)}
    return embedded, [failure(items[number][0], errors[number]) for number in sorted(errors)]


def _record_skipped(folder: Path, done: Mapping[str, EmbeddedSlide], mark: str) -> int:
    """Write skipped.csv, or remove that of an earlier run; how many tiles it lists."""
    rows: list[dict[str, Any]] = [{"slide_id": name, **tile} for name, slide in done.items() for tile in slide.skipped]
    path = folder / f"skipped{mark}.csv"
    if rows:
        write_csv(path, rows, ["slide_id", "x_px0", "y_px0", "error"])
    else:
        path.unlink(missing_ok=True)
    return len(rows)


def _dry_run(work: _Work, todo: Sequence[str], resolved: Resolved[Config], reason: str) -> int:
    print(resolved.text())
    job = work.job(Path())
    counts = {slide.slide_id: job.table(slide, given).num_rows for slide, given in work.items(todo)}
    for slide_id, count in counts.items():
        print(f"{slide_id}: {count} tiles")
    print(
        f"would embed {sum(counts.values())} tiles of {len(counts)} slides, {work.tile_px} px at {work.mpp:g} um per "
        f"pixel, with {work.encoder.name} ({work.encoder.contract.dim} numbers each); {reason}"
    )
    return 0


def _say(
    folder: Path, counts: dict[str, int], failed: list[dict[str, str]], runner: SlideRunner, selection: Selection
) -> None:
    print(f"wrote {sum(counts.values())} tiles of {len(counts)} slides to {folder} (<slide_id>.h5)")
    if (folder / "maps").exists():
        print(f"look at {folder / 'maps'}: tiles whose features are alike have like colours")
    empty = [slide_id for slide_id, count in counts.items() if count == 0]
    if empty:
        print(f"no tile holds enough tissue (grid.min_tissue_fraction) on: {', '.join(empty)}; their files are empty")
    print(f"slides: {len(counts)} ok, {len(failed)} failed")
    log = runner.write_traces(folder, selection.mark)
    if failed:
        say_failed(folder, selection.mark, log)
    if selection.shard:
        say_shard(selection)
