"""Stage 1 of `lamella weak`: features."""

from __future__ import annotations

from lamella.config import Settings
from lamella.verbs.weak_stages.stage import Stage


class FeatureSettings(Settings):
    """Settings of stage 1."""


def run_features(stage: Stage) -> int:
    """Do the stage, or find that it is done."""
    raise NotImplementedError
