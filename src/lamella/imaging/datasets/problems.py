"""Everything that is wrong with a data set, told at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lamella.errors import DatasetError

_SHOWN = 10  # enough to see what they have in common; the rest are counted


class DatasetProblems(DatasetError):
    """One or more problems of one data set.

    Attributes:
        problems: All of them, also those that the message only counts.
    """

    def __init__(self, thing: object, problems: Sequence[str], remedy: str) -> None:
        self.problems = list(problems)
        super().__init__(thing, _told(self.problems), remedy)

    def __reduce__(self) -> tuple[type, tuple[str, list[str], str]]:
        return type(self), (self.thing, self.problems, self.remedy)

    def __str__(self) -> str:
        return f"{self.thing}: {self.cause}{chr(10) if len(self.problems) > 1 else '. '}{self.remedy}"


def _told(problems: Sequence[str]) -> str:
    if len(problems) == 1:
        return problems[0]
    more = [f"... and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
    return "\n  ".join([f"{len(problems)} problems", *problems[:_SHOWN], *more])


def refuse(thing: Path | str, problems: Sequence[str], remedy: str) -> None:
    """Raise if there is any problem.

    Raises:
        DatasetProblems: The first ten and the number of all.
    """
    if problems:
        raise DatasetProblems(thing, problems, remedy)


def named(names: Sequence[str], shown: int = 5) -> str:
    """A few names and the number of the others."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
