"""Whose annotations on which slides become which images, before any pixel is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lamella.data.drawn import EVERYBODY, Drawn, DrawnSettings, class_values, read_drawn
from lamella.data.drawn_images import image_boxes
from lamella.errors import LamellaError
from lamella.formats.annotation_folder import AnnotatedSlide, author_files, read_annotated_slides
from lamella.geometry import Box
from lamella.slides.index import SlideIndex
from lamella.slides.slide import Slide, open_slide

# Columns of manifests that name a patient, as data sets find them.
_PATIENT = ("patient", "patient_id", "subject", "subject_id")


@dataclass(frozen=True)
class Work:
    """What one author drew on one slide, and the images that it becomes.

    Attributes:
        subfolder: Of the annotation folder.
        slide: With the place where it lies now.
        author: Who drew.
        file: The GeoJSON.
        drawn: What it holds.
        mpp: Micrometres per pixel of the images.
        boxes: Their places, in level-0 pixels.
    """

    subfolder: str
    slide: AnnotatedSlide
    author: str
    file: Path
    drawn: Drawn
    mpp: float
    boxes: Sequence[Box]

    def open(self) -> Slide:
        """The slide, which must be the one that was drawn on.

        Raises:
            LamellaError: It is another one.
            SlideError: It cannot be read.
        """
        drawn_on = self.slide.frame
        slide = open_slide(self.slide.path, mpp=(drawn_on.mpp_x, drawn_on.mpp_y))
        found = slide.frame
        if found.bounds_px == drawn_on.bounds_px:
            return slide
        slide.close()
        raise LamellaError(
            self.slide.path,
            f"it has {found.width_px} x {found.height_px} pixels, and the slide that was drawn on had "
            f"{drawn_on.width_px} x {drawn_on.height_px}",
            "Give that file again, or masks.slides=FOLDER; outlines mean nothing over another one.",
        )


@dataclass(frozen=True)
class Plan:
    """A data set to be written.

    Attributes:
        source: The annotation folder.
        works: By slide and author.
        values: Class -> value in the masks.
        settings: How.
    """

    source: Path
    works: Sequence[Work]
    values: Mapping[str, int]
    settings: DrawnSettings


def planned(source: Path, settings: DrawnSettings, mpp: float | None, index: SlideIndex | None = None) -> Plan:
    """What each author drew on each slide, and the values of the classes.

    Args:
        source: The annotation folder.
        settings: Whose work, and how it becomes images.
        mpp: Of the images; None: the slide's own.
        index: Whose manifest names the patients, for slides whose record does not.

    Raises:
        LamellaError: Nothing usable was drawn, several people drew and nobody is chosen, or a slide is gone.
    """
    found = [
        (subfolder, slide, author, path)
        for subfolder, slide in read_annotated_slides(source).items()
        for author, path in author_files(source, subfolder).items()
    ]
    if not found:
        raise LamellaError(source, "it holds no annotations", "Draw some: lamella view slides/ -o annotations.")
    patients = {} if index is None else {slide.slide_id: _patient(slide.metadata) for slide in index}
    works = []
    for subfolder, slide, author, path in _chosen(source, found, settings.author):
        drawn, spacing = read_drawn(path, settings), mpp or slide.frame.mpp
        polygons = [*drawn.regions, *(polygon for _, own in drawn.objects for polygon in own)]
        boxes = image_boxes(polygons, slide.frame, spacing, context_um=settings.context_um, most_px=settings.most_px)
        patient = slide.patient or patients.get(slide.name, "")
        known = replace(slide, path=_place(slide, settings.slides), patient=patient)
        works.append(Work(subfolder, known, author, path, drawn, spacing, boxes))
    values = class_values([work.drawn for work in works], source)
    return Plan(source, works, values, settings)


def _chosen(
    source: Path, found: Sequence[tuple[str, AnnotatedSlide, str, Path]], author: str | None
) -> list[tuple[str, AnnotatedSlide, str, Path]]:
    """The files of the authors that are asked for."""
    authors = sorted({each[2] for each in found})
    if author == EVERYBODY or (author is None and len(authors) == 1):
        return list(found)
    if author is None:
        raise LamellaError(
            source,
            f"{len(authors)} people drew: {', '.join(authors)}",
            f"Choose one: lamella convert {source} -o data to=masks masks.author={authors[0]}; masks.author="
            f"{EVERYBODY} keeps the work of each as images of its own.",
        )
    if author not in authors:
        raise LamellaError(source, f"nothing in it is by {author}", f"There is: {', '.join(authors)}.")
    return [each for each in found if each[2] == author]


def _place(slide: AnnotatedSlide, folder: Path | None) -> Path:
    """The slide's file."""
    if folder is None:
        if not slide.path.exists():
            raise LamellaError(
                slide.path,
                f"the slide {slide.name} is not there any more",
                "Put it back, or convert with masks.slides=FOLDER, below which it lies now.",
            )
        return slide.path
    places = sorted(folder.rglob(slide.path.name))
    if len(places) != 1:
        raise LamellaError(
            folder, f"it holds {len(places) or 'no'} file(s) called {slide.path.name}", "Give a folder with one."
        )
    return places[0]


def _patient(metadata: Mapping[str, str]) -> str:
    named = {column.lower(): value for column, value in metadata.items() if value}
    return next((named[column] for column in _PATIENT if column in named), "")
