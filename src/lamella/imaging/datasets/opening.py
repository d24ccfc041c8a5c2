"""Opens a data set on disk, whatever its layout."""

from __future__ import annotations

import re
from pathlib import Path

from lamella.errors import DatasetError
from lamella.imaging.datasets import (
    aptos2019,
    bcss,
    brats,
    chestxray14,
    csv_manifest,
    decathlon,
    folder,
    ham10000,
    medmnist,
    pannuke,
    pcam,
)
from lamella.imaging.datasets.collection import Collection
from lamella.imaging.datasets.layouts import ALWAYS_USED, Adapter
from lamella.imaging.datasets.problems import named
from lamella.imaging.datasets.settings import DatasetSettings

__all__ = ["ADAPTERS", "DatasetSettings", "open_collection"]

# Known layouts first; what any folder or CSV could be, last.
_KNOWN = (ham10000, pcam, aptos2019, chestxray14, brats, bcss, pannuke, decathlon, medmnist)
_GENERIC = (csv_manifest, folder)
ADAPTERS: dict[str, Adapter] = {module.ADAPTER.name: module.ADAPTER for module in (*_KNOWN, *_GENERIC)}


def open_collection(path: Path | str, settings: DatasetSettings | None = None, *, under: str = "") -> Collection:
    """List the items of a data set with labels, groups and splits; nothing is decoded or downloaded.

    Args:
        path: Its folder, its archive or its CSV.
        settings: What the layout does not say.
        under: What comes before their names where the user gives them, such as `data.dataset.`; remedies say it.

    Raises:
        DatasetError: There is no such path, its layout is unknown or could be two, a setting does not belong to it,
            or something is wrong in it (missing files, unknown labels, repeated ids, a leaking split): all is listed.
    """
    try:
        return _opened(Path(path), settings or DatasetSettings())
    except DatasetError as error:
        error.remedy = re.sub(rf"\b({'|'.join(DatasetSettings.model_fields)})=", rf"{under}\1=", error.remedy)
        raise


def _opened(path: Path, settings: DatasetSettings) -> Collection:
    if not path.exists():
        raise DatasetError(path, "there is no such file or folder", "Correct the path.")
    adapter, place = (ADAPTERS[settings.name], path) if settings.name != "auto" else _recognise(path)
    _refuse_unused(adapter, settings)
    return adapter.open(place, settings)


def _refuse_unused(adapter: Adapter, settings: DatasetSettings) -> None:
    """A setting without effect would be a wish unheard."""
    default = DatasetSettings()
    set_ = [key for key in type(settings).model_fields if getattr(settings, key) != getattr(default, key)]
    unused = [key for key in set_ if key not in adapter.uses | ALWAYS_USED]
    if unused:
        raise DatasetError(
            f"data set settings of {adapter.name}",
            f"{', '.join(unused)} has no effect on this layout",
            f"It knows: {', '.join(sorted(adapter.uses | ALWAYS_USED))}.",
        )


def _recognise(path: Path) -> tuple[Adapter, Path]:
    """The one layout that the path has, and where it begins."""
    known = [module.ADAPTER for module in _KNOWN if module.ADAPTER.fits(path)]
    if len(known) > 1:
        _refuse_two(path, [adapter.name for adapter in known])
    if known:
        return known[0], path
    if path.is_file():
        if csv_manifest.ADAPTER.fits(path):
            return csv_manifest.ADAPTER, path
        raise DatasetError(path, "this is no data set", "Give a folder, a CSV, or a MedMNIST npz.")
    archives, tables = (sorted(path.glob(f"*.{suffix}")) for suffix in ("npz", "csv"))
    if len(archives) == 1 and not tables:
        return medmnist.ADAPTER, archives[0]
    inside = [
        f"{each.name} ({module.ADAPTER.name})"
        for each in sorted(path.iterdir())
        for module in _KNOWN
        if each.is_dir() and module.ADAPTER.fits(each)
    ]
    if inside:
        raise DatasetError(path, f"it holds data sets: {named(inside)}", "Give one of them.")
    if archives or tables:
        raise DatasetError(
            path,
            f"its layout is not known, and it holds {named([each.name for each in (*archives, *tables)])}",
            f"Give {'it' if len(archives) + len(tables) == 1 else 'one of them'} instead of the folder, or set "
            "name=folder to take the images below it.",
        )
    return folder.ADAPTER, path


def _refuse_two(path: Path, names: list[str]) -> None:
    raise DatasetError(path, f"it could be {' or '.join(names)}", f"Set name={names[0]} or another of them.")
