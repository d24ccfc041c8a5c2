"""A study of spots in files, three patients and two slides of one, as `lamella expression evaluate` finds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from tests.data.tiny_expression import write_spot_study

from lamella.config import Request, Resolved
from lamella.data.expression_study import open_expression
from lamella.verbs.expression_stages.settings import ExpressionConfig
from lamella.verbs.expression_stages.stage import Stage

PATIENTS = {"a1": "A", "b1": "B", "c1": "C", "c2": "C"}
FAST: dict[str, Any] = {"draws": 100, "thinnings": 1}


def tables(seed: int = 0, genes: int = 6) -> dict[str, tuple[str, np.ndarray]]:
    """Counts of 16 spots: a rate, which `write_spot_study` draws as darkness, times a level for each gene."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, patient in PATIENTS.items():
        rate = rng.gamma(2.0, 2.0, size=(16, 1)) * np.linspace(0.5, 5, genes)
        found[name] = (patient, rng.poisson(rate).astype(np.int32))
    return found


def made_stage(folder: Path, written: dict[str, tuple[str, np.ndarray]] | None = None, **changes: Any) -> Stage:
    """The stage over spots of 100 um at 4 um per pixel; `changes` are blocks of settings."""
    folder.mkdir(parents=True, exist_ok=True)
    written = written or tables()
    manifest = write_spot_study(folder, written).manifest
    for name, (_, table) in written.items():  # as published tables have it; without it all slides' spots are one file
        head, *lines = (folder / f"{name}_spots.csv").read_text().splitlines()
        totals = [f"{line},{total}" for line, total in zip(lines, table.sum(1), strict=True)]
        (folder / f"{name}_spots.csv").write_text("\n".join([f"{head},total_umi", *totals]) + "\n")
    tree: dict[str, Any] = {
        "data": {"slides": manifest, "bin_um": 25.0, "target": "counts"},
        "panel": {"choose": "mean", "number": 4},
        "features": {"encoder": "colour", "device": "cpu", "views": [{"token_um": 32}, {"token_um": 64}]},
        "evaluate": {
            "metrics": FAST,
            "baselines": {"encoders": ["colour"], "random_encoder": None, "neighbours": [3, 5], "alphas": [0.01, 1]},
        },
    }
    for block, values in changes.items():
        tree[block] = {**tree.get(block, {}), **values}
    config = ExpressionConfig.model_validate(tree)
    study = open_expression(config.data, config.seed)
    return Stage(
        Request("expression", (Path("evaluate"),), out=folder / "out"), Resolved(config, {}), study, folder / "out"
    )
