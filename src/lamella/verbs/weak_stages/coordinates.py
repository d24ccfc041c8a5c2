"""Stage 0 of `lamella weak`: coordinates."""

from __future__ import annotations

from lamella.config import Settings
from lamella.verbs.weak_stages.stage import Stage


class CoordinateSettings(Settings):
    """Settings of stage 0."""


def run_coordinates(stage: Stage) -> int:
    """Do the stage, or find that it is done."""
    raise NotImplementedError
