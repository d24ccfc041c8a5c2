"""What results.md and results.json of `lamella expression evaluate` say around the tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lamella import __version__
from lamella.verbs.expression_stages.evaluation_models import Trained
from lamella.verbs.expression_stages.evaluation_predictors import Predictor
from lamella.verbs.expression_stages.evaluation_truth import Truths, panel_note


def report_facts(truths: Truths, trained: Sequence[Trained]) -> dict[str, Any]:
    """What was judged."""
    study = truths.stage.study
    seeds = sorted({len(models) for one in trained for models in one.folders.values()})
    weights = {one.cell.name: next(iter(one.told.values()))[0]["facts"].get("parameters") for one in trained}
    return {
        "target": truths.target,
        "slides": f"{len(study.slides)} of {len(study.patients)} patients, each judged once",
        "places": f"{study.kind}s; predicted in bins of {study.bin_um:g} um",
        "panel": panel_note(truths.panels),
        "seeds": " or ".join(map(str, seeds)) + " of each cell and fold",
        "trainable weights": ", ".join(f"{name} {count:,}" for name, count in weights.items() if count is not None),
        "encoder": truths.stage.config.features.encoder,
        "version": __version__,
    }


def report_notes(truths: Truths, trained: Sequence[Trained], predictors: Sequence[Predictor]) -> list[str]:
    """Who learned from whom, who said when to stop, and what was chosen inside training."""
    notes = [*truths.stage.study.notes]
    for fold in truths.folds:
        judged, simple = (
            ", ".join(slide.slide_id for slide in slides) for slides in (truths.tested(fold), truths.learned_from(fold))
        )
        notes.append(f"{fold.name}: judged {judged}; baselines and the mean map learned from {simple}")
        ways: dict[str, list[str]] = {}
        for one in trained:
            slides = one.told[fold.name][0]["facts"].get("train_slides") or ["slides that they do not tell"]
            ways.setdefault(f"{', '.join(slides)}; {one.chosen_by[fold.name]}", []).append(one.cell.name)
        notes += [f"{fold.name}: {', '.join(names)} learned from {way}" for way, names in ways.items()]
    notes += [f"{each.name}, {fold}: {said}" for each in predictors for fold, said in each.notes.items()]
    return notes


def report_warnings(truths: Truths, trained: Sequence[Trained], missing: Sequence[str]) -> list[str]:
    """What must be read before the numbers."""
    warnings = [*missing]
    alone = [fold.name for fold in truths.folds if trained[0].told[fold.name][0]["facts"].get("inner_patient") is None]
    if alone:
        warnings.append(f"No other patient said when to stop in {', '.join(alone)}: see the notes on what did.")
    return warnings
