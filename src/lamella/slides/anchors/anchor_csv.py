"""The anchor catalogue as the source project's CSV, one row per anchor: export and import."""

from __future__ import annotations

import copy
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from lamella.errors import LamellaError, ManifestError, SlideError
from lamella.formats.tables import iterate_csv, write_csv
from lamella.slides.anchors.catalogue import Catalogue, anchor_id
from lamella.slides.anchors.cataloguing import Candidates
from lamella.slides.anchors.sampling import CrossSampling
from lamella.slides.index import IndexedSlide, SlideIndex, relative_path

COLUMNS = (
    "anchor_id",
    "slide_id",
    "profile_id",
    "wsi_path",
    "mask_path",
    "center_x_level0",
    "center_y_level0",
    "center_x_mask",
    "center_y_mask",
    "tissue_fraction",
    "is_in_bounds",
    "wsi_level0_spacing_mpp",
    "mask_level0_spacing_mpp",
    "context_mpp",
    "target_mpp",
    "context_fov_um",
    "target_fov_um",
    "targets_per_context",
    "min_tissue_fraction",
    "target_margin_um",
    "target_margin_context_px",
    "context_size_px",
    "target_size_context_px",
    "spacing_tolerance",
)
# Columns of the file that are settings of the profile; they must agree with the profile it is imported with.
_PROFILE_COLUMNS = tuple(name for name in COLUMNS if name in CrossSampling.model_fields and name != "profile_id")
_NEEDED = ("anchor_id", "slide_id", "center_x_level0", "center_y_level0")
_CHUNK = 2**16  # anchors checked at a time


def export_csv(catalogue: Catalogue, path: Path) -> None:
    """Write all anchors; paths in the file are relative to it. One shard is in memory at a time.

    Raises:
        StorageError: The disk refused the write.
    """
    write_csv(path, _rows(catalogue, path.parent), COLUMNS)


def _rows(catalogue: Catalogue, folder: Path) -> Iterator[dict[str, str]]:
    for slide_id, _, _ in catalogue.shards:
        slide = catalogue.index[slide_id]
        same = _same_for_all(slide, catalogue.sampling, folder)
        columns = catalogue.slide_anchors(slide_id)
        names = ("number", "center_x_px0", "center_y_px0", "tissue_fraction")
        for number, x, y, fraction in zip(*(columns[name].tolist() for name in names), strict=True):
            x_mask, y_mask = slide.frame.point_in(slide.mask_frame, x, y)
            yield {
                **same,
                "anchor_id": anchor_id(slide_id, number),
                "center_x_level0": _plain(x),
                "center_y_level0": _plain(y),
                "center_x_mask": _plain(x_mask),
                "center_y_mask": _plain(y_mask),
                "tissue_fraction": f"{fraction:.6f}",
            }


def _same_for_all(slide: IndexedSlide, sampling: CrossSampling, folder: Path) -> dict[str, str]:
    spacing = sampling.context_output_mpp
    return {
        "slide_id": slide.slide_id,
        "profile_id": sampling.profile_id,
        "wsi_path": relative_path(slide.wsi_path, folder),
        "mask_path": relative_path(slide.mask_path, folder),
        "is_in_bounds": "True",
        "wsi_level0_spacing_mpp": _plain(slide.frame.mpp),
        "mask_level0_spacing_mpp": _plain(slide.mask_frame.mpp),
        **{name: _plain(getattr(sampling, name)) for name in _PROFILE_COLUMNS},
        "target_margin_context_px": _plain(sampling.target_margin_um / spacing),
        "context_size_px": str(sampling.context_px),
        "target_size_context_px": _plain(sampling.target_fov_um / spacing),
    }


def _plain(value: float) -> str:
    """The shortest text that reads back as the same number."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))


class ImportedAnchors:
    """The anchors of a CSV file, by slide: 24 bytes each in memory.

    Args:
        path: The file; rows of one slide need not stand together.
        index: The slides it belongs to.
        sampling: The profile to import it with.

    Raises:
        ManifestError: A column or a number is missing, a slide is not in the index, an anchor_id is malformed or stands
            twice, or the file was made for another profile.
    """

    def __init__(self, path: Path, index: SlideIndex, sampling: CrossSampling) -> None:
        self.path = path
        self._numbers: dict[str, array[int]] = {}
        self._centers: dict[str, array[float]] = {}
        self._mpp: dict[str, str] = {}
        unknown: dict[str, int] = {}
        try:
            for line, row in enumerate(iterate_csv(path), start=2):
                if line == 2:
                    self._check_columns(row)
                self._check_profile(line, row, sampling)
                if row["slide_id"] in index:
                    self._add(line, row)
                else:
                    unknown.setdefault(row["slide_id"], line)
        except ManifestError:
            raise
        except LamellaError as error:
            raise ManifestError(error.thing, error.cause, error.remedy) from error
        self._refuse_unknown(unknown, index)
        self._refuse_repeated()
        if not self._numbers:
            raise ManifestError(path, "it holds no anchors", "Export the catalogue again.")

    def __len__(self) -> int:
        return sum(map(len, self._numbers.values()))

    @property
    def slide_ids(self) -> list[str]:
        return list(self._numbers)

    def only(self, slide_id: str) -> ImportedAnchors:
        """The anchors of one slide alone: small enough to be sent to another process."""
        part = copy.copy(self)
        for name in ("_numbers", "_centers", "_mpp"):
            column = getattr(self, name)
            setattr(part, name, {slide_id: column[slide_id]} if slide_id in column else {})
        return part

    def candidates(self, slide: IndexedSlide, sampling: CrossSampling) -> Iterable[Candidates]:
        """The anchors of one slide, to be checked like those of a grid.

        Raises:
            SlideError: The file was made for another pixel size of this slide.
        """
        if slide.slide_id not in self._numbers:
            return
        self._check_mpp(slide, sampling)
        numbers = np.array(self._numbers[slide.slide_id], np.int64)
        centers = np.array(self._centers[slide.slide_id], np.float64).reshape(-1, 2)
        for start in range(0, len(numbers), _CHUNK):
            yield Candidates(centers[start : start + _CHUNK], numbers[start : start + _CHUNK])

    def _add(self, line: int, row: Mapping[str, str]) -> None:
        slide_id = row["slide_id"]
        match = re.fullmatch(re.escape(slide_id) + r"_(\d+)", row["anchor_id"])
        if match is None:
            raise ManifestError(
                f"{self.path}, line {line}",
                f"anchor_id {row['anchor_id']!r} is not the slide_id, `_` and a number",
                f"It should look like {anchor_id(slide_id, 0)}.",
            )
        self._numbers.setdefault(slide_id, array("q")).append(int(match[1]))
        center = [self._number(line, row, column) for column in ("center_x_level0", "center_y_level0")]
        self._centers.setdefault(slide_id, array("d")).extend(center)
        self._mpp.setdefault(slide_id, row.get("wsi_level0_spacing_mpp", ""))

    def _number(self, line: int, row: Mapping[str, str], column: str) -> float:
        try:
            return float(row[column])
        except ValueError as error:
            raise ManifestError(
                f"{self.path}, line {line}", f"{column} is {row[column]!r}, not a number", "Export the catalogue again."
            ) from error

    def _check_columns(self, row: Mapping[str, str]) -> None:
        missing = [column for column in _NEEDED if column not in row]
        if missing:
            raise ManifestError(self.path, f"it lacks the column {', '.join(missing)}", "Export the catalogue again.")

    def _check_profile(self, line: int, row: Mapping[str, str], sampling: CrossSampling) -> None:
        other = [
            f"{name}={row[name]}"
            for name in _PROFILE_COLUMNS
            if row.get(name) and abs(self._number(line, row, name) - getattr(sampling, name)) > 1e-6
        ]
        if other:
            raise ManifestError(
                f"{self.path}, line {line}",
                f"it was made for another profile ({', '.join(other)})",
                "Add " + " ".join(f"sampling.{text}" for text in other) + " to the command, or its profile with -p.",
            )

    def _check_mpp(self, slide: IndexedSlide, sampling: CrossSampling) -> None:
        text = self._mpp[slide.slide_id]
        if not text:
            return
        stated = float(text)
        if abs(stated / slide.frame.mpp - 1) > sampling.spacing_tolerance:
            raise SlideError(
                slide.slide_id,
                f"{self.path} was made with {stated:g} um per pixel, the index has {slide.frame.mpp:g}",
                "Index the slide with the right `mpp`, or make new anchors.",
            )

    def _refuse_unknown(self, unknown: Mapping[str, int], index: SlideIndex) -> None:
        if unknown:
            shown = ", ".join(f"{slide_id} (line {line})" for slide_id, line in list(unknown.items())[:5])
            more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
            raise ManifestError(
                self.path,
                f"slides that are not in the index {index.folder}: {shown}{more}",
                "Index them first, or give the index they belong to with --index.",
            )

    def _refuse_repeated(self) -> None:
        for slide_id, numbers in self._numbers.items():
            values, counts = np.unique(np.array(numbers, np.int64), return_counts=True)
            if (counts > 1).any():
                twice = anchor_id(slide_id, int(values[counts > 1][0]))
                raise ManifestError(self.path, f"anchor_id {twice} stands twice", "Remove one of the rows.")
