"""What a user asks for on a slide: boxes, clicks and polygons from flags and from GeoJSON, in level-0 pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from lamella.errors import LamellaError
from lamella.formats.geojson import GeoObject, Polygon, read_geojson
from lamella.geometry import Box, Frame
from lamella.models.prompts import NOT_THIS, THIS, PromptError, Prompts, check_prompts

_CLICKS = "Give x,y of each click, with ; between them: --points '1200,840;1260,900'."
_BOX = "Give x0,y0,x1,y1 with commas: --box 1000,800,1400,1200."


@dataclass(frozen=True)
class Asked:
    """One object that is asked for.

    Attributes:
        name: What the user calls it, for messages and pictures.
        box_px0: Around it.
        points_px0: (N, 2) clicks on it.
        polygons: Its outline as known so far, for a mask prompt.
        class_name: Of the answer.
    """

    name: str
    box_px0: Box | None = None
    points_px0: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    polygons: tuple[Polygon, ...] = ()
    class_name: str = ""

    def extent_px0(self) -> Box:
        """Around everything that is known of it."""
        corners = (
            [] if self.box_px0 is None else [(self.box_px0.x0, self.box_px0.y0), (self.box_px0.x1, self.box_px0.y1)]
        )
        places = np.concatenate([np.asarray(corners, np.float64).reshape(-1, 2), self.points_px0])
        return Box(*map(float, places.min(axis=0)), *map(float, places.max(axis=0)))


@dataclass(frozen=True)
class Question:
    """All objects, and the clicks on what is none of them."""

    objects: tuple[Asked, ...]
    negatives_px0: np.ndarray

    def facts(self) -> dict[str, object]:
        """As plain values, for the claim of the output folder."""
        return {
            "objects": [
                {
                    "box": None
                    if asked.box_px0 is None
                    else [getattr(asked.box_px0, k) for k in ("x0", "y0", "x1", "y1")],
                    "points": asked.points_px0.tolist(),
                    "polygons": [[ring.tolist() for ring in polygon] for polygon in asked.polygons],
                    "class": asked.class_name,
                }
                for asked in self.objects
            ],
            "negatives": self.negatives_px0.tolist(),
        }


def question(
    frame: Frame,
    *,
    boxes: Sequence[str] = (),
    points: Sequence[str] = (),
    negatives: Sequence[str] = (),
    prompts: Path | None = None,
    in_um: bool = False,
    class_name: str = "object",
    negative_class: str = "negative",
    keep_polygons: bool = False,
    optional: bool = False,
) -> Question:
    """Read the flags and the file, and check every prompt against the slide.

    Args:
        frame: The slide's level-0 frame.
        boxes: Texts `x0,y0,x1,y1`, an object each.
        points: Texts `x,y;x,y`, an object each.
        negatives: Texts `x,y;x,y`: on none of the objects.
        prompts: GeoJSON in level-0 pixels: a polygon is an object, given by the box around it; points are the clicks
            on one object, or negative ones by their class.
        in_um: The texts are micrometres from the slide's upper left corner.
        class_name: Of objects without a class of their own.
        negative_class: The class of negative points in GeoJSON.
        keep_polygons: Polygons also become mask prompts.
        optional: There need be none.

    Raises:
        PromptError: There is none, or one lies outside the slide, or a box has no area; it is named.
        LamellaError: A text cannot be read, or the GeoJSON holds lines.
    """
    scale = np.array([1 / frame.mpp_x, 1 / frame.mpp_y]) if in_um else np.ones(2)
    objects = [
        Asked(f"--box {number}", _box(text, scale), class_name=class_name) for number, text in enumerate(boxes, 1)
    ]
    objects += [
        Asked(f"--points {number}", points_px0=_places(text, "--points", scale), class_name=class_name)
        for number, text in enumerate(points, 1)
    ]
    against = [_places(text, "--negatives", scale) for text in negatives]
    for number, item in enumerate(() if prompts is None else read_geojson(prompts), 1):
        if item.points is not None and item.classification.lower() == negative_class.lower():
            against.append(np.asarray(item.points, np.float64))
        else:
            objects.append(_of_geojson(prompts, number, item, class_name, keep_polygons))
    if not objects and not optional:
        raise PromptError(
            "lamella segment", "no box and no click is given", f"{_BOX} Or {_CLICKS[0].lower()}{_CLICKS[1:]}"
        )
    asked = Question(tuple(objects), np.concatenate([np.zeros((0, 2)), *against]))
    _check(asked, frame)
    return asked


def region_of(text: str, frame: Frame, *, in_um: bool = False) -> Box:
    """The box of `--region`, in level-0 pixels, within the slide.

    Raises:
        LamellaError: The text cannot be read, or the region holds nothing of the slide.
    """
    scale = np.array([1 / frame.mpp_x, 1 / frame.mpp_y]) if in_um else np.ones(2)
    box = _box(text, scale).intersection(frame.bounds_px)
    if box.area == 0 or box.width <= 0:
        raise LamellaError(
            f"--region {text}",
            f"it holds nothing of the slide of {frame.width_px} x {frame.height_px} px",
            "Give x0,y0,x1,y1 with x0 < x1 and y0 < y1.",
        )
    return box


def _check(asked: Question, frame: Frame) -> None:
    size_px = frame.height_px, frame.width_px
    for one in asked.objects:
        try:
            if one.box_px0 is not None:
                box = one.box_px0
                check_prompts(Prompts(boxes_BM4=torch.tensor([[[box.x0, box.y0, box.x1, box.y1]]])), size_px)
            if len(one.points_px0):
                check_prompts(_clicks(one.points_px0, THIS), size_px)
        except PromptError as error:
            raise PromptError(error.thing.replace("prompt 1", one.name), error.cause, error.remedy) from error
    if len(asked.negatives_px0):
        try:
            check_prompts(_clicks(asked.negatives_px0, NOT_THIS), size_px)
        except PromptError as error:
            raise PromptError(error.thing.replace("prompt 1", "--negatives"), error.cause, error.remedy) from error


def _clicks(points: np.ndarray, label: int) -> Prompts:
    return Prompts(torch.from_numpy(points)[None, None], torch.full((1, 1, len(points)), label))


def _of_geojson(path: Path | None, number: int, item: GeoObject, class_name: str, keep_polygons: bool) -> Asked:
    name = item.name or f"object {number} of {Path(str(path)).name}"
    label = item.classification or class_name
    if item.points is not None:
        return Asked(name, points_px0=np.asarray(item.points, np.float64), class_name=label)
    if not item.polygons:
        raise LamellaError(path, f"object {number} is a line", "Draw rectangles, polygons or points.")
    return Asked(name, Box(*item.bounds_px0()), polygons=item.polygons if keep_polygons else (), class_name=label)


def _box(text: str, scale: np.ndarray) -> Box:
    numbers = _numbers(text, text, _BOX)
    if len(numbers) != 4:
        raise LamellaError(f"box {text}", f"it has {len(numbers)} numbers, not 4", _BOX)
    return Box(*(float(number * scale[axis % 2]) for axis, number in enumerate(numbers)))


def _places(text: str, flag: str, scale: np.ndarray) -> np.ndarray:
    pairs = [_numbers(part, text, _CLICKS) for part in text.split(";") if part.strip()]
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise LamellaError(f"{flag} {text}", "it is not pairs of numbers", _CLICKS)
    return np.asarray(np.array(pairs) * scale)


def _numbers(part: str, text: str, remedy: str) -> list[float]:
    try:
        numbers = [float(number) for number in part.split(",")]
    except ValueError as error:
        raise LamellaError(text, f"{part.strip()!r} is not numbers with commas between", remedy) from error
    if not all(map(math.isfinite, numbers)):
        raise LamellaError(text, "a number of it is not finite", remedy)
    return numbers
