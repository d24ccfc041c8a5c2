"""`lamella weak run study.yaml -o out`: from labels of whole slides to masks, in six stages.

coordinates, features, prototypes, train, evaluate, predict: each is a stage of its own with its own folder in `out`;
`run` does them all in order, and what is done already is left alone.
"""

from __future__ import annotations

from pathlib import Path

from lamella.config import Request
from lamella.data.bag_study import open_study
from lamella.verbs.staged import StudyPlan
from lamella.verbs.weak_stages.coordinates import run_coordinates
from lamella.verbs.weak_stages.evaluation import run_evaluation
from lamella.verbs.weak_stages.features import run_features
from lamella.verbs.weak_stages.prediction import run_prediction
from lamella.verbs.weak_stages.prototypes import run_prototypes
from lamella.verbs.weak_stages.settings import WeakConfig
from lamella.verbs.weak_stages.stage import (
    COORDINATES,
    FEATURES,
    PREDICTIONS,
    PROTOTYPES,
    RESULTS,
    TRAINING,
    Stage,
)
from lamella.verbs.weak_stages.training import run_training

Config = WeakConfig

_PLAN: StudyPlan[Stage] = StudyPlan(
    "weak",
    {
        "coordinates": (COORDINATES, run_coordinates),
        "features": (FEATURES, run_features),
        "prototypes": (PROTOTYPES, run_prototypes),
        "train": (TRAINING, run_training),
        "evaluate": (RESULTS, run_evaluation),
        "predict": (PREDICTIONS, run_prediction),
    },
    alone=frozenset({"evaluate"}),  # predictions are not made from results
)


def run(request: Request) -> int:
    """Do one stage or all of them.

    Raises:
        LamellaError: No stage or no configuration is named, or a stage cannot be done; see the stages.
    """
    name, asked, more = _PLAN.asked(request)
    resolved = asked.resolve(WeakConfig)
    config = resolved.config
    study = open_study(config.class_order, config.background, config.data, config.seed)
    for note in study.notes:
        print(f"note: {note}")
    stage = Stage(asked, resolved, study, Path("weak") if request.dry_run and not request.out else asked.folder(), more)
    if request.dry_run:
        print(resolved.text())
        print(f"{len(study.bags)} slides; dry run: nothing was written")
        return 0
    return _PLAN.do(name, stage)
