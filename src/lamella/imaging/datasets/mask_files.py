"""Segmentations as whole numbers on the very grid of their image."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from lamella.errors import ImageError, first_line
from lamella.imaging.datasets.collection import Item, Kind
from lamella.imaging.datasets.files import kind_by_name
from lamella.imaging.datasets.item_files import grid_difference
from lamella.imaging.measured import Volume
from lamella.imaging.reading import read_image, read_volume

FOREGROUND = "foreground"


@dataclass(frozen=True)
class ReadMask:
    """Item to its segmentation.

    Attributes:
        kind: What the mask lies over.
        classes: Class name to its value in the files. Empty: any one value beside 0 becomes 1, `foreground`.
    """

    kind: Kind
    classes: dict[str, int] = field(default_factory=dict)

    def __call__(self, item: Item) -> np.ndarray:
        """(Y, X) or (Z, Y, X) int32.

        Raises:
            ImageError: There is no mask, it cannot be read, it lies on another grid, or holds unknown values.
        """
        if item.mask is None:
            raise ImageError(item.item_id, "it has no segmentation", "Leave it out where masks are needed.")
        if self.kind == "video":
            raise ImageError(item.mask, "segmentations of videos are not read", "Give images or volumes.")
        if self.kind == "volume":  # the channels of a case share a grid, so its first file stands for all
            values = _volume_mask(item.mask, read_volume(item.sources[0]))
        else:
            values = picture_mask(item.mask)
            rows, columns = read_image(item.sources[0]).values.shape[:2]
            if values.shape != (rows, columns):
                raise ImageError(
                    item.mask,
                    f"it has {values.shape[0]} rows of {values.shape[1]} pixels, its image {rows} of {columns}",
                    "Give the mask of this very image.",
                )
        return _known(item.mask, values, self.classes)


def picture_mask(path: Path) -> np.ndarray:
    """(Y, X) int32: the numbers of a PNG, TIFF or BMP, a palette's indices as they are.

    Raises:
        ImageError: It cannot be read, or its colours are no numbers.
    """
    if kind_by_name(path) != "image":
        raise ImageError(path, "it is no picture, but its image is", "Give the mask as PNG or TIFF.")
    try:
        with Image.open(path) as picture:
            if (pages := getattr(picture, "n_frames", 1)) > 1:
                raise ImageError(path, f"it holds {pages} pages", "Give one mask a file.")
            picture.load()
            values = np.asarray(picture)
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(path, f"it cannot be read ({first_line(error)})", "Replace the file.") from error
    if values.ndim == 3:
        colours = values[..., :3] if values.shape[-1] in (3, 4) else values[..., :1]
        if (colours != colours[..., :1]).any():
            raise ImageError(path, "its colours are no class numbers", "Save it with one channel.")
        values = colours[..., 0]
    return _whole(path, values)


def _volume_mask(path: Path, image: Volume) -> np.ndarray:
    mask = read_volume(path)
    if mask.values_CZYX.shape[0] != 1:
        raise ImageError(path, f"it holds {mask.values_CZYX.shape[0]} volumes", "A mask is one volume.")
    difference = grid_difference(mask, image)
    if difference:
        raise ImageError(path, f"it lies on another grid than its image: {difference}", "Resample it to the image.")
    return _whole(path, mask.values_CZYX[0])


def _whole(path: Path, values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "f" and not (np.isfinite(values).all() and (values == np.rint(values)).all()):
        raise ImageError(path, "its values are not whole numbers", "A mask holds the number of a class at each place.")
    return np.asarray(values, np.int32)


def _known(path: Path, values: np.ndarray, classes: dict[str, int]) -> np.ndarray:
    found = np.unique(values)
    present = [int(value) for value in found if value != 0]
    if classes:
        unknown = sorted(set(present) - set(classes.values()))
        if unknown:
            known = ", ".join(f"{name} {value}" for name, value in classes.items())
            raise ImageError(
                path,
                f"it holds the unknown value {', '.join(map(str, unknown[:5]))} (known: 0, {known})",
                "Name it in mask_classes; a JPEG cannot hold a mask.",
            )
        return values
    if len(present) > 1:
        raise ImageError(
            path,
            f"it holds {len(present)} values beside 0 ({', '.join(map(str, present[:5]))})",
            "Name them: mask_classes.gland=1 mask_classes.stroma=2 (a JPEG cannot hold a mask).",
        )
    return np.asarray(values != 0, np.int32)
