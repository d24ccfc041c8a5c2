"""The slides of a study: which files they are, by which names they are called, where their tissue is.

A name is a slide's id, its file's name, or that without extension. A name that two slides go by is refused, and a name
that none goes by is no slide: nothing ever falls back to another.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np

from lamella.errors import DatasetError, ResolutionError, SlideError
from lamella.geometry import Frame, mask_frame
from lamella.slides.index import INDEX_FILE, IndexedSlide, SlideIndex
from lamella.slides.manifest import ManifestRow, find_slides
from lamella.slides.masks import is_tissue, open_mask
from lamella.slides.slide import Slide, open_slide
from lamella.slides.tissue import TissueSettings, find_tissue
from lamella.slides.tissue_map import TissueMap

Listed = ManifestRow | IndexedSlide
# Kinds of file that only the reader of plain images takes: asking it first spares thousands of patches the others.
_PLAIN = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
_OME = (".ome.tif", ".ome.tiff")


class Named(Protocol):
    """What has names."""

    @property
    def slide_id(self) -> str: ...

    @property
    def wsi_path(self) -> Path: ...


NamedT = TypeVar("NamedT", bound=Named)


class SlideNames(Generic[NamedT]):
    """Every name that a file may use for a slide."""

    def __init__(self, slides: Iterable[NamedT]) -> None:
        self.slides = tuple(slides)
        self._by_id = {slide.slide_id: slide for slide in self.slides}
        self._by_name: dict[str, list[NamedT]] = {}
        for slide in self.slides:
            for name in _file_names(slide.wsi_path):
                self._by_name.setdefault(name, []).append(slide)

    def get(self, name: str) -> NamedT | None:
        """The slide of a name; None where there is none.

        Raises:
            DatasetError: Two slides go by it.
        """
        if name in self._by_id:
            return self._by_id[name]
        found = self._by_name.get(name, [])
        if len(found) > 1:
            files = " and ".join(str(slide.wsi_path) for slide in found[:2])
            raise DatasetError(name, f"two slides go by this name: {files}", "Write the name with its extension.")
        return found[0] if found else None

    def __getitem__(self, name: str) -> NamedT:
        """The slide of a name.

        Raises:
            DatasetError: None or two go by it.
        """
        found = self.get(name)
        if found is None:
            near = difflib.get_close_matches(name, [*self._by_id, *self._by_name], 1)
            hint = f"Did you mean {near[0]}?" if near else "Correct the name, or give the slide."
            raise DatasetError(name, "no slide goes by this name", hint)
        return found


def _file_names(path: Path) -> set[str]:
    short = {path.name.removesuffix(suffix) for suffix in _OME}
    return {path.name, path.stem, *short}


@dataclass(frozen=True)
class OpenedSlide:
    """A slide whose size and spacing are known; its file is closed again.

    Attributes:
        listed: Where it was listed.
        frame: Level 0.
        levels: All levels.
        note: What the user should know of its spacing; empty: nothing.
        everywhere: All of it counts as tissue.
    """

    listed: Listed
    frame: Frame
    levels: tuple[Frame, ...]
    note: str = ""
    everywhere: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def slide_id(self) -> str:
        return self.listed.slide_id

    @property
    def wsi_path(self) -> Path:
        return self.listed.wsi_path

    def tissue(self) -> TissueMap:
        """Where its tissue is: as indexed, as its mask says, or found now.

        Raises:
            SlideError: There is none, or its mask does not fit.
        """
        if self.everywhere:
            return TissueMap(np.ones((1, 1), bool), self.frame.resized(1, 1))
        if isinstance(self.listed, IndexedSlide):
            return self.listed.tissue()
        if self.listed.mask_path is not None:
            return _given_tissue(self.listed.mask_path, self.frame, self.listed.mask_mpp)
        with open_slide(self.wsi_path, mpp=(self.frame.mpp_x, self.frame.mpp_y)) as slide:
            mask = find_tissue(slide, TissueSettings())
        return TissueMap(mask, self.frame.resized(mask.shape[1], mask.shape[0]))


def listed_slides(paths: Sequence[Path]) -> list[Listed]:
    """The slides of files, folders, manifests and index folders; none is opened.

    Raises:
        DatasetError: Two have one id or are one file.
        LamellaError: A path is missing, or a manifest or an index cannot be used.
    """
    indexes = [path for path in paths if (Path(path) / INDEX_FILE).is_file()]
    found: list[Listed] = [slide for path in indexes for slide in SlideIndex.load(path)]
    found += find_slides([path for path in paths if path not in indexes])
    by_id: dict[str, Listed] = {}
    by_file: dict[Path, Listed] = {}
    for slide in found:
        twin = by_id.setdefault(slide.slide_id, slide)
        if twin is not slide:
            raise DatasetError(
                slide.slide_id, f"two slides have this id: {twin.wsi_path} and {slide.wsi_path}", "Keep one of them."
            )
        twin = by_file.setdefault(slide.wsi_path.resolve(), slide)
        if twin is not slide:
            # The same pixels under two names could stand on both sides of a split.
            raise DatasetError(slide.slide_id, f"it is the same file as slide {twin.slide_id}", "Keep one of them.")
    return found


def opened(listed: Listed, mpp0: float | None, *, everywhere: bool) -> OpenedSlide:
    """Look at a slide's size and spacing.

    Args:
        listed: The slide.
        mpp0: Stated micrometres per pixel of level 0, where the manifest states none.
        everywhere: See `OpenedSlide`.

    Raises:
        SlideError: It cannot be read, or its spacing is unknown.
    """
    if isinstance(listed, IndexedSlide):
        return OpenedSlide(listed, listed.frame, listed.levels, "", everywhere, listed.metadata)
    stated = listed.mpp or (None if mpp0 is None else (mpp0, mpp0))
    try:
        with _open(listed.wsi_path, stated) as slide:
            return OpenedSlide(listed, slide.frame, slide.levels, slide.resolution.note, everywhere, listed.metadata)
    except ResolutionError as error:
        remedy = "State it with data.mpp0, or in the manifest column mpp."
        raise SlideError(error.thing, error.cause, remedy) from error


def _open(path: Path, mpp: tuple[float, float] | None) -> Slide:
    if path.suffix.lower() in _PLAIN and path.is_file():
        try:
            return open_slide(path, mpp=mpp, readers=("image",))
        except ResolutionError:
            raise
        except SlideError:
            pass  # then all readers are asked, and the error lists what each of them said
    return open_slide(path, mpp=mpp)


def _given_tissue(path: Path, frame: Frame, mask_mpp: float | None) -> TissueMap:
    file = open_mask(path)
    height_px, width_px = file.values.shape
    stated = (mask_mpp, mask_mpp) if mask_mpp else file.mpp
    return TissueMap(is_tissue(file.values), mask_frame(frame, width_px, height_px, mpp=stated, name=path))
