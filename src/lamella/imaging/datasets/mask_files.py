"""Segmentations as whole numbers on the very grid of their image."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

import numpy as np
from PIL import Image, UnidentifiedImageError

from lamella.errors import DatasetError, ImageError, first_line
from lamella.formats.label_values import NOT_LABELLED
from lamella.imaging.datasets.class_map import ClassMap, open_class_map, present_values
from lamella.imaging.datasets.collection import Item, Kind
from lamella.imaging.datasets.files import kind_by_name
from lamella.imaging.datasets.item_files import grid_difference
from lamella.imaging.datasets.settings import DatasetSettings
from lamella.imaging.measured import Volume
from lamella.imaging.pictures import PILLOW_FAULTS
from lamella.imaging.reading import read_image, read_volume
from lamella.imaging.silence import silence

FOREGROUND = "foreground"
_EXIF_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)  # orientations of a camera held upright: rows are columns


@dataclass(frozen=True)
class ReadMask:
    """Item to its segmentation.

    Attributes:
        kind: What the mask lies over.
        classes: Class name to its value in the files. Empty: any one value beside 0 becomes 1, `foreground`.
        class_map: What the values mean, in place of `classes`.
    """

    kind: Kind
    classes: dict[str, int] = field(default_factory=dict)
    class_map: ClassMap | None = None

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
            values = picture_mask(item.mask, colours=self.class_map is not None and self.class_map.by_colour)
            rows, columns = image_shape(item.sources[0])
            if values.shape != (rows, columns):
                raise ImageError(
                    item.mask,
                    f"it has {values.shape[0]} rows of {values.shape[1]} pixels, its image {item.sources[0].name} "
                    f"{rows} of {columns}",
                    "Give the mask of this very image.",
                )
        return self.class_map.ids_of(values, item.mask) if self.class_map else _known(item.mask, values, self.classes)


class MaskFacts(TypedDict):
    """What a collection says of its masks; see `Collection`."""

    read_mask: ReadMask | None
    mask_classes: dict[str, int]
    mask_background: str | None


def mask_facts(kind: Kind, settings: DatasetSettings, *, masked: bool, class_map: str | None = None) -> MaskFacts:
    """How the masks of a data set are read, as its settings say.

    Args:
        kind: What the masks lie over.
        settings: `class_map` and `mask_classes` are looked at.
        masked: Whether there is any mask.
        class_map: The layout's own, where the settings name none.

    Raises:
        DatasetError: Both are set, or the classes cannot be told apart.
    """
    named_map = settings.class_map or (None if settings.mask_classes else class_map)
    if settings.class_map and settings.mask_classes:
        raise DatasetError("mask_classes", "class_map says already what the masks hold", "Set one of them.")
    if settings.class_map and not masked:
        raise DatasetError(
            f"class_map={settings.class_map}", "there is no mask that it could be used on", "Leave it out."
        )
    if named_map:
        found = open_class_map(named_map)
        return {
            "read_mask": ReadMask(kind, class_map=found) if masked else None,
            "mask_classes": dict(found.ids) if masked else {},
            "mask_background": found.background,
        }
    if settings.mask_classes:
        read, classes = _stated(kind, settings.mask_classes)
    else:
        read, classes = ReadMask(kind), {FOREGROUND: 1}
    return {
        "read_mask": read if masked else None,
        "mask_classes": classes if masked else {},
        "mask_background": "background",
    }


def _stated(kind: Kind, classes: dict[str, int]) -> tuple[ReadMask, dict[str, int]]:
    """The masks of `mask_classes`. A class of 255 gets another value: 255 means not labelled everywhere else."""
    wrong = [f"{name} {value}" for name, value in classes.items() if value < 1]
    if wrong:
        raise DatasetError(
            "mask_classes", f"values are 1 or more, not {', '.join(wrong)}", "0 is the background; see class_map."
        )
    if len(set(classes.values())) < len(classes):
        told = ", ".join(f"{name} {value}" for name, value in classes.items())
        raise DatasetError("mask_classes", f"two classes share a value: {told}", "Give each its own.")
    small = {name: value for name, value in classes.items() if value < NOT_LABELLED}
    if len(small) == len(classes):
        return ReadMask(kind, classes), classes
    free = (value for value in range(1, NOT_LABELLED) if value not in small.values())
    ids = {name: classes[name] if name in small else next(free) for name in classes}
    values = {name: (value,) for name, value in classes.items()}
    known = (0, *sorted(classes.values()))
    found = ClassMap("mask_classes", ids, values, rest="background", background="background", known=known)
    return ReadMask(kind, class_map=found), ids


def image_shape(path: Path) -> tuple[int, int]:
    """Rows and columns that `read_image` would give; of a picture without decoding it.

    Raises:
        ImageError: It cannot be read.
    """
    if kind_by_name(path) == "image" and path.is_file():
        try:
            with silence, Image.open(path) as picture:
                width, height = picture.size
                # Pillow decodes a whole PNG to look for its orientation; almost none states any.
                plain = picture.format == "PNG" and not _has_remarks(path)
                turned = not plain and picture.getexif().get(_EXIF_ORIENTATION, 1) in _TURNED
                # Whether the size of a TIFF is told before or after it is turned depends on Pillow's version.
                if not (turned and picture.format == "TIFF"):
                    return (width, height) if turned else (height, width)
        except PILLOW_FAULTS:
            return read_image(path).values.shape[:2]  # says what is wrong with it, or reads what is no picture
    return read_image(path).values.shape[:2]


def _has_remarks(path: Path) -> bool:
    """Whether a PNG has a chunk that could state an orientation: EXIF, or a text that holds it."""
    with path.open("rb") as file:
        file.seek(len(b"\x89PNG\r\n\x1a\n"))
        while len(head := file.read(8)) == 8:
            if head[4:] in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
                return True
            file.seek(int.from_bytes(head[:4], "big") + 4, 1)  # what it holds, and a checksum
    return False


def picture_mask(path: Path, *, colours: bool = False) -> np.ndarray:
    """(Y, X) int32: the numbers of a PNG, TIFF or BMP, a palette's indices as they are.

    Args:
        path: The file.
        colours: Read its colours, each as one number (65536 red + 256 green + blue).

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
            values = np.asarray(picture.convert("RGB") if colours else picture)
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(path, f"it cannot be read ({first_line(error)})", "Replace the file.") from error
    if colours:
        return values.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    if values.ndim == 3:
        planes = values[..., :3] if values.shape[-1] in (3, 4) else values[..., :1]
        if (planes != planes[..., :1]).any():
            raise ImageError(
                path,
                "its colours are no class numbers",
                "Save it with one channel, or give a class map with the colours (`tumor: ['#ff0000']`).",
            )
        values = planes[..., 0]
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
    present = [value for value in present_values(values) if value != 0]
    if classes:
        unknown = sorted(set(present) - set(classes.values()))
        if unknown:
            known = ", ".join(f"{name} {value}" for name, value in classes.items())
            raise ImageError(
                path,
                f"it holds the unknown value {', '.join(map(str, unknown[:5]))} (known: 0, {known})",
                "Name it in mask_classes or a class_map; a JPEG cannot hold a mask.",
            )
        return values
    if len(present) > 1:
        raise ImageError(
            path,
            f"it holds {len(present)} values beside 0 ({', '.join(map(str, present[:5]))})",
            "Name them: mask_classes.gland=1 mask_classes.stroma=2 (a JPEG cannot hold a mask).",
        )
    return np.asarray(values != 0, np.int32)
