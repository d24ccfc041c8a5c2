"""Stops a run whose validation does not get better any more, and remembers where it was best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from lamella.config import Settings


class EarlyStoppingSettings(Settings):
    """Which validated number decides, and how long it may stand still. The weights at its best are those exported."""

    monitor: str = "loss"
    """Key of the validation's values."""
    mode: Literal["max", "min"] = "max"
    """Whether larger or smaller is better."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Validations in a row without improvement after which the run ends; null never ends it early."""
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    """What counts as improvement: more than this beyond the best so far."""
    every_epochs: Annotated[int, Field(ge=1)] = 1
    """Epochs from one validation to the next. Before the first step and after the last there is always one."""


@dataclass
class EarlyStopping:
    """What was best so far. Its state goes into every checkpoint, so that a resumed run decides alike.

    Attributes:
        settings: The rule.
        best: The best value, NaN before the first.
        best_step: Steps done when it was reached, -1 before the first.
        last_step: Steps done at the last validation, -1 before the first.
        waited: Validations since the best.
    """

    settings: EarlyStoppingSettings
    best: float = math.nan
    best_step: int = -1
    last_step: int = -1
    waited: int = 0

    @property
    def exhausted(self) -> bool:
        """Whether the patience is used up."""
        return self.settings.patience is not None and self.waited >= self.settings.patience

    def update(self, values: Mapping[str, Any], step: int) -> bool:
        """Take in the validation after `step` steps; returns whether it is the best so far.

        A value that is not a number is no improvement, and the first validation is always the best so far.

        Raises:
            ValueError: The validation did not return the number that decides.
        """
        name = self.settings.monitor
        if name not in values:
            raise ValueError(f"the validation returned {', '.join(values) or 'nothing'}, and {name} is to decide")
        value = float(values[name])
        self.last_step = step
        better = value > self.best if self.settings.mode == "max" else value < self.best
        enough = better and abs(value - self.best) > self.settings.min_delta
        if self.best_step < 0 or (math.isnan(self.best) and not math.isnan(value)) or enough:
            self.best, self.best_step, self.waited = value, step, 0
            return True
        self.waited += 1
        return False

    def state(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {key: value for key, value in asdict(self).items() if key != "settings"}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`."""
        for key, value in state.items():
            setattr(self, key, value)
