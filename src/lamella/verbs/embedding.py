"""The job of `embed`: one slide's tiles become its feature file, in this process or on a worker."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from lamella.data.tiles import TileBatches
from lamella.engine.world import DeviceName, PrecisionName, choose_device, choose_precision
from lamella.errors import CheckpointError, SlideError
from lamella.formats.h5 import read_features, read_skipped
from lamella.models.encoders import Encoder
from lamella.models.hub import load_encoder
from lamella.slides.grid import GridSettings, tile_grid
from lamella.slides.index import IndexedSlide
from lamella.verbs.tile_features import is_embedded, write_slide
from lamella.view.maps import TileFeatures, draw_feature_map, pca_colours

_LEAST_TILES = 3  # a colour has three components


@dataclass(frozen=True)
class EmbeddedSlide:
    """What became of the tiles of one slide."""

    tiles: int
    """Embedded."""
    skipped: tuple[dict[str, Any], ...] = ()
    """x_px0, y_px0 and error of those left out because they cannot be decoded."""
    no_map: str = ""
    """Why no map could be drawn of it, if so."""


@dataclass(frozen=True)
class EmbedSlide:
    """What to do with each slide. It travels to workers without the encoder's weights, which each process loads once.

    Attributes:
        model: What `load_encoder` takes.
        fingerprint: The encoder that it must give, on every machine.
        folder: Where the feature files go, as every worker sees it.
        encoder: The loaded encoder, in the process that loaded it.
    """

    model: str
    fingerprint: str
    folder: Path
    mpp: float
    tile_px: int
    grid: GridSettings
    half: bool
    batch_size: int
    threads: int
    device: DeviceName
    maps: bool
    dct_scaling: bool = False
    skip_unreadable: bool = False
    precision: PrecisionName = "fp32"
    encoder: Encoder | None = None

    def __call__(self, item: tuple[IndexedSlide, pa.Table | None]) -> EmbeddedSlide:
        """Embed one slide, unless that was done before, and draw its map.

        Raises:
            OutputConflictError: The folder holds features of other tiles or another encoder.
            CheckpointError: The model is another one on this machine.
            SlideError: The slide cannot be read.
            StorageError: The disk refused a write.
        """
        slide, given = item
        table, path = self.table(slide, given), self.folder / f"{slide.slide_id}.h5"
        encoder, device = self._encoder()
        if not is_embedded(path, slide, table, encoder):
            self._write(path, slide, table, encoder, device, 0 if given is not None else self._overlap_px)
        skipped = read_skipped(path)
        tiles = table.num_rows - len(skipped)
        no_map = ""
        try:
            if self.maps and tiles >= _LEAST_TILES:
                _draw_map(slide, path, self.folder / "maps" / f"{slide.slide_id}.png")
        except SlideError as error:
            if not skipped:
                raise
            no_map = str(error)  # a tile that was left out is in the way of the slide's small picture, too
        return EmbeddedSlide(tiles, tuple(skipped), no_map)

    def _write(
        self,
        path: Path,
        slide: IndexedSlide,
        table: pa.Table,
        encoder: Encoder,
        device: torch.device,
        overlap_px: int,
    ) -> None:
        batches = TileBatches(
            {slide.slide_id: slide},
            table,
            batch_size=self.batch_size,
            threads=self.threads,
            dct_scaling=self.dct_scaling,
            pinned=device.type == "cuda",
            skip_unreadable=self.skip_unreadable,
        )
        write_slide(
            path,
            slide,
            table,
            batches,
            encoder,
            device=device,
            overlap_px=overlap_px,
            half=self.half,
            precision=choose_precision(device, self.precision)[0],
        )

    @property
    def _overlap_px(self) -> int:
        return round(self.tile_px * self.grid.overlap)

    def table(self, slide: IndexedSlide, given: pa.Table | None) -> pa.Table:
        """The user's tiles, or a grid."""
        return tile_grid(slide, self.mpp, self.tile_px, self.grid) if given is None else given

    def _encoder(self) -> tuple[Encoder, torch.device]:
        if self.encoder is not None:
            return self.encoder, choose_device(self.device)[0]
        return _loaded(self.model, self.fingerprint, self.device)

    def __reduce__(self) -> tuple[Any, ...]:
        sent = replace(self, encoder=None)
        return EmbedSlide, tuple(getattr(sent, field.name) for field in fields(sent))


@lru_cache(maxsize=1)
def _loaded(model: str, fingerprint: str, name: DeviceName) -> tuple[Encoder, torch.device]:
    encoder, (device, _) = load_encoder(model), choose_device(name)
    if encoder.fingerprint != fingerprint:
        raise CheckpointError(
            f"model {model}", "a worker loads other weights than this machine", "Give every machine the same files."
        )
    encoder.to(device)
    return encoder, device


def _draw_map(slide: IndexedSlide, features: Path, picture: Path) -> None:
    """The slide beside its tiles in the first three components of its own features, unless it was drawn since."""
    if picture.exists() and picture.stat().st_mtime_ns >= features.stat().st_mtime_ns:
        return
    stored = read_features(features)
    tiles = TileFeatures(slide, stored.coords_px0, float(stored.attributes["patch_size_level0"]), stored.features)
    (colours,) = pca_colours([stored.features])
    draw_feature_map(tiles, colours, picture)
