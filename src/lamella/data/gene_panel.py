"""Which genes are predicted. They are chosen on training patients only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from lamella.config import Settings


class PanelSettings(Settings):
    """The panel."""

    genes: Path | tuple[str, ...] | None = None
    """A list of names, or a text file with one name a line; null chooses."""
    choose: Literal["variable", "mean", "all"] = "variable"
    """variable: the most variable of the training patients, given their mean. mean: the highest mean."""
    number: Annotated[int, Field(ge=1)] = 50
    """How many are chosen."""
