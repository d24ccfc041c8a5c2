"""What the stages of `lamella expression` share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lamella.data.expression import ExpressionStudy
from lamella.verbs.expression_stages.settings import ExpressionConfig
from lamella.verbs.staged import StudyStage

# Folders of the stages' outputs.
CHECKED, FEATURES, MODELS, RESULTS, PREDICTIONS = "checked", "features", "models", "results", "predictions"


@dataclass(frozen=True)
class Stage(StudyStage[ExpressionConfig, ExpressionStudy]):
    """One stage at work; the study are the slides with expression."""

    verb: ClassVar[str] = "expression"
