"""Masks over what they hide: images, three planes of a volume, a strip of a film's frames.

What the encoder is shown is left as it is. A token that it is not shown is pale; one that is asked for has the colour
of its target, with a line around the target. Lines lie inside the targets, so that no shown pixel is changed.

Shapes: Y rows, X columns, Z slices, T frames, K targets; the grid's tokens divide the pixels evenly.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from lamella.data.masks.mask import Mask
from lamella.formats.atomic import whole_file
from lamella.view.marks import INK, PAPER, colour, font
from lamella.view.planes import Cut, video_cuts, volume_cuts

_PALE = np.array((233, 236, 239), np.float32)
_PALE_SHARE, _TINT_SHARE = 0.7, 0.4  # of what is not shown: a hint of the image stays visible
_GAP_PX, _HEAD_PX = 10, 26


def mask_over_image(pixels: np.ndarray, mask: Mask) -> np.ndarray:
    """(Y, X, 3) uint8 of an image (Y, X, 3) uint8 with a mask of a (y, x) grid over it."""
    shown, targets = _token_sets(mask)
    return _painted(pixels, shown, targets)


def mask_over_planes(
    values_ZYX: np.ndarray, mask: Mask, at_zyx: tuple[int, int, int] | None = None
) -> list[np.ndarray]:
    """The axial, coronal and sagittal plane of a volume (see `view.planes`) with a mask of a (z, y, x) grid over them.

    Args:
        values_ZYX: The values that the network is given, of any scale.
        mask: Of its tokens.
        at_zyx: Voxel through which the planes go; the middle unless given.
    """
    return [_over(cut, mask) for cut in volume_cuts(values_ZYX, None, at_zyx)]


def mask_over_frames(frames_TYX3: np.ndarray, mask: Mask) -> list[np.ndarray]:
    """One (Y, X, 3) uint8 for each step of a (t, y, x) grid: the middle frame of each tubelet with the mask over it."""
    return [_over(cut, mask) for cut in video_cuts(frames_TYX3, mask.grid[0])]


def _over(cut: Cut, mask: Mask) -> np.ndarray:
    shown, targets = _token_sets(mask)
    return _painted(cut.pixels, cut.of(shown), np.stack([cut.of(target) for target in targets]))


def draw_mask_sheet(rows: Sequence[tuple[str, Sequence[np.ndarray]]], path: Path | str, scale: int = 1) -> None:
    """Write pictures in rows, each with its title above.

    Args:
        rows: Title and pictures (Y, X, 3) uint8 of each row.
        path: PNG to write, whole or not at all.
        scale: Enlarge each pixel to so many.

    Raises:
        StorageError: The disk refused the write.
    """
    heights = [max(len(picture) for picture in pictures) * scale for _, pictures in rows]
    widths = [sum(picture.shape[1] * scale + _GAP_PX for picture in pictures) for _, pictures in rows]
    titles = [title for title, _ in rows]
    letters = font(14)
    width = max(*widths, *(round(letters.getlength(title)) + _GAP_PX for title in titles)) + _GAP_PX
    sheet = Image.new("RGB", (width, sum(heights) + len(rows) * (_HEAD_PX + _GAP_PX) + _GAP_PX), PAPER)
    draw, top = ImageDraw.Draw(sheet), _GAP_PX // 2
    for (title, pictures), height in zip(rows, heights, strict=True):
        draw.text((_GAP_PX, top + 4), title, font=letters, fill=INK)
        left = _GAP_PX
        for picture in pictures:
            size = (picture.shape[1] * scale, picture.shape[0] * scale)
            sheet.paste(Image.fromarray(picture).resize(size, Image.Resampling.NEAREST), (left, top + _HEAD_PX))
            left += size[0] + _GAP_PX
        top += _HEAD_PX + height + _GAP_PX
    with whole_file(path) as part:
        sheet.save(part, format="PNG")


def _token_sets(mask: Mask) -> tuple[np.ndarray, np.ndarray]:
    """Bool of the grid's shape, and (K, *grid) bool."""
    sets = np.zeros((1 + len(mask.targets), int(np.prod(mask.grid))), bool)
    for chosen, numbers in zip(sets, (mask.context, *mask.targets), strict=True):
        chosen[numbers] = True
    sets = sets.reshape(-1, *mask.grid)
    return sets[0], sets[1:]


def _painted(pixels: np.ndarray, shown: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The picture of one plane: tokens as (rows, columns), targets as (K, rows, columns)."""
    shown_YX, targets_KYX = _pixelwise(shown, pixels), [_pixelwise(target, pixels) for target in targets]
    painted = pixels.astype(np.float32)
    hidden = painted * (1 - _PALE_SHARE) + _PALE * _PALE_SHARE
    painted[~shown_YX] = hidden[~shown_YX]
    for number, target_YX in enumerate(targets_KYX):
        tint = np.array(colour(number), np.float32)
        painted[target_YX] = painted[target_YX] * (1 - _TINT_SHARE) + tint * _TINT_SHARE
    line_px = max(1, min(pixels.shape[0] // shown.shape[0], pixels.shape[1] // shown.shape[1]) // 8)
    for number, target_YX in enumerate(targets_KYX):
        painted[_rim(target_YX, line_px)] = colour(number)
    return painted.round().astype(np.uint8)


def _pixelwise(tokens: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """(Y, X) bool of (rows, columns) bool.

    Raises:
        ValueError: The tokens do not divide the pixels evenly.
    """
    rows, columns = tokens.shape
    height, width = pixels.shape[:2]
    if height % rows or width % columns:
        raise ValueError(f"{rows} x {columns} tokens do not divide {height} x {width} pixels")
    return tokens.repeat(height // rows, 0).repeat(width // columns, 1)


def _rim(inside_YX: np.ndarray, line_px: int) -> np.ndarray:
    """Pixels of a set that are within the line's width of its edge."""
    core = np.pad(inside_YX, line_px)
    height, width = inside_YX.shape
    for axis in (0, 1):
        core = np.logical_and.reduce([np.roll(core, shift, axis) for shift in range(-line_px, line_px + 1)])
    return inside_YX & ~core[line_px : line_px + height, line_px : line_px + width]
