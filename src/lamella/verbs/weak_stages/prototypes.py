"""Stage 2 of `lamella weak`: prototypes."""

from __future__ import annotations

from lamella.config import Settings
from lamella.verbs.weak_stages.stage import Stage


class PrototypeSettings(Settings):
    """Settings of stage 2."""


def run_prototypes(stage: Stage) -> int:
    """Do the stage, or find that it is done."""
    raise NotImplementedError
