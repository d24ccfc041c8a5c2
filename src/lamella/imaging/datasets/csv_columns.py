"""Which column of a CSV means what: as set, or by a name that leaves no doubt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lamella.errors import DatasetError
from lamella.imaging.datasets.problems import named
from lamella.imaging.datasets.settings import DatasetSettings

NOTHING = "none"
"""As a setting: do not use such a column although there is one."""

_KNOWN = {
    "id": ("id", "item_id", "image_id", "case_id", "id_code"),
    "image": (
        *("image", "image_path", "img", "img_path", "path", "file", "filename", "file_name", "filepath", "file_path"),
        *("volume", "volume_path", "video", "video_path", "scan", "scan_path"),
    ),
    "label": ("label", "labels", "class", "diagnosis", "target"),
    # The coarsest first: a patient has lesions and slides, so a patient kept whole keeps them whole.
    "group": ("group", "patient", "patient_id", "subject", "subject_id", "lesion", "lesion_id", "slide", "slide_id"),
    "site": ("site", "hospital", "centre", "center", "institution"),
    "split": ("split",),
    "mask": ("mask", "mask_path", "segmentation", "segmentation_path"),
}
# Two columns of these may both be right; the first known name is the safe choice.
_FIRST_WINS = {"id", "group", "site"}


@dataclass(frozen=True)
class Columns:
    """The column of each meaning; None where there is none."""

    image: tuple[str, ...]
    id: str | None
    label: str | None
    group: str | None
    site: str | None
    split: str | None
    mask: str | None
    mpp: str | None

    def told(self) -> str:
        """One line for the reader of the results."""
        pairs = [("image", "+".join(self.image)), ("id", self.id), ("label", self.label), ("group", self.group)]
        pairs += [("site", self.site), ("split", self.split), ("mask", self.mask), ("mpp", self.mpp)]
        return "columns: " + ", ".join(f"{what} = {column}" for what, column in pairs if column)


def find_columns(path: Path, rows: Sequence[dict[str, str]], folder: Path, settings: DatasetSettings) -> Columns:
    """Settle every column.

    Args:
        path: The CSV, for messages.
        rows: Its rows.
        folder: Where its files lie.
        settings: The user's wish.

    Raises:
        DatasetError: A wished column is absent, or two could be meant.
    """
    header = list(rows[0])
    absent = [
        f"the column {column!r} ({what}) is absent"
        for what, column in _wished(settings)
        if column not in header and column != NOTHING
    ]
    if absent:
        raise DatasetError(path, "; ".join(absent), f"It has: {', '.join(header)}.")
    found = {what: _one(path, header, what, getattr(settings, what)) for what in _KNOWN if what != "image"}
    found["mpp"] = _one(path, header, "mpp", None)  # the setting is a number for all, not a column
    image = settings.image or _image(path, rows, folder, {column for column in found.values() if column}, settings)
    return Columns(image, **found)


def _wished(settings: DatasetSettings) -> list[tuple[str, str]]:
    one = [(what, getattr(settings, what)) for what in _KNOWN if what != "image" and getattr(settings, what)]
    return [*(("image", column) for column in settings.image), *one]


def _one(path: Path, header: Sequence[str], what: str, wished: str | None) -> str | None:
    if wished is not None:
        return None if wished == NOTHING else wished
    matches = _by_name(header, what) if what in _KNOWN else [column for column in header if column.lower() == what]
    if len(matches) > 1 and what not in _FIRST_WINS:
        _refuse_two(path, what, matches)
    return matches[0] if matches else None


def _by_name(header: Sequence[str], what: str) -> list[str]:
    plain = {column: column.lower().replace(" ", "_") for column in header}
    return [column for name in _KNOWN[what] for column in header if plain[column] == name]


def _image(
    path: Path, rows: Sequence[dict[str, str]], folder: Path, taken: set[str], settings: DatasetSettings
) -> tuple[str, ...]:
    matches = _by_name(list(rows[0]), "image")
    if not matches:
        matches = [
            column for column in rows[0] if column not in taken and _all_files(rows, column, folder, settings.suffix)
        ]
    if len(matches) > 1:
        raise DatasetError(
            path,
            f"the columns {named(matches)} could all be the image",
            f"Set image={matches[0]}, or image=[{','.join(matches)}] for one file per channel of a volume.",
        )
    if not matches:
        raise DatasetError(
            path,
            f"no column names the files (it has {', '.join(rows[0])})",
            "Set image=COLUMN; see also folder, suffix.",
        )
    return tuple(matches)


def _all_files(rows: Sequence[dict[str, str]], column: str, folder: Path, suffix: str) -> bool:
    cells = [row[column] for row in rows[:50] if row[column]]  # enough to tell; every file is looked for later
    return bool(cells) and all(file_in(folder, cell, suffix).exists() for cell in cells)


def _refuse_two(path: Path, what: str, matches: Sequence[str]) -> None:
    raise DatasetError(
        path, f"the columns {named(matches)} could all be the {what}", f"Set {what}={matches[0]} or another of them."
    )


def file_in(folder: Path, cell: str, suffix: str) -> Path:
    """The file that a cell names: absolute, or below the folder; the suffix is added to a name without one."""
    path = Path(cell).expanduser()
    return folder / (path if path.suffix or not suffix else path.with_name(path.name + suffix))
