"""How the makers of an index and of a catalogue have their slides done, without knowing where.

The verbs hand in a runner that may use many processes; alone, slides are done one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lamella.errors import LamellaError, SlideError
from lamella.formats.journal import Journal

Runner = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[tuple[int, Any, str]]]
"""runner(work, items) yields (place of the item, its result, "") or (place, None, reason), as they are ready."""


def in_turn(work: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[tuple[int, Any, str]]:
    """The runner that needs nothing: in this process, in order."""
    for number, item in enumerate(items):
        try:
            result, error = work(item), ""
        except SlideError as fault:
            result, error = None, str(fault)
        yield number, result, error


def failed_file(mark: str = "") -> str:
    """The name of the list of failed slides; `mark` tells a shard's, such as `.3of8`."""
    return f"failed{mark}.csv"


def refuse_untried(folder: Path, slide_ids: Sequence[str]) -> None:
    """Raise if there are slides that nobody did and nobody is about to do."""
    if slide_ids:
        raise LamellaError(
            folder,
            f"{len(slide_ids)} slides were never tried ({', '.join(slide_ids[:3])}, ...)",
            "Run the same command without --retry-failed.",
        )


def forget_shards(folder: Path) -> None:
    """Remove the shards' lists of failed slides: a list of the whole stands now."""
    for path in folder.glob("failed.*of*.*"):
        path.unlink(missing_ok=True)


class Notes:
    """The journals of a job that several shards may work on at once: each writes its own, all are read.

    Attributes:
        entries: What any run or shard of this job noted.
    """

    def __init__(self, folder: Path, name: str, mark: str) -> None:
        self._folder, self._name, self._mark = folder, name, mark
        self._own = Journal(folder / f".{name}{mark}.jsonl")
        self.entries = [entry for path in self._files() for entry in Journal(path).entries]
        self.add = self._own.add

    def end(self) -> None:
        """The output of the whole job stands: forget the notes of all shards, and their lists of failures."""
        for path in self._files():
            Journal(path).end()
        forget_shards(self._folder)

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob(f".{self._name}*.jsonl"))
