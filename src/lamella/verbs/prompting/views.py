"""Which part of a slide a promptable model is shown for an object, and at which spacing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from lamella.errors import LamellaError
from lamella.geometry import Box, Frame
from lamella.models.prompts import NOT_THIS, PADDING, THIS, PromptError, Prompts
from lamella.slides.polygons import fill_polygon
from lamella.verbs.prompting.asked import Asked

# The slide's pixels are enlarged four times at most: a nucleus of 20 px then covers 80 of the canvas, and more would
# show no more.
_MOST_ENLARGED = 4
_SURE_LOGIT = 10.0  # of a mask given as a prompt, as SAM 2 itself turns masks into prompts


@dataclass(frozen=True)
class ShownView:
    """A part of the slide, read as width_px x height_px pixels.

    Attributes:
        box_px0: Its place, in whole level-0 pixels.
        width_px: Of the picture.
        height_px: Of the picture.
        mpp: That it is read at; of the picture, too.
    """

    box_px0: Box
    width_px: int
    height_px: int
    mpp: float

    def frame(self, slide: Frame) -> Frame:
        """Size and exact spacing of the picture."""
        return Frame(
            self.width_px,
            self.height_px,
            self.box_px0.width * slide.mpp_x / self.width_px,
            self.box_px0.height * slide.mpp_y / self.height_px,
        )

    def to_view(self, xy_px0: np.ndarray) -> np.ndarray:
        """Level-0 pixels (..., 2) in pixels of the picture."""
        return np.asarray((xy_px0 - [self.box_px0.x0, self.box_px0.y0]) / self._px0_per_px())

    def to_px0(self, xy: np.ndarray) -> np.ndarray:
        """The inverse of `to_view`."""
        return np.asarray(xy * self._px0_per_px() + [self.box_px0.x0, self.box_px0.y0])

    def holds(self, xy_px0: np.ndarray) -> np.ndarray:
        """(N,) bool: which places lie in it."""
        box = self.box_px0
        return np.asarray(((xy_px0 >= [box.x0, box.y0]) & (xy_px0 <= [box.x1, box.y1])).all(axis=-1))

    def _px0_per_px(self) -> np.ndarray:
        return np.array([self.box_px0.width / self.width_px, self.box_px0.height / self.height_px])


def view_around(
    asked: Asked,
    slide: Frame,
    image_px: int,
    *,
    mpp: float | None = None,
    context: float = 0.5,
    click_fov_um: float = 500.0,
) -> ShownView:
    """A square view around an object, moved and, on a smaller slide, cut so that it stays on the slide.

    Args:
        asked: The object.
        slide: The slide's level-0 frame.
        image_px: Side of the model's canvas, which the view fills.
        mpp: Spacing of the view. Unless given, as coarse as it must be for the object and its surroundings.
        context: Surroundings on each side, relative to the object's longest side.
        click_fov_um: Side of the view around clicks alone: they do not say how large the object is.

    Raises:
        LamellaError: The object does not fit into a view of `mpp`.
    """
    extent_um = slide.box_um(asked.extent_px0().intersection(slide.bounds_px))
    longest_um = max(extent_um.width, extent_um.height)
    if mpp is not None:
        side_um = image_px * mpp
        if longest_um > side_um:
            raise LamellaError(
                asked.name,
                f"it is {longest_um:.0f} um long, and a view of {image_px} px at mpp={mpp:g} shows {side_um:.0f} um",
                f"Set mpp={longest_um * (1 + 2 * context) / image_px:.2g}, or leave it out.",
            )
    else:
        side_um = longest_um * (1 + 2 * context)
        if asked.box_px0 is None:
            side_um = max(side_um, click_fov_um)
        side_um = max(side_um, image_px * slide.mpp / _MOST_ENLARGED)
    centre = extent_um.center
    return _on_slide(slide.box_px(Box.around(*centre, side_um)), slide, max(side_um / image_px, slide.mpp))


def view_of(region_px0: Box, slide: Frame, image_px: int, mpp: float | None = None) -> ShownView:
    """The view of a region that the user chose."""
    longest_um = max(region_px0.width * slide.mpp_x, region_px0.height * slide.mpp_y)
    return _on_slide(region_px0, slide, mpp or max(longest_um / image_px, slide.mpp))


def _on_slide(box_px0: Box, slide: Frame, mpp: float) -> ShownView:
    """Moved onto the slide, cut to it, with edges on whole level-0 pixels: at the slide's spacing pixels are copied."""
    x0, x1 = _within(box_px0.x0, box_px0.x1, slide.width_px)
    y0, y1 = _within(box_px0.y0, box_px0.y1, slide.height_px)
    width, height = ((x1 - x0) * slide.mpp_x / mpp, (y1 - y0) * slide.mpp_y / mpp)
    return ShownView(Box(x0, y0, x1, y1), max(1, round(width)), max(1, round(height)), mpp)


def _within(low: float, high: float, length: int) -> tuple[int, int]:
    side = min(max(1, round(high - low)), length)
    start = min(max(0, round(low)), length - side)
    return start, start + side


def prompts_in(
    view: ShownView,
    asked: list[Asked],
    negatives_px0: np.ndarray,
    mask_px: int,
    canvas_scale: tuple[float, float],
    image_px: int,
) -> Prompts:
    """Prompts of objects that share a view, in the view's pixels; all with a polygon or all without.

    Args:
        view: That all of them are seen in.
        asked: The objects.
        negatives_px0: (N, 2) clicks on none of them; those outside the view are left out.
        mask_px: Side of the model's mask grid.
        canvas_scale: Canvas pixels per view pixel along x and y.
        image_px: Side of the model's canvas.

    Raises:
        PromptError: An object reaches out of the view, which only a region of the user's can be too small for.
    """
    against = view.to_view(negatives_px0[view.holds(negatives_px0)])
    count = max(len(one.points_px0) for one in asked) + len(against)
    points, labels = np.zeros((len(asked), count, 2), np.float32), np.full((len(asked), count), PADDING)
    boxes = np.full((len(asked), 4), np.nan, np.float32)
    for row, one in enumerate(asked):
        _refuse_outside(one, view)
        clicks = np.concatenate([view.to_view(one.points_px0), against])
        points[row, : len(clicks)] = clicks
        labels[row, : len(clicks)] = [THIS] * len(one.points_px0) + [NOT_THIS] * len(against)
        if one.box_px0 is not None:
            corners = np.array([[one.box_px0.x0, one.box_px0.y0], [one.box_px0.x1, one.box_px0.y1]])
            side = np.array([view.width_px, view.height_px])
            boxes[row] = view.to_view(corners).clip(0, side).reshape(-1)
    masks = None
    if asked[0].polygons:
        scale = np.array(canvas_scale) * mask_px / image_px
        masks = torch.stack([_mask_prompt(one, view, mask_px, scale) for one in asked])[None]
    return Prompts(
        torch.from_numpy(points)[None] if count else None,
        torch.from_numpy(labels)[None] if count else None,
        torch.from_numpy(boxes)[None],
        masks,
    )


def _refuse_outside(one: Asked, view: ShownView) -> None:
    outside = len(one.points_px0) > 0 and not view.holds(one.points_px0).all()
    if outside or (one.box_px0 is not None and one.box_px0.intersection(view.box_px0).area == 0):
        raise PromptError(one.name, "it lies outside --region", "Make the region larger, or leave it out.")


def _mask_prompt(one: Asked, view: ShownView, mask_px: int, scale: np.ndarray) -> torch.Tensor:
    mask = np.zeros((mask_px, mask_px), bool)
    for polygon in one.polygons:
        fill_polygon(mask, [view.to_view(ring) * scale for ring in polygon])
    return torch.from_numpy(np.where(mask, _SURE_LOGIT, -_SURE_LOGIT).astype(np.float32))
