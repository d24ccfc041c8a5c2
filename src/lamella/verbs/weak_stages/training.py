"""Stage 3 of `lamella weak`: training."""

from __future__ import annotations

from lamella.config import Settings
from lamella.verbs.weak_stages.stage import Stage


class TrainingSettings(Settings):
    """Settings of stage 3."""


def run_training(stage: Stage) -> int:
    """Do the stage, or find that it is done."""
    raise NotImplementedError
