"""The things that the viewer shows. Each has an id that stands in URLs; paths never do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lamella.slides.index import IndexedSlide
from lamella.slides.slide import Slide, open_slide

SourceKind = Literal["index", "anchors", "features", "prediction", "expression", "weak", "objects", "spots"]
ScanKind = Literal["volume", "video"]


@dataclass(frozen=True)
class SlideItem:
    """A slide.

    Attributes:
        id: Stands in URLs: letters, digits, `.`, `_` and `-` only.
        name: Its slide_id; what layers and annotations are matched by.
        path: The file.
        mpp: Stated (x, y) micrometres per pixel; the file's own unless given.
        indexed: Its entry of an index, which has its tissue.
        refused: Why it cannot be shown, as the index's failed.csv or the reader says; empty if it can.
        facts: QC and metadata for the gallery, in order: label -> text.
    """

    id: str
    name: str
    path: Path
    mpp: tuple[float, float] | None = None
    indexed: IndexedSlide | None = None
    refused: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)

    def open(self) -> Slide:
        """Open it.

        Raises:
            SlideError: It cannot be read.
        """
        return open_slide(self.path, mpp=self.mpp)


@dataclass(frozen=True)
class LayerSource:
    """A file or folder that belongs to one slide and can be laid over it.

    Attributes:
        kind: What it is; each kind has one module in `layers` that makes `Layer`s of it.
        path: The file or folder: of one slide for predictions, the whole folder for an index or anchors.
        slide: Name of the slide it lies over.
        title: For people, such as the output folder's name.
    """

    kind: SourceKind
    path: Path
    slide: str
    title: str


@dataclass(frozen=True)
class RunItem:
    """A folder that a verb wrote: config.yaml and origins.json, and perhaps log.jsonl, results.json, pictures."""

    id: str
    title: str
    folder: Path
    verb: str


@dataclass(frozen=True)
class ScanItem:
    """A volume (NIfTI, a DICOM series) or a film."""

    id: str
    title: str
    path: Path
    kind: ScanKind
    masks: Sequence[Path] = ()
    """Masks on the volume's own grid."""


@dataclass(frozen=True)
class QueueItem:
    """A place that a person is asked to look at: a row of an active-learning list, the least sure first."""

    slide: str
    box_px0: tuple[float, float, float, float]
    why: str


@dataclass(frozen=True)
class Catalogue:
    """Everything found.

    Attributes:
        title: For the browser's tab.
        slides: By id, in order.
        sources: What can be laid over slides.
        runs: By id; a run, predictions, results: every folder with a config.yaml of a verb.
        scans: By id.
        queue: Places to look at, in order.
        said: What was left out and why, for people.
    """

    title: str
    slides: Mapping[str, SlideItem]
    sources: Sequence[LayerSource] = ()
    runs: Mapping[str, RunItem] = field(default_factory=dict)
    scans: Mapping[str, ScanItem] = field(default_factory=dict)
    queue: Sequence[QueueItem] = ()
    said: Sequence[str] = ()

    def sources_of(self, slide: SlideItem) -> list[LayerSource]:
        return [source for source in self.sources if source.slide == slide.name]
