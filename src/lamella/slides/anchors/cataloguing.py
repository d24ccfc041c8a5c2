"""Making an anchor catalogue: slide by slide, and within a slide row by row, so that memory stays flat."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from lamella.formats.atomic import write_json
from lamella.formats.tables import parquet_parts, write_csv
from lamella.geometry import Frame
from lamella.slides.anchors.catalogue import CATALOGUE_FILE, FORMAT, SHARD_SCHEMA, Shard, index_hash
from lamella.slides.anchors.sampling import CrossSampling
from lamella.slides.anchors.targets import context_corners_um, fitting_thresholds, target_grid
from lamella.slides.each_slide import Notes, Runner, failed_file, in_turn, refuse_untried
from lamella.slides.index import IndexedSlide, SlideIndex, relative_path
from lamella.slides.tissue_map import TissueMap

REPORT_FILE = "report.csv"
REPORT_COLUMNS = ("slide_id", "status", "reason", "anchors")
_NOTES = "anchors"  # .anchors.jsonl: slides finished by a run that has not ended yet
_ROWS_PER_WRITE = 2**16  # 2.6 MB of columns in memory before they go to disk
_SLACK = 1e-6  # pixels, and shares of tissue: rounding, not geometry


@dataclass(frozen=True)
class Candidates:
    """Possible anchors of one slide: a piece of its grid, or rows of an imported file."""

    centers_px0: np.ndarray
    """(N, 2) float64 x, y."""
    numbers: np.ndarray | None = None
    """(N,) anchor numbers that are kept; None: the anchors are numbered as they are accepted."""


Source = Callable[[IndexedSlide, CrossSampling], Iterable[Candidates]]


@dataclass(frozen=True)
class SlideAnchors:
    """What became of one slide."""

    slide_id: str
    status: str
    """`ok`, `skipped` (policy skip_slide gave up part of it) or `failed`."""
    reason: str
    anchors: int
    hash: str = ""

    @property
    def shard_file(self) -> str:
        return shard_file(self.slide_id)


def shard_file(slide_id: str) -> str:
    return f"shards/{slide_id}.parquet"


def grid_positions_px0(length_px0: int, side_px0: float, stride_px0: float) -> np.ndarray:
    """Left edges along one axis: every stride from 0, and the last one that is still inside.

    Each is rounded to a whole level-0 pixel by itself, so that the grid does not drift.

    Returns:
        (N,) int64, empty where the side is longer than the axis.
    """
    last = int(np.floor(length_px0 - side_px0 + _SLACK))
    if last < 0:
        return np.zeros(0, np.int64)
    regular = np.round(np.arange(int(last / stride_px0) + 1) * stride_px0).astype(np.int64)
    return np.union1d(regular[regular < last], last)


def grid_candidates(slide: IndexedSlide, sampling: CrossSampling) -> Iterator[Candidates]:
    """All positions whose context lies inside the slide, one row of the grid at a time."""
    starts_x, starts_y, half = _grid(slide.frame, sampling)
    for y in starts_y:
        yield Candidates(np.stack([starts_x + half[0], np.full(len(starts_x), y + half[1])], axis=1))


def grid_size(frame: Frame, sampling: CrossSampling) -> int:
    """Number of positions on a slide, before tissue is asked for."""
    starts_x, starts_y, _ = _grid(frame, sampling)
    return len(starts_x) * len(starts_y)


def build_catalogue(
    index: SlideIndex,
    sampling: CrossSampling,
    folder: Path,
    source_of: Callable[[str], Source] = lambda slide_id: grid_candidates,
    run: Runner = in_turn,
    check: Callable[[IndexedSlide, Path], None] | None = None,
    todo: Collection[str] | None = None,
    mark: str = "",
) -> list[SlideAnchors]:
    """Find the anchors of every slide and write the catalogue folder.

    Slides that are in the folder already, from a finished run, a killed one or a shard, are not done again.

    Args:
        index: The slides.
        sampling: The profile.
        folder: Where to; claimed for this profile and index by the caller.
        source_of: slide_id -> where the slide's possible anchors come from.
        run: Does the slides.
        check: Called with each finished slide and its shard file; what it raises makes the slide fail.
        todo: The slide_ids to do; None: all.
        mark: Tells shards of the work apart, such as `.3of8`. The catalogue is written without a mark.

    Returns:
        What became of each slide, in the index's order; of a shard, of each slide in `todo`.

    Raises:
        ConfigError: The profile's targets cannot fit, whatever the tissue.
        LamellaError: Without a mark, a slide was never tried and is not in `todo`.
        StorageError: The disk refused a write.
    """
    target_grid(sampling)
    notes = Notes(folder, _NOTES, mark)
    known = {entry["slide_id"]: SlideAnchors(**entry) for entry in [*_finished(folder), *notes.entries]}
    done = {name: part for name, part in known.items() if not part.anchors or (folder / part.shard_file).is_file()}
    mine = {slide.slide_id for slide in index} if todo is None else set(todo)
    pending = [slide for slide in index if slide.slide_id in mine and slide.slide_id not in done]
    if not mark:
        refuse_untried(folder, [slide.slide_id for slide in index if slide.slide_id not in {*done, *mine}])
    items = [(slide, source_of(slide.slide_id)) for slide in pending]
    for number, part, error in run(partial(_slide_anchors, sampling=sampling, folder=folder, check=check), items):
        name = pending[number].slide_id
        done[name] = SlideAnchors(name, "failed", error, 0) if part is None else part
        if done[name].status != "failed":  # a slide that failed is tried again
            notes.add(asdict(done[name]))
    if mark:
        parts = [done[slide.slide_id] for slide in index if slide.slide_id in mine]
        _write_failed(folder, index, parts, mark)
        return parts
    parts = [done[slide.slide_id] for slide in index]
    _write(folder, index, sampling, parts)
    notes.end()
    return parts


def _slide_anchors(
    item: tuple[IndexedSlide, Source],
    sampling: CrossSampling,
    folder: Path,
    check: Callable[[IndexedSlide, Path], None] | None,
) -> SlideAnchors:
    """One job: the anchors of one slide in its file, or none and no file."""
    slide, source = item
    path = folder / shard_file(slide.slide_id)
    kept = 0
    try:
        anchors = write_shard(slide, sampling, path, source)
        if anchors.anchors and check is not None:
            check(slide, path)
        kept = anchors.anchors
        return anchors
    finally:
        if not kept:
            path.unlink(missing_ok=True)


def write_shard(slide: IndexedSlide, sampling: CrossSampling, path: Path, source: Source) -> SlideAnchors:
    """Write the anchors of one slide.

    Raises:
        SlideError: The slide's mask cannot be read.
    """
    tissue = slide.tissue()
    tally = _Tally(sampling)
    digest = hashlib.sha256()
    with parquet_parts(path, SHARD_SCHEMA) as writer:
        for table in _pieces(_accepted(source(slide, sampling), slide.frame, tissue, tally)):
            for column in table.columns:
                digest.update(column.to_numpy().tobytes())
            writer.write_table(table)
    status, reason = tally.verdict(slide.frame)
    return SlideAnchors(slide.slide_id, status, reason, tally.kept, digest.hexdigest()[:16])


@dataclass
class _Tally:
    """Counts of one slide, from which its line of the report is made."""

    sampling: CrossSampling
    positions: int = 0
    outside: int = 0
    with_tissue: int = 0
    without_room: int = 0
    lowered: int = 0
    kept: int = 0
    stopped: bool = False
    imported: bool = False

    def verdict(self, frame: Frame) -> tuple[str, str]:
        """Status and reason."""
        sampling = self.sampling
        policy = sampling.when_targets_do_not_fit
        notes = []
        bare = self.positions - self.outside - self.with_tissue
        if self.imported and bare:  # on a grid most positions are glass; a file should hold none
            notes.append(f"{bare} anchors hold less than {sampling.min_tissue_fraction:.0%} tissue")
        if self.outside:
            notes.append(f"{self.outside} positions lie outside the slide")
        if self.stopped:
            notes.append(f"targets do not fit after {self.kept} anchors; the rest of the slide was skipped ({policy})")
        elif self.without_room:
            notes.append(f"targets do not fit at {self.without_room} positions, which were left out ({policy})")
        if self.lowered:
            notes.append(f"the tissue threshold of targets was lowered for {self.lowered} anchors")
        if self.kept:
            return ("skipped" if self.stopped else "ok"), "; ".join(notes)
        if not self.positions:
            width_um, height_um = frame.size_um
            size = f"{width_um:.0f} x {height_um:.0f} um"
            return "failed", f"the slide ({size}) is smaller than a context of {sampling.context_fov_um:g} um"
        if not self.with_tissue:
            notes.append(f"no context holds {sampling.min_tissue_fraction:.0%} tissue")
        return ("skipped" if self.stopped else "failed"), "; ".join(notes)


def _accepted(
    source: Iterable[Candidates], frame: Frame, tissue: TissueMap, tally: _Tally
) -> Iterator[dict[str, np.ndarray]]:
    """Columns of the anchors that have enough tissue and whose targets fit."""
    sampling, mpp = tally.sampling, (frame.mpp_x, frame.mpp_y)
    for candidates in source:
        centers, numbers = candidates.centers_px0, candidates.numbers
        tally.positions += len(centers)
        tally.imported = numbers is not None
        corners_um = context_corners_um(centers, mpp, sampling)
        boxes_um = np.concatenate([corners_um, corners_um + sampling.context_fov_um], axis=1)
        inside = _inside(boxes_um, frame)
        fractions = tissue.fractions(boxes_um)
        enough = inside & (fractions >= sampling.min_tissue_fraction - _SLACK)
        thresholds = np.full(len(centers), np.nan)
        thresholds[enough] = fitting_thresholds(centers[enough], tissue, mpp, sampling)
        tally.outside += int((~inside).sum())
        tally.with_tissue += int(enough.sum())
        fits = enough & ~np.isnan(thresholds)
        tally.without_room += int((enough & ~fits).sum())
        if sampling.when_targets_do_not_fit == "skip_slide" and (enough & ~fits).any():
            tally.stopped = True
            fits[np.flatnonzero(enough & ~fits)[0] :] = False
        kept = np.flatnonzero(fits)
        tally.lowered += int((thresholds[kept] < sampling.min_target_tissue_fraction - _SLACK).sum())
        yield {
            "number": np.arange(tally.kept, tally.kept + len(kept)) if numbers is None else numbers[kept],
            "center_x_px0": centers[kept, 0],
            "center_y_px0": centers[kept, 1],
            "tissue_fraction": fractions[kept].round(6),
            "min_target_tissue_fraction": thresholds[kept],
        }
        tally.kept += len(kept)
        if tally.stopped:
            return


def _pieces(pieces: Iterable[dict[str, np.ndarray]]) -> Iterator[pa.Table]:
    """Gather the pieces to tables worth writing."""
    waiting: list[dict[str, np.ndarray]] = []
    rows = 0
    for piece in pieces:
        waiting.append(piece)
        rows += len(piece["number"])
        if rows >= _ROWS_PER_WRITE:
            yield _table(waiting)
            waiting, rows = [], 0
    if rows:
        yield _table(waiting)


def _table(pieces: list[dict[str, np.ndarray]]) -> pa.Table:
    columns = {name: np.concatenate([piece[name] for piece in pieces]) for name in SHARD_SCHEMA.names}
    return pa.table(columns, schema=SHARD_SCHEMA)


def _inside(boxes_um: np.ndarray, frame: Frame) -> np.ndarray:
    width_um, height_um = frame.size_um
    slack_x, slack_y = _SLACK * frame.mpp_x, _SLACK * frame.mpp_y
    return (
        (boxes_um[:, 0] >= -slack_x)
        & (boxes_um[:, 1] >= -slack_y)
        & (boxes_um[:, 2] <= width_um + slack_x)
        & (boxes_um[:, 3] <= height_um + slack_y)
    )


def _grid(frame: Frame, sampling: CrossSampling) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """Left edges, top edges, and half a context, in level-0 pixels."""
    sides = (sampling.context_fov_um / frame.mpp_x, sampling.context_fov_um / frame.mpp_y)
    starts_x, starts_y = (
        grid_positions_px0(length, side, side * sampling.anchor_stride_fraction)
        for length, side in zip((frame.width_px, frame.height_px), sides, strict=True)
    )
    return starts_x, starts_y, (sides[0] / 2, sides[1] / 2)


def _finished(folder: Path) -> list[dict[str, object]]:
    """The slides of a finished catalogue in this folder."""
    file = folder / CATALOGUE_FILE
    return json.loads(file.read_text(encoding="utf-8"))["slides"] if file.is_file() else []


def _write(folder: Path, index: SlideIndex, sampling: CrossSampling, done: Sequence[SlideAnchors]) -> None:
    shards = [Shard(part.slide_id, part.shard_file, part.anchors, part.hash) for part in done if part.anchors]
    listing = {
        "format": FORMAT,
        "sampling": sampling.model_dump(mode="json"),
        "index": relative_path(index.folder, folder),
        "index_hash": index_hash(index.folder),
        "anchors": sum(shard.anchors for shard in shards),
        "shards": [asdict(shard) for shard in shards],
    }
    content = json.dumps({**listing, "index": None}, sort_keys=True)  # not where it lies
    listing["hash"] = hashlib.sha256(content.encode()).hexdigest()[:16]
    listing["slides"] = [asdict(part) for part in done if part.anchors]
    columns = ({name: getattr(part, name) for name in REPORT_COLUMNS} for part in done)
    write_csv(folder / REPORT_FILE, columns, REPORT_COLUMNS)
    _write_failed(folder, index, done)
    write_json(folder / CATALOGUE_FILE, listing)  # last: it makes the folder a catalogue


def _write_failed(folder: Path, index: SlideIndex, done: Sequence[SlideAnchors], mark: str = "") -> None:
    bad = [part for part in done if part.status == "failed"]
    if bad:
        rows = ({"slide_id": p.slide_id, "path": index[p.slide_id].wsi_path, "error": p.reason} for p in bad)
        write_csv(folder / failed_file(mark), rows, ("slide_id", "path", "error"))
    else:
        (folder / failed_file(mark)).unlink(missing_ok=True)
