"""Several models at once, each in a process of its own with one thread."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import torch

from lamella.engine.world import start_world
from lamella.verbs.expression_stages.stage import Stage
from lamella.verbs.expression_stages.training_inputs import TrainingInputs
from lamella.verbs.expression_stages.training_part import train_part
from lamella.verbs.expression_stages.training_plan import TrainingPart
from lamella.verbs.progress import progress

_own: TrainingInputs | None = None  # of a worker: what it has read serves all its models


def train_in_processes(stage: Stage, parts: Sequence[TrainingPart], jobs: int) -> bool:
    """Train parts in `jobs` processes.

    Returns:
        Whether all are done; False where a signal stopped one.

    Raises:
        LamellaError: The first one that a process met; the others end their models first.
    """
    # What this process has read of the slides stays here: replaced slides know how to read it again.
    slides = tuple(replace(slide) for slide in stage.study.slides)
    lean = replace(stage, study=replace(stage.study, slides=slides))
    # Fresh interpreters: a fork of a process with threads of torch can wait for ever.
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(min(jobs, len(parts)), context, initializer=_start, initargs=(lean,)) as pool,
        progress(len(parts), "train") as bar,
    ):
        waiting = [pool.submit(_train, part) for part in parts]
        try:
            finished = []
            for one in waiting:
                finished.append(one.result())
                bar.advance()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return all(finished)


def _start(stage: Stage) -> None:
    global _own
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _own = TrainingInputs(stage, stage.config.train.memory_mb)


def _end_with_parent() -> None:
    """A worker whose parent was killed would go on writing into folders that a rerun takes."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _train(part: TrainingPart) -> bool:
    assert _own is not None
    settings = part.cell.config.train
    with start_world(settings.device, settings.precision) as world:
        return train_part(_own.stage, part, _own, world, bar=False)
