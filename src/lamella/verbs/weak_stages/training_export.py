"""What stage 3 leaves behind: model folders of the best and the latest weights, and a report of what chose them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lamella.data.bags import WeakStudy
from lamella.engine.loop import Outcome
from lamella.formats.atomic import write_json, write_text
from lamella.formats.digests import ends_digest
from lamella.models.pretraining_record import PretrainingRecord
from lamella.models.prototype_segmenter import PrototypeSegmenter
from lamella.models.weak_hub import save_weak
from lamella.verbs.adapting.segment_export import joined_record, record_of_encoder
from lamella.verbs.weak_stages.training_plan import BEST, LATEST, MODEL, TrainingPart
from lamella.verbs.weak_stages.training_settings import TrainingSettings

REPORT, RECORD = "training_report.txt", "training.json"
_DATASET = "weak study"  # a study has no name of its own; groups and digests tell its slides


@dataclass(frozen=True)
class Chosen:
    """Which weights are kept, and why.

    Attributes:
        monitor: What decided; None: nothing did, they are the last.
        value: Its value; NaN without one.
        step: Steps done.
    """

    monitor: str | None
    value: float
    step: int

    @classmethod
    def of(cls, outcome: Outcome) -> Chosen:
        best = outcome.best
        if best is None or best.best_step < 0:
            return cls(None, float("nan"), outcome.step)
        return cls(best.settings.monitor, best.best, best.best_step)


def criterion_text(settings: TrainingSettings, chosen: Chosen, part: TrainingPart) -> str:
    """One sentence: which weights were kept and by what."""
    if chosen.monitor is None:
        return f"The last weights are kept (step {chosen.step:,}): no slides validated them."
    by = (
        "the image-level loss: the validation slides' own labels, no pixel truth"
        if settings.validation.criterion == "loss"
        else "PIXEL MASKS of the validation slides (mean IoU of the classes), which is more than weak supervision"
    )
    said = (
        f"The best weights by {by}: {chosen.monitor} {chosen.value:.4f} after {chosen.step:,} steps, on "
        f"{len(part.validate)} slides."
    )
    return said if chosen.step else f"{said} NO STEP OF TRAINING MADE IT BETTER: these are the weights it began with."


def facts_of(study: WeakStudy, settings: TrainingSettings, part: TrainingPart, outcome: Outcome) -> dict[str, Any]:
    """Plain values for the model folder and for training.json."""
    chosen = Chosen.of(outcome)
    return {
        "labels": study.labels_are,
        "supervision": supervision(study, settings),
        "criterion": settings.validation.criterion if chosen.monitor else "none: the last weights",
        "monitor": chosen.monitor,
        "monitor_value": chosen.value if chosen.monitor else None,
        "best_step": chosen.step,
        "steps": outcome.step,
        "tiles_seen": outcome.images_seen,
        "fold": part.fold,
        "folds": settings.folds,
        "seed": part.seed,
        "init": None if settings.init is None else str(settings.init),
        "groups": {
            name: sorted({bag.group for bag in bags})
            for name, bags in (("train", part.train), ("validate", part.validate), ("held_out", part.held))
        },
    }


def supervision(study: WeakStudy, settings: TrainingSettings) -> str:
    """How labels reach tiles, in words that a table can show."""
    if study.labels_are == "patch":
        return "labels of patches"
    kind, tiles = settings.method.pooling.kind, settings.batches.tiles_per_bag
    if kind == "none":
        said = "one random tile" if tiles == 1 else f"each of {tiles} random tiles"
        return f"control: the slide's label on {said}"
    return f"labels of slides, multiple-instance pooling ({kind})"


def export(
    model: PrototypeSegmenter,
    name: str,
    study: WeakStudy,
    settings: TrainingSettings,
    part: TrainingPart,
    outcome: Outcome,
    record: PretrainingRecord,
) -> None:
    """Write a model folder `name` in the part's folder.

    Raises:
        StorageError: The disk took no more.
    """
    facts = facts_of(study, settings, part, outcome)
    kept = BEST if Chosen.of(outcome).monitor else LATEST  # what `model` holds
    facts["weights"] = kept if name == MODEL else name
    save_weak(model, part.folder / name, _card(model, study, settings, part, outcome), record=record, facts=facts)


def write_report(study: WeakStudy, settings: TrainingSettings, part: TrainingPart, outcome: Outcome) -> None:
    """training_report.txt and training.json of a part."""
    facts = facts_of(study, settings, part, outcome)
    write_json(part.folder / RECORD, facts)
    chosen = Chosen.of(outcome)
    noun = study.group_noun
    lines = [
        f"model          {part.model}",
        f"supervision    {facts['supervision']}",
        f"classes        {', '.join(study.classes)}" + (f"; background {study.background}" if study.background else ""),
        f"trained on     {len(part.train)} slides of {len(facts['groups']['train'])} {noun}(s)",
        f"validated by   {len(part.validate)} slides of {len(facts['groups']['validate'])} {noun}(s)",
        f"held out       {len(part.held)} slides of {len(facts['groups']['held_out'])} {noun}(s)",
        f"tiles seen     {outcome.images_seen:,} in {outcome.step:,} steps",
        f"ended early    {'yes' if outcome.finished_early else 'no'}",
        f"weights kept   {criterion_text(settings, chosen, part)}",
        *(f"note           {note}" for note in study.notes),
    ]
    write_text(part.folder / REPORT, "\n".join(lines) + "\n")


def record_of(study: WeakStudy, settings: TrainingSettings, part: TrainingPart) -> PretrainingRecord:
    """What the model has seen: its slides, and what its backbone, the encoder and the model it began with had."""
    seen = (*part.train, *part.validate)
    own = PretrainingRecord.of(
        [_DATASET],
        (f"{_DATASET}/{bag.group}" for bag in seen),
        (f"{_DATASET}/{bag.slide_id}" for bag in seen),
        (ends_digest(bag.wsi_path) for bag in seen),
    )
    weights = getattr(settings.method.model.backbone, "weights", None)
    own = joined_record(own, record_of_encoder(weights))
    return joined_record(own, record_of_encoder(None if settings.init is None else str(settings.init)))


def _card(
    model: PrototypeSegmenter, study: WeakStudy, settings: TrainingSettings, part: TrainingPart, outcome: Outcome
) -> str:
    contract = model.contract
    rows: Mapping[str, Any] = {
        "classes": ", ".join(contract.channels),
        "spacing": f"{contract.mpp:g} micrometres per pixel",
        "tile": f"{contract.tile_px} x {contract.tile_px} px, uint8 RGB; normalisation is inside",
        "supervision": supervision(study, settings),
        "background": model.background_rule,
        "backbone": f"{model.backbone.kind}, {settings.method.model.backbone.train}; licence {contract.licence}",
        "seed": part.seed,
    }
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    fold = "" if part.fold is None else f" Fold {part.fold} of {settings.folds} ({len(part.held)} slides) held out."
    labels = "one label for all of a slide" if study.labels_are == "slide" else "a label for each patch"
    return f"""---
library_name: lamella
license: unknown
tags: [medical-imaging, segmentation, weak-supervision]
---
# {model.name}

| | |
|---|---|
{table}

## Data

{len(part.train)} slides for training and {len(part.validate)} for validation, with {labels}.{fold}
No pixel masks were trained on.

## Metrics

{criterion_text(settings, Chosen.of(outcome), part)}
`lamella weak evaluate` measures masks.

## Limits

- Not for diagnosis. Masks were never shown in training: where classes touch, borders are guesses of the network.
- Not tested on stains, scanners or organs other than those of the data above.

## Use

```
lamella predict this_folder slides/ -o out
```
"""
