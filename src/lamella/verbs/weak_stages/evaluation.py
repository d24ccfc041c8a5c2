"""Stage 4 of `lamella weak`: evaluation."""

from __future__ import annotations

from lamella.config import Settings
from lamella.verbs.weak_stages.stage import Stage


class EvaluationSettings(Settings):
    """Settings of stage 4."""


def run_evaluation(stage: Stage) -> int:
    """Do the stage, or find that it is done."""
    raise NotImplementedError
