"""The settings of a whole study of expression: one file for all stages."""

from __future__ import annotations

from lamella.config import Settings
from lamella.data.expression_settings import ExpressionDataSettings
from lamella.data.gene_panel import PanelSettings
from lamella.verbs.expression_stages.evaluation_settings import EvaluationSettings
from lamella.verbs.expression_stages.feature_settings import FeatureSettings
from lamella.verbs.expression_stages.grid_settings import GridSettings
from lamella.verbs.expression_stages.prediction_settings import PredictionSettings
from lamella.verbs.expression_stages.training_settings import TrainingSettings


class ExpressionConfig(Settings):
    """Settings of `lamella expression`."""

    data: ExpressionDataSettings
    """Slides, patients, expression, bins, tissue."""
    panel: PanelSettings = PanelSettings()
    """Which genes, chosen on the training patients of each fold."""
    features: FeatureSettings = FeatureSettings()
    """What encoders make of the slides, once, at each scale."""
    train: TrainingSettings = TrainingSettings()
    """Network, loss, and how it is trained."""
    grid: GridSettings = GridSettings()
    """The ablation: which of the settings above are tried beside the study's own."""
    evaluate: EvaluationSettings = EvaluationSettings()
    """Measures, baselines, controls and ceilings."""
    predict: PredictionSettings = PredictionSettings()
    """New slides."""
    seed: int = 0
    """Of every draw."""
