"""`lamella weak run study.yaml -o out`: from labels of whole slides to masks, in six stages.

coordinates, features, prototypes, train, evaluate, predict: each is a stage of its own with its own folder in `out`;
`run` does them all in order, and what is done already is left alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lamella.config import Request
from lamella.data.bag_study import open_study
from lamella.errors import LamellaError
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

# Name on the command line -> folder, and what does it; in order.
_STAGES: dict[str, tuple[str, Callable[[Stage], int]]] = {
    "coordinates": (COORDINATES, run_coordinates),
    "features": (FEATURES, run_features),
    "prototypes": (PROTOTYPES, run_prototypes),
    "train": (TRAINING, run_training),
    "evaluate": (RESULTS, run_evaluation),
    "predict": (PREDICTIONS, run_prediction),
}
_EXAMPLE = "For example: lamella weak run study.yaml -o out."


def run(request: Request) -> int:
    """Do one stage or all of them.

    Raises:
        LamellaError: No stage or no configuration is named, or a stage cannot be done; see the stages.
    """
    name, asked, more = _asked(request)
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
    redo = request.options.get("redo")
    if redo is not None:
        _forget_from(str(redo), stage)
    worst = 0
    for stage_name in _STAGES if name == "run" else (name,):
        print(f"weak: {stage_name}")
        worst = max(worst, _STAGES[stage_name][1](stage))
    return worst


def _asked(request: Request) -> tuple[str, Request, tuple[Path, ...]]:
    """The stage, the request with its configuration as the run layer, and the paths behind it."""
    names = ", ".join(("run", *_STAGES))
    if not request.paths or str(request.paths[0]) not in ("run", *_STAGES):
        given = f"{request.paths[0]} is none" if request.paths else "none is named"
        raise LamellaError("lamella weak", f"it takes a stage first ({names}); {given}", _EXAMPLE)
    name, rest = str(request.paths[0]), request.paths[1:]
    if request.run is not None:
        return name, request, rest
    if not rest:
        raise LamellaError("lamella weak", "no configuration is given", _EXAMPLE)
    return name, replace(request, run=rest[0]), rest[1:]


def _forget_from(name: str, stage: Stage) -> None:
    """Remove the outputs of a stage and of all that are made from them: predictions are not made from results."""
    if name not in _STAGES:
        raise LamellaError("--redo", f"{name} is no stage", f"Stages: {', '.join(_STAGES)}.")
    names = list(_STAGES)
    for later in ["evaluate"] if name == "evaluate" else names[names.index(name) :]:
        shutil.rmtree(stage.folder(_STAGES[later][0]), ignore_errors=True)
