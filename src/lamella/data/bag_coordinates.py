"""Coordinates that a user brings for a study: which file belongs to which slide, and where its tiles lie.

A file belongs to a slide by its name or by what it says inside; where both speak they must agree. Tiles must be as
large as the study's, and lie on the slide. A bare list of places does not say whether they are corners or centres: the
user does.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from lamella.data.bag_slides import Named, OpenedSlide, SlideNames
from lamella.errors import DatasetError, LamellaError, SlideError
from lamella.formats.named_tiles import NamedTiles, load_array, named_tiles
from lamella.formats.placed_tiles import PlacedTiles, checked_places
from lamella.slides.grid import read_tile_table, tile_corners_px0
from lamella.slides.placing import Stated, check_inside, settle, stem
from lamella.slides.tile_files import TABLES, read_tile_file, tile_files

Place = Literal["corner", "centre"]

_TEXT = ".txt"
_TABLE_LABEL = "label"
# Sides that differ by this share are one size: `tile_size_lv0` is rounded to whole pixels, and micrometres per pixel to
# a few digits (40x against 0.2528). Sizes that are really different differ by a tenth and more.
_SAME_SIDE = 0.02


@dataclass(frozen=True)
class SlideTiles:
    """Tiles of one slide. Shapes: N tiles, C classes."""

    corners_px0: np.ndarray
    """(N, 2) float64."""
    tile_labels: np.ndarray | None = None
    """(N, C) uint8."""


@dataclass(frozen=True)
class TileSize:
    """What the study's tiles are."""

    mpp: float
    tile_px: int
    place: Place | None
    """Of bare coordinates."""

    @property
    def fov_um(self) -> float:
        return self.mpp * self.tile_px


@dataclass
class Coordinates:
    """The tiles of a study's slides, as files give them.

    Attributes:
        tiles: slide_id -> tiles.
        problems: What is wrong, a line each.
        strange: Files and names that belong to no slide of the study.
    """

    tiles: dict[str, SlideTiles] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)


def read_coordinates(
    path: Path, slides: Sequence[OpenedSlide], names: SlideNames[Named], classes: Sequence[str], size: TileSize
) -> Coordinates:
    """Read a file or folder of coordinates for the slides of a study.

    Args:
        path: A tile table, a file of one slide or of several (slide2vec's fields with `wsi_name`), or a folder of them.
        slides: The study's, opened.
        names: Of all slides that were listed, so that a file of a slide that the study leaves out is known as such.
        classes: Columns of these names in tile tables are labels of the tiles.
        size: Of the study's tiles.

    Returns:
        What was found; nothing is raised for a single bad file, so that all are told at once.

    Raises:
        LamellaError: The path does not exist or holds no coordinates.
    """
    reading = _Reading({slide.slide_id: slide for slide in slides}, names, tuple(classes), size, path.is_dir())
    for file in coordinate_files(path):
        try:
            for slide_id, tiles in reading.tiles_of(file):
                if slide_id in reading.found.tiles:
                    raise DatasetError(file, f"slide {slide_id} stands in another file too", "Keep one file per slide.")
                reading.found.tiles[slide_id] = tiles
        except LamellaError as error:
            reading.found.problems.append(str(error))
    return reading.found


def coordinate_files(path: Path) -> list[Path]:
    """The files of a folder, or the one file.

    Raises:
        LamellaError: There is none, or the folder holds several kinds.
    """
    texts = sorted(path.glob(f"*{_TEXT}")) if path.is_dir() else []
    if not texts:
        return tile_files(path)
    others = [file.name for file in path.iterdir() if file.suffix.lower() in (".npy", ".h5", *TABLES)]
    if others:
        raise DatasetError(path, f"it holds several kinds of coordinates ({texts[0].name}, {others[0]})", "Keep one.")
    return texts


@dataclass
class _Reading:
    """The reading of one path."""

    slides: dict[str, OpenedSlide]
    names: SlideNames[Named]
    classes: tuple[str, ...]
    size: TileSize
    in_folder: bool
    found: Coordinates = field(default_factory=Coordinates)

    def tiles_of(self, file: Path) -> Iterator[tuple[str, SlideTiles]]:
        """(slide_id, tiles) of a file."""
        if file.suffix.lower() in TABLES:
            yield from self._of_table(file)
            return
        named_after = self.names.get(stem(file)) or self.names.get(file.name)
        if named_after is not None and named_after.slide_id not in self.slides:
            return  # of a slide that the study leaves out
        if file.suffix.lower() == ".npy":
            array = load_array(file)
            if "wsi_name" in (array.dtype.names or ()):
                yield from self._of_named(named_tiles(file, array), named_after)
                return
        tiles = _bare_text(file) if file.suffix.lower() == _TEXT else read_tile_file(file)
        slide = self._owner(tiles, named_after)
        if slide is not None and len(tiles):
            yield slide.slide_id, self._settled(tiles, slide)

    def _owner(self, tiles: PlacedTiles, named_after: Named | None) -> OpenedSlide | None:
        """The slide that a file of one slide belongs to; None where the study has none of its names."""
        inside = self.names.get(tiles.name) if tiles.name != stem(tiles.source) else named_after
        if named_after is not None and inside is not named_after:
            raise SlideError(
                tiles.source,
                f"the file is named after slide {named_after.slide_id}, but says inside that it is of {tiles.name}",
                "Rename the file, or make it again.",
            )
        owner = named_after or inside
        if owner is None:
            self.found.strange.append(tiles.source.name)
            return None
        return self.slides.get(owner.slide_id)

    def _settled(self, tiles: PlacedTiles, slide: OpenedSlide) -> SlideTiles:
        if tiles.place is None and self.size.place is None:
            raise SlideError(
                tiles.source,
                "it does not say whether its places are corners or centres of tiles",
                "Set data.place=corner or data.place=centre.",
            )
        tiles = settle(tiles, slide, Stated(self.size.mpp, self.size.tile_px, self.size.place))
        self._check_side(tiles.source, tiles.side * slide.frame.mpp)
        return SlideTiles(tiles.places_px0.astype(np.float64))

    def _check_side(self, source: object, side_um: float | np.ndarray) -> None:
        wrong = np.flatnonzero(np.abs(np.atleast_1d(side_um) / self.size.fov_um - 1) > _SAME_SIDE)
        if len(wrong):
            found = np.atleast_1d(side_um)[wrong[0]]
            raise SlideError(
                source,
                f"its tiles are {found:.4g} um wide, the study's {self.size.fov_um:.4g} um "
                f"({self.size.tile_px} px at {self.size.mpp:g} um)",
                f"These tiles are of data.tile_px={round(found / self.size.mpp)}, or of "
                f"data.mpp={found / self.size.tile_px:.4g}: set one of them.",
            )

    def _of_named(self, tiles: NamedTiles, named_after: Named | None) -> Iterator[tuple[str, SlideTiles]]:
        """Tiles that each name their slide. Every name must be of a slide: a missing one is never another's."""
        found = list(dict.fromkeys(tiles.wsi_name.tolist()))
        if named_after is None and self._is_strange(tiles.source, found):
            return
        for name in found:
            owner = self.names[str(name)]
            if named_after is not None and owner is not named_after:
                raise SlideError(
                    tiles.source,
                    f"the file is named after slide {named_after.slide_id}, but holds tiles of {name}",
                    "Rename the file, or make it again.",
                )
            slide = self.slides.get(owner.slide_id)
            if slide is not None:
                yield slide.slide_id, SlideTiles(named_corners(tiles, tiles.wsi_name == name, slide, self._check_side))

    def _is_strange(self, file: Path, names: Sequence[str]) -> bool:
        """Whether a file of a folder is of other slides altogether: the folder may be that of a larger study."""
        if not self.in_folder or any(self.names.get(str(name)) is not None for name in names):
            return False
        self.found.strange.append(file.name)
        return True

    def _of_table(self, file: Path) -> Iterator[tuple[str, SlideTiles]]:
        table = read_tile_table(file, mpp=self.size.mpp, tile_px=self.size.tile_px)
        of_row = np.array(table.column("slide_id").to_pylist())
        found = list(dict.fromkeys(of_row.tolist()))
        for name in () if self._is_strange(file, found) else found:
            slide = self.slides.get(self.names[name].slide_id)
            if slide is None:
                continue
            rows = table.filter(pa.array(of_row == name))
            self._check_side(file, rows.column("fov_um").to_numpy())
            corners, frame = tile_corners_px0(rows), slide.frame
            sides = self.size.fov_um / np.array([frame.mpp_x, frame.mpp_y])
            check_inside(file, slide.slide_id, corners, np.broadcast_to(sides, corners.shape), _size_px(slide))
            yield slide.slide_id, SlideTiles(corners, _table_labels(file, rows, self.classes))


def named_corners(tiles: NamedTiles, chosen: np.ndarray, slide: OpenedSlide, check_side: object = None) -> np.ndarray:
    """(N, 2) corners of the chosen rows, which lie on this slide.

    Raises:
        SlideError: They lie off the slide, or name a level that it does not have or that does not fit their size.
    """
    corners, side = tiles.corners_px0[chosen].astype(np.float64), tiles.side_px0[chosen]
    check_inside(tiles.source, slide.slide_id, corners, side[:, None], _size_px(slide))
    if tiles.tile_level is not None and tiles.read_px is not None:
        level, read_px = tiles.tile_level[chosen], tiles.read_px[chosen]
        if ((level < 0) | (level >= len(slide.levels))).any():
            raise SlideError(
                tiles.source,
                f"it reads level {int(level.max())} of slide {slide.slide_id}, which has {len(slide.levels)} levels",
                "Give the coordinates of this slide.",
            )
        downsample = np.array([frame.mpp / slide.frame.mpp for frame in slide.levels])[level]
        # One pixel of the level: its size is a whole number.
        wrong = np.abs(read_px * downsample - side) > np.maximum(_SAME_SIDE * side, downsample)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise SlideError(
                tiles.source,
                f"{read_px[row]} pixels of level {level[row]} of slide {slide.slide_id} are "
                f"{read_px[row] * downsample[row]:.6g} level-0 pixels, but tile_size_lv0 is {side[row]:g}",
                "Give the coordinates of this slide.",
            )
    if callable(check_side):
        check_side(tiles.source, side * slide.frame.mpp)
    return corners


def _size_px(slide: OpenedSlide) -> tuple[int, int]:
    return slide.frame.width_px, slide.frame.height_px


def _bare_text(file: Path) -> PlacedTiles:
    """(N, 2) numbers in text, with blanks, tabs or commas between them; a first line of words is a header."""
    try:
        lines = [line.replace(",", " ") for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        if lines and not any(character.isdigit() for character in lines[0]):
            lines = lines[1:]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # numpy warns about an empty text; no tiles are told elsewhere
            places = np.loadtxt(lines, np.float64, ndmin=2) if lines else np.zeros((0, 2))
    except (OSError, ValueError) as error:
        raise SlideError(file, f"it does not hold two numbers a line ({error})", "Write x and y of a tile.") from error
    return PlacedTiles(file, stem(file), checked_places(file, places), place=None)


def _table_labels(file: Path, rows: pa.Table, classes: Sequence[str]) -> np.ndarray | None:
    """(N, C) uint8 labels of tiles: columns named after the classes, or names in a column `label`; None without."""
    present = [name for name in classes if name in rows.column_names]
    if present:
        missing = [name for name in classes if name not in present]
        if missing:
            raise DatasetError(file, f"it has no column for {', '.join(missing)}", "Give every class a column.")
        texts = np.stack([np.array([str(cell) for cell in rows.column(name).to_pylist()]) for name in classes], axis=1)
        if not np.isin(texts, ["0", "1"]).all():
            wrong = texts[~np.isin(texts, ["0", "1"])][0]
            raise DatasetError(file, f"a tile's label is {wrong!r}, not 0 or 1", "Correct the table.")
        return (texts == "1").astype(np.uint8)
    if _TABLE_LABEL not in rows.column_names:
        return None
    names = [str(cell) for cell in rows.column(_TABLE_LABEL).to_pylist()]
    unknown = next((name for name in names if name not in classes), None)
    if unknown is not None:
        raise DatasetError(file, f"{unknown!r} is no class; classes are {', '.join(classes)}", "Correct the table.")
    return np.array([[name == one for one in classes] for name in names], np.uint8)
