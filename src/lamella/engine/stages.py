"""Staged unfreezing: a table that says which parameters are trained from which epoch on, and at what rate.

Names are those of `named_parameters()` of what the loop trains; patterns are those of a shell (`*`, `?`, `[3-9]`). A
parameter that no row names is trained throughout on the schedule. One that is named is frozen until the first row that
names it begins; among the rows that have begun, the one of the latest epoch decides, and of one epoch the lower one.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import Field, model_validator

from lamella.config import Settings
from lamella.errors import ConfigError

_SHOWN = 5  # names given as examples of what there is


class Stage(Settings):
    """One row of the table. Give `factor` or `lr`; neither means the schedule itself."""

    from_epoch: Annotated[int, Field(ge=1)] = 1
    """First epoch of the row; epochs count from 1."""
    parameters: Annotated[tuple[str, ...], Field(min_length=1)]
    """Patterns of parameter names."""
    factor: Annotated[float, Field(ge=0)] | None = None
    """Multiple of the scheduled learning rate; 0 freezes."""
    lr: Annotated[float, Field(gt=0)] | None = None
    """A learning rate that stays as it is: it neither warms up nor decays."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Stage:
        if self.factor is not None and self.lr is not None:
            raise ValueError("factor and lr are both given; leave one of them out")
        return self

    def rate(self, scheduled: float) -> float:
        """The learning rate of the row where the schedule gives `scheduled`."""
        if self.lr is not None:
            return self.lr
        return scheduled * (1.0 if self.factor is None else self.factor)

    def names(self, parameter: str) -> bool:
        """Whether a parameter is one of the row's."""
        return any(fnmatchcase(parameter, pattern) for pattern in self.parameters)


def rows_naming(parameter: str, stages: Sequence[Stage]) -> tuple[int, ...]:
    """Numbers of the rows that name a parameter, in the order in which they begin."""
    order = sorted(range(len(stages)), key=lambda row: stages[row].from_epoch)
    return tuple(row for row in order if stages[row].names(parameter))


def rate_in(epoch: int, rows: Sequence[int], stages: Sequence[Stage], scheduled: float) -> float:
    """The learning rate in an epoch of a parameter that these rows (of `rows_naming`) name; 0 where it is frozen."""
    if not rows:
        return scheduled
    begun = [row for row in rows if stages[row].from_epoch <= epoch]
    return stages[begun[-1]].rate(scheduled) if begun else 0.0


def check_stages(parameters: Sequence[str], stages: Sequence[Stage]) -> None:
    """Refuse a table with a pattern that names nothing, or with epochs in which nothing is trained.

    Args:
        parameters: Names of what can be trained.
        stages: The table.

    Raises:
        ConfigError: All such rows.
    """
    problems = [
        f"optim.stages: {pattern!r} (from epoch {stage.from_epoch}) names no parameter that is trained; there are "
        f"{', '.join(parameters[:_SHOWN])}{', ...' if len(parameters) > _SHOWN else ''}"
        for stage in stages
        for pattern in stage.parameters
        if not any(fnmatchcase(name, pattern) for name in parameters)
    ]
    rows = {rows_naming(name, stages) for name in parameters}
    for epoch in sorted({1, *(stage.from_epoch for stage in stages)} if stages else ()):
        if not any(rate_in(epoch, each, stages, 1.0) > 0 for each in rows):
            problems.append(f"optim.stages: nothing is trained from epoch {epoch} on")
    if problems:
        raise ConfigError(problems)
