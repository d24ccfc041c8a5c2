"""Stage `train` of `lamella expression`: every cell of the grid, every fold, every seed, with one command.

Each cell is a run folder of its own, so that a grid can grow; each model is trained in a folder of its own, goes on
from its checkpoint after a stop, and is left alone when it is done.
"""

from __future__ import annotations

import json
from pathlib import Path

from lamella.data.expression_digest import study_digest
from lamella.engine.rundir import Claim, claim
from lamella.engine.world import World, start_world
from lamella.verbs.expression_stages.features import view_shapes
from lamella.verbs.expression_stages.grid import Cell
from lamella.verbs.expression_stages.stage import MODELS, Stage
from lamella.verbs.expression_stages.training_export import RECORD, TABLE, write_table
from lamella.verbs.expression_stages.training_inputs import TrainingInputs
from lamella.verbs.expression_stages.training_jobs import train_in_processes
from lamella.verbs.expression_stages.training_part import BLOCKS, IGNORED, settings_of, train_part
from lamella.verbs.expression_stages.training_plan import TrainingPart, cell_folder, planned


def run_training(stage: Stage) -> int:
    """Train the models of a study; those that are there are left as they are.

    Raises:
        LamellaError: The data, the features or the settings cannot be used; see the classes of `lamella.errors`.
    """
    parts, settings = planned(stage), stage.config.train
    inputs = {"study": study_digest(stage.study)}
    with start_world(settings.device, settings.precision) as world:
        left = [part for part in parts if not part.is_done]
        for cell in _cells(tuple(left)):
            view_shapes(stage, cell.config.features)  # an encoder that is not to be had ends the run before it begins
        # Every cell is claimed before anything is trained: what does not fit a folder shows at once.
        claims = world.on_main(lambda: [_claim(stage, cell, inputs) for cell in _cells(parts)])
        if world.is_main:
            print(_plan_text(parts, left), flush=True)
        if settings.jobs > 1 and world.size == 1 and len(left) > 1:
            finished = train_in_processes(stage, left, settings.jobs)
        else:
            finished = _in_order(stage, left, world)
        if finished:
            world.on_main(lambda: _close(stage, parts))
        del claims  # their locks last until here
    return 0


def _in_order(stage: Stage, left: list[TrainingPart], world: World) -> bool:
    inputs = TrainingInputs(stage, stage.config.train.memory_mb)
    return all(train_part(stage, part, inputs, world) for part in left)


def _close(stage: Stage, parts: tuple[TrainingPart, ...]) -> None:
    """The table of all models."""
    facts = [json.loads((part.folder / RECORD).read_text(encoding="utf-8")) for part in parts]
    table = stage.folder(MODELS) / TABLE
    write_table(parts, table, facts)
    print(f"wrote {table}: {len(parts)} models of {len(_cells(parts))} cells", flush=True)


def _cells(parts: tuple[TrainingPart, ...]) -> list[Cell]:
    """Each once, in order."""
    return list({part.cell.name: part.cell for part in parts}.values())


def _claim(stage: Stage, cell: Cell, inputs: dict[str, str]) -> Claim:
    """Take the folder of a cell.

    Raises:
        OutputConflictError: It holds models of other settings or slides, or another process is writing there.
    """
    origins = {key: origin for key, origin in stage.resolved.origins.items() if key.split(".")[0] in BLOCKS}
    folder: Path = cell_folder(stage, cell)
    return claim(folder, settings_of(cell), origins, verb="expression train", ignore=IGNORED, inputs=inputs)


def _plan_text(parts: tuple[TrainingPart, ...], left: list[TrainingPart]) -> str:
    cells, folds = {part.cell.name for part in parts}, {part.fold.name for part in parts}
    done = len(parts) - len(left)
    said = f", {done} of them done already" if done else ""
    return f"{len(parts)} models: {len(cells)} cells x {len(folds)} folds x seeds{said}"
