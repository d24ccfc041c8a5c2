"""Which pixel truth belongs to which slide, and what its values mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lamella.data.bag_slides import Listed, SlideNames
from lamella.data.labels import MASK_COLUMN
from lamella.errors import DatasetError, LamellaError

_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")
_ENDINGS = ("_mask", "_anno", "_label", "_gt")  # of mask files that are named after their slide and so
_BACKGROUND_VALUE = 0


def mask_files(folder: Path | None, names: SlideNames[Listed], problems: list[str]) -> dict[str, Path]:
    """slide_id -> mask file: those in a folder by name, else the manifest's column; none is opened.

    Raises:
        DatasetError: There is no such folder, or no mask in it is named after a slide.
    """
    if folder is None:
        stated = {slide.slide_id: slide.metadata.get(MASK_COLUMN) for slide in names.slides}
        return {slide_id: Path(path) for slide_id, path in stated.items() if path}
    if not folder.is_dir():
        raise DatasetError(folder, "there is no such folder of masks", "Correct data.masks.")
    found: dict[str, Path] = {}
    for file in sorted(file for file in folder.iterdir() if file.suffix.lower() in _SUFFIXES):
        try:
            slide = names.get(file.stem) or names.get(_without_ending(file.stem))
        except LamellaError as error:
            problems.append(str(error))
            continue
        if slide is not None and found.setdefault(slide.slide_id, file) != file:
            problems.append(f"slide {slide.slide_id} has two masks: {found[slide.slide_id].name} and {file.name}")
    if not found:
        raise DatasetError(
            folder, "no mask in it is named after a slide", "Name masks as slides, or correct data.masks."
        )
    return found


def _without_ending(stem: str) -> str:
    return next((stem.removesuffix(ending) for ending in _ENDINGS if stem.endswith(ending)), stem)


def settled_values(
    classes: Sequence[str], background: str | None, stated: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """Class or background -> its values in the masks; the background has 0 unless said.

    Raises:
        DatasetError: A class has no value, a name is unknown, or a value stands for two classes.
    """
    channels = [*classes, *([] if background is None else [background])]
    unknown = [name for name in stated if name not in channels]
    if unknown:
        raise DatasetError("data.mask_values", f"{unknown[0]!r} is no class", f"Classes: {', '.join(channels)}.")
    silent = [name for name in classes if not stated.get(name)]
    if silent:
        raise DatasetError(
            "data.mask_values",
            f"there are masks, and nothing says which of their values is {', '.join(silent)}",
            f"Set data.mask_values={{{silent[0]}: [1]}} and so on.",
        )
    values = {name: tuple(stated[name]) for name in channels if name in stated}
    taken = {value for own in values.values() for value in own}
    if sum(len(set(own)) for own in values.values()) != len(taken):
        raise DatasetError("data.mask_values", "a value stands for two classes", "Give every value one class.")
    if background is not None and background not in values and _BACKGROUND_VALUE not in taken:
        values[background] = (_BACKGROUND_VALUE,)
    return values
