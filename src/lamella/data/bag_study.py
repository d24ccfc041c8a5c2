"""From split, labels, slides and coordinates to a study of bags. All that is wrong with a study is told at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lamella.data.bag_checks import (
    class_notes,
    class_problems,
    copied_slides,
    edge_notes,
    label_problems,
    name_problems,
    truth_notes,
)
from lamella.data.bag_coordinates import Coordinates, SlideTiles, TileSize, read_coordinates
from lamella.data.bag_grid import everywhere_corners
from lamella.data.bag_labels import groups_by_column, labels_of, parts_of, shared_groups
from lamella.data.bag_masks import mask_files, settled_values
from lamella.data.bag_settings import WeakDataSettings
from lamella.data.bag_slides import Listed, OpenedSlide, SlideNames, listed_slides, opened
from lamella.data.bag_truth import truth_frame
from lamella.data.bags import Bag, Part, WeakStudy
from lamella.errors import DatasetError, LamellaError
from lamella.formats.label_csv import Labels
from lamella.imaging.datasets.problems import named, refuse
from lamella.slides.grid import GridSettings, tile_corners_px0, tile_grid

__all__ = ["WeakDataSettings", "open_study"]

_REMEDY = "Correct the files; nothing is left out or put in its place in silence."


def open_study(classes: tuple[str, ...], background: str | None, settings: WeakDataSettings, seed: int) -> WeakStudy:
    """Assemble the study.

    Args:
        classes: Names in order.
        background: What is none of them; None: nothing is.
        settings: Where everything lies.
        seed: Of the draw of `max_tiles`.

    Raises:
        DatasetProblems: All problems of slides, split, labels, coordinates and masks.
    """
    opening = _Opening(tuple(classes), background, settings, seed)
    opening.problems += name_problems(classes, background)
    bags = opening.bags()
    refuse("study", opening.problems, _REMEDY)
    return WeakStudy(
        opening.classes,
        background,
        bags,
        settings.mpp,
        settings.tile_px,
        opening.mask_values,
        opening.group_noun,
        tuple(opening.notes),
        settings.labels_are,
    )


@dataclass(frozen=True)
class _Known:
    """What the files say of slides, by slide_id; nothing is opened yet."""

    parts: Mapping[str, Part] | None
    labels: Mapping[str, Labels]
    groups: Mapping[str, str]
    masks: Mapping[str, Path]


@dataclass
class _Opening:
    """A study while it is put together."""

    classes: tuple[str, ...]
    background: str | None
    settings: WeakDataSettings
    seed: int
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    mask_values: dict[str, tuple[int, ...]] = field(default_factory=dict)
    group_noun: str = "slide"

    def bags(self) -> tuple[Bag, ...]:
        """The bags, in the order of their names; what is wrong is in `problems`."""
        names = SlideNames(self._listed())
        chosen, known = self._known(names)
        slides = [slide for one in chosen for slide in self._opened(one)]
        if known.parts is None:
            self.notes += copied_slides(slides, known.groups)  # whether they leak hangs on how folds are dealt
        else:
            self.problems += copied_slides(slides, known.parts)
        self._check_masks(slides, known.masks)
        tiles = self._tiles(slides, names)
        slides = sorted((slide for slide in slides if slide.slide_id in tiles), key=lambda slide: slide.slide_id)
        bags = tuple(self._bag(slide, tiles[slide.slide_id], known) for slide in slides)
        self.problems += label_problems(bags, self.settings.labels_are)
        if not self.problems:  # else classes seem to be missing whose slides or labels could not be read
            self.problems += class_problems(bags, self.classes)
        self.notes += class_notes(bags, self.classes)
        self.notes += truth_notes(bags, self.settings.masks)
        self.notes += edge_notes(bags, self.settings.mpp * self.settings.tile_px)
        return bags

    @contextmanager
    def _told(self) -> Iterator[None]:
        """A fault becomes one of the problems, and the next slide is looked at."""
        try:
            yield
        except LamellaError as error:
            self.problems.append(str(error))

    # ---- which slides, and what is said of them ---------------------------------------------------------------------

    def _listed(self) -> list[Listed]:
        with self._told():
            return listed_slides(self.settings.slides)
        refuse("study", self.problems, _REMEDY)  # without slides everything else would seem wrong too
        return []

    def _known(self, names: SlideNames[Listed]) -> tuple[list[Listed], _Known]:
        settings, problems = self.settings, self.problems
        parts = parts_of(settings.split_csv, names, problems)
        labels = labels_of(
            settings.labels_csv, names, self.classes, self.background, settings.label_format, problems, self.notes
        )
        masks: dict[str, Path] = {}
        with self._told():
            masks = mask_files(settings.masks, names, problems)
        chosen = self._chosen(names.slides, parts, labels, masks)
        groups, self.group_noun = groups_by_column(chosen, settings.group_column, problems)
        if parts is not None:
            of_study = {slide.slide_id: parts[slide.slide_id] for slide in chosen}
            problems += shared_groups(groups, of_study, self.group_noun)
        return chosen, _Known(parts, labels, groups, masks)

    def _chosen(
        self,
        listed: Sequence[Listed],
        parts: Mapping[str, Part] | None,
        labels: Mapping[str, Labels],
        masks: Mapping[str, Path],
    ) -> list[Listed]:
        """The slides of the split. Without one (folds): those with labels, and those with truth to be judged by."""
        of_study = set(parts) if parts is not None else {*labels, *masks}
        if parts is None and self.settings.coordinates is not None and not labels:
            of_study = {slide.slide_id for slide in listed}  # tiles may bring labels of their own
        left_out = [slide.slide_id for slide in listed if slide.slide_id not in of_study]
        if left_out:
            why = "in no part of the split" if parts is not None else "without a label and a mask"
            self.notes.append(f"{len(left_out)} slides are {why} and left out ({named(left_out, 3)})")
        if not of_study and not self.problems:
            self.problems.append("no slide has a label: set data.labels_csv, or give label columns in a manifest")
        return [slide for slide in listed if slide.slide_id in of_study]

    def _opened(self, slide: Listed) -> Iterator[OpenedSlide]:
        with self._told():
            found = opened(slide, self.settings.mpp0, everywhere=self.settings.everywhere)
            if found.note:
                self.notes.append(found.note)
            yield found

    # ---- tiles ------------------------------------------------------------------------------------------------------

    def _tiles(self, slides: Sequence[OpenedSlide], names: SlideNames[Any]) -> dict[str, SlideTiles]:
        if self.settings.coordinates is not None:
            found = self._given_tiles(self.settings.coordinates, slides, names)
        else:
            found = {}
            for slide in slides:
                with self._told():
                    found[slide.slide_id] = SlideTiles(self._grid(slide))
        return {slide_id: self._drawn(slide_id, tiles) for slide_id, tiles in found.items()}

    def _given_tiles(
        self, path: Path, slides: Sequence[OpenedSlide], names: SlideNames[Any]
    ) -> Mapping[str, SlideTiles]:
        given = Coordinates()
        with self._told():
            size = TileSize(self.settings.mpp, self.settings.tile_px, self.settings.place)
            given = read_coordinates(path, slides, names, self.classes, size)
            self.problems += given.problems
            missing = [slide.slide_id for slide in slides if slide.slide_id not in given.tiles]
            if missing and not given.problems:  # else their file may be the one that could not be read
                self.problems.append(f"{path}: there are no coordinates of {named(missing)}")
        if given.strange:
            self.notes.append(
                f"{path}: {len(given.strange)} files are of no slide that was given ({named(given.strange, 3)})"
            )
        return given.tiles

    def _grid(self, slide: OpenedSlide) -> np.ndarray:
        settings = self.settings
        if settings.everywhere:
            return everywhere_corners(slide.slide_id, slide.frame, settings.mpp, settings.tile_px, settings.overlap)
        grid = GridSettings(overlap=settings.overlap, min_tissue_fraction=settings.min_tissue_fraction)
        corners = tile_corners_px0(tile_grid(slide, settings.mpp, settings.tile_px, grid))
        if not len(corners):
            share = f"{settings.min_tissue_fraction:.0%} tissue"
            raise DatasetError(
                slide.slide_id,
                f"no tile of {settings.tile_px} px at {settings.mpp:g} um holds {share}",
                "Set a smaller data.tile_px or data.min_tissue_fraction, or data.everywhere=true.",
            )
        return corners

    def _drawn(self, slide_id: str, tiles: SlideTiles) -> SlideTiles:
        """At most `max_tiles`, in their order. The draw hangs on seed and name, not on the other slides."""
        limit = self.settings.max_tiles
        if limit is None or len(tiles.corners_px0) <= limit:
            return tiles
        rng = np.random.default_rng([self.seed, *slide_id.encode()])
        rows = np.sort(rng.choice(len(tiles.corners_px0), limit, replace=False))
        return SlideTiles(tiles.corners_px0[rows], None if tiles.tile_labels is None else tiles.tile_labels[rows])

    # ---- truth and bags ---------------------------------------------------------------------------------------------

    def _check_masks(self, slides: Sequence[OpenedSlide], masks: Mapping[str, Path]) -> None:
        masked = [slide for slide in slides if slide.slide_id in masks]
        for slide in masked:
            with self._told():
                truth_frame(masks[slide.slide_id], slide.frame)
        if masked or self.settings.mask_values:
            with self._told():
                self.mask_values = settled_values(self.classes, self.background, self.settings.mask_values)

    def _bag(self, slide: OpenedSlide, tiles: SlideTiles, known: _Known) -> Bag:
        labels, of_tiles = known.labels.get(slide.slide_id), tiles.tile_labels
        if labels is None and of_tiles is not None:
            labels = tuple(int(some) for some in of_tiles.any(axis=0))
        if self.settings.labels_are == "patch" and of_tiles is None and labels is not None:
            of_tiles = np.array([labels], np.uint8) if len(tiles.corners_px0) == 1 else None
        return Bag(
            slide.slide_id,
            slide.wsi_path,
            slide.frame,
            tiles.corners_px0,
            labels,
            of_tiles,
            known.groups[slide.slide_id],
            None if known.parts is None else known.parts[slide.slide_id],
            known.masks.get(slide.slide_id),
        )
