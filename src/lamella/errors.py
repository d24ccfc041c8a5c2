"""Faults a user can mend. Each names the thing, the cause and the remedy in plain words."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


class LamellaError(Exception):
    """A fault that is shown to the user without a traceback; the command exits with 2.

    Args:
        thing: What is at fault: a file, a slide, a key.
        cause: What is wrong with it, without a full stop.
        remedy: What to do about it, a whole sentence.
    """

    def __init__(self, thing: object, cause: str, remedy: str) -> None:
        super().__init__(thing, cause, remedy)  # all three, so that workers can send the error across processes
        self.thing = str(thing)
        self.cause = cause
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.thing}: {self.cause}. {self.remedy}"


class ConfigError(LamellaError):
    """One or more settings are wrong; all of them are listed at once."""

    def __init__(self, problems: Sequence[str], verb: str | None = None) -> None:
        self.problems = list(problems)
        self.verb = verb
        super().__init__(self.problems, verb or "", "")
        self.remedy = f"`lamella config {verb}` lists every key." if verb else ""

    def __reduce__(self) -> tuple[type, tuple[list[str], str | None]]:
        return type(self), (self.problems, self.verb)

    def __str__(self) -> str:
        head = "settings: 1 problem" if len(self.problems) == 1 else f"settings: {len(self.problems)} problems"
        return "\n".join([head, *(f"  {problem}" for problem in self.problems), self.remedy]).rstrip()


class ManifestError(LamellaError):
    """The manifest cannot be used as a whole (a missing column, a repeated slide)."""


class SlideError(LamellaError):
    """One slide cannot be read; the others can go on."""


class DamagedSlideError(SlideError):
    """The file is of a known format and contradicts itself: another reader would only guess."""


class ResolutionError(SlideError):
    """The slide's micrometres per pixel are missing or absurd."""

    def __init__(self, thing: object, cause: str) -> None:
        super().__init__(thing, cause, "State it in the manifest column `mpp`, or with `--mpp 0.5`.")

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.thing, self.cause)


class MaskMismatchError(SlideError):
    """A mask does not lie over its slide."""


class EmptyTissueError(SlideError):
    """No tissue was found where tissue is needed."""


class ImageError(LamellaError):
    """One image, volume or video cannot be read as what it should be; the others can go on."""


class DatasetError(LamellaError):
    """A data set cannot be used as a whole: files are missing, labels unknown, a column absent. All are listed."""


class OutputConflictError(LamellaError):
    """The output folder holds the results of other settings."""


class CheckpointError(LamellaError):
    """A checkpoint cannot be loaded into this run."""


class DivergedError(LamellaError):
    """Training met a loss that is not a number."""


class StorageError(LamellaError):
    """The disk refused a write."""


class MissingExtraError(LamellaError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(package, "this optional package is not installed", f"Run `pip install 'lamella[{extra}]'`.")
        self.extra = extra

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.thing, self.extra)


_MAKE_ROOM = "Make room and run the same command; what was finished is kept."
_ELSEWHERE = "Choose a folder that you may write to."
# What the operating system says when a disk takes no write, and what to do about it.
_STORAGE_ERRNOS = {
    errno.ENOSPC: ("the disk is full", _MAKE_ROOM),
    errno.EDQUOT: ("the disk quota is used up", _MAKE_ROOM),
    errno.EROFS: ("the file system is read-only", _ELSEWHERE),
    errno.EACCES: ("writing there is not permitted", _ELSEWHERE),
}


@contextmanager
def storage_faults(path: Path | str) -> Iterator[None]:
    """Turn a refused write into a StorageError that names `path`; every other error passes through."""
    try:
        yield
    except OSError as error:
        if error.errno not in _STORAGE_ERRNOS:
            raise
        raise StorageError(path, *_STORAGE_ERRNOS[error.errno]) from error


def first_line(error: object) -> str:
    """What another library's error says, short enough for the cause of one of ours."""
    return (str(error) or type(error).__name__).splitlines()[0][:120].rstrip(".")  # a sentence goes on after it
