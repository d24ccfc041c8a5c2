"""What people drew on a slide, by what it means for training: regions, objects of classes, and what to leave out.

Inside a region everything is labelled: what no object covers is background there. Outside of all regions objects alone
count, and the rest is not labelled: nobody said that it is background.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from lamella.config import Settings
from lamella.errors import LamellaError
from lamella.formats.geojson import GeoObject, Polygon, read_geojson, signed_area
from lamella.formats.label_values import NOT_LABELLED

EVERYBODY = "all"
BACKGROUND = "background"
# QuPath's own class for what shall not count; like its class Region it has an asterisk, which no one has to type.
_IGNORE = "ignore"


class DrawnSettings(Settings):
    """How annotations become masks."""

    author: str | None = None
    """Whose annotations; null: those of the only author; all: everybody's, each as images of their own."""
    region: str = "Region"
    """Class of the areas inside which everything is labelled. Capitals and an asterisk at the end do not matter."""
    overlaps: Literal["ignore", "smaller"] = "ignore"
    """Where objects of two classes overlap: ignore (not labelled), or the class of the smaller object."""
    context_um: Annotated[float, Field(ge=0)] = 160.0
    """Tissue around regions and objects that is in the images too, so that a tile around a small object is not padded
    with glass; it is not labelled. Twice this is as wide as a tile of 256 px at 1.25 um per pixel."""
    most_px: Annotated[int, Field(ge=256)] = 4096
    """Longest side of an image; a larger region becomes several."""
    slides: Path | None = None
    """Folder below which the slides lie now, by their file names, if they were moved since."""


@dataclass(frozen=True)
class Drawn:
    """What one author drew on one slide.

    Attributes:
        regions: Areas inside which everything is labelled.
        objects: (class, polygons of one object).
        ignored: Areas that are not labelled whatever else covers them.
        passed_over: Kinds of objects that have no area -> how many.
    """

    regions: Sequence[Polygon]
    objects: Sequence[tuple[str, tuple[Polygon, ...]]]
    ignored: Sequence[Polygon] = ()
    passed_over: Mapping[str, int] = field(default_factory=dict)

    @property
    def classes(self) -> set[str]:
        """Of the objects."""
        return {name for name, _ in self.objects}


def read_drawn(path: Path, settings: DrawnSettings) -> Drawn:
    """One author's file.

    Raises:
        LamellaError: It cannot be read, or an object has no class: inside a region it would be taken for background.
    """
    regions: list[Polygon] = []
    ignored: list[Polygon] = []
    objects: list[tuple[str, tuple[Polygon, ...]]] = []
    passed_over: Counter[str] = Counter()
    for number, item in enumerate(read_geojson(path), 1):
        meaning = _plain(item.classification)
        if not item.polygons:
            passed_over["points" if item.points is not None else "lines"] += 1
        elif meaning == _plain(settings.region):
            regions += item.polygons
        elif meaning == _IGNORE:
            ignored += item.polygons
        elif not meaning:
            raise LamellaError(
                path, f"object {number}{_where(item)} has no class", "Give it one; class Ignore leaves its area out."
            )
        else:
            objects.append((BACKGROUND if meaning == BACKGROUND else item.classification, item.polygons))
    return Drawn(regions, objects, ignored, passed_over)


def class_values(drawn: Sequence[Drawn], thing: object) -> dict[str, int]:
    """Class -> value in masks, by name; the background, if anything says where it is, has 0.

    Raises:
        LamellaError: Nothing was drawn, or there is one class and nothing that is not of it, or too many.
    """
    names = sorted(set().union(*(each.classes for each in drawn)) - {BACKGROUND})
    background = any(each.regions or BACKGROUND in each.classes for each in drawn)
    if not names:
        what = "regions without an object in them" if background else "no area of any class"
        raise LamellaError(
            thing, f"it holds {what}", "Draw objects in `lamella view`: rectangles or polygons with a class."
        )
    if len(names) == 1 and not background:
        raise LamellaError(
            thing,
            f"all that is drawn is {names[0]}: nothing says what is not",
            "Draw a rectangle of class Region where every such object is outlined: the rest of it is background.",
        )
    if len(names) >= NOT_LABELLED:
        raise LamellaError(thing, f"it holds {len(names)} classes", f"Masks tell {NOT_LABELLED - 1} apart.")
    return {**({BACKGROUND: 0} if background else {}), **{name: value for value, name in enumerate(names, 1)}}


def area_px2(polygons: Sequence[Polygon]) -> float:
    """Area of an object without its holes, in the square of its unit."""
    return sum(abs(signed_area(rings[0])) - sum(abs(signed_area(ring)) for ring in rings[1:]) for rings in polygons)


def _plain(name: str) -> str:
    return name.strip().rstrip("*").lower()


def _where(item: GeoObject) -> str:
    x0, y0, _, _ = item.bounds_px0()
    return f" at x {x0:.0f}, y {y0:.0f} (level-0 pixels)"
