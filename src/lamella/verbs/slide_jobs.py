"""What the per-slide verbs share: which slides a run takes, how they are done, what is said of those that failed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamella.config import Request
from lamella.engine.jobs import JobSettings, run_jobs
from lamella.errors import LamellaError
from lamella.formats.atomic import write_text
from lamella.formats.tables import read_csv, write_csv
from lamella.slides.each_slide import failed_file, forget_shards
from lamella.slides.index import IndexedSlide
from lamella.verbs.progress import progress


@dataclass(frozen=True)
class Selection:
    """Which slides of the whole this run takes: `--shard` and `--retry-failed`."""

    shard: tuple[int, int] | None = None
    """(3, 8) is the third of eight."""
    retry_failed: bool = False

    @classmethod
    def of(cls, request: Request) -> Selection:
        """Read the flags.

        Raises:
            LamellaError: --shard is not i/n with 1 <= i <= n.
        """
        text = request.options.get("shard")
        retry = bool(request.options.get("retry_failed"))
        if text is None:
            return cls(None, retry)
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise LamellaError(f"--shard {text}", "it is not a part of a whole", "Write i/n with i from 1 to n: 3/8.")
        return cls((int(match[1]), int(match[2])), retry)

    @property
    def mark(self) -> str:
        """What tells a shard's files from those of others; empty without --shard."""
        return f".{self.shard[0]}of{self.shard[1]}" if self.shard else ""

    def take(self, slide_ids: Sequence[str], out: Path | None) -> list[str]:
        """The slides to do now. A shard takes every n-th, so that neighbours of like size are spread.

        Args:
            slide_ids: All slides, in their order.
            out: The output folder; its lists of failed slides count with --retry-failed.
        """
        mine = list(slide_ids)
        if self.shard:
            mine = mine[self.shard[0] - 1 :: self.shard[1]]
        if self.retry_failed:
            failed = listed_as_failed(out)
            mine = [slide_id for slide_id in mine if slide_id in failed]
        return mine

    def describe(self, mine: int, of: int) -> str:
        """A line about the part of the slides that is done; empty if it is all of them."""
        parts = ([f"shard {self.shard[0]} of {self.shard[1]}"] if self.shard else []) + (
            ["those that failed"] if self.retry_failed else []
        )
        return f"{', '.join(parts)}: {mine} of {of} slides" if parts else ""


def listed_as_failed(out: Path | None) -> set[str]:
    """The slides in the lists of failed slides of an output folder, those of its shards included."""
    lists = sorted(out.glob("failed*.csv")) if out is not None else []
    return {row["slide_id"] for path in lists for row in read_csv(path)}


class SlideRunner:
    """Does slides with `run_jobs`, shows how far it is, and keeps what is needed to mend unexpected faults.

    It is the `Runner` that the makers of an index and of a catalogue ask for.

    Args:
        settings: Where the work runs.
        label: The verb.
        gpus: The work computes on a GPU.
    """

    def __init__(self, settings: JobSettings, label: str, *, gpus: bool = False) -> None:
        self._settings, self._label, self._gpus = settings, label, gpus
        self._traces: list[str] = []

    def __call__(self, work: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[tuple[int, Any, str]]:
        outcomes = run_jobs(work, items, self._settings, label=self._label, gpus=self._gpus)
        with progress(len(items), self._label) as bar:
            for outcome in outcomes:
                if outcome.trace:
                    slide_id = _slide_id(outcome.item)
                    self._traces.append(f"==== {slide_id}: {outcome.error}\n{outcome.trace.rstrip()}\n")
                yield outcome.number, outcome.result, outcome.error
                bar.advance()

    def write_traces(self, out: Path, mark: str) -> Path | None:
        """Write failed.log, or remove the one of an earlier run; its path if there is one."""
        path = (out / failed_file(mark)).with_suffix(".log")
        if not self._traces:
            path.unlink(missing_ok=True)
            return None
        write_text(path, "\n".join(self._traces))
        return path


def failure(slide: IndexedSlide, error: object) -> dict[str, str]:
    """A row of failed.csv."""
    return {"slide_id": slide.slide_id, "path": str(slide.wsi_path), "error": str(error)}


def record_failures(folder: Path, failed: Sequence[Mapping[str, str]], mark: str = "") -> None:
    """Write failed.csv, or remove the one of an earlier run when nothing failed any more.

    A run without a mark looked at every slide, so it replaces the lists of the shards.
    """
    path = folder / failed_file(mark)
    if failed:
        write_csv(path, failed, ["slide_id", "path", "error"])
    else:
        path.unlink(missing_ok=True)
    if not mark:
        forget_shards(folder)


def refuse_unseen(paths: Iterable[Path], settings: JobSettings) -> None:
    """What a cluster's workers wrote must be where this process sees it.

    Raises:
        LamellaError: It is not: they have another disk.
    """
    if settings.scheduler is None:
        return
    unseen = [path for path in paths if not path.is_file()]
    if unseen:
        raise LamellaError(
            unseen[0],
            f"the workers wrote {len(unseen)} files that cannot be seen from here",
            "Slides and output must lie on a disk that all machines share, under the same paths.",
        )


def say_failed(out: Path, mark: str, log: Path | None) -> None:
    """Where the reasons are, and what to do."""
    print(f"reasons: {out / failed_file(mark)}" + (f"; where in the program: {log}" if log else ""))
    print("mend them and run the same command: finished slides are kept; --retry-failed tries these alone")


def say_shard(selection: Selection) -> None:
    """What comes after a shard."""
    assert selection.shard is not None
    number = selection.shard[1]
    print(f"next: when all {number} shards have ended, the same command without --shard puts them together")


def _slide_id(item: Any) -> str:
    slide = item[0] if isinstance(item, tuple) else item
    return str(slide.slide_id)
