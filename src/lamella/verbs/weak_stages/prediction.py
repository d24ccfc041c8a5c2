"""Stage 5 of `lamella weak`: prediction."""

from __future__ import annotations

from lamella.config import Settings
from lamella.verbs.weak_stages.stage import Stage


class PredictionSettings(Settings):
    """Settings of stage 5."""


def run_prediction(stage: Stage) -> int:
    """Do the stage, or find that it is done."""
    raise NotImplementedError
