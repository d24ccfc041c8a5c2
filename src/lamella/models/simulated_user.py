"""A user who knows the truth: which box or clicks they give for an object, and where they click to correct an answer.

An object is a connected part of one class (8 neighbours). Everything a user gives is for that object alone, and that
object alone is what the answer is scored against: a box around the largest part of a class is not a box around the
class. At evaluation each choice is a pure function of the masks; in training it is drawn.

Places are pixels as in `lamella.models.prompts`: x, y, and the centre of pixel (0, 0) is (0.5, 0.5).

Shapes: Y rows, X columns, P clicks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from lamella.formats.label_values import NOT_LABELLED
from lamella.models.prompts import NOT_THIS, PADDING, THIS, Prompts

BOX_NOISE, BOX_NOISE_PX = 0.1, 20.0
"""Most that a corner is off: a share of the side, and pixels; the less of the two (SAM 2's training)."""
_EIGHT = np.ones((3, 3), bool)
# Clicks meant to be well inside keep at least this share of the greatest distance from the edge: a person aims at the
# body of a thing, not at its rim.
_BODY = 0.5


@dataclass(frozen=True)
class TrueObject:
    """One connected part of a class.

    Attributes:
        channel: Its class, as an index into the channels.
        window: The smallest box around it, as rows and columns.
        mask_yx: bool, inside the window.
    """

    channel: int
    window: tuple[slice, slice]
    mask_yx: np.ndarray

    @property
    def area_px(self) -> int:
        return int(self.mask_yx.sum())

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x0, y0, x1, y1, half-open."""
        rows, columns = self.window
        return columns.start, rows.start, columns.stop, rows.stop

    def mask(self, height: int, width: int) -> np.ndarray:
        """(Y, X) bool on the whole image."""
        whole = np.zeros((height, width), bool)
        whole[self.window] = self.mask_yx
        return whole


@dataclass(frozen=True)
class Given:
    """What the user has given for one object: clicks in their order, and perhaps a box (x0, y0, x1, y1)."""

    points: tuple[tuple[float, float], ...] = ()
    labels: tuple[int, ...] = ()
    box: tuple[float, float, float, float] | None = None

    def and_click(self, click: tuple[float, float, int] | None) -> Given:
        """With one more click; None is no click, and nothing changes."""
        if click is None:
            return self
        return Given((*self.points, click[:2]), (*self.labels, click[2]), self.box)


def true_objects(channels_YX: np.ndarray, *, background: int | None, min_area_px: int = 1) -> list[TrueObject]:
    """The objects of an image: class by class, then from the top left.

    Args:
        channels_YX: uint8 class indices; NOT_LABELLED is no class.
        background: The channel that is no object; None where every class has objects.
        min_area_px: Smaller ones are left out: specks that nobody would prompt for.
    """
    found = []
    for channel in np.unique(channels_YX).tolist():
        if channel in (NOT_LABELLED, background):
            continue
        parts, count = ndimage.label(channels_YX == channel, _EIGHT)
        for number, window in enumerate(ndimage.find_objects(parts, count), start=1):
            mask = parts[window] == number
            if mask.sum() >= min_area_px:
                found.append(TrueObject(channel, window, mask))
    return found


# ---- boxes ----------------------------------------------------------------------------------------------------------


def noisy_box(
    mask_YX: np.ndarray,
    rng: np.random.Generator,
    *,
    noise: float = BOX_NOISE,
    noise_px: float = BOX_NOISE_PX,
) -> tuple[float, float, float, float]:
    """A box drawn by hand: each side off by up to min(noise x length, noise_px), within the image."""
    x0, y0, x1, y1 = box_of(mask_YX)
    height, width = mask_YX.shape
    off_x, off_y = (min(noise * length, noise_px) for length in (x1 - x0, y1 - y0))
    moved = np.array([x0, y0, x1, y1]) + rng.uniform(-1, 1, 4) * [off_x, off_y, off_x, off_y]
    # At least half the length stays: the two sides move by a tenth of it at most.
    x0, y0, x1, y1 = moved.clip(0, [width, height, width, height]).tolist()
    return x0, y0, x1, y1


def box_of(mask_YX: np.ndarray) -> tuple[float, float, float, float]:
    """The smallest box around a mask, half-open.

    Raises:
        ValueError: The mask is empty.
    """
    rows, columns = np.flatnonzero(mask_YX.any(1)), np.flatnonzero(mask_YX.any(0))
    if not len(rows):
        raise ValueError("an empty mask has no box")
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


# ---- clicks ---------------------------------------------------------------------------------------------------------


def centroid(mask_YX: np.ndarray) -> tuple[float, float]:
    """The centre of gravity; where that is outside (a ring, a crescent), the pixel of the mask nearest to it."""
    rows, columns = np.nonzero(mask_YX)
    y, x = rows.mean(), columns.mean()
    nearest = int(np.argmin((rows - y) ** 2 + (columns - x) ** 2))
    return float(columns[nearest]) + 0.5, float(rows[nearest]) + 0.5


def deepest(mask_YX: np.ndarray) -> tuple[float, float]:
    """The pixel farthest from the mask's edge; the image's border is an edge. Of equals the uppermost, leftmost."""
    row, column = np.unravel_index(int(np.argmax(_depth(mask_YX))), mask_YX.shape)
    return float(column) + 0.5, float(row) + 0.5


def spread(mask_YX: np.ndarray, count: int) -> list[tuple[float, float]]:
    """Up to `count` clicks in the body of a mask: the deepest, then each as far from the others as possible."""
    depth = _depth(mask_YX)
    rows, columns = np.nonzero(depth >= max(_BODY * depth.max(), 1))
    if not len(rows) or count < 1:
        return []
    chosen = [int(np.argmax(depth[rows, columns]))]
    distance = np.full(len(rows), np.inf)
    while len(chosen) < count:
        last = chosen[-1]
        distance = np.minimum(distance, (rows - rows[last]) ** 2 + (columns - columns[last]) ** 2)
        if distance.max() == 0:
            break  # fewer places than clicks
        chosen.append(int(np.argmax(distance)))
    return [(float(columns[each]) + 0.5, float(rows[each]) + 0.5) for each in chosen]


def negatives(mask_YX: np.ndarray, known_YX: np.ndarray, count: int) -> list[tuple[float, float]]:
    """Up to `count` clicks near the object and not on it: within its box, or within twice the box where it fills it.

    Args:
        mask_YX: The object.
        known_YX: Where the truth is known: elsewhere nobody can say that it is not the object.
        count: How many.
    """
    x0, y0, x1, y1 = (int(each) for each in box_of(mask_YX))
    margin_x, margin_y = (max(1, (length + 1) // 2) for length in (x1 - x0, y1 - y0))
    outside = known_YX & ~mask_YX
    for grow in (0, 1):
        rows = slice(max(0, y0 - grow * margin_y), y1 + grow * margin_y)
        columns = slice(max(0, x0 - grow * margin_x), x1 + grow * margin_x)
        found = spread(outside[rows, columns], count)
        if found:
            return [(x + columns.start, y + rows.start) for x, y in found]
    return []


def correction(
    truth_YX: np.ndarray, predicted_YX: np.ndarray, known_YX: np.ndarray, rng: np.random.Generator | None = None
) -> tuple[float, float, int] | None:
    """Where the user clicks next: (x, y, THIS or NOT_THIS), or None where nothing is wrong.

    Args:
        truth_YX: The object.
        predicted_YX: The answer so far.
        known_YX: Errors elsewhere are no errors.
        rng: None clicks into the depth of the largest wrong region, as an attentive person would; with one, any wrong
            pixel is as likely as any other (SAM 2's training).
    """
    missed, extra = truth_YX & ~predicted_YX & known_YX, predicted_YX & ~truth_YX & known_YX
    if not missed.any() and not extra.any():
        return None
    if rng is not None:
        rows, columns = np.nonzero(missed | extra)
        pick = int(rng.integers(len(rows)))
        x, y = float(columns[pick]) + 0.5, float(rows[pick]) + 0.5
    else:
        region, window = max((_largest(missed), _largest(extra)), key=lambda each: int(each[0].sum()))
        x, y = deepest(region)
        x, y = x + window[1].start, y + window[0].start
    return x, y, THIS if truth_YX[int(y), int(x)] else NOT_THIS


def random_click(mask_YX: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Any pixel of the mask."""
    rows, columns = np.nonzero(mask_YX)
    pick = int(rng.integers(len(rows)))
    return float(columns[pick]) + 0.5, float(rows[pick]) + 0.5


def _largest(mask_YX: np.ndarray) -> tuple[np.ndarray, tuple[slice, slice]]:
    """The largest connected part, and the window it lies in; of equals the first from the top left."""
    parts, count = ndimage.label(mask_YX, _EIGHT)
    if not count:
        return np.zeros((0, 0), bool), (slice(0, 0), slice(0, 0))
    number = int(np.argmax(np.bincount(parts.ravel())[1:])) + 1
    window = ndimage.find_objects(parts, number)[number - 1]
    return parts[window] == number, window


def _depth(mask_YX: np.ndarray) -> np.ndarray:
    """Distance of each pixel of the mask from the nearest pixel that is not; beyond the border nothing is."""
    depth: np.ndarray = ndimage.distance_transform_edt(np.pad(mask_YX, 1))
    return depth[1:-1, 1:-1]


# ---- the prompts of several objects ---------------------------------------------------------------------------------


def first_prompt(mask_YX: np.ndarray, rng: np.random.Generator, *, box: bool) -> Given:
    """What training begins with: a box drawn by hand, or a click anywhere on the object."""
    if box:
        return Given(box=noisy_box(mask_YX, rng))
    return Given().and_click((*random_click(mask_YX, rng), THIS))


def as_prompts(given: Sequence[Sequence[Given]], device: torch.device | str = "cpu") -> Prompts:
    """What was given for M objects on each of B images; rows of fewer clicks are filled up with PADDING.

    Raises:
        ValueError: The images have different numbers of objects, or nothing was given at all.
    """
    B, M = len(given), len(given[0])
    if any(len(objects) != M for objects in given):
        raise ValueError("every image of a batch needs the same number of objects")
    width = max(len(each.points) for objects in given for each in objects)
    points_BMP2 = torch.zeros(B, M, width, 2)
    labels_BMP = torch.full((B, M, width), PADDING)
    boxes_BM4 = torch.full((B, M, 4), torch.nan)
    for image, objects in enumerate(given):
        for row, each in enumerate(objects):
            if each.points:
                points_BMP2[image, row, : len(each.points)] = torch.tensor(each.points)
                labels_BMP[image, row, : len(each.labels)] = torch.tensor(each.labels)
            if each.box is not None:
                boxes_BM4[image, row] = torch.tensor(each.box)
    boxed = not bool(boxes_BM4.isnan().all())
    if not width and not boxed:
        raise ValueError("nobody clicked and nobody drew a box")
    points, labels = (points_BMP2, labels_BMP) if width else (None, None)
    return Prompts(points, labels, boxes_BM4 if boxed else None).to(device)
