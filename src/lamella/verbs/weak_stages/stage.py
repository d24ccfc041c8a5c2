"""What the stages of `lamella weak` share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lamella.data.bags import WeakStudy
from lamella.verbs.staged import StudyStage
from lamella.verbs.weak_stages.settings import WeakConfig

# Folders of the stages' outputs, as in the source's data flow.
COORDINATES, FEATURES, TRAINING, RESULTS, PREDICTIONS = (
    "prototype_coordinates",
    "image_features",
    "training",
    "results",
    "predictions",
)
PROTOTYPES = "prototypes"


@dataclass(frozen=True)
class Stage(StudyStage[WeakConfig, WeakStudy]):
    """One stage at work; the study are the bags."""

    verb: ClassVar[str] = "weak"
