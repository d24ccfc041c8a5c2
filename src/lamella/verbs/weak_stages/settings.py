"""The settings of a whole study: one file for all six stages."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lamella.config import Settings
from lamella.data.bag_study import WeakDataSettings
from lamella.verbs.weak_stages.evaluation_settings import EvaluationSettings
from lamella.verbs.weak_stages.prediction_settings import PredictionSettings
from lamella.verbs.weak_stages.prototype_settings import CoordinateSettings, FeatureSettings, PrototypeSettings
from lamella.verbs.weak_stages.training_settings import TrainingSettings


class WeakConfig(Settings):
    """Settings of `lamella weak`."""

    class_order: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of the classes; label 0 is the first of them."""
    background: str | None = "background"
    """What is none of the classes. It competes for every pixel and is the last channel; null: there is none."""
    data: WeakDataSettings
    """Slides, labels, split, coordinates, tiles."""
    coordinates: CoordinateSettings = CoordinateSettings()
    """Stage 0: where prototypes are taken from."""
    features: FeatureSettings = FeatureSettings()
    """Stage 1: what they are turned into."""
    prototypes: PrototypeSettings = PrototypeSettings()
    """Stage 2: what is typical of each class."""
    train: TrainingSettings = TrainingSettings()
    """Stage 3."""
    evaluate: EvaluationSettings = EvaluationSettings()
    """Stage 4: judged with masks."""
    predict: PredictionSettings = PredictionSettings()
    """Stage 5: new slides."""
    seed: int = 0
    """Of every draw."""
