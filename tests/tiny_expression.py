"""A tiny study of expression for tests that go through the command line: three patients, slides of 128 um."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from tests.tiny_weak import merged

from lamella.slides.phantom_expression_cohort import ExpressionPlan, write_expression_cohort

PLAN = ExpressionPlan(size_px=256, side_bins=48, genes=8, seed=3)

# Colour statistics as encoder, a linear network, four optimiser steps: what it learns is little; the way is tested.
STUDY: dict[str, Any] = {
    "data": {"bin_um": 4, "tile_bins": 8},
    "panel": {"number": 5},
    "features": {"encoder": "colour", "views": [{"token_um": 4}, {"token_um": 16, "fov_um": 64}], "device": "cpu"},
    "train": {
        "model": {"width": 8, "fusion": {"name": "added"}, "decoder": {"name": "linear"}},
        "loss": {"name": "nb"},
        "batches": {"batch_size": 4, "samples_per_epoch": 8},
        "budget": {"epochs": 2},
        "device": "cpu",
    },
    "evaluate": {
        "baselines": {"encoders": ["colour"], "random_encoder": None, "retrieval_places": 100},
        "metrics": {"resolutions_um": [4, 16], "permutations": 20, "block_um": 32, "draws": 100, "thinnings": 1},
        "pictures": {"number": 1, "slides": 1},
        "device": "cpu",
    },
    "predict": {"device": "cpu"},
}


def tiny_expression(folder: Path, plan: ExpressionPlan = PLAN) -> Path:
    """The cohort's manifest."""
    return write_expression_cohort(folder, plan)


def write_study(path: Path, manifest: Path, changes: Mapping[str, Any] | None = None) -> Path:
    """A study's YAML on a cohort; `changes` are of its blocks, None takes an entry out."""
    tree = merged(merged(STUDY, {"data": {"slides": str(manifest)}}), changes or {})
    path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    return path
