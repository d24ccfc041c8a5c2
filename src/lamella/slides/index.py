"""The slide index: each usable slide with its pixel size, its levels and its tissue mask.

A folder with `slides.parquet` (this is what is read back), the report, the source project's JSON lines and the masks
that were computed. Paths in it are relative to the folder, so that index and slides can be moved together.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from lamella.errors import LamellaError, MaskMismatchError
from lamella.formats.tables import parquet_metadata, read_parquet, write_parquet
from lamella.geometry import Frame
from lamella.slides.masks import is_tissue, read_mask
from lamella.slides.slide import Slide, open_slide
from lamella.slides.tissue_map import TissueMap

INDEX_FILE = "slides.parquet"

_SCHEMA = pa.schema(
    [
        ("slide_id", pa.string()),
        ("wsi_path", pa.string()),
        ("mask_path", pa.string()),
        ("mask_computed", pa.bool_()),
        ("reader", pa.string()),
        ("width_px0", pa.int64()),
        ("height_px0", pa.int64()),
        ("mpp_x", pa.float64()),
        ("mpp_y", pa.float64()),
        ("mpp_origin", pa.string()),
        ("level_widths_px", pa.list_(pa.int64())),
        ("level_heights_px", pa.list_(pa.int64())),
        ("mask_width_px", pa.int64()),
        ("mask_height_px", pa.int64()),
        ("mask_mpp_x", pa.float64()),
        ("mask_mpp_y", pa.float64()),
        ("mask_values", pa.list_(pa.int64())),
        ("tissue_area_mm2", pa.float64()),
        ("tissue_fraction", pa.float64()),
        ("source_hash", pa.string()),
    ]
)
OWN_COLUMNS = frozenset(_SCHEMA.names)


@dataclass(frozen=True)
class IndexedSlide:
    """One usable slide of an index."""

    slide_id: str
    wsi_path: Path
    mask_path: Path
    frame: Frame
    """Level 0."""
    mask_frame: Frame
    """The mask laid over the slide."""
    mask_values: tuple[int, ...] = ()
    """Which values of the mask are tissue; empty means every value but 0."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """The manifest's further columns; a value of a column that ends in `_path` is an absolute path."""
    mask_computed: bool = False
    reader: str = ""
    mpp_origin: str = ""
    """Where the micrometres per pixel came from: `stated`, or a property of the file."""
    level_sizes_px: tuple[tuple[int, int], ...] = ()
    tissue_area_mm2: float = math.nan
    tissue_fraction: float = math.nan
    source_hash: str = ""
    """Changes when the slide, its given mask or its manifest row change."""

    @property
    def mpp_stated(self) -> tuple[float, float]:
        """(x, y) micrometres per pixel as indexed; handed to the reader, so that nothing is decided twice."""
        return self.frame.mpp_x, self.frame.mpp_y

    @property
    def levels(self) -> tuple[Frame, ...]:
        """The pyramid, level 0 first; downsamples are exact, never rounded."""
        return tuple(self.frame.resized(*size) for size in self.level_sizes_px)

    def open(self) -> Slide:
        """Open the slide with the indexed pixel size.

        Raises:
            SlideError: The file is gone or cannot be read.
        """
        return open_slide(self.wsi_path, mpp=self.mpp_stated)

    def tissue(self) -> TissueMap:
        """Read the mask. Each call reads it anew: keep the result.

        Raises:
            MaskMismatchError: The mask is gone, cannot be read or was replaced by one of another size.
        """
        values = read_mask(self.mask_path)
        if values.shape != (self.mask_frame.height_px, self.mask_frame.width_px):
            raise MaskMismatchError(
                self.mask_path,
                f"the mask has {values.shape[1]} x {values.shape[0]} pixels, but {self.mask_frame.width_px} x "
                f"{self.mask_frame.height_px} when it was indexed",
                "Run `lamella index` again, into a new folder.",
            )
        return TissueMap(is_tissue(values, self.mask_values), self.mask_frame)


@dataclass(frozen=True)
class SlideIndex:
    """The usable slides of an index folder, in the manifest's order."""

    folder: Path
    slides: tuple[IndexedSlide, ...]
    tree: Mapping[str, Any] = field(default_factory=dict)
    """The settings that made it."""

    @classmethod
    def load(cls, folder: Path | str) -> SlideIndex:
        """Read an index folder; slide files are not opened.

        Raises:
            LamellaError: The folder is no index, is damaged, or has no usable slide.
        """
        folder = Path(folder)
        file = folder / INDEX_FILE
        if not file.is_file():
            raise LamellaError(
                folder, f"it is not a slide index (no {INDEX_FILE})", "Make one with `lamella index SLIDES -o FOLDER`."
            )
        slides = read_slides(folder)
        if not slides:
            raise LamellaError(
                folder, "the index has no usable slide", "failed.csv in it lists why; mend that and index again."
            )
        return cls(folder, slides, json.loads(parquet_metadata(file).get("settings", "{}")))

    def __len__(self) -> int:
        return len(self.slides)

    def __iter__(self) -> Iterator[IndexedSlide]:
        return iter(self.slides)

    def __getitem__(self, slide_id: str) -> IndexedSlide:
        """The slide of that name.

        Raises:
            LamellaError: There is none.
        """
        if slide_id not in self._by_id:
            raise LamellaError(
                f"slide {slide_id}", f"the index {self.folder} lacks it", "Index it, or correct the name."
            )
        return self._by_id[slide_id]

    def __contains__(self, slide_id: object) -> bool:
        return slide_id in self._by_id

    @cached_property
    def _by_id(self) -> dict[str, IndexedSlide]:
        return {slide.slide_id: slide for slide in self.slides}


def write_slides(folder: Path, slides: Sequence[IndexedSlide], tree: Mapping[str, Any]) -> None:
    """Write `slides.parquet`."""
    records = [to_record(slide, folder) for slide in slides]
    columns = {name: pa.array([record[name] for record in records], _SCHEMA.field(name).type) for name in _SCHEMA.names}
    for name in dict.fromkeys(key for slide in slides for key in slide.metadata):
        columns[name] = pa.array([record["metadata"].get(name) for record in records], pa.string())
    write_parquet(folder / INDEX_FILE, columns, {"settings": json.dumps(dict(tree), sort_keys=True)})


def read_slides(folder: Path) -> tuple[IndexedSlide, ...]:
    """Read `slides.parquet`, which may hold no slide at all.

    Raises:
        LamellaError: It is missing or damaged.
    """
    table = read_parquet(folder / INDEX_FILE)
    missing = OWN_COLUMNS - set(table.column_names)
    if missing:
        raise LamellaError(
            folder / INDEX_FILE, f"it lacks {', '.join(sorted(missing))}", "Index the slides again, into a new folder."
        )
    records = []
    for row in table.to_pylist():
        metadata = {key: value for key, value in row.items() if key not in OWN_COLUMNS and value is not None}
        records.append({**{key: row[key] for key in OWN_COLUMNS}, "metadata": metadata})
    return tuple(from_record(record, folder) for record in records)


def to_record(slide: IndexedSlide, folder: Path) -> dict[str, Any]:
    """A slide as plain values, its paths relative to the index folder."""
    return {
        "slide_id": slide.slide_id,
        "wsi_path": relative_path(slide.wsi_path, folder),
        "mask_path": relative_path(slide.mask_path, folder),
        "mask_computed": slide.mask_computed,
        "reader": slide.reader,
        "width_px0": slide.frame.width_px,
        "height_px0": slide.frame.height_px,
        "mpp_x": slide.frame.mpp_x,
        "mpp_y": slide.frame.mpp_y,
        "mpp_origin": slide.mpp_origin,
        "level_widths_px": [width for width, _ in slide.level_sizes_px],
        "level_heights_px": [height for _, height in slide.level_sizes_px],
        "mask_width_px": slide.mask_frame.width_px,
        "mask_height_px": slide.mask_frame.height_px,
        "mask_mpp_x": slide.mask_frame.mpp_x,
        "mask_mpp_y": slide.mask_frame.mpp_y,
        "mask_values": list(slide.mask_values),
        "tissue_area_mm2": slide.tissue_area_mm2,
        "tissue_fraction": slide.tissue_fraction,
        "source_hash": slide.source_hash,
        "metadata": relative_metadata(slide.metadata, folder),
    }


def from_record(record: Mapping[str, Any], folder: Path) -> IndexedSlide:
    """The opposite of `to_record`."""
    return IndexedSlide(
        slide_id=record["slide_id"],
        wsi_path=absolute_path(record["wsi_path"], folder),
        mask_path=absolute_path(record["mask_path"], folder),
        frame=Frame(record["width_px0"], record["height_px0"], record["mpp_x"], record["mpp_y"]),
        mask_frame=Frame(record["mask_width_px"], record["mask_height_px"], record["mask_mpp_x"], record["mask_mpp_y"]),
        mask_values=tuple(record["mask_values"]),
        metadata={
            key: str(absolute_path(value, folder)) if key.endswith("_path") else value
            for key, value in record["metadata"].items()
        },
        mask_computed=record["mask_computed"],
        reader=record["reader"],
        mpp_origin=record["mpp_origin"],
        level_sizes_px=tuple(zip(record["level_widths_px"], record["level_heights_px"], strict=True)),
        tissue_area_mm2=record["tissue_area_mm2"],
        tissue_fraction=record["tissue_fraction"],
        source_hash=record["source_hash"],
    )


def relative_metadata(metadata: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Metadata as stored: values of columns that end in `_path` from `folder`."""
    return {
        key: relative_path(Path(value), folder) if key.endswith("_path") else value for key, value in metadata.items()
    }


def relative_path(path: Path, folder: Path) -> str:
    """`path` from `folder`, with forward slashes.

    Folders are resolved, because `..` leads elsewhere behind a symbolic link; a file that is itself a link stays one.
    """
    return Path(os.path.relpath(path.parent.resolve() / path.name, folder.resolve())).as_posix()


def absolute_path(relative: str, folder: Path) -> Path:
    """The opposite of `relative_path`."""
    return Path(os.path.normpath(folder.resolve() / relative))
