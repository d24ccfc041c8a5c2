"""What a trained model leaves behind: its folder, what chose its weights, and the table of all models."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from typing import Any

from lamella.data.expression import ExpressionStudy
from lamella.engine.loop import Outcome
from lamella.formats.atomic import write_json
from lamella.formats.digests import ends_digest
from lamella.formats.tables import write_csv
from lamella.methods.expression import ExpressionMethod
from lamella.models.expression.folder import save_expression
from lamella.models.expression.model import ExpressionModel
from lamella.models.pretraining_record import PretrainingRecord
from lamella.verbs.adapting.segment_export import joined_record, record_of_encoder
from lamella.verbs.expression_stages.training_plan import TrainingPart

RECORD, TABLE = "training.json", "models.csv"
_DATASET = "expression study"  # a study has no name of its own; patients and digests tell its slides
_COLUMNS = ("cell", "fold", "seed", "test", "chosen_by", "monitor", "value", "best_step", "steps", "genes", "folder")


def facts_of(
    study: ExpressionStudy, part: TrainingPart, outcome: Outcome, genes: tuple[str, ...], more: Mapping[str, Any]
) -> dict[str, Any]:
    """Plain values for the model folder and for training.json."""
    best, fold, config = outcome.best, part.fold, part.cell.config
    learned, choosing = part.learned_from(study), part.chosen_on(study)
    chosen = best is not None and best.best_step >= 0
    return {
        "cell": part.cell.name,
        "changes": dict(part.cell.changes),
        "control": part.cell.changes.get("control"),
        "fold": fold.number,
        "test_patient": fold.test,
        "train_patients": sorted({slide.patient for slide in learned}),
        "inner_patient": None if part.is_fixed else fold.inner,
        "inner_slides": [slide.slide_id for slide in choosing],
        "train_slides": [slide.slide_id for slide in learned],
        "chosen_by": part.chosen_by,
        "monitor": best.settings.monitor if best is not None and chosen else None,
        "monitor_value": best.best if best is not None and chosen else None,
        "best_step": best.best_step if best is not None and chosen else outcome.step,
        "steps": outcome.step,
        "samples_seen": outcome.images_seen,
        "finished_early": outcome.finished_early,
        "seed": part.seed,
        "library": config.train.library,
        "shuffle_labels": config.train.shuffle_labels,
        "genes": len(genes),
        **more,
    }


def export(
    method: ExpressionMethod,
    study: ExpressionStudy,
    part: TrainingPart,
    genes: tuple[str, ...],
    features: Mapping[str, Any],
    facts: dict[str, Any],
) -> None:
    """Write training.json and then the model folder, which makes the part done.

    `features` are the settings that make the features of a slide, in any study; with `fingerprints` of the encoder at
    each view, by which another encoder under the same name is refused.

    Raises:
        StorageError: The disk took no more.
    """
    config = part.cell.config
    model = ExpressionModel(
        method.network.cpu().eval(),
        genes,
        target=config.data.target,
        features=features,
        loss=config.train.loss.model_dump(mode="json"),
        kind=study.kind,
        name=part.title,
    )
    write_json(part.folder / RECORD, facts)
    save_expression(model, part.model, _card(model, study, part, facts), record=record_of(study, part), facts=facts)


def record_of(study: ExpressionStudy, part: TrainingPart) -> PretrainingRecord:
    """What the model has seen: its training and choosing slides, and what its encoder had."""
    seen = (*part.learned_from(study), *part.chosen_on(study))
    own = PretrainingRecord.of(
        [_DATASET],
        (f"{_DATASET}/{slide.patient}" for slide in seen),
        (f"{_DATASET}/{slide.slide_id}" for slide in seen),
        (ends_digest(slide.wsi_path) for slide in seen),
    )
    return joined_record(own, record_of_encoder(part.cell.config.features.encoder))


def told(part: TrainingPart, facts: Mapping[str, Any]) -> str:
    """One line: what was trained, and what chose it."""
    value = facts["monitor_value"]
    by = "the last weights" if value is None else f"{facts['monitor']} {value:.4f} after {facts['best_step']:,} steps"
    return f"{part.title}: {by} of {facts['steps']:,}; {facts['chosen_by']}"


def write_table(parts: Sequence[TrainingPart], path: Any, facts: Sequence[Mapping[str, Any]]) -> None:
    """models.csv: one row for each model that is done; rows of cells that this run did not look at stay."""
    rows = [
        {
            "cell": part.cell.name,
            "fold": part.fold.name,
            "seed": part.seed,
            "test": one["test_patient"],
            "chosen_by": one["chosen_by"],
            "monitor": one["monitor"] or "",
            "value": "" if one["monitor_value"] is None else f"{one['monitor_value']:.6g}",
            "best_step": one["best_step"],
            "steps": one["steps"],
            "genes": one["genes"],
            "folder": part.model.relative_to(path.parent),
        }
        for part, one in zip(parts, facts, strict=True)
    ]
    ours = {str(row["folder"]) for row in rows}
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["folder"] not in ours] + rows
    write_csv(path, rows, list(_COLUMNS))


def _card(model: ExpressionModel, study: ExpressionStudy, part: TrainingPart, facts: Mapping[str, Any]) -> str:
    features = part.cell.config.features
    views = ", ".join(f"{view.token_um:g} um" for view in model.views)
    rows: Mapping[str, Any] = {
        "genes": f"{len(model.genes)}: {', '.join(model.genes[:8])}{', ...' if len(model.genes) > 8 else ''}",
        "output": model.units,
        "target": model.target,
        "bins": f"{model.bin_um:g} um, samples of {model.bins} x {model.bins}",
        "encoder": features.encoder + ("" if features.random_seed is None else " WITH RANDOM WEIGHTS (control)"),
        "views": views,
        "loss": model.loss["name"] + (" ON SHUFFLED LABELS (control)" if facts["shuffle_labels"] else ""),
        "seed": part.seed,
    }
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    train, inner = facts["train_slides"], facts["inner_slides"]
    return f"""---
library_name: lamella
license: unknown
tags: [medical-imaging, spatial-transcriptomics, gene-expression]
---
# {model.name}

| | |
|---|---|
{table}

## Data

{len(train)} {study.kind} slide(s) of {len(facts["train_patients"])} patient(s) for training, {len(inner)} to choose \
the weights ({facts["chosen_by"]}). Patient {facts["test_patient"]} was never shown.

## Metrics

{told(part, facts)}. `lamella expression evaluate` judges it on the patient left out.

## Limits

- Not for diagnosis. What it predicts is expected expression given the image; it cannot know what no image shows.
- Not tested on stains, scanners or organs other than those of the data above.

## Use

```
lamella expression predict study.yaml -o out new_slide.svs
```
"""
