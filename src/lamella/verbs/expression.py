"""`lamella expression run study.yaml -o out`: gene expression from H&E, in five stages.

check, features, train, evaluate, predict: each is a stage of its own with its own folder in `out`; `run` does them all
in order, and what is done already is left alone.
"""

from __future__ import annotations

from pathlib import Path

from lamella.config import Request
from lamella.data.expression_study import open_expression
from lamella.verbs.expression_stages.check import run_check
from lamella.verbs.expression_stages.evaluation import run_evaluation
from lamella.verbs.expression_stages.features import run_features
from lamella.verbs.expression_stages.prediction import run_prediction
from lamella.verbs.expression_stages.settings import ExpressionConfig
from lamella.verbs.expression_stages.stage import CHECKED, FEATURES, MODELS, PREDICTIONS, RESULTS, Stage
from lamella.verbs.expression_stages.training import run_training
from lamella.verbs.staged import StudyPlan

Config = ExpressionConfig

_PLAN: StudyPlan[Stage] = StudyPlan(
    "expression",
    {
        "check": (CHECKED, run_check),
        "features": (FEATURES, run_features),
        "train": (MODELS, run_training),
        "evaluate": (RESULTS, run_evaluation),
        "predict": (PREDICTIONS, run_prediction),
    },
    alone=frozenset({"check", "evaluate"}),  # nothing is made from what they write
)


def run(request: Request) -> int:
    """Do one stage or all of them.

    Raises:
        LamellaError: No stage or no configuration is named, or a stage cannot be done; see the stages.
    """
    name, asked, more = _PLAN.asked(request)
    resolved = asked.resolve(ExpressionConfig)
    study = open_expression(resolved.config.data, resolved.config.seed)
    for note in study.notes:
        print(f"note: {note}")
    out = Path("expression") if request.dry_run and not request.out else asked.folder()
    stage = Stage(asked, resolved, study, out, more)
    if request.dry_run:
        print(resolved.text())
        print(f"{len(study.slides)} slides of {len(study.patients)} patients; dry run: nothing was written")
        return 0
    return _PLAN.do(name, stage)
